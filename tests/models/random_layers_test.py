"""Augmentation that a network begins with is drawn once a step, before the attack, and dropout is told of."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

import tf_nuat
from tests.helpers import linear
from tf_nuat.models import random_layers

L = keras.layers
X, Y = linear.batch(16)


def network(*first, functional=False, nested=False, then=()):
    """Returns the linear network behind the layers `first`; with the pixels as they are, its answers are the same."""
    keras.utils.set_random_seed(1)
    if nested:
        first = [keras.Sequential([keras.Input(linear.SHAPE), *first])]
    rest = [L.Flatten(), *then, L.Dense(3)]
    if not functional:
        return keras.Sequential([keras.Input(linear.SHAPE), *first, *rest])
    inputs = x = keras.Input(linear.SHAPE)
    for layer in [*first, *rest]:
        x = layer(x)
    return keras.Model(inputs, x)


def compiled(defense, *first, **options):
    made = {name: options.pop(name) for name in ("functional", "nested", "then") if name in options}
    model = defense(network(*first, **made), epsilon=0.1, **options)
    model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    return model


def flips():
    return [L.RandomFlip(seed=1), L.RandomTranslation(0.3, 0.3, seed=2)]


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_augmentation_is_what_the_network_begins_with(functional, nested):
    def found(*first, **options):
        made = network(*first, functional=functional, nested=nested, **options)
        return [[layer.name for layer in kind(made)] for kind in (random_layers.augmentation, random_layers.within)]

    flip, turn, dropout = L.RandomFlip(name="flip"), L.RandomRotation(0.1, name="turn"), L.Dropout(0.5, name="drop")
    assert found(flip, turn, then=[dropout]) == [["flip", "turn"], ["drop"]]
    assert found(L.Rescaling(2.0), L.RandomFlip(name="late")) == [[], ["late"]]
    assert found(L.Dropout(0.5, name="first")) == [[], ["first"]]
    assert found(L.RandomCrop(3, 3, name="crop")) == [[], ["crop"]]
    assert found(L.Rescaling(2.0), then=[L.Dropout(0.0)]) == [[], []]


def test_what_goes_two_ways_is_no_augmentation():
    inputs = keras.Input(linear.SHAPE)
    both = L.Concatenate()([inputs, L.RandomFlip(name="flip")(inputs)])
    made = keras.Model(inputs, L.Dense(3)(L.Flatten()(both)))
    assert random_layers.augmentation(made) == []
    assert [layer.name for layer in random_layers.within(made)] == ["flip"]


@pytest.mark.parametrize("name", ["nuat", "trades", "gat"])
def test_a_pair_of_images_has_one_augmentation(name):
    """With epsilon near 0 the two are one image, and the loss is the cross-entropy alone."""
    defense = tf_nuat.DEFENSES[name]
    weight = {"nuat": "nuclear_weight", "trades": "beta", "gat": "guidance_weight"}[name]
    plain, weighed = (compiled(defense, *flips(), **{weight: value}) for value in (0.0, 10.0))
    for model in plain, weighed:
        model.epsilon, model.alpha, model.step_size = 1e-7, 0.0, 1e-7
    x, y = tf.constant(X), tf.constant(Y)
    direct = [float(model.objective(x, x, y)[0]) for model in (plain, weighed)]
    assert direct[0] == pytest.approx(direct[1], abs=1e-4)
    logs = [float(model.train_step((x, y))["loss"]) for model in (plain, weighed)]
    assert logs[0] == pytest.approx(logs[1], abs=1e-3)
    assert logs[0] != pytest.approx(direct[0], abs=1e-3)  # of augmented images


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("eagerly", [False, True])
def test_a_step_attacks_augmented_images_anew_each_time(ema_decay, eagerly):
    seen = []

    class Watched(tf_nuat.PGDAT):
        def objective(self, x, x_adv, y):
            tf.py_function(lambda *images: seen.append([each.numpy() for each in images]), [x, x_adv], [])
            return super().objective(x, x_adv, y)

    model = compiled(Watched, *flips(), L.GaussianNoise(0.5), ema_decay=ema_decay)
    model.run_eagerly = eagerly
    model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for x, x_adv in seen:
        assert x.min() >= 0.0 and x.max() <= 1.0 and np.max(np.abs(x - X)) > 0.1
        assert 0.05 < np.max(np.abs(x_adv - x)) < 0.1 + 1e-6
    assert np.max(np.abs(seen[0][0] - seen[1][0])) > 0.1


def test_inference_is_as_it_is_and_training_the_network_by_itself_augments():
    model = compiled(tf_nuat.PGDAT, *flips())
    plain = compiled(tf_nuat.PGDAT)
    plain.network.set_weights(model.network.get_weights())
    np.testing.assert_allclose(model.predict(X, verbose=0), plain.network(X), atol=1e-6)
    x, y = tf.constant(X), tf.constant(Y)
    np.testing.assert_allclose(model.perturb(x, y), plain.perturb(x, y), atol=1e-6)
    assert np.max(np.abs(model.network(X, training=True) - plain.network(X))) > 1e-2


def test_replays_of_free_at_have_one_augmentation():
    seen = []

    class Watched(tf_nuat.FreeAT):
        def objective(self, x, x_adv, y):
            tf.py_function(lambda images: seen.append(images.numpy()), [x], [])
            return super().objective(x, x_adv, y)

    model = compiled(Watched, *flips(), replays=3, batch_size=16)
    model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert len(seen) == 6
    for first in 0, 3:
        np.testing.assert_array_equal(seen[first], seen[first + 1])
        np.testing.assert_array_equal(seen[first], seen[first + 2])
    assert np.max(np.abs(seen[0] - seen[3])) > 0.1


def test_replays_of_free_at_have_one_augmentation_where_gradients_overflow():
    """The optimizer skips the first and the fifth replay, and does not count them."""
    seen = []

    class Watched(tf_nuat.FreeAT):
        def objective(self, x, x_adv, y):
            seen.append(x.numpy())
            loss, logits = super().objective(x, x_adv, y)
            return loss * (np.inf if len(seen) in (1, 5) else 1.0), logits

    model = compiled(Watched, *flips(), replays=3, batch_size=16)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), run_eagerly=True)
    for _ in range(9):
        model.train_step((tf.constant(X), tf.constant(Y)))
    assert model.count_batches() == 7
    for first in 0, 3, 6:
        np.testing.assert_array_equal(seen[first], seen[first + 1])
        np.testing.assert_array_equal(seen[first], seen[first + 2])
    assert np.max(np.abs(seen[0] - seen[3])) > 0.1 and np.max(np.abs(seen[3] - seen[6])) > 0.1


@pytest.mark.parametrize("name", ["nuat", "free_at"])
def test_several_devices_augment_too(name, two_devices):
    options = {"batch_size": 16} if name == "free_at" else {}
    with two_devices.scope():
        model = compiled(tf_nuat.DEFENSES[name], *flips(), **options)
    assert np.isfinite(model.fit(X, Y, batch_size=16, verbose=0).history["loss"][0])


def test_dropout_between_forwards_that_are_compared_is_told_of(monkeypatch):
    told = []
    monkeypatch.setattr(logging, "warning", lambda text, *words: told.append(text % words))
    compiled(tf_nuat.PGDAT, then=[L.Dropout(0.5)])
    compiled(tf_nuat.NuAT, *flips())
    assert told == []
    model = compiled(tf_nuat.NuAT, then=[L.Dropout(0.5, name="drop")])
    model.train_step((tf.constant(X), tf.constant(Y)))
    assert len(told) == 1 and "NuAT compares several forwards in training, and drop of the network" in told[0]


def test_a_defense_with_augmentation_is_saved_and_goes_on(tmp_path):
    model = compiled(tf_nuat.NuATWA, *flips())
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "defense.keras")
    other = keras.saving.load_model(tmp_path / "defense.keras")
    for each in model, other:
        each.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    for weight, expected in zip(other.trained_network.get_weights(), model.trained_network.get_weights()):
        np.testing.assert_array_equal(weight, expected)
