"""The worst of several attacks: its record, its resumption, its command, against a network known in closed form."""

import contextlib
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tf_nuat import attacks, evaluate
from tf_nuat.core import files
from tf_nuat.evaluate import __main__ as command
from tf_nuat.evaluate import worst as module
from tf_nuat.evaluate.journal import Journal
from tf_nuat.evaluate.record import ROBUST, WRONG
from tf_nuat.evaluate.worst import stages, worst_case

SHAPE = (4, 4, 1)


@pytest.fixture(scope="module")
def network():
    """Says class 1 where the mean pixel exceeds 0.5, classes 2 and 3 never."""
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(4)])
    kernel = np.zeros((16, 4))
    kernel[:, 1] = 1.0
    model.set_weights([kernel, np.array([0.0, -8.0, -50.0, -51.0])])
    return model


@pytest.fixture(scope="module")
def data():
    means = np.linspace(0.2, 0.8, 25)  # none is at a distance of exactly 0.05, 0.1 or 0.15 from 0.5
    labels = (means > 0.5).astype(int)
    labels[[0, 24]] = [1, 0]  # two are wrong
    return np.tile(means[:, None, None, None], (1, *SHAPE)).astype(np.float32), labels


def away(data):
    """Returns how far (L-infinity) each image is from the other class, and whether it is wrong already."""
    means, labels = data[0].mean(axis=(1, 2, 3)), data[1]
    return np.abs(means - 0.5), labels != (means > 0.5)


# There are 16 pixels: a change of all is 4 times as long in L2 as in L-infinity.
@pytest.mark.parametrize("norm, epsilon, batch_size", [("linf", 0.11, 250), ("l2", 0.44, 4)])
def test_the_record_is_the_closed_form(norm, epsilon, batch_size, network, data):
    distance, wrong = away(data)
    chosen = [("apgd_ce", {"steps": 1}), ("pgd", {"steps": 20}), ("square", {"queries": 30})]
    record = worst_case(network, data, chosen, epsilon=epsilon, norm=norm, batch_size=batch_size)
    within = distance < 0.11
    np.testing.assert_array_equal(record.robust, ~within & ~wrong)
    np.testing.assert_array_equal(record.clean, ~wrong)
    np.testing.assert_array_equal(record.fooled_by == WRONG, wrong)
    np.testing.assert_array_equal(record.distance[wrong], 0.0)
    assert np.all(np.isnan(record.distance[record.robust]))
    found = record.fooled_by >= 0
    needed = distance[found] * (1 if norm == "linf" else 4)
    assert np.all(record.distance[found] >= needed - 1e-6) and np.all(record.distance[found] <= epsilon + 1e-6)

    rows, left = record.rows(), 25
    assert [row["name"] for row in rows] == ["clean", "apgd_ce", "pgd", "square"]
    for number, row in enumerate(rows):
        assert number == 0 or row["attacked"] == left
        left -= row["fooled"] if number else wrong.sum()
        assert row["accuracy"] == left / 25 and row["interval"][0] < row["accuracy"] < row["interval"][1]
    assert rows[-1]["accuracy"] == record.robust.mean()
    assert rows[2]["fooled"] == np.sum(record.fooled_by == 1)


def test_epsilon_0_fools_nothing(network, data):
    record = worst_case(network, data, ["fgsm", ("pgd", {"steps": 4}), ("square", {"queries": 30})], epsilon=0)
    np.testing.assert_array_equal(record.robust, record.clean)
    assert [stage.steps for stage in record.stages] == [0, 4 * 23, 30 * 23]  # of the images that are right without it


def test_the_default_is_autoattack(network, data):
    record = worst_case(network, data, epsilon=0.11)
    assert [stage.name for stage in record.stages] == ["apgd_ce", "apgd_t", "fab_t", "square"]
    assert {stage.name: stage.settings for stage in record.stages}["square"]["queries"] == 5000
    np.testing.assert_array_equal(record.robust, (away(data)[0] > 0.11) & ~away(data)[1])


