"""Small networks on the digits, trained in a second or two: honest, robust and masked ones."""

import functools

import keras

from tf_nuat import data, defenses


@functools.cache
def _digits():
    return data.load("digits")


def sample(size):
    """Returns (images, labels) of the test split, each class in proportion."""
    images, labels = _digits().arrays("test")
    chosen = data.stratified(labels, size, seed=0)
    return images[chosen], labels[chosen]


def _untrained(seed):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Flatten(), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    inputs = keras.Input(_digits().input_shape)
    x = inputs
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


@functools.cache
def undefended(seed=0):
    """Returns a network trained on the clean images."""
    network = _untrained(seed)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(*_digits().arrays("train"), epochs=20, batch_size=32, verbose=0)
    return network


@functools.cache
def robust(epsilon, seed=0):
    """Returns a network trained with PGD."""
    network = _untrained(seed)
    trainer = defenses.PGDAT(network, epsilon=epsilon, steps=7, seed=seed)
    trainer.compile(keras.optimizers.Adam(3e-3))
    trainer.fit(*_digits().arrays("train"), epochs=15, batch_size=64, verbose=0)
    return network


def _after(network, function):
    return keras.Model(network.input, function(network.output))


def saturated(network):
    """Returns the network with logits so large that the softmax has no gradient in float32."""
    return _after(network, keras.layers.Rescaling(1e4))


def rounded(network):
    """Returns the network with logits that are rounded, which has no gradient."""
    return _after(network, lambda logits: keras.ops.round(logits * 1e4))


def quantised(network):
    """Returns the network on images of 17 grey values, a rounding without gradient."""
    inputs = keras.Input(network.input_shape[1:])
    return keras.Model(inputs, network(keras.ops.round(inputs * 16) / 16))
