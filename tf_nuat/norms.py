"""The geometry of threat models: balls, projections, steepest directions and random points by norm."""

import tensorflow as tf

from tf_nuat import draws
from tf_nuat.core import validation

NORMS = ("linf", "l2")


def ball(x, epsilon):
    """Returns the lowest and the highest image within `epsilon` of x (L-infinity) and within [0, 1]."""
    return tf.maximum(x - epsilon, 0.0), tf.minimum(x + epsilon, 1.0)


def projection(x, epsilon, norm="linf"):
    """Returns the function that moves images into the ball of radius `epsilon` around x and into [0, 1].

    In L2 the difference from x is shortened to `epsilon` first. Cutting to [0, 1], where x is, then brings no pixel
    farther from x, so that the result is within both; it need not be the nearest such image.
    """
    if not _is_l2(norm):
        low, high = ball(x, epsilon)
        return lambda x_adv: tf.clip_by_value(x_adv, low, high)

    def project(x_adv):
        difference = x_adv - x
        share = tf.math.divide_no_nan(epsilon, tf.maximum(_length(difference), epsilon))
        return tf.clip_by_value(x + difference * share, 0.0, 1.0)

    return project


def direction(gradient, norm="linf"):
    """Returns the step of length 1 that climbs fastest: the sign, or the gradient over its L2 norm.

    Args:
        gradient: (B, H, W, C), finite. Where that of an image is 0, so is its step.
        norm: "linf" or "l2".
    """
    if not _is_l2(norm):
        return tf.sign(gradient)
    # Squares of small gradients underflow, those of the largest entry's multiples do not.
    scaled = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3), keepdims=True))
    return tf.math.divide_no_nan(scaled, _length(scaled))


def _length(difference):
    """Returns the L2 norm of each image of `difference` (B, H, W, C): (B, 1, 1, 1)."""
    return tf.sqrt(tf.reduce_sum(tf.square(difference), axis=(1, 2, 3), keepdims=True))


def _is_l2(norm):
    return validation.one_of("norm", norm, NORMS) == "l2"


def random_point(x, epsilon, seed, norm="linf"):
    """Returns a point drawn uniformly from the ball of radius `epsilon` around x, cut to [0, 1]."""
    if _is_l2(norm):
        return tf.clip_by_value(x + epsilon * _random_in_l2_ball(x, seed), 0.0, 1.0)
    return tf.clip_by_value(x + epsilon * (2.0 * draws.uniform(x, seed) - 1.0), 0.0, 1.0)


def random_on_the_sphere(x, seed, norm="linf"):
    """Returns a random change of each image of length 1: uniform draws over the largest, or a uniform direction."""
    if _is_l2(norm):
        return direction(draws.normal(x, seed), norm)
    change = 2.0 * draws.uniform(x, seed) - 1.0
    return tf.math.divide_no_nan(change, tf.reduce_max(tf.abs(change), axis=(1, 2, 3), keepdims=True))


def _random_in_l2_ball(x, seed):
    # A ball of radius r holds the share r^D of the volume of the one of radius 1.
    share = draws.uniform(x[:, :1, :1, :1], draws.fold_in(seed, 1))
    coordinates = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), x.dtype)
    return direction(draws.normal(x, seed), "l2") * share ** (1.0 / coordinates)
