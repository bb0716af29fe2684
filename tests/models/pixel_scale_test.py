"""Networks that are made for pixels in 0..255 are named before they train on pixels in [0, 1]."""

import keras
import numpy as np
import pytest

import tf_nuat
from tf_nuat.models import pixel_scale

SHAPE = (4, 4, 3)
BYTES = np.random.default_rng(0).integers(0, 256, (50, *SHAPE)).astype(np.float32)


def normalization(images):
    layer = keras.layers.Normalization()
    layer.adapt(images)
    return layer


def network(*layers):
    inner = keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Flatten(), keras.layers.Dense(2)])
    image = keras.Input(SHAPE)
    return keras.Model(image, inner(image), name="mine")


OF_BYTES = {
    "Rescaling": lambda: [keras.layers.Rescaling(1 / 255)],
    "Rescaling to -1..1": lambda: [keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 127.5, -1.0)],
    "Rescaling of channels": lambda: [keras.layers.Rescaling([-0.01, -0.02, -0.01])],
    "Normalization": lambda: [normalization(BYTES)],
    "Normalization by numbers": lambda: [keras.layers.Normalization(mean=120.0, variance=3000.0)],
    "both": lambda: [keras.layers.Rescaling(1 / 255), normalization(BYTES / 255)],
}
OF_ONE = {
    "nothing": list,
    "Rescaling back": lambda: [keras.layers.Rescaling(255.0), keras.layers.Rescaling(1 / 255)],
    "Normalization": lambda: [normalization(BYTES / 255)],
    "Normalization behind": lambda: [keras.layers.Rescaling(255.0), normalization(BYTES)],
    "behind a convolution": lambda: [keras.layers.Conv2D(2, 1), keras.layers.Rescaling(1 / 255)],
}


@pytest.mark.parametrize("kind", OF_BYTES)
def test_a_network_of_bytes_is_named(kind, caplog):
    tf_nuat.FGSMAT(network(*OF_BYTES[kind]()), epsilon=0.1)
    assert "network mine begins by scaling its pixels by 0.0" in caplog.text
    assert "its pixels are in [0, 1]: leave that layer out, or train tf_nuat.networks.adapt(" in caplog.text


@pytest.mark.parametrize("kind", OF_ONE)
def test_other_networks_are_not(kind, caplog):
    tf_nuat.FGSMAT(network(*OF_ONE[kind]()), epsilon=0.1)
    assert "begins by scaling" not in caplog.text


def test_what_is_advised_helps():
    adapted = tf_nuat.networks.adapt(network(*OF_BYTES["Normalization"]()), pixels="0..255").network
    assert pixel_scale.of_first_layers(adapted) == pytest.approx(255 / BYTES.std(), rel=0.1)