@pytest.mark.parametrize(
    "classes, names, targets",
    [
        (4, ["apgd_ce", "apgd_t", "fab_t", "square"], 3),
        (3, ["apgd_ce", "fab_t", "square"], 2),
        (2, ["apgd_ce", "fab_t", "square"], 1),
    ],
)
def test_autoattack_adapts_to_few_classes(classes, names, targets):
    ten = stages("autoattack", num_classes=10, norm="linf")
    assert [settings["targets"] for name, _, settings in ten if name.endswith("_t")] == [9, 9]
    chosen = stages("autoattack", num_classes=classes, norm="linf")
    assert [name for name, _, _ in chosen] == names
    assert all(settings["targets"] == targets for name, _, settings in chosen if name.endswith("_t"))
    dense = keras.layers.Dense(classes)
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), dense])
    dense.set_weights([np.random.default_rng(0).normal(size=(16, classes)), np.zeros(classes)])
    x = np.random.default_rng(1).uniform(size=(6, *SHAPE)).astype(np.float32)
    y = model(x).numpy().argmax(axis=1)
    x_adv = attacks.autoattack(model, x, y, epsilon=0.9)
    assert np.all(model(x_adv).numpy().argmax(axis=1) != y)
    assert np.max(np.abs(x_adv - x)) <= 0.9 + 1e-6


def test_autoattack_is_not_for_compiled_functions(network, data):
    attacked = tf.function(lambda x, y: attacks.autoattack(network, x, y, epsilon=0.1))
    with pytest.raises(ValueError, match="autoattack is called inside a compiled function; allowed: eager calls"):
        attacked(*data)


def test_the_versions_are_those_published():
    versions = {
        version: stages([("autoattack", {"version": version})], num_classes=10, norm="linf")
        for version in ("plus", "rand", "v1")
    }
    names = {version: [name for name, _, _ in chosen] for version, chosen in versions.items()}
    assert names["plus"] == ["apgd_ce", "apgd_dlr", "fab", "square", "apgd_t", "fab_t"]
    assert names["rand"] == ["apgd_ce", "apgd_dlr"]
    assert names["v1"] == ["apgd_ce", "apgd_dlr", "fab", "square"]
    given = {(version, name): settings for version, chosen in versions.items() for name, _, settings in chosen}
    assert {settings["steps"] for settings in given.values() if "steps" in settings} == {100}
    five = {key for key, settings in given.items() if settings.get("restarts") == 5}
    assert five == {(version, name) for version in ("plus", "v1") for name in ("apgd_ce", "apgd_dlr", "fab")}
    assert all(given["rand", name]["eot_iterations"] == 20 for name in names["rand"])
    for version, left_out in ("plus", {"apgd_dlr", "apgd_t"}), ("rand", {"apgd_dlr"}), ("v1", {"apgd_dlr"}):
        of_two = stages([("autoattack", {"version": version})], num_classes=2, norm="linf")
        assert [name for name, _, _ in of_two] == [name for name in names[version] if name not in left_out]
    seeded = stages([("autoattack", {"seed": 7})], num_classes=10, norm="linf")
    assert all(settings["seed"] == 7 for _, _, settings in seeded)


class KilledError(Exception):
    """Stands for a kill: nothing after it is done."""


@pytest.mark.parametrize("saves", [1, 2, 5, 11])
def test_an_evaluation_goes_on_from_whatever_was_saved_last(saves, network, data, tmp_path, monkeypatch):
    chosen = [("pgd", {"steps": 30, "step_size": 0.004}), ("square", {"queries": 60})]
    settings = {"epsilon": 0.11, "batch_size": 3, "seed": 4}
    expected = worst_case(network, data, chosen, **settings)
    written, save = [], files.save_arrays

    def save_and_die(path, **arrays):
        save(path, **arrays)
        written.append(path.name)
        if len(written) == saves:
            raise KilledError

    monkeypatch.setattr(files, "save_arrays", save_and_die)
    with pytest.raises(KilledError):
        worst_case(network, data, chosen, folder=tmp_path, save_every=0, **settings)
    monkeypatch.setattr(files, "save_arrays", save)
    record = worst_case(network, data, chosen, folder=tmp_path, **settings)
    np.testing.assert_array_equal(record.fooled_by, expected.fooled_by)
    np.testing.assert_array_equal(record.distance, expected.distance)
    assert [stage.steps for stage in record.stages] == [stage.steps for stage in expected.stages]

    # What is done is not done again.
    monkeypatch.setattr(module, "_run", None)
    again = worst_case(network, data, chosen, folder=tmp_path, **settings)
    np.testing.assert_array_equal(again.fooled_by, expected.fooled_by)


def test_the_seconds_of_an_attack_go_on_where_it_is_resumed(network, data, tmp_path, monkeypatch):
    save = files.save_arrays

    def save_and_die(path, **arrays):
        late = {**arrays, "seconds": arrays["seconds"] + 1000.0} if "pool_begun" in arrays else arrays
        save(path, **late)
        if late is not arrays:
            raise KilledError

    settings = {"epsilon": 0.11, "batch_size": 3, "folder": tmp_path}
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(files, "save_arrays", save_and_die)
        worst_case(network, data, ["pgd"], save_every=0, **settings)
    [stage] = worst_case(network, data, ["pgd"], **settings).stages
    assert 1000.0 < stage.seconds < 1600.0


