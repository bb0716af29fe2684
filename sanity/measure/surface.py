"""How well the gradient at an image describes what the network does around it, in numbers and as a surface."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from sanity.measure import losses as measured_losses
from sanity.measure.batches import batches, compiled, of_all, specs
from tf_nuat import draws, losses, norms
from tf_nuat.attacks.ascent import cross_entropy_of, input_gradient
from tf_nuat.attacks.search import choose
from tf_nuat.core import threefry
from tf_nuat.models.inference import graph_of


@dataclasses.dataclass(frozen=True)
class Linearity:
    """How the margin of each image changes around it, float64 (N,).

    The margin is the true logit minus that of the strongest wrong class at the image. The class is the same at all
    points, so that a linear network has a linear margin.

    Attributes:
        margin: the margin at the image.
        change: mean of the absolute changes of the margin, from the image to random points of the ball.
        error: mean of the absolute differences between these changes and those that the gradient at the image predicts.
        predicted: mean of the absolute changes that the gradient predicts.
        spread: mean of the absolute differences between the changes and their mean.
        spread_error: mean of the absolute differences between the errors, with their signs, and their mean: what the
            gradient leaves of `spread`.
    """

    margin: np.ndarray
    change: np.ndarray
    error: np.ndarray
    predicted: np.ndarray
    spread: np.ndarray
    spread_error: np.ndarray


def linearity(
    network: Callable,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilon: float,
    norm: str | norms.Norm = "linf",
    points: int,
    seed: int = 0,
    first: int = 0,
    batch_size: int,
) -> Linearity:
    """Returns the `Linearity` of the network in inference mode, over `points` random points of the ball of each image.

    Args:
        network: images (B, H, W, C) -> logits (B, K).
        images: (N, H, W, C), float32 in [0, 1].
        labels: integers (N,).
        epsilon, norm: the ball, which is clipped to [0, 1].
        points: number of points.
        seed: whole number that determines the points.
        first: number of the first image, on which its draws depend.
        batch_size: images at a time, which bounds the memory.

    Source: Qin et al., "Adversarial robustness through local linearization", 2019, equation 5, there for the
    cross-entropy.
    """
    logits_fn, norm = graph_of(network), norms.of(norm)

    def measured(x, y, index):
        rival = losses.wrong_classes(logits_fn(x), y)[:, 0]

        def margin(logits):
            true, other = (tf.gather(logits, chosen, batch_dims=1) for chosen in (y, rival))
            return tf.cast(true, tf.float64) - tf.cast(other, tf.float64)

        def objective(x):
            logits = logits_fn(x)
            return margin(logits), logits

        gradient, logits = input_gradient(objective, x)
        gradient, here = tf.cast(gradient, tf.float64), margin(logits)
        keys = threefry.keys(draws.seed_pair(seed), index)

        def write(number, changes, predictions):
            numbers = tf.fill(tf.shape(index), number)
            point = norm.random_point(x, epsilon, draws.fold_in(keys, numbers))
            predicted = tf.reduce_sum(gradient * tf.cast(point - x, tf.float64), axis=(1, 2, 3))
            changes = changes.write(number, margin(logits_fn(point)) - here)
            return number + 1, changes, predictions.write(number, predicted)

        arrays = [tf.TensorArray(tf.float64, size=points, element_shape=[None]) for _ in range(2)]
        _, *arrays = tf.while_loop(lambda number, *_: number < points, write, (tf.constant(0), *arrays))
        change, predicted = (array.stack() for array in arrays)  # (points, B)
        error = change - predicted
        spreads = (each - tf.reduce_mean(each, axis=0) for each in (change, error))
        return here, *(tf.reduce_mean(tf.abs(each), axis=0) for each in (change, error, predicted, *spreads))

    return Linearity(*of_all(measured, images, labels, first=first, batch_size=batch_size))


def largest_error(
    network: Callable,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilon: float,
    norm: str | norms.Norm = "linf",
    steps: int = 10,
    seed: int = 0,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest local linearity error that an ascent finds in the ball of each image, and its point.

    The errors are float64 (N,), the points float32 (N, H, W, C). The error is |L(x + d) - L(x) - d . grad L(x)| of
    the cross-entropy L, in nats. The ascent takes `steps` steps of 2.5 epsilon / steps from a random point. The largest
    error on its way is a lower bound of the largest in the ball.

    Args:
        network, images, labels, epsilon, norm, seed, batch_size: as for `linearity`.
        steps: at least 1.

    Source: Qin et al., "Adversarial robustness through local linearization", 2019, equation 5 (gamma).
    """
    logits_fn, norm = graph_of(network), norms.of(norm)

    def ascent(x, y, index):
        gradient, logits = input_gradient(cross_entropy_of(logits_fn, y), x)
        here, project = losses.cross_entropy(logits, y), norm.projection(x, epsilon)

        def error(point):
            logits = logits_fn(point)
            predicted = tf.reduce_sum(gradient * (point - x), axis=(1, 2, 3))
            return tf.abs(losses.cross_entropy(logits, y) - here - predicted), logits

        def step(taken, point, largest, best):
            slope, _ = input_gradient(error, point)
            point = project(point + norm.step(point, slope, 2.5 * epsilon / steps))
            found = error(point)[0]
            return taken + 1, point, tf.maximum(largest, found), choose(found > largest, point, best)

        start = norm.random_point(x, epsilon, threefry.keys(draws.seed_pair(seed), index))
        begun = (tf.constant(0), start, error(start)[0], start)
        return tf.while_loop(lambda taken, *_: taken < steps, step, begun)[2:]

    errors, points = of_all(ascent, images, labels, batch_size=batch_size)
    return errors.astype(np.float64), points


