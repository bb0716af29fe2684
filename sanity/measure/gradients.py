"""The gradients of the loss with respect to images; non-finite ones are reported, while attacks take them for zero."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_nuat import losses
from tf_nuat.models.inference import compiled_for, graph_of

MOST_WITHOUT = 0.01  # of the images may be without a gradient: some are classified with a probability that rounds to 1


@dataclasses.dataclass(frozen=True)
class Gradients:
    """The gradients at some images.

    Attributes:
        squared_norm: squares of their L2 norms, per unit of pixels in [0, 1], float64 (N,); 0 where not finite.
        zero: whether every entry is exactly 0, bool (N,).
        finite: whether every entry is a finite number, bool (N,).
    """

    squared_norm: np.ndarray
    zero: np.ndarray
    finite: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """Which images an attack cannot move along their gradient, bool (N,)."""
        return self.zero | ~self.finite


def at(network: Callable, images: np.ndarray, labels: np.ndarray, *, batch_size: int) -> Gradients:
    """Returns the `Gradients` of the cross-entropy of a network in inference mode, in its own precision.

    Args:
        network: a `keras.Model`, or any function of images that returns logits.
        images: (N, H, W, C), float32 in [0, 1].
        labels: integers (N,).
        batch_size: images at a time, which bounds the memory.
    """
    parts = []
    size = min(batch_size, len(images))
    for first in range(0, len(images), size):
        rows = np.resize(np.arange(first, min(first + size, len(images))), size)  # one shape, one compilation
        measured = compiled_for(network, _at_batch)(tf.constant(images[rows]), tf.constant(labels[rows]))
        parts.append([part.numpy()[: len(images) - first] for part in measured])
    return Gradients(*(np.concatenate(part) for part in zip(*parts)))


def _at_batch(network, x, y):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        loss = losses.cross_entropy(graph_of(network)(x), y)
    gradient = tape.gradient(loss, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    finite = tf.reduce_all(tf.math.is_finite(gradient), axis=(1, 2, 3))
    zero = tf.reduce_all(tf.equal(gradient, 0.0), axis=(1, 2, 3))
    squares = tf.square(tf.cast(gradient, tf.float64))  # those of small gradients would underflow in float32
    return tf.where(finite, tf.reduce_sum(squares, axis=(1, 2, 3)), 0.0), zero, finite
