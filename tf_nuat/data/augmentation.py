"""Random crops and flips of training images that are held in memory, as TensorFlow operations."""

from collections.abc import Sequence

import tensorflow as tf

PADDING = 4  # pixels on each side, from which crops of the original size are taken


def random_crop_and_flip(
    images: tf.Tensor, key: tf.Tensor, *, first: int | tf.Tensor = 0, of: int | None = None
) -> tf.Tensor:
    """Returns `images` (B, H, W, C) moved by up to `PADDING` pixels each way and mirrored with probability 1/2.

    The draws depend only on `key`, int64 (2,), and on the places of the images in their batch: from `first` on, in a
    batch of `of` images (None: B).
    """
    count = tf.shape(images)[0]
    places = tf.range(count) + tf.cast(first, tf.int32)
    of = count if of is None else of
    crop_key, flip_key = tf.unstack(tf.random.experimental.stateless_split(key, 2, alg="philox"))
    corner = tf.gather(_draw((2, of), crop_key, below=2 * PADDING + 1), places, axis=1)
    flip = tf.gather(_draw((of,), flip_key, below=2), places)
    return crop_and_flip(images, corner[0], corner[1], flip == 1)


def crop_and_flip(images: tf.Tensor, top: tf.Tensor, left: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Returns windows of the size of `images`, out of the images padded by `PADDING` black pixels.

    Args:
        images: (B, H, W, C) of any type.
        top: int32 (B,), row of the padded image at which a window begins, from 0 to 2 `PADDING`.
        left: int32 (B,), column at which it begins, likewise.
        flip: bool (B,), whether the window is mirrored left to right.
    """
    height, width, channels = images.shape[1:]
    pads = [(0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)]
    pixels = tf.reshape(tf.pad(images, pads), (-1, channels))
    column = tf.range(width)
    columns = left[:, None] + tf.where(flip[:, None], width - 1 - column, column)
    rows = top[:, None] + tf.range(height)
    rows += tf.range(tf.shape(images)[0])[:, None] * (height + 2 * PADDING)
    return tf.gather(pixels, rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :])


def _draw(shape: Sequence[int], key: tf.Tensor, *, below: int) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, key, 0, below, tf.int32, alg="philox")