def plane(
    network: Callable,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilon: float,
    norm: str | norms.Norm = "linf",
    parts: Sequence[float],
    second: Callable | np.ndarray | None = None,
    seed: int = 0,
    batch_size: int,
) -> np.ndarray:
    """Returns the cross-entropy on a plane through each image, as a share of ln K, at most 1: float64 (N, P, P).

    The plane is spanned by the steepest direction of the cross-entropy (columns) and by a random one (rows), both of
    length epsilon, and cut to [0, 1]. In L-infinity these are the sign of the gradient and random signs.

    Args:
        network, images, labels, epsilon, norm, seed, batch_size: as for `linearity`.
        parts: coordinates (P,) on both axes, in epsilon.
        second: directions of the rows: random ones by `orthogonal` (default) or `independent`, or given ones,
            (N, H, W, C).

    Source: Vivek and Babu, 2020, equation 12, where the two are independent; Sriramanan et al., 2021, figure 1, where
    they are orthogonal.
    """
    second = orthogonal if second is None else second
    logits_fn, norm = graph_of(network), norms.of(norm)
    spec, labels_spec, _ = specs(images)

    def along(x, y):
        gradient, _ = input_gradient(cross_entropy_of(logits_fn, y), x)
        return norm.steepest(gradient)

    def at(x, first, across, one, other):
        return logits_fn(tf.clip_by_value(x + epsilon * (one * first + other * across), 0.0, 1.0))

    part = tf.TensorSpec(())
    along, at = compiled(along, spec, labels_spec), compiled(at, spec, spec, spec, part, part)
    generator = np.random.default_rng(seed)
    found = []
    for x, y, index in batches(images, labels, batch_size):
        first = along(x, y)
        other = second(first.numpy(), generator, norm) if callable(second) else second[index.numpy()]
        across = tf.constant(other, tf.float32)
        heights = np.empty((len(x), len(parts), len(parts)))
        for row, up in enumerate(parts):
            for column, right in enumerate(parts):
                logits = at(x, first, across, tf.constant(right, tf.float32), tf.constant(up, tf.float32)).numpy()
                found_there = measured_losses.of_logits(logits.astype(np.float64), y.numpy())
                heights[:, row, column] = found_there.share_of_chance(logits.shape[1])
        found.append(heights)
    return np.concatenate(found)


def orthogonal(directions: np.ndarray, generator: np.random.Generator, norm: str | norms.Norm = "linf") -> np.ndarray:
    """Returns random directions of length 1, orthogonal to `directions`, both (B, H, W, C), float32.

    In L-infinity these are signs, half of which agree with those of `directions`; in L2 they are uniform on the sphere.
    """
    return norms.of(norm).orthogonal_direction(directions, generator)


def independent(directions: np.ndarray, generator: np.random.Generator, norm: str | norms.Norm = "linf") -> np.ndarray:
    """Returns random directions of length 1, of the shape of `directions` but independent of them, float32.

    They are the steepest directions of normal draws: signs in L-infinity, uniform on the sphere in L2.
    """
    drawn = tf.constant(generator.normal(size=directions.shape))
    return norms.of(norm).steepest(drawn).numpy().astype(np.float32)
