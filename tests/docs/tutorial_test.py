"""The commands of the tutorial do what the page says, in an empty folder.

They run in this process. `make package` runs them with an installed package.
"""

import json
import pathlib
import re
import runpy
import shlex
import sys

import keras
import pytest

from docs.render import code
from tests.helpers.shortened import shortened

ROOT = pathlib.Path(__file__).parents[2]
# What takes long on the page, and what stands for it here.
SHORTER = {
    "--network mnist_cnn": "--network two_conv",
    "--epochs 12": "--epochs 3",
    "steps=50,queries=500": "steps=2,queries=5",
    "--budget quick": "--samples 150 --checks network_is_deterministic",
}


def test_the_commands_of_the_tutorial_do_what_it_says(tmp_path, monkeypatch, capsys):
    _, images, train, attack, judge = code("docs/tutorial.md", "bash")
    train, attack, judge = shortened("\0".join((train, attack, judge)), SHORTER).split("\0")
    monkeypatch.chdir(tmp_path)

    def python(block, allowed=(0,)):
        """Does what a `python -m MODULE FLAGS` does, and returns what it printed."""
        program, option, module, *flags = shlex.split(block.replace("\\\n", ""))
        assert (program, option) == ("python", "-m")
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as exited:
            patch.setattr(sys, "argv", [module, *flags])
            patch.delitem(sys.modules, module, raising=False)  # of which another test needs the one that is there
            runpy.run_module(module, run_name="__main__")
        shown = capsys.readouterr()
        assert exited.value.code in allowed, shown.err
        return shown.out

    lines = re.fullmatch(r"python - <<'PYTHON'\n(.*)PYTHON\n", images, re.DOTALL)[1]
    exec(compile(lines, "docs/tutorial.md", "exec"), {"__name__": "__main__"})
    files = list(tmp_path.glob("images/*/*/*.png"))
    assert len(files) == 1797 and len(list(tmp_path.glob("images/test/*"))) == 10

    printed = python(train)
    assert "nuat on images" in printed and "runs/nuat/network.keras" in printed
    card = json.loads((tmp_path / "runs/nuat/card.json").read_text())
    assert card["recipe"]["epsilon"] == 0.1 and card["measured"]["clean"]["images"] == 360
    assert card["measured"]["clean"]["accuracy"] > 0.5  # five times chance
    assert keras.saving.load_model(tmp_path / "runs/nuat/network.keras").output_shape == (None, 10)

    printed = python(attack)
    assert "Robust accuracy" in printed and "square" in printed
    attacked = json.loads((tmp_path / "runs/nuat/evaluation/results.json").read_text())
    assert [stage["name"] for stage in attacked["stages"]] == ["clean", "pgd", "square"]
    assert attacked["stages"][0]["accuracy"] == card["measured"]["clean"]["accuracy"]

    assert "network_is_deterministic" in python(judge, allowed=(0, 1, 3))  # three epochs promise no verdict
    judged = json.loads((tmp_path / "runs/nuat/sanity/results.json").read_text())
    assert judged["provenance"]["dataset"] == "images" and judged["subject"]["epsilon"] == 0.1
    assert (tmp_path / "runs/nuat/sanity/report.html").is_file()


def test_what_the_page_shows_was_made_by_its_commands():
    _, _, train, _, judge = code("docs/tutorial.md", "bash")
    results = ROOT / "results" / "tutorial" / "nuat"
    card = json.loads((results / "card.json").read_text(encoding="utf-8"))
    assert card["command"].split() == train.replace("\\\n", "").split()
    judged = json.loads((results / "sanity" / "results.json").read_text(encoding="utf-8"))
    assert judged["provenance"]["command"] == judge.strip()
    assert judged["verdict"] == "genuinely robust"
