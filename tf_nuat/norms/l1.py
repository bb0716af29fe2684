"""L1."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_nuat import draws
from tf_nuat.norms.geometry import per_pixel, shared_out, sign_of_largest
from tf_nuat.norms.norm import Norm

BISECTIONS = 30  # more than a float32 has bits of precision
SPARSITY = 100  # the 99th percentile is SLIDE's default


class L1(Norm):
    """L1: the sum of the absolute changes of all pixels. It allows large changes of few pixels.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import norms
        >>> norms.of("l1").length(tf.fill((1, 2, 2, 1), 0.5)).numpy()
        array([2.], dtype=float32)
    """

    name, label, order = "l1", "L1", 1
    direction_label = "sign of the gradient's largest entries"
    way = 10.0  # with 2.5, an ascent often stays too close to its random start

    def length(self, change: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.abs(change), axis=(1, 2, 3))

    def distances(self, change: np.ndarray) -> np.ndarray:
        return np.abs(change).sum(axis=(1, 2, 3))

    def dual_length(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3))

    def largest(self, shape: Sequence[int]) -> float:
        return float(np.prod(shape))

    def projection(self, x: tf.Tensor, epsilon: tf.Tensor | float) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns the function that finds the nearest image, in L2, in both the ball and [0, 1].

        All pixels move towards x by the same amount, at most as far as x, and then are cut to [0, 1] (Croce and Hein,
        "Mind the box", 2021). Bisection finds the amount, and ends with an image inside of the ball. `epsilon` may be
        one radius for each image (B,).
        """

        def project(x_adv: tf.Tensor) -> tf.Tensor:
            difference = x_adv - x
            size = tf.abs(difference)

            def nearer(amount: tf.Tensor) -> tf.Tensor:
                change = tf.sign(difference) * tf.maximum(size - per_pixel(amount), 0.0)
                return tf.clip_by_value(x + change, 0.0, 1.0)

            def halve(done: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                middle = 0.5 * (low + high)
                is_inside = self.length(nearer(middle) - x) <= epsilon
                return done + 1, tf.where(is_inside, low, middle), tf.where(is_inside, middle, high)

            largest = tf.reduce_max(size, axis=(1, 2, 3))
            halvings = (tf.constant(0), tf.zeros_like(largest), largest)
            *_, amount = tf.while_loop(lambda done, *_: done < BISECTIONS, halve, halvings)
            in_box = tf.clip_by_value(x_adv, 0.0, 1.0)
            return tf.where(per_pixel(self.length(in_box - x) <= epsilon), in_box, nearer(amount))

        return project

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the sign of the gradient at its largest entries, one in `SPARSITY`, divided by their number.

        The steepest step would change a single pixel, which is too few. This is the step of SLIDE (Tramer and Boneh,
        2019).
        """
        return sign_of_largest(gradient, tf.fill(tf.shape(gradient)[:1], self._pixels_of_step(gradient)))

    def step(self, x_adv: tf.Tensor, gradient: tf.Tensor, size: tf.Tensor | float) -> tf.Tensor:
        """Returns the step of `steepest` within [0, 1]: the next largest entries get what a pixel has no room for.

        Without this, steps would push pixels at 0 or 1 out of [0, 1] again and again.
        """
        room = tf.where(gradient > 0.0, 1.0 - x_adv, x_adv)
        most = tf.where(tf.equal(gradient, 0.0), 0.0, tf.minimum(room, size / self._pixels_of_step(gradient)))
        return tf.sign(gradient) * shared_out(size, most, tf.abs(gradient))

    def _pixels_of_step(self, gradient: tf.Tensor) -> int:
        return -(-int(np.prod(gradient.shape[1:])) // SPARSITY)

    def random_change(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # Shares of a sum with one draw more than there are pixels are uniform in the ball.
        return self._shares(x, seed, left_out=_exponential(x[:, :1, :1, :1], draws.fold_in(seed, 2)))

    def random_direction(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns a uniform draw from the sphere."""
        return self._shares(x, seed, 0.0)

    def _shares(self, x: tf.Tensor, seed: tf.Tensor, left_out: tf.Tensor | float) -> tf.Tensor:
        size = _exponential(x, seed)
        whole = tf.reduce_sum(size, axis=(1, 2, 3), keepdims=True) + left_out
        return draws.signs(x, draws.fold_in(seed, 1)) * tf.math.divide_no_nan(size, whole)


def _exponential(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns exponential draws of the shape of x."""
    return -tf.math.log1p(-draws.uniform(x, seed))
