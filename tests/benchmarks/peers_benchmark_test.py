"""`benchmarks.peers_training`, `benchmarks.peers` and the page that shows them: what they compare and conclude."""

import json
import pathlib
import sys

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf
from absl.testing import flagsaver

from benchmarks import keras_to_torch, peers, peers_training, peers_training_ours, table, turns

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "results" / "benchmarks"

# Answers each turn with the number of turns that all contestants, who share a file, have had by then.
COUNTING = """
import pathlib, sys
from benchmarks import turns
path = pathlib.Path(sys.argv[1])

def train(seconds):
    with open(path, "a") as file:
        file.write(sys.argv[2])
    return {"images_per_second": path.stat().st_size, "seconds": seconds}

turns.serve({"name": sys.argv[2]}, {"train": train})
"""


def contestant(*arguments, code=COUNTING):
    return turns.Contestant([sys.executable, "-c", code, *arguments], turns.variables(1))


def test_contestants_measure_in_turns(tmp_path):
    shared = tmp_path / "turns"
    ready = {name: contestant(shared, letter) for name, letter in (("nuat", "a"), ("pgd_at", "b"))}
    assert ready["pgd_at"].about == {"name": "b"}
    with pytest.MonkeyPatch.context() as patch:
        each = peers_training.Trained("", ())
        patch.setattr(peers_training, "CONTESTANTS", {"nuat": each, "pgd_at": each})
        rates, parts, failed = peers_training.measure(ready, 3, 0.5)
    for each in ready.values():
        each.close()
    assert shared.read_text() == "ababab"
    assert rates == {"nuat": [1, 3, 5], "pgd_at": [2, 4, 6]} and parts == {} and failed == {}


def test_a_contestant_that_ends_is_left_out(tmp_path):
    code = COUNTING.replace("with open", 'sys.exit("too tired") if path.exists() else None\n    with open')
    ready = {"nuat": contestant(tmp_path / "turns", "a", code=code)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers_training, "CONTESTANTS", {"nuat": peers_training.Trained("", (), has_parts=True)})
        assert peers_training.measure(ready, 3, 0.5) == ({}, {}, {"nuat": "too tired"})


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys; sys.exit(3)", "ended with status 3"),
        ("print('{}', flush=True); input(); raise SystemExit('out of luck')", "out of luck"),
    ],
)
def test_a_contestant_that_ends_says_why(code, reason):
    with pytest.raises(turns.FailedError) as caught:
        contestant(code=code).ask(ask="train", seconds=1.0)
    assert str(caught.value) == reason


def test_one_that_cannot_be_started_is_listed(tmp_path):
    ready, failed = peers_training.start(["nuat (PyTorch)"], tmp_path, tmp_path / "python", turns.variables(1))
    assert not ready and "No such file" in failed["nuat (PyTorch)"]


def test_ratios_are_those_of_the_same_round():
    rates = {"nuat": [100.0, 50.0, 90.0], "nuat (PyTorch)": [50.0, 20.0, 60.0], "pgd_at": [7.0, 7.0, 7.0]}
    assert peers_training.ratios(rates) == {"nuat (PyTorch)": {"median": 2.0, "min": 1.5, "max": 2.5}}


