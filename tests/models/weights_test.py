"""Copies of networks of every kind of layer: they compute what the originals do."""

import keras
import numpy as np
import pytest

import tf_nuat
from tf_nuat.models import averaging, precision

IMAGES = np.random.default_rng(0).random((20, 4, 4, 3), np.float32)


@pytest.fixture
def network():
    """A network with a layer that was adapted to data, and one of them in a network within it."""

    def adapted(scale):
        layer = keras.layers.Normalization()
        layer.adapt(scale * IMAGES)
        return layer

    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((4, 4, 3)), adapted(0.5), keras.layers.Conv2D(4, 3, activation="relu")])
    inputs = keras.Input((4, 4, 3))
    return keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inner(adapted(3.0)(inputs)))))


def test_a_copy_computes_the_same(network):
    np.testing.assert_array_equal(averaging.copy_of(network)(IMAGES), network(IMAGES))


def test_a_twin_in_bfloat16_computes_nearly_the_same(network):
    twin, expected = precision.attacked(network, "bfloat16")(IMAGES), network(IMAGES)
    np.testing.assert_allclose(twin, expected, atol=0.05 * np.ptp(expected))


def test_the_network_that_is_trained_begins_as_the_one_that_is_averaged(network):
    model = tf_nuat.Standard(network, epsilon=0.1, ema_decay=0.9)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    labels = np.zeros(20, np.int64)
    network.layers[-1].bias.assign(np.arange(5.0))  # after the copy was made
    model.fit(IMAGES, labels, epochs=1, verbose=0)
    np.testing.assert_array_equal(model.trained_network(IMAGES), network(IMAGES))
