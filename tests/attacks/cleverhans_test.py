"""FGM, PGD and MIM of CleverHans, an implementation of others, against ours, on a network of scikit-learn's digits."""

import functools

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

from tf_nuat import attacks

METHODS = ("fast_gradient_method", "projected_gradient_descent", "momentum_iterative_method")
theirs = {name: getattr(pytest.importorskip(f"cleverhans.tf2.attacks.{name}"), name) for name in METHODS}

EPSILON = 0.1
BOX = {"clip_min": 0.0, "clip_max": 1.0}


@pytest.fixture(scope="module")
def trained():
    """The network, functions of images for CleverHans, and test images with their labels."""
    keras.utils.set_random_seed(0)
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(10)]
    network = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss)
    network.fit(x[400:], y[400:], batch_size=64, epochs=8, verbose=0)
    assert accuracy(network, x[:400], y[:400]) > 0.9
    return network, functools.partial(network, training=False), x[:400], y[:400]


def accuracy(network, x, y):
    return float(np.mean(network(x).numpy().argmax(axis=1) == y))


def assert_same_but_for_rounding(ours, others):
    """A gradient that is nearly zero may have either sign: some pixels of few images."""
    differ = np.abs(ours - others).max(axis=(1, 2, 3)) > 1e-5
    assert np.mean(differ) < 0.02


def test_fgm_is_the_same(trained):
    network, logits_fn, x, y = trained
    others = theirs["fast_gradient_method"](logits_fn, tf.constant(x), EPSILON, np.inf, y=tf.constant(y), **BOX)
    ours = attacks.fgsm(network, x, y, epsilon=EPSILON)
    assert_same_but_for_rounding(ours, others)
    assert abs(accuracy(network, ours, y) - accuracy(network, others, y)) < 0.005
    assert accuracy(network, ours, y) < 0.65


@pytest.mark.parametrize("steps, step_size", [(1, 0.1), (7, 0.03)])
def test_pgd_from_the_clean_image_is_ifgsm(steps, step_size, trained):
    network, logits_fn, x, y = trained
    others = theirs["projected_gradient_descent"](
        logits_fn, tf.constant(x), EPSILON, step_size, steps, np.inf, y=tf.constant(y), **BOX
    )
    ours = attacks.ifgsm(network, x, y, epsilon=EPSILON, steps=steps, step_size=step_size)
    assert_same_but_for_rounding(ours, others)


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.1), ("l2", 0.6)])
def test_pgd_from_random_starts_leaves_the_same_accuracy(norm, epsilon, trained):
    network, logits_fn, x, y = trained
    order = np.inf if norm == "linf" else 2
    settings = {"rand_init": True, "y": tf.constant(y), **BOX}
    tf.random.set_seed(0)
    others = theirs["projected_gradient_descent"](
        logits_fn, tf.constant(x), epsilon, epsilon / 8, 20, order, **settings
    )
    ours = attacks.pgd(network, x, y, epsilon=epsilon, step_size=epsilon / 8, steps=20, norm=norm)
    left, left_by_others = accuracy(network, ours, y), accuracy(network, others, y)
    # What an ascent has met on its way counts here: never less than its last point.
    assert -0.03 <= left - left_by_others <= 0.01
    assert 0.1 < left < 0.7


@pytest.mark.parametrize("steps, step_size, decay", [(10, 0.01, 1.0), (8, 0.03, 0.5)])
def test_mim_is_mifgsm(steps, step_size, decay, trained):
    network, logits_fn, x, y = trained
    settings = {"y": tf.constant(y), "decay_factor": decay, **BOX}
    others = theirs["momentum_iterative_method"](logits_fn, tf.constant(x), EPSILON, step_size, steps, **settings)
    ours = attacks.mifgsm(network, x, y, epsilon=EPSILON, steps=steps, step_size=step_size, decay=decay)
    assert_same_but_for_rounding(ours, others)
    assert abs(accuracy(network, ours, y) - accuracy(network, others, y)) < 0.005
    assert accuracy(network, ours, y) < 0.65