def test_other_losses_are_another_computation():
    losses = {"nuat": [2.0, 4.0], "nuat (PyTorch)": [2.0, 4.00001], "pgd_at": [2.0, 2.0], "pgd_at (ART)": [2.0, 2.001]}
    found = peers_training.differences(losses)
    assert found == pytest.approx({"nuat (PyTorch)": 2.5e-6, "pgd_at (ART)": 5e-4})
    assert list(peers_training.unequal(found)) == ["pgd_at (ART)"]
    assert list(peers_training.unequal({"pgd_at (ART)": float("nan")})) == ["pgd_at (ART)"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder that contestants read, of a few images of 8x8, and the settings."""
    folder = tmp_path_factory.mktemp("prepared")
    shared = peers_training.settings(0.3, 3, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers_training, "BATCHES", peers_training.CHECKED)
        peers_training.prepare(folder, (8, 8, 1), 16, shared)
    return folder, shared


def our_losses(folder, shared, defense):
    network = keras.saving.load_model(folder / "network.keras", compile=False)
    with np.load(folder / "batches.npz") as file:
        return peers_training_ours.first_losses(
            peers_training_ours.compiled(defense, network, shared), file["x"], file["y"]
        )


@pytest.mark.parametrize("other, is_equal", [({}, True), ({"step_size": 0.05}, False), ({"momentum": 0.5}, False)])
def test_cleverhans_takes_our_steps(other, is_equal, prepared):
    pytest.importorskip("cleverhans")
    from benchmarks import peers_training_tensorflow

    folder, shared = prepared
    network, kept = keras.saving.load_model(folder / "network.keras", compile=False), []
    loop = peers_training_tensorflow.PEERS["cleverhans"](network, {**shared, **other}, kept)
    with np.load(folder / "batches.npz") as file:
        loop(file["x"], file["y"])
    losses = {"pgd_at": our_losses(folder, shared, "pgd_at"), "pgd_at (CleverHans)": [float(each) for each in kept]}
    assert (
        len(kept) == peers_training.CHECKED
        and (not peers_training.unequal(peers_training.differences(losses))) is is_equal
    )


def test_nuat_losses_are_those_of_the_algorithm(prepared):
    """The starts that the peers get are the draws that `fit` makes: the loss of NuAT written with them is its loss."""
    folder, shared = prepared
    network = keras.saving.load_model(folder / "network.keras", compile=False)
    with np.load(folder / "batches.npz") as file:
        x, y, start = (tf.constant(file[name][0]) for name in ("x", "y", "starts"))
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:  # the first batch's adversary is that of R-FGSM
        tape.watch(start)
        loss = cross_entropy(y, network(start))
    x_adv = start + 0.3 * tf.sign(tape.gradient(loss, start))
    x_adv = tf.clip_by_value(tf.clip_by_value(x_adv, x - 0.3, x + 0.3), 0.0, 1.0)
    norm = np.linalg.norm(network(x_adv).numpy() - network(x).numpy(), "nuc")
    expected = float(cross_entropy(y, network(x))) + norm / 16
    assert our_losses(folder, shared, "nuat")[0] == pytest.approx(expected, rel=1e-4)


def test_exported_weights_are_those_of_the_layers():
    """The arrays, applied as PyTorch would by NumPy and SciPy, give the logits of Keras."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Conv2D(3, (3, 5), padding="same", activation="relu", bias_initializer="normal"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(7, activation="relu", bias_initializer="normal"),
        keras.layers.Dense(4),
    ]
    network = keras.Sequential([keras.Input((4, 6, 2)), *layers])
    x = np.random.default_rng(0).normal(size=(5, 4, 6, 2)).astype(np.float32)
    arrays = keras_to_torch.exported(network)
    kinds = [layer["kind"] for layer in json.loads(arrays["layers"])]
    assert kinds == ["convolution", "relu", "pool", "flatten", "dense", "relu", "dense"]
    images = x.transpose(0, 3, 1, 2)
    kernel = arrays["0_kernel"]
    convolved = np.stack(
        [
            [
                sum(scipy.signal.correlate(image[c], kernel[k, c], mode="same") for c in range(2)) + arrays["0_bias"][k]
                for k in range(3)
            ]
            for image in images
        ]
    )
    pooled = np.maximum(convolved, 0.0).reshape(5, 3, 2, 2, 3, 2).max(axis=(3, 5))
    hidden = np.maximum(pooled.reshape(5, -1) @ arrays["4_kernel"].T + arrays["4_bias"], 0.0)
    logits = hidden @ arrays["6_kernel"].T + arrays["6_bias"]
    np.testing.assert_allclose(logits, network(x).numpy(), atol=1e-5)


def test_what_pytorch_cannot_copy_is_refused():
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3, strides=2, padding="same")])
    with pytest.raises(ValueError, match="checkpoint has the layer .*; allowed: Conv2D, MaxPooling2D"):
        keras_to_torch.exported(network)


@pytest.mark.parametrize(
    "only_ours, only_theirs, expected",
    [(0, 0, "equal"), (7, 0, "equal"), (8, 0, "weaker"), (0, 8, "stronger"), (8, 5, "equal")],
)
def test_strength_differs_where_it_is_significant(only_ours, only_theirs, expected):
    """Of n images that one alone fools, all on one side have p = 2 / 2**n: 0.016 for 7, 0.008 for 8."""
    theirs = np.arange(100) < 60 + only_ours
    ours = (np.arange(100) < 60) | (np.arange(100) >= 100 - only_theirs)
    found = peers.strength(ours.tolist(), theirs.tolist())
    assert found["strength"] == expected
    assert (found["only_ours_fools"], found["only_theirs_fools"]) == (only_ours, only_theirs)
    if not (only_ours and only_theirs):
        assert found["p_value"] == pytest.approx(min(1.0, 2.0 / 2.0 ** (only_ours + only_theirs)))


def row(seconds, robust=(True, False)):
    return {
        "seconds": seconds,
        "command": 1.0,
        "stages": {"a": 1.0},
        "clean": 1.0,
        "robust": list(robust),
        "versions": {},
    }