def test_the_files_say_what_the_record_says(network, data, tmp_path):
    record = worst_case(network, data, ["pgd"], epsilon=0.11, folder=tmp_path)
    saved = np.load(tmp_path / "record.npz")
    np.testing.assert_array_equal(saved["fooled_by"], record.fooled_by)
    np.testing.assert_array_equal(saved["distance"], record.distance)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["epsilon"] == 0.11 and content["norm"] == "linf" and content["images"] == 25
    assert content["stages"] == json.loads(json.dumps(record.rows()))


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_an_unreadable_state_is_named_and_kept(content, network, data, tmp_path):
    worst_case(network, data, ["fgsm"], epsilon=0.11, folder=tmp_path)
    state = tmp_path / "state.npz"
    state.write_bytes(state.read_bytes()[:-100] if content is None else content)
    before = state.read_bytes()
    with pytest.raises(
        ValueError, match=r"out has .*state.npz, which cannot be read .*; allowed: another folder"
    ) as raised:
        worst_case(network, data, ["fgsm"], epsilon=0.11, folder=tmp_path)
    assert "\n" not in str(raised.value) and state.read_bytes() == before


def test_another_evaluation_in_the_folder_is_named(network, data, tmp_path):
    settings = {"epsilon": 0.11, "folder": tmp_path}
    worst_case(network, data, ["fgsm"], **settings)
    for change, words in (
        ({"epsilon": 0.2}, r"other epsilon \(0.11, not 0.2\), attacks;"),
        ({"seed": 1}, r"other seed \(0, not 1\);"),
        ({"attacks": ["pgd"]}, "other attacks;"),
    ):
        with pytest.raises(ValueError, match=words):
            worst_case(network, data, **{"attacks": ["fgsm"], **settings, **change})
    with pytest.raises(ValueError, match="other images"):
        worst_case(network, (data[0][::-1], data[1]), ["fgsm"], **settings)


@pytest.mark.parametrize(
    "begun, continued",
    [({"worker": [0, 2]}, {}), ({}, {"worker": [0, 2]}), ({"worker": [0, 2]}, {"worker": [0, 3]})],
)
def test_nobody_goes_on_with_the_share_of_other_workers(begun, continued, tmp_path):
    """Images of others, which were not attacked, would count as robust."""
    identity, own = {"attacks": ["pgd"], "seed": 0}, np.arange(6) % 2 == 0
    Journal(tmp_path, 0.0, own, {**identity, **begun}).next_stage()
    assert Journal(tmp_path, 0.0, own, {**identity, **begun}).stage == 0
    with pytest.raises(ValueError, match="has an evaluation with other worker; allowed: another folder"):
        Journal(tmp_path, 0.0, own, {**identity, **continued})


@pytest.mark.parametrize("content, is_kept", [('{"verdict": "robust"}', True), ('{"stages": []}', False), ("{", False)])
def test_the_results_of_another_command_are_kept(content, is_kept, network, data, tmp_path):
    """Those of `sanity.run` have the same name. A damaged file is replaced."""
    (tmp_path / "results.json").write_text(content)
    with contextlib.ExitStack() as stack:
        if is_kept:
            stack.enter_context(pytest.raises(ValueError, match="results.json is of another command; allowed: another"))
        worst_case(network, data, ["fgsm"], epsilon=0.11, folder=tmp_path)
    assert ((tmp_path / "results.json").read_text() == content) == is_kept


