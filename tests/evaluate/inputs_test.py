"""What commands take from flags and from the card beside a checkpoint, which is data and no more."""

import json
import os
import pathlib
import re
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

from sanity import run
from sanity.figures import __main__ as figures_command
from tests.helpers import small
from tests.helpers.pictures import flat, save_folder
from tf_nuat import data
from tf_nuat.data import splits
from tf_nuat.evaluate import __main__ as evaluate_command
from tf_nuat.evaluate import inputs, sampling

ROOT = pathlib.Path(__file__).parents[2]
EVIL = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()

def f():
    raise ValueError("no images")
"""


@pytest.fixture(scope="module")
def network():
    return small.undefended(0)


@pytest.fixture
def downloaded(network, tmp_path, monkeypatch):
    """The path of a checkpoint with a module beside it; the current folder is the one above."""
    folder = tmp_path / "work" / "downloaded"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    monkeypatch.syspath_prepend(folder.parent)
    network.save(folder / "network.keras")
    (folder / "evil.py").write_text(EVIL)
    return folder / "network.keras"


def given(**flags):
    """Returns the flags of a command, those of `inputs.FLAGS`."""
    return types.SimpleNamespace(**{**{name: default for name, (_, default, _) in inputs.FLAGS.items()}, **flags})


def with_card(checkpoint, **recipe):
    checkpoint.with_name("card.json").write_text(json.dumps({"recipe": recipe}))


def asked(checkpoint, network, **flags):
    """Returns what is asked of a checkpoint, and the lines that were said."""
    said = []
    return inputs.asked(given(**flags), [(checkpoint, network)], say=said.append), said


def test_the_card_says_what_the_flags_do_not_and_that_is_said(downloaded, network):
    with_card(downloaded, dataset="digits", epsilon=0.25, norm="l2")
    found, said = asked(downloaded, network)
    assert (found.dataset, found.epsilon, found.norm) == ("digits", 0.25, "l2")
    assert said == ["from card.json: dataset digits, epsilon 0.25, norm l2"]
    found, said = asked(downloaded, network, epsilon=0.5)
    assert found.epsilon == 0.5 and said == ["from card.json: dataset digits, norm l2"]
    found, said = asked(downloaded, network, dataset="mnist", epsilon=0.5, norm="linf")
    assert (found.dataset, found.norm, said) == ("mnist", "linf", [])


def test_without_a_norm_it_is_linf_and_epsilon_has_its_bounds(downloaded, network):
    found, said = asked(downloaded, network, dataset="digits", epsilon=1.0)
    assert found.norm == "linf" and said == []
    for epsilon, norm, words in [
        (1.5, None, "--epsilon is 1.5; allowed: a number above 0 and at most 1"),
        (0.0, None, "--epsilon is 0.0; allowed: a number above 0 and at most 1"),
        (8.5, "l2", "--epsilon is 8.5; allowed: a number above 0 and at most 8"),  # 8x8 pixels
        (float("nan"), "l2", "--epsilon is nan; allowed: "),
    ]:
        with pytest.raises(ValueError, match=words):
            asked(downloaded, network, dataset="digits", epsilon=epsilon, norm=norm)
    assert inputs.asked(given(dataset="digits", epsilon=0.0), [(downloaded, network)], zero=True).epsilon == 0.0


@pytest.mark.parametrize("own, norm", [("linf", "l2"), (None, "l2"), ("l2", "linf")])
def test_an_epsilon_of_a_card_is_a_radius_in_the_norm_of_that_card(own, norm, downloaded, network):
    with_card(downloaded, dataset="digits", epsilon=0.25, **({"norm": own} if own else {}))
    own = own or "linf"
    words = f"epsilon in .*card.json is 0.25, a radius in {own}; allowed with --norm {norm}: --epsilon$"
    with pytest.raises(ValueError, match=words):
        asked(downloaded, network, norm=norm)
    assert asked(downloaded, network, norm=own)[0].epsilon == 0.25
    found, _ = asked(downloaded, network, norm=norm, epsilon=0.5)
    assert (found.norm, found.epsilon) == (norm, 0.5)


def test_an_image_of_any_size_has_no_largest_change_in_l2(downloaded):
    anything = keras.Input((None, None, 3))
    network = keras.Model(anything, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(anything)))
    assert asked(downloaded, network, dataset="digits", epsilon=1000.0, norm="l2")[0].epsilon == 1000.0
    with pytest.raises(ValueError, match="at most 1"):
        asked(downloaded, network, dataset="digits", epsilon=1000.0)


COMMANDS = {
    "sanity.run": lambda checkpoint, *more: run.main([f"--checkpoint={checkpoint}", *more]),
    "tf_nuat.evaluate": lambda checkpoint, *more: evaluate_command.command([f"--checkpoint={checkpoint}", *more]),
    "sanity.figures": lambda checkpoint, *more: figures_command.command(
        [f"--checkpoint={checkpoint}", f"--out={checkpoint.parent / 'out'}", *more]
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_card_runs_no_code(name, downloaded, capsys):
    with_card(downloaded, dataset="downloaded.evil:f", epsilon=0.1)
    words = r"dataset in .*card.json is 'downloaded.evil:f'; allowed in a card: .*; give --dataset on the command line"
    try:
        assert COMMANDS[name](downloaded) == 2
        line = capsys.readouterr().err
    except ValueError as error:
        line = str(error)
    assert re.search(words, line) and line.strip().count("\n") == 0
    assert not (downloaded.parent / "ran").exists() and "downloaded.evil" not in sys.modules


def test_the_command_line_may_name_code(downloaded, network):
    with_card(downloaded, dataset="downloaded.evil:f", epsilon=0.1)
    found, _ = asked(downloaded, network, dataset="downloaded.evil:f")
    assert found.dataset == "downloaded.evil:f" and (downloaded.parent / "ran").exists()
    del sys.modules["downloaded.evil"]


def test_a_card_names_no_path_elsewhere(downloaded, network, tmp_path):
    np.savez(tmp_path / "private.npz", images=np.zeros((2, 8, 8, 1), np.float32), labels=[0, 1])
    (downloaded.parent / "link.npz").symlink_to(tmp_path / "private.npz")
    for name in (tmp_path / "private.npz", "../private.npz", tmp_path, "/", "downloaded/link.npz", "missing"):
        with_card(downloaded, dataset=str(name), epsilon=0.1)
        with pytest.raises(ValueError, match=r"dataset in .* is '.*'; allowed in a card: .*; give --dataset on the"):
            asked(downloaded, network)
        if name != "missing":
            assert asked(downloaded, network, dataset=str(name))[0].dataset == str(name)


def test_a_card_names_images_beside_it_or_in_the_current_folder(downloaded, network):
    for path in (downloaded.with_name("data.npz"), pathlib.Path("images.npz")):
        np.savez(path, images=np.zeros((2, 8, 8, 1), np.float32), labels=[0, 1])
        with_card(downloaded, dataset=str(path), epsilon=0.1)
        assert asked(downloaded, network)[0].dataset == str(path)


def test_a_prepared_dataset_that_a_card_names_runs_no_code(downloaded, network):
    folder = downloaded.parent / "data"
    folder.mkdir()
    (folder / "dataset_info.json").write_text(json.dumps({"name": "data", "version": "1.0.0"}))
    features = {"pythonClassName": "downloaded.evil.F", "jsonFeature": {"json": "{}"}}
    (folder / "features.json").write_text(json.dumps(features))
    with_card(downloaded, dataset="downloaded/data", epsilon=0.1)
    found, _ = asked(downloaded, network)
    with pytest.raises(ValueError, match="where features.json names the class 'downloaded.evil.F', whose module"):
        sampling.sample(network, found.cards[0], found.dataset)
    assert not (downloaded.parent / "ran").exists() and "downloaded.evil" not in sys.modules


HOSTILE = {
    "digits": '{"recipe": {"dataset": "digits", "epsilon": 1' + "0" * 400 + "}}",
    "long": json.dumps({"recipe": {"epsilon": 0.1, "dataset": "a" * 5000}}),
    "null byte": json.dumps({"recipe": {"epsilon": 0.1, "dataset": "a\0b"}}),
    "surrogate": '{"recipe": {"epsilon": 0.1, "dataset": "\\ud800"}}',
    "deep": "[" * 100_000,
    "nan": '{"recipe": {"dataset": "digits", "epsilon": NaN}}',
    "norm": '{"recipe": {"dataset": "digits", "epsilon": 0.1, "norm": ["l2"]}}',
    "another norm": '{"recipe": {"dataset": "digits", "epsilon": 0.1, "norm": "l7"}}',
    "schema": '{"schema": 3, "recipe": {"dataset": "digits", "epsilon": 0.1}}',
    "folder": None,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_card_has_is_one_line(name, downloaded, network):
    path = downloaded.with_name("card.json")
    path.mkdir() if HOSTILE[name] is None else path.write_text(HOSTILE[name])
    with pytest.raises(ValueError) as error:
        asked(downloaded, network)
    line = str(error.value)
    assert "\n" not in line and str(path) in line and "allowed" in line and len(line) < 1500
    line.encode("utf-8", "backslashreplace")
    found, said = asked(downloaded, network, dataset="digits", epsilon=0.1, norm="linf")
    assert (found.dataset, found.epsilon) == ("digits", 0.1)  # who says everything needs no card
    assert len(said) <= 1 and all(each.startswith("not used: ") and str(path) in each for each in said)


def test_of_a_card_that_cannot_be_read_the_error_says_which_flags_would_do(downloaded, network):
    downloaded.with_name("card.json").write_text("{")
    for flags, words in [
        ({}, "; or give --dataset and --epsilon$"),
        ({"dataset": "digits"}, "; or give --epsilon$"),
        ({"epsilon": 0.1}, "; or give --dataset$"),
    ]:
        with pytest.raises(ValueError, match=words):
            asked(downloaded, network, **flags)


def test_cards_of_several_checkpoints_have_to_agree(downloaded, network, tmp_path):
    other = tmp_path / "other" / "network.keras"
    other.parent.mkdir()
    with_card(downloaded, dataset="digits", epsilon=0.1)
    with_card(other, dataset="digits", epsilon=0.2)
    pairs = [(downloaded, network), (other, network)]
    with pytest.raises(ValueError, match="epsilon in .*other.* is 0.2, and epsilon in .*downloaded.* is 0.1; allowed"):
        inputs.asked(given(), pairs)
    assert inputs.asked(given(epsilon=0.3), pairs).dataset == "digits"
    other.with_name("card.json").unlink()
    with pytest.raises(ValueError, match="--dataset is not given, and .*other.* does not name it; give --dataset"):
        inputs.asked(given(epsilon=0.3), pairs)


def test_images_of_a_folder_are_prepared_as_the_card_says(network, downloaded, monkeypatch):
    taken = {}
    monkeypatch.setattr(data, "sample", lambda name, **options: taken.update(options, name=name))
    with_card(downloaded, dataset="digits", epsilon=0.1, data_options={"corrupt": "skip", "input_shape": [1, 1, 1]})
    found, _ = asked(downloaded, network)
    sampling.sample(network, found.cards[0], ".", seed=3)
    assert taken == {"name": ".", "seed": 3, "input_shape": (8, 8, 1), "corrupt": "skip"}
    taken.clear()
    sampling.sample(network, found.cards[0], "digits", seed=3)
    assert taken == {"name": "digits", "seed": 3}


def test_a_size_that_a_network_leaves_open_is_that_of_its_training(downloaded, monkeypatch):
    taken = {}
    monkeypatch.setattr(data, "sample", lambda name, **options: taken.update(options))
    anything = keras.Input((None, None, 3))
    network = keras.Model(anything, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(anything)))

    def sampled(input_shape):
        with_card(downloaded, dataset="digits", epsilon=0.1, data_options={"input_shape": input_shape})
        sampling.sample(network, asked(downloaded, network)[0].cards[0], ".")
        return taken["input_shape"]

    assert sampled([64, 48, 1]) == (64, 48, 3) and sampled([64, None, 3]) == (64, None, 3)
    for wrong in ([64, 48], "64", [64, 0, 3], [64, True, 3]):
        with pytest.raises(ValueError, match="^input_shape.* in card.json is .*; allowed: "):
            sampled(wrong)


def test_training_images_are_as_many_as_fit_and_only_where_there_are_none_it_is_none(
    network, tmp_path, monkeypatch, caplog
):
    shape = (8, 8, 1)
    images = save_folder(tmp_path / "images", {name: [flat(level, shape)] * 20 for level, name in enumerate("ab")})
    monkeypatch.setattr(splits, "MOST_BYTES", 10 * 8 * 8 * 4)
    found, labels = sampling.training_sample(network, None, str(images), samples=10_000)
    assert found.shape == (10, *shape) and np.bincount(labels).tolist() == [5, 5]
    np.savez(tmp_path / "test.npz", images=np.zeros((2, *shape), np.float32), labels=[0, 1])
    assert sampling.training_sample(network, None, str(tmp_path / "test.npz"), samples=10_000) is None
    for path in (images / "a").iterdir():
        path.write_bytes(b"no image")
    assert sampling.training_sample(network, None, str(images), samples=10_000) is None
    assert "training images are left out: " in caplog.text and "cannot be read" in caplog.text


def test_the_three_commands_share_their_flags():
    for module in (run, evaluate_command, figures_command):
        values = module.flag_values()
        for name, (_, default, text) in inputs.FLAGS.items():
            assert values[name].default == default and text in values[name].help


@pytest.mark.parametrize("name", ["samples", "seed"])
def test_a_wrong_sample_is_named(name):
    with pytest.raises(ValueError, match=f"--{name} is -1; allowed: a whole number, at least"):
        inputs.check_sample(given(**{name: -1}))


def test_the_card_of_a_download_runs_nothing_as_a_process(downloaded):
    """As `python -m` finds modules: in the current folder."""
    with_card(downloaded, dataset="downloaded.evil:f", epsilon=0.1)
    done = subprocess.run(
        [sys.executable, "-m", "tf_nuat.evaluate", f"--checkpoint={downloaded}"],
        cwd=downloaded.parents[1],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: dataset in ")
    assert "Traceback" not in done.stderr and not (downloaded.parent / "ran").exists()
