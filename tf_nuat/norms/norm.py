"""`Norm`: the interface of the norms of threat models."""

import abc
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf


class Norm(abc.ABC):
    """A norm of the change of an image.

    Attributes:
        name: what flags, recipes and cards call it.
        label: what reports and figures call it.
        order: p of the p-norm, as NumPy's `ord`.
        direction_label: what reports call the steepest direction.
        random_label: what reports call a random direction.
        way: the default length of all steps of PGD together, in units of epsilon.

    Example:
        >>> from tf_nuat import norms
        >>> [(norm.name, norm.largest((8, 8, 1))) for norm in norms.NORMS.values()]
        [('linf', 1.0), ('l2', 8.0), ('l1', 64.0)]
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
        """Returns what `length` does, for NumPy arrays: (N,) for a change (N, H, W, C)."""

    @abc.abstractmethod
    def dual_length(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns how much a loss with this gradient (B, H, W, C) gains along a step of length 1: (B,)."""

    @abc.abstractmethod
    def largest(self, shape: Sequence[int]) -> float:
        """Returns the largest distance between two images of shape (H, W, C): no larger `epsilon` means anything."""

    @abc.abstractmethod
    def projection(self, x: tf.Tensor, epsilon: tf.Tensor | float) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns the function that moves images into the ball of radius `epsilon` around x and into [0, 1].

        An image in both stays as it is. For any other, the result need not be the nearest one.
        """

    @abc.abstractmethod
    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the step of length 1 that climbs fastest; 0 for an image whose gradient is 0.

        The gradient (B, H, W, C) is finite, and the step has its shape. Attacks without their own version for a norm
        take this step.
        """

    def step(self, x_adv: tf.Tensor, gradient: tf.Tensor, size: tf.Tensor | float) -> tf.Tensor:
        """Returns the step of length `size` that an ascent takes from x_adv, given the gradient of the loss there."""
        return size * self.steepest(gradient)

    @abc.abstractmethod
    def random_change(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns a change of each image, of the shape of x, drawn uniformly from the ball of radius 1."""

    def random_point(self, x: tf.Tensor, epsilon: tf.Tensor | float, seed: tf.Tensor) -> tf.Tensor:
        """Returns a point drawn uniformly from the ball of radius `epsilon` around x, cut to [0, 1]."""
        return tf.clip_by_value(x + epsilon * self.random_change(x, seed), 0.0, 1.0)

    @abc.abstractmethod
    def random_direction(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns a random change of each image of length 1, of the shape of x."""

    def orthogonal_direction(self, directions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Returns a random change of each image of length 1, orthogonal to `directions`, both (N, H, W, C), float32.

        It is a normal draw without its component along the direction.
        """
        smallest = np.finfo(np.float64).tiny
        flat = directions.reshape(len(directions), -1).astype(np.float64)
        drawn = generator.normal(size=flat.shape)
        along = np.sum(drawn * flat, axis=1) / np.maximum(np.sum(flat * flat, axis=1), smallest)
        drawn = (drawn - along[:, None] * flat).reshape(directions.shape)
        return (drawn / np.maximum(self.distances(drawn), smallest)[:, None, None, None]).astype(np.float32)