def test_a_full_disk_loses_no_result(network, data, tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    expected = worst_case(network, data, ["pgd"], epsilon=0.11)
    with monkeypatch.context() as patch:
        patch.setattr(files.np, "savez", full)
        record = worst_case(network, data, ["pgd"], epsilon=0.11, folder=tmp_path / "out", save_every=0)
    np.testing.assert_array_equal(record.fooled_by, expected.fooled_by)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"epsilon": -0.1}, "epsilon is -0.1; allowed: a number at least 0"),
        ({"epsilon": None}, "epsilon is None"),
        ({"norm": "l0"}, "norm.* is 'l0'; allowed: "),
        ({"attacks": "pdg"}, "attack is 'pdg'; allowed: .*pgd"),
        ({"attacks": []}, "attacks is empty"),
        ({"attacks": [("pgd", {"step": 3})]}, "argument of pgd is 'step'; allowed: .*steps"),
        ({"attacks": [("pgd", {"steps": 0})]}, "steps is 0; allowed"),
        ({"attacks": [("autoattack", {"version": "old"})]}, "version is 'old'; allowed: plus, rand, standard, v1"),
        ({"attacks": [("autoattack", {"batch_size": 9})]}, "is 'batch_size'; allowed: batch_size= of the evaluation"),
        ({"attacks": "rfgsm", "norm": "l2"}, "norm of rfgsm is 'l2'; allowed: linf"),
        ({"attacks": "deepfool"}, "norm of deepfool is 'linf'; allowed: l2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"save_every": -1.0}, "save_every is -1.0"),
    ],
)
def test_bad_arguments_are_named_before_any_work(change, words, network, data, tmp_path):
    arguments = {"attacks": "pgd", "epsilon": 0.1, **change}
    with pytest.raises(ValueError, match=words) as raised:
        worst_case(network, data, folder=tmp_path / "out", **arguments)
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_an_empty_dataset_and_a_broken_network_are_named(network, data):
    with pytest.raises(ValueError, match="images is empty; allowed: at least one image"):
        worst_case(network, (data[0][:0], data[1][:0]), epsilon=0.1)
    broken = keras.models.clone_model(network)
    broken.set_weights([np.full_like(weight, np.nan) for weight in network.get_weights()])
    with pytest.raises(ValueError, match="not finite"):
        worst_case(broken, data, epsilon=0.1)


# The command.


@pytest.fixture
def saved(network, data, tmp_path):
    network.save(tmp_path / "network.keras")
    np.savez(tmp_path / "data.npz", images=data[0], labels=data[1])
    return tmp_path


def arguments(saved, *more):
    return [f"--checkpoint={saved / 'network.keras'}", f"--dataset={saved / 'data.npz'}", *more]


def test_the_command_prints_a_table_and_writes_the_record(saved, network, data, capsys):
    options = ["--epsilon=0.11", "--attack=fgsm,pgd", "--options=steps=20"]
    assert command.command(arguments(saved, *options)) == 0
    printed = capsys.readouterr().out
    record = worst_case(network, data, ["fgsm", ("pgd", {"steps": 20})], epsilon=0.11)
    assert f"Robust accuracy {record.robust.mean():.2%} of 25 images (linf, epsilon 0.11)" in printed
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["none", "fgsm", "pgd"]
    assert f"{record.rows()[1]['accuracy']:.2%}" in lines[2]
    folder = saved / "evaluation"
    assert sorted(path.name for path in folder.iterdir()) == ["record.npz", "results.json", "state.npz"]
    written = json.loads((folder / "results.json").read_text())
    assert written["stages"][2]["settings"]["steps"] == 20 and "steps" not in written["stages"][1]["settings"]
    assert written["attacks"] == [["fgsm", {}], ["pgd", {"steps": 20}]]
    assert (written["dataset"], written["split"], written["seed"]) == (str(saved / "data.npz"), "test", 0)


def test_results_that_could_not_be_written_are_printed_and_the_status_says_so(saved, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.np, "savez", full)
    assert command.command(arguments(saved, "--epsilon=0.11", "--attack=fgsm")) == 1
    assert "Robust accuracy" in capsys.readouterr().out


def test_transfer_takes_a_surrogate(saved, network, data, capsys):
    """The network itself as surrogate: its I-FGSM."""
    options = ["--epsilon=0.11", "--attack=transfer", f"--surrogate={saved / 'network.keras'}"]
    assert command.command(arguments(saved, *options)) == 0
    record = worst_case(network, data, ["ifgsm"], epsilon=0.11)
    assert f"Robust accuracy {record.robust.mean():.2%}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has an evaluation with other attacks"):
        other = keras.models.clone_model(network)
        other.set_weights([1.1 * each for each in network.get_weights()])
        other.save(saved / "other.keras")
        command.command(arguments(saved, *options[:2], f"--surrogate={saved / 'other.keras'}"))


def test_another_network_with_the_same_weights_is_another_evaluation(saved, network):
    given = [f"--dataset={saved / 'data.npz'}", "--epsilon=0.11", "--attack=fgsm", f"--out={saved / 'out'}"]
    assert command.command([f"--checkpoint={saved / 'network.keras'}", *given]) == 0
    scaled = keras.Sequential([keras.Input(network.input_shape[1:]), network, keras.layers.Rescaling(1000.0)])
    scaled.save(saved / "scaled.keras")
    with pytest.raises(ValueError, match="out is .*, which has an evaluation with other network; allowed: "):
        command.command([f"--checkpoint={saved / 'scaled.keras'}", *given])


