"""Random images, what a network says of them, and how long a change is."""

import numpy as np
import tensorflow as tf

from tf_nuat import losses

SHAPE = (4, 4, 2)


def images(size=16, low=0.0, high=1.0, *, shape=SHAPE, seed=0):
    """Returns images (size, *shape) with pixels between `low` and `high`."""
    return np.random.default_rng(seed).uniform(low, high, size=(size, *shape)).astype(np.float32)


def lengths(changes, norm="l2"):
    """Returns the lengths (B,) of the changes of a batch of images."""
    flat = np.reshape(changes, (len(changes), -1))
    return np.linalg.norm(flat, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)


def margins(logits_fn, x, y):
    """Returns by how much the highest wrong logit of each image exceeds the true one, (B,)."""
    return losses.margin(logits_fn(tf.constant(x, tf.float32)), tf.constant(y)).numpy()


def classes_of(logits_fn, x):
    """Returns the classes (B,) that a network gives the images."""
    return np.argmax(logits_fn(tf.constant(x, tf.float32)), axis=1)
