"""Paths in weight space between two networks of one architecture, and the loss along them.

Source: Garipov et al., "Loss surfaces, mode connectivity, and fast ensembling of DNNs", 2018; Xing et al., "Phase
transition from clean training to adversarial training", 2022, section 4 and figure 4.
"""

import keras
import numpy as np
import tensorflow as tf

from sanity.measure import losses as measured_losses
from sanity.measure.batches import batches, compiled
from tf_nuat import losses

BATCH = 64
LEARNING_RATE, MOMENTUM = 0.05, 0.9  # as published for networks without BatchNormalization


def architecture(network):
    """Returns what two networks must share to be joined: types, activations and shapes of their layers."""
    return [
        (type(layer).__name__, getattr(getattr(layer, "activation", None), "__name__", None))
        + tuple(tuple(weight.shape) for weight in layer.weights)
        for layer in network.layers
    ]


def has_statistics(network):
    """Returns whether a network has non-trainable weights, which have no meaning between two networks."""
    return bool(network.non_trainable_weights)


def weights_of(network):
    """Returns the trained weights of a network, a list of arrays."""
    return [np.array(weight) for weight in network.trainable_variables]


def point(start, bend, end, part):
    """Returns the point of the quadratic Bezier curve at `part` in [0, 1], a list of weights like each of the three."""
    shares = (1.0 - part) ** 2, 2.0 * part * (1.0 - part), part**2
    return [sum(share * weight for share, weight in zip(shares, each)) for each in zip(start, bend, end)]


def straight(start, end, part):
    """Returns the point of the line from `start` to `end` at `part`, a list of weights."""
    return [(1.0 - part) * first + part * last for first, last in zip(start, end)]


def trained_bend(network, start, end, images, labels, *, epochs, seed=0):
    """Trains the bend of the Bezier curve from `start` to `end` for a small loss along it; returns a list of weights.

    The bend starts in the middle. For each batch, SGD lowers the cross-entropy at a random point of the curve.

    Args:
        network: the network that the weights belong to; it is not changed.
        start, end: weights, see `weights_of`.
        images, labels: training images (N, H, W, C) and their classes, integers (N,).
        epochs: number of epochs, at least 1.
        seed: whole number that determines the order of the images and the points.
    """
    bend = [keras.Variable(weight) for weight in straight(start, end, 0.5)]
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    optimizer.build(bend)
    frozen = [variable.value for variable in network.non_trainable_variables]
    first, last = ([tf.constant(weight) for weight in weights] for weights in (start, end))

    @tf.function(autograph=False, reduce_retracing=True)
    def step(x, y, part):
        values = [variable.value for variable in bend]
        with tf.GradientTape() as tape:
            logits, _ = network.stateless_call(point(first, values, last, part), frozen, x, training=False)
            loss = tf.reduce_mean(losses.cross_entropy(logits, y))
        optimizer.apply(tape.gradient(loss, values), bend)

    generator = np.random.default_rng(seed)
    size = min(BATCH, len(images))
    for _ in range(epochs):
        order = generator.permutation(len(images))
        for at in range(0, len(order) - size + 1, size):
            rows = order[at : at + size]
            part = tf.constant(generator.uniform(), tf.float32)
            step(tf.constant(images[rows]), tf.constant(labels[rows], tf.int64), part)
    return [np.array(variable) for variable in bend]


class Losses:
    """The mean cross-entropy, in nats, and the accuracy of a network with any weights, on some images.

    Args:
        network: it is not changed.
        images, labels: (N, H, W, C), integers (N,).
        batch_size: images at a time.
    """

    def __init__(self, network, images, labels, *, batch_size=250):
        frozen = [variable.value for variable in network.non_trainable_variables]
        specs = [tf.TensorSpec(weight.shape, weight.dtype) for weight in network.trainable_variables]

        def logits(weights, x):
            return network.stateless_call(weights, frozen, x, training=False)[0]

        self._logits = compiled(logits, specs, tf.TensorSpec((None, *images.shape[1:])))
        self._images, self._labels, self._batch_size = images, labels, batch_size

    def at(self, weights):
        """Returns (mean cross-entropy, accuracy) with these weights, as `weights_of` returns them."""
        weights = [tf.constant(weight, tf.float32) for weight in weights]
        parts = [self._logits(weights, x).numpy() for x, *_ in batches(self._images, self._labels, self._batch_size)]
        found = measured_losses.of_logits(np.concatenate(parts).astype(np.float64), self._labels)
        return float(min(np.mean(found.loss), measured_losses.MOST)), float(np.mean(found.correct))


class Plane:
    """The plane through three points of weight space, with coordinates that keep its distances.

    The first point is the origin, the second lies on the first axis, and the third above it.
    """

    def __init__(self, start, end, bend):
        self._shapes = [weight.shape for weight in start]
        self._origin = _flat(start)
        first, second = _flat(end) - self._origin, _flat(bend) - self._origin
        self._first = _unit(first)
        self._second = _unit(second - (second @ self._first) * self._first)

    def coordinates(self, weights):
        """Returns the coordinates (first, second) of the projection of `weights` onto the plane."""
        difference = _flat(weights) - self._origin
        return float(difference @ self._first), float(difference @ self._second)

    def weights(self, first, second):
        """Returns the weights of a point of the plane."""
        flat = self._origin + first * self._first + second * self._second
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        return [part.reshape(shape).astype(np.float32) for part, shape in zip(np.split(flat, ends), self._shapes)]


def _flat(weights):
    return np.concatenate([np.ravel(weight) for weight in weights]).astype(np.float64)


def _unit(vector):
    length = np.linalg.norm(vector)
    return vector / length if length > 0.0 else vector
