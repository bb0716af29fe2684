"""The commands of the tutorial, run as they stand on the page, in an empty folder, with an installed package."""

import json
import pathlib
import shlex

import keras

from docs.render import code

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("recipes", "sanity", "tf_nuat")
# What takes long on the page, and what stands for it here.
SHORTER = {
    "--network mnist_cnn": "--network two_conv",
    "--epochs 12": "--epochs 4",
    "steps=50,queries=500": "steps=2,queries=5",
    "--budget quick": "--samples 60 --checks network_is_deterministic,gradients_are_available",
}


def test_the_commands_of_the_tutorial_do_what_it_says(as_installed, tmp_path):
    _, images, train, attack, judge = code("docs/tutorial.md", "bash")
    for long in SHORTER:
        assert sum(block.count(long) for block in (train, attack, judge)) == 1, long
    train, attack, judge = (shorter(block) for block in (train, attack, judge))
    folder = tmp_path

    def shell(lines, **options):
        return as_installed(["bash", "-euc", lines], folder, **options)

    where = f"import importlib.util as u; print(*(u.find_spec(name).origin for name in {PACKAGES}), sep=chr(10))"
    found = shell(f"python -c {shlex.quote(where)}").splitlines()
    assert found == [str(as_installed.place / name / "__init__.py") for name in PACKAGES]

    shell(images)
    files = list(folder.glob("images/*/*/*.png"))
    assert len(files) == 1797 and len(list(folder.glob("images/test/*"))) == 10

    printed = shell(train)
    assert "nuat on images" in printed and "runs/nuat/network.keras" in printed
    card = json.loads((folder / "runs/nuat/card.json").read_text())
    assert card["recipe"]["epsilon"] == 0.1 and card["measured"]["clean"]["images"] == 360
    assert card["measured"]["clean"]["accuracy"] > 0.5  # five times chance
    assert keras.saving.load_model(folder / "runs/nuat/network.keras").output_shape == (None, 10)

    printed = shell(attack)
    assert "Robust accuracy" in printed and "square" in printed
    attacked = json.loads((folder / "runs/nuat/evaluation/results.json").read_text())
    assert [stage["name"] for stage in attacked["stages"]] == ["clean", "pgd", "square"]
    assert attacked["stages"][0]["accuracy"] == card["measured"]["clean"]["accuracy"]

    assert "network_is_deterministic" in shell(judge, allowed=(0, 1, 3))  # four epochs promise no verdict
    judged = json.loads((folder / "runs/nuat/sanity/results.json").read_text())
    assert judged["provenance"]["dataset"] == "images" and judged["subject"]["epsilon"] == 0.1
    assert (folder / "runs/nuat/sanity/report.html").is_file()


def shorter(block):
    for long, short in SHORTER.items():
        block = block.replace(long, short)
    return block


def test_what_the_page_shows_was_made_by_its_commands():
    _, _, train, _, judge = code("docs/tutorial.md", "bash")
    results = ROOT / "results" / "tutorial" / "nuat"
    card = json.loads((results / "card.json").read_text(encoding="utf-8"))
    assert card["command"].split() == train.replace("\\\n", "").split()
    judged = json.loads((results / "sanity" / "results.json").read_text(encoding="utf-8"))
    assert judged["provenance"]["command"] == judge.strip()
    assert judged["verdict"] == "genuinely robust"
