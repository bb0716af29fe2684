"""L-infinity."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_nuat import draws
from tf_nuat.norms.geometry import corners
from tf_nuat.norms.norm import Norm


class Linf(Norm):
    """L-infinity: the largest change of a pixel.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import norms
        >>> norms.of("linf").length(tf.fill((1, 2, 2, 1), 0.5)).numpy()
        array([0.5], dtype=float32)
    """

    name, label, order = "linf", "L-infinity", np.inf
    direction_label, random_label = "sign of the gradient", "random signs"

    def length(self, change: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(tf.abs(change), axis=(1, 2, 3))

    def distances(self, change: np.ndarray) -> np.ndarray:
        return np.abs(change).max(axis=(1, 2, 3))

    def dual_length(self, gradient: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.abs(gradient), axis=(1, 2, 3))

    def largest(self, shape: Sequence[int]) -> float:
        return 1.0

    def projection(self, x: tf.Tensor, epsilon: tf.Tensor | float) -> Callable[[tf.Tensor], tf.Tensor]:
        low, high = corners(x, epsilon)
        return lambda x_adv: tf.clip_by_value(x_adv, low, high)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the sign of the gradient."""
        return tf.sign(gradient)

    def random_change(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return 2.0 * draws.uniform(x, seed) - 1.0

    def random_direction(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns uniform draws, divided by the largest."""
        change = 2.0 * draws.uniform(x, seed) - 1.0
        return tf.math.divide_no_nan(change, tf.reduce_max(tf.abs(change), axis=(1, 2, 3), keepdims=True))

    def orthogonal_direction(self, directions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Returns random signs, half of which agree with those of `directions`.

        The draw is uniform among all such signs. If the number of signs is odd, one entry is 0.
        """
        flat = directions.reshape(len(directions), -1).astype(np.float64)
        drawn = generator.choice([-1.0, 1.0], size=flat.shape)
        for row, signs in zip(drawn, flat):
            (places,) = np.nonzero(signs)
            generator.shuffle(places)
            half = len(places) // 2
            row[places[:half]], row[places[half : 2 * half]] = signs[places[:half]], -signs[places[half : 2 * half]]
            row[places[2 * half :]] = 0.0
        return drawn.reshape(directions.shape).astype(np.float32)
