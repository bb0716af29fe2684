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

        It is a normal draw without what is along the direction.
        """
        smallest = np.finfo(np.float64).tiny
        flat = directions.reshape(len(directions), -1).astype(np.float64)
        drawn = generator.normal(size=flat.shape)
        along = np.sum(drawn * flat, axis=1) / np.maximum(np.sum(flat * flat, axis=1), smallest)
        drawn = (drawn - along[:, None] * flat).reshape(directions.shape)
        return (drawn / np.maximum(self.distances(drawn), smallest)[:, None, None, None]).astype(np.float32)


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

    def random_change(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # A ball of radius r holds the share r^D of the volume of the one of radius 1.
        share = draws.uniform(x[:, :1, :1, :1], draws.fold_in(seed, 1))
        coordinates = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), x.dtype)
        return self.random_direction(x, seed) * share ** (1.0 / coordinates)

    def random_direction(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns a uniform draw from the sphere."""
        return self.steepest(draws.normal(x, seed))


class L1(Norm):
    """L1: the sum of the changes of all pixels. Where it is small few pixels change, and those by much.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import norms
        >>> norms.of("l1").length(tf.fill((1, 2, 2, 1), 0.5)).numpy()
        array([2.], dtype=float32)
    """

    name, label, order = "l1", "L1", 1
    direction_label = "sign of the gradient's largest entries"
    way = 10.0  # where 2.5 are often too few for an ascent to leave its random start behind

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

        Every pixel comes nearer to x by one and the same amount, as far as x at most, and then is cut to [0, 1] (Croce
        and Hein, "Mind the box", 2021). The amount is searched for by bisection; where that stops the
        image is inside. `epsilon` may be one radius for each image (B,).
        """

        def project(x_adv: tf.Tensor) -> tf.Tensor:
            difference = x_adv - x
            size = tf.abs(difference)

            def nearer(amount: tf.Tensor) -> tf.Tensor:
                change = tf.sign(difference) * tf.maximum(size - _per_pixel(amount), 0.0)
                return tf.clip_by_value(x + change, 0.0, 1.0)

            def halve(done: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                middle = 0.5 * (low + high)
                is_inside = self.length(nearer(middle) - x) <= epsilon
                return done + 1, tf.where(is_inside, low, middle), tf.where(is_inside, middle, high)

            largest = tf.reduce_max(size, axis=(1, 2, 3))
            halvings = (tf.constant(0), tf.zeros_like(largest), largest)
            *_, amount = tf.while_loop(lambda done, *_: done < BISECTIONS, halve, halvings)
            in_box = tf.clip_by_value(x_adv, 0.0, 1.0)
            return tf.where(_per_pixel(self.length(in_box - x) <= epsilon), in_box, nearer(amount))

        return project

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the sign of the gradient at its largest entries, one in `SPARSITY`, over their number.

        The very steepest step changes one pixel alone, and one pixel in a step is too few: this is the step of SLIDE
        (Tramer and Boneh, 2019).
        """
        return sign_of_largest(gradient, tf.fill(tf.shape(gradient)[:1], self._pixels_of_step(gradient)))

    def step(self, x_adv: tf.Tensor, gradient: tf.Tensor, size: tf.Tensor | float) -> tf.Tensor:
        """Returns what `steepest` does, within [0, 1]: what a pixel has no room for goes to the next largest entries.

        Without this, steps push again and again against the border of [0, 1].
        """
        room = tf.where(gradient > 0.0, 1.0 - x_adv, x_adv)
        most = tf.where(tf.equal(gradient, 0.0), 0.0, tf.minimum(room, size / self._pixels_of_step(gradient)))
        return tf.sign(gradient) * shared_out(size, most, tf.abs(gradient))

    def _pixels_of_step(self, gradient: tf.Tensor) -> int:
        return -(-int(np.prod(gradient.shape[1:])) // SPARSITY)

    def random_change(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # Shares of a whole, of which one more than there are pixels is left out, are uniform.
        return self._shares(x, seed, left_out=_exponential(x[:, :1, :1, :1], draws.fold_in(seed, 2)))

    def random_direction(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns a uniform draw from the sphere."""
        return self._shares(x, seed, 0.0)

    def _shares(self, x: tf.Tensor, seed: tf.Tensor, left_out: tf.Tensor | float) -> tf.Tensor:
        size = _exponential(x, seed)
        whole = tf.reduce_sum(size, axis=(1, 2, 3), keepdims=True) + left_out
        return draws.signs(x, draws.fold_in(seed, 1)) * tf.math.divide_no_nan(size, whole)


BISECTIONS = 30  # more than a float has digits
SPARSITY = 100  # the 99th percentile is SLIDE's default


def sign_of_largest(gradient: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Returns the step of L1 length 1 along the sign of the largest entries, in absolute value, of a gradient.

    Args:
        gradient: (B, H, W, C), finite.
        number: how many entries of each image (B,), int32, at least 1: as large ones are taken as well, and zeros not.

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
    step = tf.where(size >= _per_pixel(smallest), tf.sign(gradient), 0.0)
    return tf.math.divide_no_nan(step, tf.reduce_sum(tf.abs(step), axis=(1, 2, 3), keepdims=True))


def inwards(x: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Returns the gradient, without what would take pixels at 0 or 1 out of [0, 1].

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
    """Returns how much of a budget each pixel gets: first those of the highest rank, each what it can take.

    Args:
        budget: of an image, at least 0.
        most: what a pixel can take (B, H, W, C), at least 0.
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


def _per_pixel(value: tf.Tensor) -> tf.Tensor:
    return value[:, None, None, None]


def _exponential(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns exponential draws of the shape of x."""
    return -tf.math.log1p(-draws.uniform(x, seed))


LINF = Linf()
NORMS: dict[str, Norm] = {norm.name: norm for norm in (LINF, L2(), L1())}


def of(norm: str | Norm) -> Norm:
    """Returns the norm that `norm`, a name or the object itself, is.

    Raises:
        ValueError: there is no norm of that name.

    Example:
        >>> from tf_nuat import norms
        >>> norms.of("l2").label
        'L2'
    """
    return norm if isinstance(norm, Norm) else validation.one_of("norm", norm, NORMS)
