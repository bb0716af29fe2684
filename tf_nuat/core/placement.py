"""Computes on the CPU the numbers that the host of a GPU has to know before it can go on.

The host decides which branch to take, and whether an assertion holds. If a GPU computes these numbers, the host waits
for all work before them. On a machine without a GPU nothing changes.
"""

import contextlib

import tensorflow as tf


def on_host() -> contextlib.AbstractContextManager[None]:
    """Returns a context whose operations run on the CPU."""
    return tf.device("CPU:0")


def is_zero(weight: float | tf.Tensor) -> tf.Tensor:
    """Returns whether a weight, a scalar, is 0, as a tensor on the host, for the condition of a branch."""
    with on_host():
        return tf.equal(weight, 0.0)
