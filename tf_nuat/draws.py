"""Random draws for a batch: for each image from its own key, or for the global batch from a pair of integers.

A seed is either keys (B, 2), uint32, one for each image, or two integers (2,) for the global batch.
"""

from typing import Any

import tensorflow as tf

from tf_nuat import parallel
from tf_nuat.core import threefry

LARGEST_SEED = 2**31 - 1  # stateless draws take integers of 32 bits


def seeds_of(seed: Any, x: tf.Tensor, index: tf.Tensor | None) -> tf.Tensor:
    """Returns the seed of a batch: a pair of integers as it is, or for a single number the keys of the images."""
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 1:
        return seed
    return threefry.keys(seed_pair(seed), _numbers(x) if index is None else index)


def _numbers(x: tf.Tensor) -> tf.Tensor:
    return parallel.own_rows(lambda shape: tf.range(shape[0]), x[:, 0, 0, 0])


def image_keys(seed: Any, x: tf.Tensor) -> tf.Tensor:
    """Returns keys (B, 2), uint32, for the draws of a search: `seed` itself if it is such keys, else made from it."""
    seed = tf.convert_to_tensor(seed)
    return seed if seed.shape.rank == 2 else threefry.keys(seed_pair(seed), _numbers(x))


def fold_in(seed: Any, number: Any) -> tf.Tensor:
    """Returns a new seed from `seed` and `number`: a scalar or, if `seed` is keys (B, 2), also (B,)."""
    if _is_per_image(seed):
        return threefry.fold_in(seed, number)
    return tf.random.experimental.stateless_fold_in(seed_pair(seed), number)


def seed_pair(seed: Any) -> tf.Tensor:
    """Returns the two integers that stateless draws take: `seed` itself if it is a pair, else `seed` and 0."""
    seed = tf.cast(tf.convert_to_tensor(seed), tf.int32)
    return seed if seed.shape.rank == 1 else tf.stack([seed, 0])


def signs(x: tf.Tensor, seed: Any) -> tf.Tensor:
    """Returns +1 or -1 with probability 1/2 each for every pixel of x."""
    if _is_per_image(seed):
        return threefry.signs(seed, x.shape[1:])
    bits = parallel.own_rows(lambda shape: tf.random.stateless_uniform(shape, seed_pair(seed), 0, 2, tf.int32), x)
    return tf.cast(2 * bits - 1, x.dtype)


def normal(x: tf.Tensor, seed: Any) -> tf.Tensor:
    """Returns standard normal draws of the shape of x."""
    if _is_per_image(seed):
        return threefry.normal(seed, x.shape[1:])
    return parallel.own_rows(lambda shape: tf.random.stateless_normal(shape, seed_pair(seed), dtype=x.dtype), x)


def uniform(x: tf.Tensor, seed: Any) -> tf.Tensor:
    """Returns draws from [0, 1) of the shape of x."""
    if _is_per_image(seed):
        return threefry.uniform(seed, x.shape[1:])
    return parallel.own_rows(lambda shape: tf.random.stateless_uniform(shape, seed_pair(seed), dtype=x.dtype), x)


def _is_per_image(seed: Any) -> bool:
    return tf.is_tensor(seed) and seed.shape.rank == 2
