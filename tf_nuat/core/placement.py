"""What a GPU's host computes itself: numbers that it has to know before it can go on.

Which branch is taken, and whether an assertion holds, the host decides. Where a GPU has computed that, the host waits
for all work before it. On a machine without a GPU nothing changes.
"""

import contextlib

import tensorflow as tf


def on_host() -> contextlib.AbstractContextManager[None]:
    """Returns a context whose operations the processor computes."""
    return tf.device("CPU:0")


def is_zero(weight: float | tf.Tensor) -> tf.Tensor:
    """Returns whether a weight, a scalar, is 0: what a branch may depend on."""
    with on_host():
        return tf.equal(weight, 0.0)
