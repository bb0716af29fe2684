"""Small networks on the digits, trained in a second or two: honest, robust and masked ones."""

import functools

import keras
import numpy as np
import tensorflow as tf

from tf_nuat import attacks, data, defenses

EPOCH = 34  # batches of 32 training images: a call of TensorFlow for each epoch takes less time than one for each batch


@functools.cache
def digits():
    """Returns the digits."""
    return data.load("digits")


def sample(size):
    """Returns (images, labels) of the test split, each class in proportion."""
    images, labels = digits().arrays("test")
    chosen = data.stratified(labels, size, seed=0)
    return images[chosen], labels[chosen]


def dense(seed, hidden=64):
    """Returns a network of one hidden layer of so many units, or a linear one for 0, not trained."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(hidden, activation="relu")] if hidden else []
    layers = [keras.layers.Flatten(), *layers, keras.layers.Dense(10)]
    inputs = keras.Input(digits().input_shape)
    x = inputs
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


@functools.cache
def undefended(seed=0):
    """Returns a network trained on the clean images."""
    network = dense(seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss, steps_per_execution=EPOCH)
    network.fit(*digits().arrays("train"), epochs=20, batch_size=32, verbose=0)
    return network


@functools.cache
def robust(epsilon, seed=0):
    """Returns a network trained with PGD."""
    network = dense(seed)
    trainer = defenses.PGDAT(network, epsilon=epsilon, steps=7, seed=seed)
    trainer.compile(keras.optimizers.Adam(3e-3))
    images, labels = digits().arrays("train")
    trainer.fit(images, labels, epochs=15, batch_size=64, verbose=0)
    return network


def perturbed(network, perturb=None, *, epochs, learning_rate=3e-3, batch_size=32):
    """Returns the network after training without a defense's code, on `perturb(network, x, y)` or on clean images."""
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build(network.trainable_variables)

    @tf.function(autograph=False)
    def step(x, y):
        x = x if perturb is None else perturb(network, x, y)
        with tf.GradientTape() as tape:
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, network(x, training=True))
        optimizer.apply_gradients(zip(tape.gradient(loss, network.trainable_variables), network.trainable_variables))

    images, labels = digits().arrays("train")
    generator = np.random.default_rng(0)
    for _ in range(epochs):
        order = generator.permutation(len(images))
        for rows in np.split(order, range(batch_size, len(order), batch_size))[:-1]:
            step(tf.constant(images[rows]), tf.constant(labels[rows]))
    return network


def ascent(epsilon, steps, step_size=None):
    """Returns the perturbation of `perturbed` that is I-FGSM."""
    return lambda network, x, y: attacks.ifgsm(network, x, y, epsilon=epsilon, steps=steps, step_size=step_size)


def after(network, function):
    """Returns the network with a function of its logits behind it."""
    return keras.Model(network.input, function(network.output))


def saturated(network):
    """Returns the network with logits so large that the softmax has no gradient in float32."""
    return after(network, keras.layers.Rescaling(1e4))


def rounded(network):
    """Returns the network with logits that are rounded, which has no gradient."""
    return after(network, lambda logits: keras.ops.round(logits * 1e4))


def before(network, function):
    """Returns the network with a function of the images in front of it."""
    inputs = keras.Input(network.input_shape[1:])
    return keras.Model(inputs, network(function(inputs)))


def quantised(network, levels=16):
    """Returns the network on images of `levels` + 1 grey values, a rounding without gradient."""
    return before(network, lambda images: keras.ops.round(images * levels) / levels)


class Remainder(keras.layers.Layer):
    """Returns the pixels themselves, by an operation for which TensorFlow has no gradient."""

    def call(self, x):
        return tf.raw_ops.Mod(x=x, y=tf.constant(2.0))
