"""Functions of pixels and of the box [0, 1] around them, for norms and attacks."""

import tensorflow as tf


def sign_of_largest(gradient: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Returns the step of L1 length 1 along the sign of the largest entries, in absolute value, of a gradient.

    Args:
        gradient: (B, H, W, C), finite.
        number: how many entries of each image (B,), int32, at least 1. Ties are included, zeros are not.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import norms
        >>> x = tf.constant([0.0, 0.25, 0.5, 1.0], shape=(1, 2, 2, 1))
        >>> norms.sign_of_largest(x, tf.constant([2])).numpy().ravel()
        array([0. , 0. , 0.5, 0.5], dtype=float32)
    """
    size = tf.abs(gradient)
    ordered = tf.sort(tf.reshape(size, (tf.shape(size)[0], -1)), axis=1, direction="DESCENDING")
    smallest = tf.gather(ordered, number - 1, batch_dims=1)
    step = tf.where(size >= per_pixel(smallest), tf.sign(gradient), 0.0)
    return tf.math.divide_no_nan(step, tf.reduce_sum(tf.abs(step), axis=(1, 2, 3), keepdims=True))


def inwards(x: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Returns the gradient, set to 0 where it would take pixels at 0 or 1 out of [0, 1].

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import norms
        >>> x = tf.constant([0.0, 0.25, 0.5, 1.0], shape=(1, 2, 2, 1))
        >>> norms.inwards(x, -tf.ones_like(x)).numpy().ravel()
        array([ 0., -1., -1., -1.], dtype=float32)
    """
    is_stuck = ((x <= 0.0) & (gradient < 0.0)) | ((x >= 1.0) & (gradient > 0.0))
    return tf.where(is_stuck, 0.0, gradient)


def shared_out(budget: tf.Tensor | float, most: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
    """Returns how much of a budget each pixel gets: those of the highest rank come first, and take all they can.

    Args:
        budget: of an image, at least 0.
        most: largest amount that a pixel can take (B, H, W, C), at least 0.
        rank: of the pixels (B, H, W, C).

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import norms
        >>> x = tf.constant([0.0, 0.25, 0.5, 1.0], shape=(1, 2, 2, 1))
        >>> norms.shared_out(1.0, tf.fill(x.shape, 0.5), rank=x).numpy().ravel()
        array([0. , 0. , 0.5, 0.5], dtype=float32)
    """
    shape = tf.shape(most)
    most, rank = (tf.reshape(each, (shape[0], -1)) for each in (most, rank))
    order = tf.argsort(rank, axis=1, direction="DESCENDING")
    in_order = tf.gather(most, order, batch_dims=1)
    given = tf.clip_by_value(budget - tf.cumsum(in_order, axis=1, exclusive=True), 0.0, in_order)
    return tf.reshape(tf.gather(given, tf.argsort(order, axis=1), batch_dims=1), shape)


def corners(x: tf.Tensor, epsilon: tf.Tensor | float) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the lowest and the highest image within `epsilon` of x in L-infinity and within [0, 1].

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import norms
        >>> x = tf.constant([0.0, 0.25, 0.5, 1.0], shape=(1, 2, 2, 1))
        >>> lowest, highest = norms.corners(x, 0.5)
        >>> highest.numpy().ravel()
        array([0.5 , 0.75, 1.  , 1.  ], dtype=float32)
    """
    return tf.maximum(x - epsilon, 0.0), tf.minimum(x + epsilon, 1.0)


def per_pixel(value: tf.Tensor) -> tf.Tensor:
    """Returns a value of each image (B,) in the shape (B, 1, 1, 1), which broadcasts over pixels."""
    return value[:, None, None, None]
