"""What an attack looks at: a network that remembers, and the closed form of what it should find on a linear one."""

import numpy as np
import tensorflow as tf


class Recorded:
    """A network that keeps the batches it was given, in their order, and counts those that a gradient came back for.

    A search forwards an image that is done again and again, as it was: the batches are those of all images.
    """

    def __init__(self, network):
        self.network, self.seen, self.returned = network, [], 0

    def __call__(self, x):
        def keep(x):
            self.seen.append(x.copy())

        def count():
            self.returned += 1

        def backward(upstream):
            # Stateful, so that TensorFlow neither drops nor merges what it counts.
            with tf.control_dependencies([tf.numpy_function(count, [], [], stateful=True)]):
                return tf.identity(upstream)

        shape = x.shape
        with tf.control_dependencies([tf.numpy_function(keep, [x], [], stateful=True)]):
            x = tf.ensure_shape(tf.identity(x), shape)
        return self.network(tf.custom_gradient(lambda v: (tf.identity(v), backward))(x))

    def on_the_way(self, x):
        """Returns the batches without one forward of the clean images x, which may run beside the first step's."""
        clean = next(place for place, batch in enumerate(self.seen[:2]) if np.array_equal(batch, x))
        return self.seen[:clean] + self.seen[clean + 1 :]


def reluctant(logits_fn, y, confidence=30.0):
    """Returns `logits_fn` with so large a logit of y that no image fools it, and no search stops early.

    On a linear network of two classes, the gradient keeps its direction.
    """
    return lambda x: logits_fn(x) + confidence * tf.one_hot(y, 2)


def minimal_distance(slope, rise, x, norm):
    """Returns the length of the smallest change of an image that raises a linear function by `rise`, in float64.

    Args:
        slope: (H, W, C), the gradient of the function.
        rise: a number above 0.
        x: the image (H, W, C), which stays within [0, 1].
        norm: "linf" or "l2"; for the latter x must be so far from 0 and 1 that they are not in the way.
    """
    slope, x = slope.astype(np.float64), x.astype(np.float64)
    if norm == "l2":
        change = rise * slope / np.sum(slope**2)
        assert np.all(x + change > 0.0) and np.all(x + change < 1.0)
        return np.linalg.norm(change)
    room = np.where(slope > 0, 1.0 - x, x)
    low, high = 0.0, 1.0
    assert np.sum(np.abs(slope) * room) > rise
    for _ in range(60):
        middle = (low + high) / 2
        risen = np.sum(np.abs(slope) * np.minimum(room, middle))
        low, high = (middle, high) if risen < rise else (low, middle)
    return high
