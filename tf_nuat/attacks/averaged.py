"""`averaged`: a network whose gradient is the mean over points around the image, or over random passes."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_nuat import draws
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits, inference

# The values of `by` and `answers`: see `averaged`.
BY, ANSWERS = ("gradients", "differences"), ("image", "mean")


class Averaged:
    """A function of images that any attack takes in the place of a network; see `averaged`.

    Attributes:
        radius: a variable, which may be assigned; compiled functions then use the new value.
        points: number of points.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.attacks.averaged(tf_nuat.networks.two_conv((8, 8, 1), 10), radius=0.02, points=3).points
        3
    """

    def __init__(self, logits_fn: Logits, radius: float, points: int, by: str, answers: str, seed: int) -> None:
        self.radius = tf.Variable(radius, trainable=False, dtype=tf.float32, name="radius")
        self.points = points
        self._by, self._answers, self._seed = by, answers, seed
        self._logits_fn = inference(logits_fn)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Returns logits (B, K), float32, for images x (B, H, W, C)."""
        gradient = self._mean_gradient if self._by == "gradients" else self._mean_slope

        @tf.custom_gradient
        def logits(x: tf.Tensor) -> Any:
            def backward(upstream: tf.Tensor, variables: Any = ()) -> Any:
                return gradient(x, upstream), [None for _ in variables]

            return self._mean_logits(x) if self._answers == "mean" else self._logits(x), backward

        return logits(tf.convert_to_tensor(x, tf.float32))

    def _logits(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._logits_fn(x), tf.float32)

    def _mean_logits(self, x: tf.Tensor) -> tf.Tensor:
        return self._sum(lambda point: self._logits(self._near(x, point)), self._logits(x)) / self.points

    def _mean_gradient(self, x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        def at(point: tf.Tensor) -> tf.Tensor:
            near = self._near(x, point)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(near)
                logits = self._logits(near)
            gradient = tape.gradient(logits, near, upstream, unconnected_gradients="zero")
            return tf.where(tf.math.is_finite(gradient), gradient, 0.0)  # one point must not undo the others

        return self._sum(at, x) / self.points

    def _mean_slope(self, x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        """Moves each pixel up or down by the radius, and divides the gain of the logits by the pixel's change."""

        def at(point: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            step = self.radius * draws.signs(x, self._keys(x, point))
            up, down = (tf.clip_by_value(each, 0.0, 1.0) for each in (x + step, x - step))
            gain = tf.reduce_sum(upstream * (self._logits(up) - self._logits(down)), axis=1)
            return gain[:, None, None, None] * (up - down), tf.square(up - down)

        gains, squares = self._sum(at, (x, x))
        return tf.math.divide_no_nan(gains, squares)

    def _near(self, x: tf.Tensor, point: tf.Tensor) -> tf.Tensor:
        """Returns a uniform draw from the cube of half-width `radius` around each image, cut to [0, 1]."""
        change = self.radius * (2.0 * draws.uniform(x, self._keys(x, point)) - 1.0)
        return tf.clip_by_value(x + change, 0.0, 1.0)

    def _keys(self, x: tf.Tensor, point: tf.Tensor) -> tf.Tensor:
        """Returns keys (B, 2) for the draws of a point. They depend on the pixels, so each step has new ones."""
        number = tf.bitcast(tf.reduce_sum(x, axis=(1, 2, 3)), tf.uint32)
        keys = draws.seeds_of(self._seed, x, tf.zeros_like(number))
        return draws.fold_in(draws.fold_in(keys, number), tf.fill(tf.shape(number), point))

    def _sum(self, at: Callable[[tf.Tensor], Any], like: Any) -> Any:
        """Returns the sum of `at(point)`, a structure of tensors, over the points, one after the other."""

        def added(point: tf.Tensor, sums: Any) -> Any:
            return point + 1, tf.nest.map_structure(lambda one, other: one + other, sums, at(point))

        nothing = tf.nest.map_structure(tf.zeros_like, like)
        return tf.while_loop(lambda point, _: point < self.points, added, (tf.constant(0), nothing))[1]


def averaged(
    logits_fn: Logits,
    *,
    radius: float,
    points: int = 10,
    by: str = "gradients",
    answers: str = "image",
    seed: int = 0,
) -> Averaged:
    """Returns a function with the logits of `logits_fn`, whose gradient is the mean over points around the image.

    Any attack runs on it. Its gradient shows how the network changes at the scale of `radius`, even if gradients at the
    image itself are shattered. For a network that draws random numbers, `radius=0, answers="mean"` is the expectation
    over transformations (Athalye et al., "Synthesizing robust adversarial examples", 2018): the mean of the logits of
    `points` passes, and its gradient.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        radius: largest change of a pixel, at least 0; above 0 for differences. Points are drawn uniformly, and cut to
            [0, 1].
        points: number of points, at least 1. Each point costs one gradient or, by differences, two forward passes.
        by: "gradients" averages gradients. "differences" is for networks without gradients, and needs many points: it
            averages slopes along random signs, from `-radius` to `radius` (SPSA; Spall, 1992).
        answers: "image" for the logits of the image, "mean" for the mean of the points' logits.
        seed: whole number, at least 0 and below 2**31. The draws depend on it and on the image, not on the batch.

    Returns:
        A function of images (B, H, W, C) that returns logits (B, K), float32. Its `radius` may be assigned.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        surface = tf_nuat.attacks.averaged(network, radius=0.05, points=20)
        x_adv = tf_nuat.attacks.pgd(surface, images, labels, epsilon=0.1, loss="margin")

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> smooth = tf_nuat.attacks.averaged(network, radius=0.02, points=3)
        >>> tf_nuat.attacks.pgd(smooth, x[:4], y[:4], epsilon=0.1, steps=2).shape
        TensorShape([4, 8, 8, 1])
    """
    validation.one_of("by", by, BY)
    validation.one_of("answers", answers, ANSWERS)
    bound = {"above": 0.0} if by == "differences" else {"at_least": 0.0}
    radius = float(validation.number("radius", radius, **bound))
    points = validation.whole_number("points", points, at_least=1)
    validation.whole_number("seed", seed, at_least=0, at_most=draws.LARGEST_SEED)
    return Averaged(logits_fn, radius, points, by, answers, seed)
