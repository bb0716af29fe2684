"""`NORMS`: the geometry of threat models, an object for each norm.

A threat model allows every image that is within `epsilon` of the clean one, in a norm, and within [0, 1]. Everything
that depends on the norm is a method here: no other module compares the names of norms.
"""

import abc
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_nuat import draws
from tf_nuat.core import validation


class Norm(abc.ABC):
    """A norm of the change of an image.

    Attributes:
        name: what flags, recipes and cards call it.
        label: what reports and figures call it.
        order: p of the p-norm, as NumPy's `ord`.
        direction_label: what reports call the steepest direction.
        random_label: what reports call a random direction.
        way: the length of all steps of PGD together, by default, in epsilon.
    """

    name: str
    label: str
    order: float
    direction_label: str
    random_label: str = "a random direction"
    way: float = 2.5

    def __str__(self) -> str:
        return self.name

    @abc.abstractmethod
    def length(self, change: tf.Tensor) -> tf.Tensor:
        """Returns the length (B,) of each image's change (B, H, W, C)."""

    @abc.abstractmethod
    def distances(self, change: np.ndarray) -> np.ndarray:
        """Returns what `length` does, of and as NumPy arrays: (N,) for a change (N, H, W, C)."""

    @abc.abstractmethod
    def dual_length(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns how much a loss with this gradient (B, H, W, C) gains along a step of length 1: (B,)."""

    @abc.abstractmethod
    def largest(self, shape: Sequence[int]) -> float:
        """Returns the largest distance between two images of shape (H, W, C): no larger `epsilon` means anything."""

    @abc.abstractmethod
    def projection(self, x: tf.Tensor, epsilon: tf.Tensor | float) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns the function that moves images into the ball of radius `epsilon` around x and into [0, 1].

        An image in both stays as it is. Of another the result need not be the nearest one.
        """

    @abc.abstractmethod
    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the step of length 1 that climbs fastest, 0 where the gradient (B, H, W, C), finite, of an image is.

        It has the form of the gradient: attacks without a version of their own for a norm take it.
        """

    def step(self, x_adv: tf.Tensor, gradient: tf.Tensor, size: tf.Tensor | float) -> tf.Tensor:
        """Returns the step, of length `size`, that an ascent takes from x_adv, where the loss has this gradient."""
        return size * self.steepest(gradient)

    @abc.abstractmethod
    def random_point(self, x: tf.Tensor, epsilon: tf.Tensor | float, seed: tf.Tensor) -> tf.Tensor:
        """Returns a point drawn uniformly from the ball of radius `epsilon` around x, cut to [0, 1]."""

    @abc.abstractmethod
    def random_direction(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns a random change of each image of length 1, of the shape of x."""

    def orthogonal_direction(self, directions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Returns a random change of each image of length 1, orthogonal to `directions`, both (N, H, W, C), float32.

        It is a normal draw without what is along the direction.
        """
        smallest = np.finfo(np.float64).tiny
        flat = directions.reshape(len(directions), -1).astype(np.float64)
        drawn = generator.normal(size=flat.shape)
        along = np.sum(drawn * flat, axis=1) / np.maximum(np.sum(flat * flat, axis=1), smallest)
        drawn = (drawn - along[:, None] * flat).reshape(directions.shape)
        return (drawn / np.maximum(self.distances(drawn), smallest)[:, None, None, None]).astype(np.float32)


class Linf(Norm):
    """L-infinity: the largest change of a pixel."""

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

    def random_point(self, x: tf.Tensor, epsilon: tf.Tensor | float, seed: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(x + epsilon * (2.0 * draws.uniform(x, seed) - 1.0), 0.0, 1.0)

    def random_direction(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns uniform draws, divided by the largest."""
        change = 2.0 * draws.uniform(x, seed) - 1.0
        return tf.math.divide_no_nan(change, tf.reduce_max(tf.abs(change), axis=(1, 2, 3), keepdims=True))

    def orthogonal_direction(self, directions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Returns random signs that agree with those of `directions` as often as they do not.

        They are drawn uniformly among these; where the number of signs is odd, one entry is 0.
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


class L2(Norm):
    """L2: the Euclidean length of the change of an image."""

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

        Cutting to [0, 1], where x is, brings no pixel farther from x.
        """

        def project(x_adv: tf.Tensor) -> tf.Tensor:
            difference = x_adv - x
            share = tf.math.divide_no_nan(epsilon, tf.maximum(_per_pixel(self.length(difference)), epsilon))
            return tf.clip_by_value(x + difference * share, 0.0, 1.0)

        return project

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the gradient over its length."""
        # Squares of small gradients underflow, those of the largest entry's multiples do not.
        scaled = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3), keepdims=True))
        return tf.math.divide_no_nan(scaled, _per_pixel(self.length(scaled)))

    def random_point(self, x: tf.Tensor, epsilon: tf.Tensor | float, seed: tf.Tensor) -> tf.Tensor:
        # A ball of radius r holds the share r^D of the volume of the one of radius 1.
        share = draws.uniform(x[:, :1, :1, :1], draws.fold_in(seed, 1))
        coordinates = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), x.dtype)
        change = self.random_direction(x, seed) * share ** (1.0 / coordinates)
        return tf.clip_by_value(x + epsilon * change, 0.0, 1.0)

    def random_direction(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns a uniform draw from the sphere."""
        return self.steepest(draws.normal(x, seed))


def corners(x: tf.Tensor, epsilon: tf.Tensor | float) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the lowest and the highest image within `epsilon` of x in L-infinity and within [0, 1]."""
    return tf.maximum(x - epsilon, 0.0), tf.minimum(x + epsilon, 1.0)


def _per_pixel(value: tf.Tensor) -> tf.Tensor:
    return value[:, None, None, None]


LINF = Linf()
NORMS: dict[str, Norm] = {norm.name: norm for norm in (LINF, L2())}


def of(norm: str | Norm) -> Norm:
    """Returns the norm that `norm`, a name or the object itself, is.

    Raises:
        ValueError: there is no norm of that name.
    """
    return norm if isinstance(norm, Norm) else validation.one_of("norm", norm, NORMS)
