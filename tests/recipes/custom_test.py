"""`recipes.custom`: any network, any images, any defense, by one command."""

import dataclasses
import json
import sys

import keras
import numpy as np
import pytest

import sanity.run
from recipes import custom
from tests.helpers.pictures import save_folder
from tf_nuat import command_line, data, defenses, evaluate, training
from tf_nuat.core import validation
from tf_nuat.training import AttackSpec

MODULE = """
import keras
import numpy as np
import tensorflow as tf


def build(input_shape, num_classes, *, units=16):
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(units, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(hidden))


def softmax(input_shape, num_classes):
    network = build(input_shape, num_classes)
    return keras.Model(network.inputs, keras.layers.Softmax()(network.outputs[0]))


def without_arguments():
    return build((8, 8, 3), 2)


def of_bytes(input_shape, num_classes, *, before=1.0):
    layers = [keras.layers.Rescaling(before), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    return keras.Sequential([keras.Input(input_shape), *layers, keras.layers.Dense(num_classes)])


def splits():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
    return {"train": tf.data.Dataset.from_tensor_slices((pixels, np.arange(60) % 3))}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Makes the module `my_module` importable; returns a folder of dark and light images with noise."""
    (tmp_path / "my_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)  # that of another file
    generator = np.random.default_rng(0)
    levels = {"dark": 0, "light": 150}
    return save_folder(
        tmp_path / "images",
        {name: list(generator.integers(low, low + 100, (40, 8, 8, 3), np.uint8)) for name, low in levels.items()},
    )


def call(monkeypatch, *arguments):
    """Returns the exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["recipes.custom", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        command_line.main(custom.main)
    return stopped.value.code


def flags(images, **given):
    given = {"data": images, "network": "my_module:build", "epsilon": 0.03, **given}
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def test_a_network_of_ones_own_learns_a_folder_of_ones_own_and_is_judged(own, monkeypatch, tmp_path, capsys, caplog):
    out = tmp_path / "run"
    options = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05, "network_options": "units=8", "corrupt": "skip"}
    (own / "dark" / "9999.png").write_bytes(b"no image")
    assert call(monkeypatch, *flags(own, out=out, **options)) == 0
    printed = capsys.readouterr().out
    assert "pgd_40" in printed and str(out / "network.keras") in printed
    assert "no masking alarm: 8 validation images are too few" in caplog.text
    card = json.loads((out / "card.json").read_text())
    assert card["recipe"]["network"] == "my_module:build" and card["recipe"]["dataset"] == str(own)
    assert card["recipe"]["masking_alarm"] == "warn" and card["recipe"]["chosen_by"] == "val_robust_accuracy"
    # Half of the range of a pixel lies between the classes: whoever has learned anything tells them apart.
    assert card["measured"]["clean"]["accuracy"] == card["measured"]["pgd_40"]["accuracy"] == 1.0
    network = keras.saving.load_model(out / "network.keras")
    assert network.layers[2].units == 8
    images, labels, _ = data.sample(own, input_shape=(8, 8, 3), corrupt="skip")
    assert evaluate.accuracy(network, (images, labels)) == 1.0
    assert f"Next: python -m sanity.run --checkpoint {out}/network.keras --dataset {own}\n" in printed
    judged = ["--samples=4", "--checks=network_is_deterministic", f"--out={tmp_path / 'judged'}", f"--dataset={own}"]
    assert sanity.run.main([f"--checkpoint={out / 'network.keras'}", *judged]) == 3  # four images decide nothing


def test_a_saved_network_is_trained_further_on_a_function_of_ones_own(own, monkeypatch, tmp_path):
    import my_module

    keras.utils.set_random_seed(3)
    saved = my_module.build((8, 8, 1), 3)
    keras.Model(saved.inputs, keras.layers.Softmax()(saved.outputs[0])).save(tmp_path / "saved.keras")
    out = tmp_path / "run"
    few = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-6, "defense": "pgd_at", "norm": "l2", "epsilon": 2.0}
    given = flags("my_module:splits", out=out, **{**few, "network": tmp_path / "saved.keras"})
    assert call(monkeypatch, *given) == 0
    for ours, theirs in zip(keras.saving.load_model(out / "network.keras").get_weights(), saved.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)  # the learning rate is next to nothing
    card = json.loads((out / "card.json").read_text())
    assert card["recipe"]["dataset"] == "my_module:splits" and card["recipe"]["norm"] == "l2"
    assert card["measured"]["pgd_40"]["images"] == 6
    assert card["adapted"] == ["its last softmax was taken off: it returns logits"]


@pytest.mark.parametrize("defense", defenses.DEFENSES)
def test_every_defense_builds_without_further_options(defense, own):
    values = custom.flag_values()
    sources = "lenet_plus" if defense == "eat" else None
    values(["", *flags(own, defense=defense, batch_size=8, sources=sources, epochs=5)])
    recipe = custom.recipe_of(values)
    splits = data.load(own, batch_size=8)
    source = validation.classifier("source", training.build(small(recipe), splits).network)
    model = training.build(recipe, splits, sources=[source] if sources else ())
    assert type(model) is defenses.DEFENSES[defense] and model.epsilon == 0.03
    rates = [float(model.optimizer.learning_rate) for step in (0, splits.steps_per_epoch) if at(model, step)]
    assert rates == pytest.approx([0.0, 0.01])  # five epochs in place of ten: the peak comes after one


def small(recipe):
    return dataclasses.replace(recipe, defense="standard", defense_options={}, sources=())


def at(model, step):
    model.optimizer.iterations.assign(step)
    return True


@pytest.mark.parametrize("before, is_warned", [(1.0, True), (255.0, False)])
def test_a_network_that_divides_its_pixels_by_255_is_named(before, is_warned, own, tmp_path, caplog):
    values = custom.flag_values()
    values(["", *flags(own, network="my_module:of_bytes", network_options=f"before={before}", batch_size=8)])
    training.check(custom.recipe_of(values), tmp_path / "run")
    assert caplog.text.count("begins by scaling its pixels by 0.0039, as for pixels in 0..255") == is_warned


def test_flags_of_the_data_reach_the_recipe(own):
    values = custom.flag_values()
    values(["", *flags(own, input_shape="6,7,3", augmentation="resized_crop", corrupt="skip", batch_size=4)])
    recipe = custom.recipe_of(values)
    assert recipe.data_options == {"input_shape": (6, 7, 3), "augmentation": "resized_crop", "corrupt": "skip"}
    assert recipe.batch_size == 4 and recipe.measures == {"pgd_40": AttackSpec("pgd", steps=40)}


def test_names_of_the_classes_come_from_a_file(own, tmp_path):
    (tmp_path / "names.txt").write_text("light\ndark\n")
    values = custom.flag_values()
    values(["", *flags(own, class_names=tmp_path / "names.txt")])
    recipe = custom.recipe_of(values)
    assert recipe.data_options == {"class_names": ("light", "dark")}


def test_help_teaches(monkeypatch, capsys):
    assert call(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    assert "MobileNetV2" in printed and "--input_shape" in printed and "my_module:build" in printed


@pytest.mark.parametrize(
    "given, words",
    [
        ({"data": None}, "data is not given; allowed: "),
        ({"network": None}, "network is not given; allowed: "),
        ({"epsilon": None}, "epsilon is not given; allowed: "),
        ({"epsilon": 0}, "epsilon is 0.0; allowed: "),
        ({"data": "nowhere/"}, "data is 'nowhere/'; allowed: "),
        ({"data": "my_module:nothing"}, "data is 'my_module:nothing'; allowed: a function"),
        ({"network": "my_module:nothing"}, "network is 'my_module:nothing'; allowed: a function"),
        ({"network": "my_module:softmax"}, "network my_module:softmax ends in softmax; allowed: logits"),
        ({"network_options": "depth=1"}, "options of build are {'depth': 1}"),
        ({"network": "my_module:without_arguments"}, "; allowed: a function (input_shape, num_classes); this one got "),
        ({"network": "application"}, "options of application are {}"),
        ({"defense": "magic"}, "defense is 'magic'; allowed: awp"),
        ({"defense": "eat"}, "sources is () for eat; allowed: "),
        ({"norm": "l3"}, "norm is 'l3'; allowed: l1, l2, linf"),
        ({"input_shape": "a,b,c"}, "input_shape is 'a,b,c'; allowed: height,width,channels"),
        ({"input_shape": "8,8"}, "input_shape is (8, 8); allowed: "),
        ({"augmentation": "mixup"}, "augmentation is 'mixup'; allowed: "),
        ({"corrupt": "ignore"}, "corrupt is 'ignore'; allowed: "),
        ({"masking_alarm": "stop"}, "masking_alarm is 'stop', with 8 validation images; allowed: "),
        ({"batch_size": 1000}, "batch_size is 1000; allowed: "),
        ({"out": None}, "out is not given; allowed: "),
    ],
)
def test_bad_flags_get_one_line_and_leave_nothing(given, words, own, monkeypatch, tmp_path, capsys):
    given = {"out": tmp_path / "run", "batch_size": 8, **given}
    assert call(monkeypatch, *flags(own, **given)) == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1, printed
    assert not (tmp_path / "run").exists()
