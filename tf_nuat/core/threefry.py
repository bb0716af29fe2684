"""Random draws per image: the draws for an image depend on its key, not on the other images of its batch.

TensorFlow's stateless draws take one key for a whole tensor. Threefry, the generator below, is a function of (key,
counter), pixel by pixel, so that every image has its own key in any batch.
"""

import functools
from collections.abc import Sequence
from typing import TypeAlias

import tensorflow as tf

Words: TypeAlias = tuple[tf.Tensor, tf.Tensor]
Shape: TypeAlias = Sequence[int] | tf.Tensor

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
_DRAW, _FOLD = 0, 1  # the second word of the counter keeps draws and derived keys apart


def threefry(key: Words, counter: Words) -> Words:
    """Returns two words of random bits for two words of key and of counter: Threefry-2x32 with 20 rounds.

    Args:
        key, counter: pairs of uint32 tensors, of shapes that broadcast.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    words = [tf.convert_to_tensor(word, tf.uint32) for word in (*key, *counter)]
    shape = functools.reduce(tf.broadcast_static_shape, [word.shape for word in words])
    left, right = _rounds(*words)
    left.set_shape(shape)
    right.set_shape(shape)
    return left, right


# Traced once, for all shapes: it is 250 operations, and an attack needs it several times.
@functools.partial(tf.function, autograph=False, input_signature=[tf.TensorSpec(None, tf.uint32)] * 4)
def _rounds(first_key: tf.Tensor, second_key: tf.Tensor, first_counter: tf.Tensor, second_counter: tf.Tensor) -> Words:
    key, counter = (first_key, second_key), (first_counter, second_counter)
    parity = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(key[0], key[1]), tf.constant(PARITY, tf.uint32))
    words = (key[0], key[1], parity)
    left, right = counter[0] + words[0], counter[1] + words[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            left += right
            right = tf.bitwise.bitwise_xor(_rotate(right, rotation), left)
        left += words[(group + 1) % 3]
        right += words[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return left, right


def _rotate(word: tf.Tensor, by: int) -> tf.Tensor:
    return tf.bitwise.bitwise_or(
        tf.bitwise.left_shift(word, tf.constant(by, tf.uint32)),
        tf.bitwise.right_shift(word, tf.constant(32 - by, tf.uint32)),
    )


def keys(seed: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Returns the keys (B, 2), uint32, of the images with the numbers `index` (B,), under a seed: two integers (2,)."""
    seed, index = tf.cast(seed, tf.uint32), tf.cast(index, tf.uint32)
    return tf.stack(threefry((seed[0], seed[1]), (index, tf.constant(_FOLD, tf.uint32))), axis=1)


def fold_in(image_keys: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Returns keys (B, 2) for another purpose, told apart by `number`: a scalar, or one for each image (B,)."""
    number = tf.cast(number, tf.uint32)
    words = threefry((image_keys[:, 0], image_keys[:, 1]), (number, tf.constant(_FOLD, tf.uint32)))
    return tf.stack(words, axis=1)


def uniform(image_keys: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Returns draws from [0, 1), float32 (B, *shape), all multiples of 2^-24."""
    return tf.cast(tf.bitwise.right_shift(_bits(image_keys, shape), tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def normal(image_keys: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Returns standard normal draws, float32 (B, *shape)."""
    bits = tf.bitwise.right_shift(_bits(image_keys, shape), tf.constant(9, tf.uint32))
    return tf.math.ndtri((tf.cast(bits, tf.float32) + 0.5) * 2.0**-23)


def signs(image_keys: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Returns -1 or 1, with probability 1/2 each, float32 (B, *shape)."""
    highest = tf.bitwise.right_shift(_bits(image_keys, shape), tf.constant(31, tf.uint32))
    return 2.0 * tf.cast(highest, tf.float32) - 1.0


def _bits(image_keys: tf.Tensor, shape: Shape) -> tf.Tensor:
    count = tf.cast(tf.reduce_prod(shape), tf.int32) if len(shape) else tf.constant(1)
    flat = _flat_bits(image_keys, count)
    return tf.reshape(flat, tf.concat([tf.shape(image_keys)[:1], tf.cast(shape, tf.int32)], axis=0))


@functools.partial(
    tf.function, autograph=False, input_signature=[tf.TensorSpec((None, 2), tf.uint32), tf.TensorSpec((), tf.int32)]
)
def _flat_bits(image_keys: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    counter = tf.cast(tf.range((count + 1) // 2), tf.uint32)[None]
    words = threefry((image_keys[:, :1], image_keys[:, 1:]), (counter, tf.constant(_DRAW, tf.uint32)))
    return tf.concat(words, axis=1)[:, :count]
