"""Every row of the table on `docs/your_own_network.md` is run as it stands, on files of the names that it has."""

import contextlib
import io
import json
import re
import shlex
import sys

import keras
import numpy as np
import pytest

import sanity.run
import tf_nuat
from docs.render import code
from recipes import custom, plot_callbacks
from tests.docs.pages_test import ROOT, read
from tests.helpers import owners, owners_files, small
from tests.helpers.owners import GREY, behind, body, in_front
from tests.helpers.owners_models import TAKEN
from tests.helpers.pictures import save_folder
from tf_nuat.evaluate import __main__ as evaluation

PAGE = "docs/your_own_network.md"
ROWS = dict(re.findall(r"^\| (.+) \| `(python -m .+)` \|$", read(PAGE), re.MULTILINE))
COMMANDS = {"tf_nuat.evaluate": evaluation.command, "sanity.run": sanity.run.main, "recipes.custom": custom.main}
SHORTER = {
    "tf_nuat.evaluate": ["--samples=150", "--attack=fgsm"],
    "sanity.run": ["--samples=150", "--checks=network_is_deterministic"],
    "recipes.custom": ["--defense=standard", "--epochs=1", "--learning_rate=1e-6"],
}
MODULE = """
import keras


class Scaled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


def build():
    layers = [keras.layers.Flatten(), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that the page speaks of."""
    folder = tmp_path_factory.mktemp("owner")
    digits = {split: small.digits().arrays(split) for split in ("train", "test")}
    for name, change in {"images": lambda x: x, "photos": owners.coloured}.items():
        arrays = {f"x_{split}": np.uint8(np.round(255 * change(x))) for split, (x, _) in digits.items()}
        np.savez(folder / f"{name}.npz", **arrays, **{f"y_{split}": y for split, (_, y) in digits.items()})
    images, labels = digits["test"]
    pictures = np.uint8(np.round(255 * np.repeat(images, 3, axis=-1)))
    save_folder(folder / "images" / "test", {str(each): list(pictures[labels == each]) for each in range(10)})
    models = {
        "bytes": "pixels in 0..255",
        "centred": "pixels in -1..1",
        "caffe": "pixels as caffe",
        "torch": "pixels as torch",
        "deviations": "pixels by mean and deviation",
        "outputs": "one of several outputs",
    }
    for name, kind in models.items():
        TAKEN[kind](folder).given.save(folder / f"{name}.keras")
    owners_files.network_inside_of_keras_2(folder).given.rename(folder / "network.h5")
    owners_files.exported(folder).given.rename(folder / "saved_model")
    body().save_weights(folder / "network.weights.h5")
    (folder / "network.json").write_text(behind(body(), keras.layers.Softmax()).to_json())
    owners_files.with_lambda(folder).given.rename(folder / "lambda.keras")
    behind(body(), lambda z: z[:, ::-1]).save(folder / "order.keras")
    (folder / "names.txt").write_text("\n".join(map(str, range(9, -1, -1))))
    (folder / "my_module.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        sys.modules.pop("my_module", None)  # that of another file
        import my_module

        in_front(body(scale=2.0), my_module.Scaled(), shape=GREY).save(folder / "layers.keras")
        patch.chdir(folder)
        yield folder
    sys.modules.pop("my_module", None)


def test_there_is_a_row_for_each_flag():
    assert len(ROWS) >= 15
    text = " ".join(ROWS.values())
    assert all(f"--{name} " in text for name in ("pixels", "output", "network", "import", "trust", "class_names"))


@pytest.mark.parametrize("have", ROWS)
def test_a_row_does_what_it_says(have, folder, tmp_path):
    _, _, name, *arguments = shlex.split(ROWS[have])
    command = COMMANDS[name]
    out = [] if any(each == "--out" for each in arguments) else [f"--out={tmp_path}"]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert command([*arguments, *SHORTER[name], *out]) == 0
    if name == "tf_nuat.evaluate":
        clean = re.search(r"^none .* (\d+\.\d+)%  ", shown.getvalue(), re.MULTILINE)
        assert float(clean[1]) > 90.0, shown.getvalue()


def test_the_lines_of_python(folder, capsys):
    lines, _ = code(PAGE, "python")
    exec(compile(lines, PAGE, "exec"), {"__name__": "example"})
    assert "pixels in [0, 1] become 0..255" in capsys.readouterr().out


def test_the_callbacks_judge_the_logits_of_any_model_as_it_is_after_each_epoch(folder):
    _, lines = code(PAGE, "python")
    names = {"__name__": "example"}
    keras.utils.set_random_seed(0)
    exec(compile(lines, PAGE, "exec"), names)
    history, model, x, y = (names[each] for each in ("fitted", "model", "x", "y"))
    history = history.history
    network = tf_nuat.networks.adapt(model).network
    assert history["val_robust_accuracy"][-1] == tf_nuat.evaluate.accuracy(network, (x, y), names["attack"])
    assert history["masking_alarm"] == [0.0] * 3 and history["val_pgd_accuracy"][-1] < history["val_accuracy"][-1]
    best = keras.saving.load_model(folder / "best.keras")
    assert tf_nuat.evaluate.accuracy(best, (x, y), names["attack"]) == max(history["val_robust_accuracy"])


def test_the_picture_is_drawn_by_its_command(tmp_path):
    assert plot_callbacks.main([f"--out={tmp_path}", "--epochs=1"]) == 0
    committed = json.loads((ROOT / "results" / "callbacks" / "callbacks.json").read_text(encoding="utf-8"))
    found = json.loads((tmp_path / "callbacks.json").read_text())["history"]
    assert found.keys() == committed["history"].keys() and (tmp_path / "callbacks.png").is_file()
    assert committed["history"]["masking_alarm"][-1] == 1.0
    assert committed["command"] == "python -m recipes.plot_callbacks --out results/callbacks"
