"""Compiles functions of images and runs them batch by batch, so that memory use is that of one batch."""

import typing
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf


def compiled(function: Callable, *signature: tf.TensorSpec) -> typing.Any:
    """Returns the graph of a function, without TensorFlow's warnings about repeated tracing.

    The graph keeps alive what the function uses: a network, for instance.
    """
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()


def specs(images: np.ndarray) -> tuple[tf.TensorSpec, tf.TensorSpec, tf.TensorSpec]:
    """Returns the signature of a function that takes what `batches` yields."""
    x = tf.TensorSpec((None, *images.shape[1:]), tf.float32)
    return x, tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None,), tf.int32)


def batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int
) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Yields (images, labels, numbers of the images), tensors of `batch_size` rows; the last batch may be smaller."""
    for first in range(0, len(images), batch_size):
        rows = np.arange(first, min(first + batch_size, len(images)))
        yield tf.constant(images[rows], tf.float32), tf.constant(labels[rows], tf.int64), tf.constant(rows, tf.int32)


def of_all(
    function: Callable, images: np.ndarray, labels: np.ndarray, *, first: int = 0, batch_size: int
) -> list[np.ndarray]:
    """Returns the results of a function, compiled, for all images: a list of arrays (N, ...).

    Args:
        function: takes a batch as `batches` yields it, and returns a sequence of tensors (B, ...).
        images: (N, H, W, C), float32.
        labels: integers (N,).
        first: number of the first image.
        batch_size: images at a time.
    """
    graph = compiled(function, *specs(images))
    parts = [
        [part.numpy() for part in graph(x, y, index + first)] for x, y, index in batches(images, labels, batch_size)
    ]
    return [np.concatenate(part) for part in zip(*parts)]
