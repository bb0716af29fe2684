"""`run`: what it leaves behind, that it continues after a kill, and what it refuses."""

import dataclasses
import math
import shutil

import keras
import numpy as np
import pytest

import tf_nuat
from tests.helpers.killed import run
from tf_nuat import attacks, training
from tf_nuat import card as cards
from tf_nuat.core import files
from tf_nuat.evaluate import worst
from tf_nuat.training import AttackSpec, ScheduleSpec, backup, callbacks, epochs, experiment, measuring

RECIPE = training.Recipe(
    dataset="digits",
    network="tests.helpers.tiny:network",
    defense="nuat2_wa",
    epsilon=0.1,
    epochs=3,
    batch_size=128,
    learning_rate=ScheduleSpec("triangle", peak=0.05, up=1, down=2),
    defense_options={"nuclear_weight": ScheduleSpec("ramp", peak=1.0, epochs=3)},
    selection=AttackSpec("fgsm"),
    selection_images=64,
    measures={"pgd_3": AttackSpec("pgd", steps=3)},
    test_images=100,
    claimed={"pgd_3": 0.5},
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    return out, run(RECIPE, out)


def test_leaves_networks_a_card_and_logs(undisturbed):
    out, card = undisturbed
    assert sorted(path.name for path in out.iterdir()) == [
        "card.json",
        "last.keras",
        "logs",
        "network.keras",
        "outcomes.npz",
        "recipe.json",
    ]
    assert cards.read(out / "card.json") == card
    assert list((out / "logs").rglob("events.out.tfevents.*"))
    assert card.recipe == RECIPE.to_json() and training.Recipe.from_json(card.recipe) == RECIPE
    robust = [logs["val_robust_accuracy"] for logs in card.history]
    assert len(robust) == 3 and card.epoch_chosen == int(np.argmax(robust)) + 1
    assert card.claimed == {"pgd_3": 0.5} and set(card.measured) == {"clean", "pgd_3"}
    assert card.training_seconds > 0 and card.training_images_per_second > 0


def test_the_kept_network_has_the_accuracy_of_the_card(undisturbed):
    out, card = undisturbed
    network = keras.saving.load_model(out / "network.keras", compile=False)
    images, labels = tf_nuat.data.load("digits").arrays("test")
    accuracy = tf_nuat.evaluate.accuracy(network, (images[:100], labels[:100]))
    assert accuracy == card.measured["clean"].accuracy
    low, high = card.measured["clean"].interval
    assert low < accuracy < high
    with np.load(out / "outcomes.npz") as outcomes:
        correct = network.predict(images[:100], verbose=0).argmax(axis=1) == labels[:100]
        np.testing.assert_array_equal(outcomes["clean"], correct)
        assert outcomes["pgd_3"].mean() == card.measured["pgd_3"].accuracy
        assert not np.any(outcomes["pgd_3"] & ~correct)


def killed(*_):
    raise KeyboardInterrupt


def test_standard_training_is_chosen_by_its_clean_accuracy(tmp_path):
    recipe = dataclasses.replace(
        RECIPE, defense="standard", defense_options={}, chosen_by=None, measures={}, claimed={}
    )
    assert recipe.chosen_by == "val_accuracy" and RECIPE.chosen_by == "val_robust_accuracy"
    card = run(recipe, tmp_path)
    assert card.epoch_chosen == int(np.argmax([logs["val_accuracy"] for logs in card.history])) + 1


@pytest.fixture(scope="module")
def measured_twice(tmp_path_factory):
    """A recipe of two measures, what they come to, and the folder of a run that was killed before them."""
    measures = {**RECIPE.measures, "fgsm": AttackSpec("fgsm")}
    recipe = dataclasses.replace(RECIPE, defense="nuat", epochs=1, measures=measures, masking_alarm=None)
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measuring, "measure", killed)
        run(recipe, folder / "trained")
    shutil.copytree(folder / "trained", folder / "whole")
    return recipe, run(recipe, folder / "whole").measured, folder / "trained"


