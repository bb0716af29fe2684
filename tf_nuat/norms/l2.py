"""L2."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_nuat import draws
from tf_nuat.norms.geometry import per_pixel
from tf_nuat.norms.norm import Norm


class L2(Norm):
    """L2: the Euclidean length of the change of an image.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import norms
        >>> norms.of("l2").length(tf.fill((1, 2, 2, 1), 0.5)).numpy()
        array([1.], dtype=float32)
    """

    name, label, order, direction_label = "l2", "L2", 2, "gradient"

    def length(self, change: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(tf.reduce_sum(tf.square(change), axis=(1, 2, 3)))

    def distances(self, change: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(change).sum(axis=(1, 2, 3)))

    def dual_length(self, gradient: tf.Tensor) -> tf.Tensor:
        return self.length(gradient)

    def largest(self, shape: Sequence[int]) -> float:
        return float(np.sqrt(np.prod(shape)))

    def projection(self, x: tf.Tensor, epsilon: tf.Tensor | float) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns the function that shortens the difference from x to `epsilon`, and then cuts to [0, 1].

        x lies in [0, 1], so cutting to [0, 1] moves no pixel away from x.
        """

        def project(x_adv: tf.Tensor) -> tf.Tensor:
            difference = x_adv - x
            share = tf.math.divide_no_nan(epsilon, tf.maximum(per_pixel(self.length(difference)), epsilon))
            return tf.clip_by_value(x + difference * share, 0.0, 1.0)

        return project

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the gradient over its length."""
        # Squares of small gradients underflow; squares of gradients divided by their largest entry do not.
        scaled = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3), keepdims=True))
        return tf.math.divide_no_nan(scaled, per_pixel(self.length(scaled)))

    def random_change(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # A ball of radius r has r^D times the volume of the unit ball.
        share = draws.uniform(x[:, :1, :1, :1], draws.fold_in(seed, 1))
        coordinates = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), x.dtype)
        return self.random_direction(x, seed) * share ** (1.0 / coordinates)

    def random_direction(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns a uniform draw from the sphere."""
        return self.steepest(draws.normal(x, seed))