def test_the_card_beside_the_checkpoint_fills_in(saved, capsys):
    card = {"recipe": {"dataset": str(saved / "data.npz"), "epsilon": 0.11, "norm": "linf"}}
    (saved / "card.json").write_text(json.dumps(card))
    assert command.command([f"--checkpoint={saved / 'network.keras'}", "--attack=fgsm"]) == 0
    assert "epsilon 0.11" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, words",
    [
        (["--epsilon=-1"], "epsilon is -1.0"),
        ([], "--epsilon is not given"),
        (["--epsilon=0.1", "--attack=pdg"], "attack is 'pdg'"),
        (["--epsilon=0.1", "--attack=pgd", "--options=step=3"], "name in options is 'step'"),
        (["--epsilon=0.1", "--attack=pgd", "--options=steps"], "options has 'steps'; allowed: name=value"),
        (["--epsilon=0.1", "--attack=pgd", "--options=epsilon=3"], "options has epsilon; allowed: --epsilon"),
        (["--epsilon=0.1", "--norm=l0"], "norm is 'l0'"),
        (["--epsilon=0.1", "--precision=half"], "precision is 'half'"),
        (["--epsilon=0.1", "--strategy=two"], "strategy is 'two'"),
        (["--epsilon=0.1", "--samples=0"], "samples is 0"),
        (["--epsilon=0.1", "--batch_size=0"], "batch_size is 0"),
        (["--epsilon=0.1", "--nonsense=0"], "nonsense"),
        (["--epsilon=0.1", "--attack=transfer"], "surrogate and the attack transfer belong together"),
        (["--epsilon=0.1", "--surrogate=a.keras"], "surrogate and the attack transfer belong together"),
    ],
)
def test_bad_flags_are_named_before_any_work(more, words, saved):
    with pytest.raises(ValueError, match=words):
        command.command(arguments(saved, *more))
    assert not (saved / "evaluation").exists()


def test_bad_files_are_named(saved, tmp_path):
    missing = f"--checkpoint={tmp_path / 'none.keras'}"
    with pytest.raises(ValueError, match="checkpoint is .*none.keras"):
        command.command([missing, "--dataset=digits", "--epsilon=0.1"])
    with pytest.raises(ValueError, match="checkpoint .* takes images of shape|input_shape is"):
        command.command([f"--checkpoint={saved / 'network.keras'}", "--dataset=digits", "--epsilon=0.1"])
    (saved / "data.npz").write_bytes(pathlib.Path(saved / "data.npz").read_bytes()[:40])
    with pytest.raises(ValueError, match="data.npz"):
        command.command(arguments(saved, "--epsilon=0.1"))


def test_every_attack_is_one_that_the_engine_runs(network, data):
    for name in tf_nuat.ATTACKS:
        for norm in tf_nuat.ATTACKS[name].norms:
            given = dict.fromkeys(tf_nuat.ATTACKS[name].needs, network)
            for _, attack, _ in stages([(name, given)], num_classes=4, norm=norm):
                assert attack.is_single and attack.keywords, name
    record = worst_case(network, data, [n for n in tf_nuat.ATTACKS if n in ("fgsm", "ifgsm")], epsilon=0.11)
    assert np.all(np.isin(record.fooled_by, (ROBUST, WRONG, 0, 1)))
    assert evaluate.worst_case is worst_case


def test_gradients_of_another_precision_are_another_evaluation(network, data, tmp_path):
    """What was found with gradients in bfloat16 does not pass for what float32 finds; the record says which it was."""
    chosen = [("pgd", {"steps": 3})]
    exact = worst_case(network, data, chosen, epsilon=0.1, precision="float32", folder=tmp_path / "float32")
    assert exact.precision == "float32"
    assert json.loads((tmp_path / "float32" / "results.json").read_text())["precision"] == "float32"
    coarse = worst_case(network, data, chosen, epsilon=0.1, precision="bfloat16", folder=tmp_path / "bfloat16")
    assert coarse.precision == "bfloat16"
    words = r"has an evaluation with other precision \('bfloat16', not 'float32'\); allowed: another folder"
    with pytest.raises(ValueError, match=words) as raised:
        worst_case(network, data, chosen, epsilon=0.1, folder=tmp_path / "bfloat16")  # "auto", on another machine
    assert "\n" not in str(raised.value)
    # "auto" is one of the two, and for a network as small as this float32.
    again = worst_case(network, data, chosen, epsilon=0.1, folder=tmp_path / "float32")
    np.testing.assert_array_equal(again.fooled_by, exact.fooled_by)