@pytest.mark.parametrize("saved", ["pgd_3-0/state.npz", "fgsm-0/state.npz"])  # within the first, after it
def test_a_run_that_is_killed_while_it_measures_goes_on_there(saved, measured_twice, tmp_path, monkeypatch):
    recipe, expected, trained = measured_twice
    out, save = tmp_path / "killed", files.save_arrays
    shutil.copytree(trained, out)
    monkeypatch.setattr(tf_nuat.NuAT, "fit", lambda *_, **__: pytest.fail("trained again"))

    def save_and_die(path, *arrays, **named):
        save(path, *arrays, **named)
        if path == out / "state" / "measured" / saved:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_arrays", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, out)
    kept = (out / "network.keras").read_bytes()
    attacked, pool = [], worst.Pool
    monkeypatch.setattr(worst, "Pool", lambda *given, **options: attacked.append(given[0]) or pool(*given, **options))
    assert run(recipe, out).measured == expected
    assert (out / "network.keras").read_bytes() == kept and not (out / "state").exists()
    # What was done is not done again.
    assert (attacks.pgd in attacked) == (saved == "pgd_3-0/state.npz") and attacks.fgsm in attacked


def test_a_finished_run_is_not_repeated(undisturbed, monkeypatch):
    out, card = undisturbed
    monkeypatch.setattr(tf_nuat.NuAT, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert run(RECIPE, out) == card
    assert run(dataclasses.replace(RECIPE, source="another sentence", claimed={}), out) == card


def test_a_run_that_another_process_ends_during_the_checks_is_not_repeated(undisturbed, tmp_path, monkeypatch):
    out, card = undisturbed
    check = experiment.check

    def slow(*arguments, **options):
        found = check(*arguments, **options)
        shutil.copytree(out, tmp_path, dirs_exist_ok=True)
        return found

    monkeypatch.setattr(experiment, "check", slow)
    monkeypatch.setattr(tf_nuat.NuAT, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert run(RECIPE, tmp_path) == card


def test_a_folder_of_another_run_is_refused(undisturbed):
    out, card = undisturbed
    with pytest.raises(ValueError, match="out is .* holds a run with another epochs, seed"):
        run(dataclasses.replace(RECIPE, epochs=4, seed=1), out)
    assert cards.read(out / "card.json") == card


def test_a_folder_with_a_card_alone_is_the_run_of_that_card(undisturbed, tmp_path):
    out, card = undisturbed
    for name in ("card.json", "network.keras"):
        shutil.copy(out / name, tmp_path)
    assert run(RECIPE, tmp_path) == card
    with pytest.raises(ValueError, match="out is .* holds a run with another epochs, seed"):
        run(dataclasses.replace(RECIPE, epochs=4, seed=1), tmp_path)


def test_a_folder_of_two_runs_at_once_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tf_nuat.NuAT, "fit", lambda *_, **__: pytest.fail("trained"))
    with files.owned("out", tmp_path), pytest.raises(ValueError, match="out is .*, into which process .* writes"):
        run(RECIPE, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch_size", [128, 1091])  # the latter is one batch, whose own loss is that before its step
def test_nan_stops_training_and_keeps_the_last_good_network(batch_size, tmp_path):
    """The learning rate jumps to 5e36 after the first epoch."""
    rate = ScheduleSpec("divide", start=0.05, factor=1e-38, epochs=[1])
    recipe = dataclasses.replace(RECIPE, defense="standard", defense_options={}, chosen_by="last")
    recipe = dataclasses.replace(recipe, batch_size=batch_size, learning_rate=rate, epochs=3)
    with pytest.raises(FloatingPointError, match="NaN or infinite in epoch 2; the network of epoch 1 is kept in .*"):
        run(recipe, tmp_path)
    network = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    assert all(np.all(np.isfinite(weight)) for weight in network.get_weights())
    (logs,) = backup.restored(tmp_path / "state", None).history
    assert all(math.isfinite(value) for value in logs.values())
    assert not (tmp_path / "card.json").exists()


@pytest.mark.parametrize("told", [False, True])
def test_xla_compiles_the_step_of_every_stage_where_it_is_asked_for(told):
    splits = tf_nuat.data.load("digits")
    model = training.build(RECIPE, splits, jit_compile=told)
    model.build_state()
    assert model.jit_compile is told
    assert training.build(RECIPE, splits, jit_compile=told, before=model).jit_compile is told


def test_xla_is_refused_on_several_devices_before_any_work(tmp_path):
    """Keras puts the steps of all devices into one function, and XLA takes no variable of another device."""
    with pytest.raises(ValueError, match="jit_compile is True; allowed: on one device"):
        training.run(RECIPE, tmp_path / "out", strategy="mirrored", jit_compile=True)
    assert not (tmp_path / "out").exists()


def test_two_devices_train_the_same_recipe(tmp_path):
    """They log what one device does, in a second epoch too, which takes the images in another order."""
    recipe = dataclasses.replace(RECIPE, defense="fgsm_at", defense_options={}, epochs=2)
    recipe = dataclasses.replace(recipe, measures={}, claimed={}, masking_alarm=None)
    one, two = (training.run(recipe, tmp_path / each, strategy=each, verbose=0) for each in ("one", "mirrored"))
    assert (one.replicas, two.replicas) == (1, 2)
    for logs, expected in zip(two.history, one.history):
        assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-3)


@pytest.mark.parametrize("told", [False, True])
def test_batch_norm_is_synchronized_where_the_recipe_says_so(told):
    recipe = dataclasses.replace(RECIPE, network="resnet18", network_options={"width": 4}, synchronized_batch_norm=told)
    model = training.build(recipe, tf_nuat.data.load("digits"))
    norms = [layer for layer in model.network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and {layer.synchronized for layer in norms} == {told}


def test_an_alarm_that_stops_training_does_so_once_for_all(tmp_path, monkeypatch):
    """The alarm of the second epoch is the end of a run, of one that was killed before it was measured too."""
    rings = iter([0.0, 1.0])

    def on_epoch_end(alarm, epoch, logs):
        logs["masking_alarm"] = next(rings)
        alarm.model.stop_training = bool(logs["masking_alarm"])

    monkeypatch.setattr(callbacks.MaskingAlarm, "on_epoch_end", on_epoch_end)
    recipe = dataclasses.replace(RECIPE, defense="fgsm_at", defense_options={}, measures={}, claimed={})
    recipe = dataclasses.replace(recipe, masking_alarm="stop", selection_images=500)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measuring, "measure", killed)
        run(recipe, tmp_path)
    card = run(recipe, tmp_path)
    assert [logs["masking_alarm"] for logs in card.history] == [0.0, 1.0]


def test_times_stretch_with_the_epochs():
    recipe = dataclasses.replace(RECIPE, epochs=6)
    assert recipe.schedule_epochs == 3
    peak = recipe.schedule(recipe.learning_rate, 10)
    assert float(peak(20)) == pytest.approx(0.05) and float(peak(60)) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"dataset": "imagenette"}, "dataset is 'imagenette'; allowed: cifar10, cifar100, digits"),
        ({"network": "lenet"}, "network is 'lenet'; allowed: "),
        ({"defense": "magic"}, "defense is 'magic'; allowed: "),
        ({"epsilon": 0.0}, "epsilon is 0.0; allowed: "),
        ({"epsilon": 8}, "epsilon is 8; allowed: "),
        ({"epochs": 0}, "epochs is 0; allowed: "),
        ({"batch_size": -1}, "batch_size is -1; allowed: "),
        ({"seed": -1}, "seed is -1; allowed: "),
        ({"chosen_by": "loss"}, "chosen_by is 'loss'; allowed: "),
        ({"defense_options": {"magic": 1}}, "magic"),
        ({"network": "resnet18", "network_options": {"depth": 3}}, "depth"),
    ],
)
def test_a_bad_recipe_is_refused_before_any_work(change, words, tmp_path):
    with pytest.raises(ValueError, match=words) as raised:
        run(dataclasses.replace(RECIPE, **change), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out is .*, which cannot be written"):
        run(RECIPE, tmp_path / "file" / "out")


def test_robust_validation_keeps_the_best(tmp_path):
    """Prescribed accuracies: the first network of the highest is kept, of the epoch that the card names."""
    accuracies, history = [0.2, 0.6, 0.6, 0.4], []
    inputs = keras.Input((2, 2, 1))
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    model = tf_nuat.Standard(network, epsilon=0.1)
    images, labels = np.zeros((100, 2, 2, 1), np.float32), np.zeros(100, int)
    callback = callbacks.RobustValidation(images, labels, None, path=tmp_path / "network.keras")
    callback.set_model(model)
    for epoch, accuracy in enumerate(accuracies):
        hits = round(100 * accuracy)
        network.set_weights([np.zeros((4, 2)), np.array([0.0, epoch])])
        callback.data = (images, np.array([1] * hits + [0] * (100 - hits)) if epoch else np.array([0] * 20 + [1] * 80))
        logs = {}
        callback.on_epoch_end(epoch, logs)
        assert logs["val_robust_accuracy"] == pytest.approx(accuracy)
        history.append(logs)
    kept = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    np.testing.assert_array_equal(kept.get_weights()[1], [0.0, 1.0])
    assert callback.best == pytest.approx(0.6)
    assert epochs.best_epoch(history, RECIPE) == 2
