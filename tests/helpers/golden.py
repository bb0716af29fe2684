"""The golden vectors: one training step of each published algorithm, in float64, on a tiny network."""

import pathlib

import keras
import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
SHAPES = ("mnist", "cifar")
# The vectors' names of a layer's weights, in the order of Keras.
PARAMETERS = {
    "conv1": ("weight", "bias"),
    "bn1": ("weight", "bias", "running_mean", "running_var"),
    "conv2": ("weight", "bias"),
    "bn2": ("weight", "bias", "running_mean", "running_var"),
    "fc": ("weight", "bias"),
}
TRAINABLE = [f"{layer}.{kind}" for layer, kinds in PARAMETERS.items() for kind in kinds[:2]]


def load(shape, kind="step"):
    """Returns the vectors of `shape`, of the file "step" or "single_step", as a dict of arrays."""
    with np.load(FOLDER / f"{kind}_{shape}_shape.npz") as file:
        return dict(file)


def network(vectors, weights="network", activation="relu"):
    """Returns the tiny network with the weights `network` or `ema_network`; those of "single_step" have softplus."""
    inputs = keras.Input(vectors["x"].shape[1:])
    x = inputs
    for index, filters in (1, 8), (2, 16):
        x = keras.layers.Conv2D(filters, 3, padding="same", name=f"conv{index}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"bn{index}")(x)
        x = keras.layers.Activation(activation)(x)
        x = keras.layers.MaxPooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="fc")(keras.layers.Flatten()(x)))
    for layer, kinds in PARAMETERS.items():
        model.get_layer(layer).set_weights([vectors[f"{weights}/{layer}.{kind}"] for kind in kinds])
    return model


def value(model, name):
    """Returns the weight `name`, such as "bn1.running_mean", as an array."""
    layer, kind = name.split(".")
    return model.get_layer(layer).get_weights()[PARAMETERS[layer].index(kind)]


def assert_same_images(images, expected):
    """At least 99.5 % of the pixels agree: a sign flips where a gradient is nearly zero."""
    agreement = np.mean(np.abs(images - expected) < 1e-5)
    assert agreement >= 0.995, f"{agreement:.2%} of the pixels agree"


def assert_same_gradients(gradients, vectors, key):
    """The gradients, in the order of `TRAINABLE`, are those of `key`, within 1e-3 of the norm of each."""
    expected = [vectors[f"{key}/grad/{name}"] for name in TRAINABLE]
    scale = np.sqrt(sum(np.sum(gradient**2) for gradient in expected))
    for name, gradient, target in zip(TRAINABLE, gradients, expected):
        in_front_of_batch_norm = name in ("conv1.bias", "conv2.bias")  # the gradient is zero there
        allowed = 1e-3 * (scale if in_front_of_batch_norm else np.linalg.norm(target))
        assert np.linalg.norm(np.asarray(gradient) - target) <= allowed, name