def test_slow_contestants_are_measured_once_and_failed_ones_listed():
    times = {"quick": iter([3.0, 4.0, 5.0]), "slow": iter([70.0])}

    def fail():
        raise turns.FailedError("no such thing")

    runs = {name: (lambda each=each: row(next(each))) for name, each in times.items()}
    found, failed = peers.in_turns({**runs, "broken": fail}, 3, 60.0)
    assert [len(found[name]) for name in ("quick", "slow")] == [3, 1]
    assert "broken" not in found and failed == {"broken": "no such thing"}
    figures = peers.summary(found, ["quick"])
    assert figures["quick"]["seconds"] == {"median": 4.0, "min": 3.0, "max": 5.0, "rounds": 3}
    assert figures["slow"]["over_ours"]["quick"]["median"] == pytest.approx(70 / 3)
    assert figures["slow"]["strength"] == "equal" and "over_ours" not in figures["quick"]


@pytest.fixture
def restored_flags():
    """A command keeps the flags that it was given."""
    kept = [(flagsaver.save_flag_values(module.FLAGS), module.FLAGS) for module in (peers, peers_training)]
    yield
    for saved, values in kept:
        flagsaver.restore_flag_values(saved, values)


@pytest.mark.parametrize(
    "module, arguments, message",
    [
        (peers, [], "checkpoint is not given; allowed: a network"),
        (peers, ["--checkpoint=a", "--peers_python=b", "--peers=x"], "peers is 'x'; allowed: ART"),
        (
            peers,
            ["--checkpoint=a", "--peers_python=b", "--attacks=fgsm"],
            "attacks is 'fgsm'; allowed: autoattack, pgd",
        ),
        (peers, ["--checkpoint=a", "--peers_python=b", "--patience=0"], "patience is 0.0; allowed: a number above 0"),
        (peers_training, [], "peers_python is not given; allowed: a Python"),
        (peers_training, ["--peers_python=b", "--only=x"], "only is 'x'; allowed: nuat, "),
        (peers_training, ["--peers_python=b", "--threads=4096"], "threads is 4096; allowed: a whole number"),
        (peers, ["--checkpoint=a", "--peers_python=b", f"--out={RESULTS}"], "; allowed: a file for the figures"),
        (peers_training, ["--peers_python=b", f"--out={RESULTS}"], "; allowed: a file for the figures"),
        (table, ["--other"], "Unknown command line flag 'other'"),
    ],
)
def test_wrong_flags_are_named(module, arguments, message, restored_flags):
    with pytest.raises(ValueError, match=message):
        module.command(arguments)


def test_figures_of_an_attack_are_kept_where_ours_cannot_run_the_next(monkeypatch, tmp_path, restored_flags):
    """The second attack has no contestant that answers."""
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    network.save(tmp_path / "network.keras")

    def fail():
        raise turns.FailedError("no such attack")

    def contestants(folder, attack):
        return {"tf_nuat float32": (lambda: row(3.0)) if attack == "pgd" else fail}

    monkeypatch.setattr(peers, "export", lambda *_: 2)
    monkeypatch.setattr(peers, "contestants", contestants)
    monkeypatch.setattr(turns, "hide_gpus", lambda: None)
    monkeypatch.setattr(turns, "keep_to_processors", lambda count: None)
    given = [f"--checkpoint={tmp_path / 'network.keras'}", "--peers_python=b", "--precision=float32", "--rounds=1"]
    with pytest.raises(ValueError, match="attacks has autoattack, which tf_nuat float32 cannot run .no such attack."):
        peers.command([*given, "--attacks=pgd,autoattack", f"--out={tmp_path / 'peers.json'}"])
    content = json.loads((tmp_path / "peers.json").read_text())
    assert content["pgd"]["figures"]["tf_nuat float32"]["robust"] == 0.5 and "autoattack" not in content


@pytest.fixture
def contents():
    return [
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("peers_training", "peers", "l1")
    ]


def test_the_page_is_that_of_the_figures(contents):
    assert table.page(*contents) == (RESULTS / "README.md").read_text(encoding="utf-8")


def test_the_page_says_whether_targets_are_reached(contents):
    training, attacks, in_l1 = contents
    for factor, word in ((1.89, "missed"), (1.9, "reached")):
        training["rounds"] = {"nuat": [10 * factor, factor, 4 * factor], "nuat (PyTorch)": [10.0, 2.0, 4.0]}
        assert f"Both in float32: {factor:.2f}, target 1.9: {word}." in table.page(training, attacks, in_l1)
    ours, *others = attacks["pgd"]["figures"].values()
    others = [each for each in others if "over_ours" in each]
    mine = next(iter(others[0]["over_ours"]))
    for number, each in enumerate(others):
        each["over_ours"][mine]["median"], each["strength"] = 2.0 + number, "equal"
    assert table.fastest(attacks["pgd"])[1] == 2.0
    others[0]["strength"] = "weaker"
    assert table.fastest(attacks["pgd"])[1] == 3.0
