"""The loss of each image under an attack that does not stop early, and t tests of its mean."""

import dataclasses
import typing

import keras
import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from tf_nuat.attacks import ATTACKS

MOST = 1e4  # nats, in a figure: an infinite loss has no place there


@dataclasses.dataclass(frozen=True)
class Losses:
    """The cross-entropy of each image, float64 (N,), and whether it is classified correctly, bool (N,)."""

    loss: np.ndarray
    correct: np.ndarray

    def share_of_chance(self, num_classes: int) -> np.ndarray:
        """Returns the losses divided by ln K, the loss of uniform guessing, and clipped to at most 1: in [0, 1], (N,).

        An image with a larger loss is lost, and how large the loss is depends on the scale of the logits alone.
        """
        return np.minimum(self.loss / np.log(num_classes), 1.0)


def under(
    network: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    attack: str | None = None,
    *,
    batch_size: int,
    **settings: typing.Any,
) -> Losses:
    """Returns the `Losses` at the last point of an attack, which must not return the clean image if it fails.

    Args:
        network: a `keras.Model`, images -> logits.
        images: (N, H, W, C), float32 in [0, 1].
        labels: integers (N,).
        attack: a key of `tf_nuat.attacks.ATTACKS`, for instance "fgsm" or "ifgsm"; None for the images as they are.
        batch_size: images at a time, which bounds the memory.
        **settings: the attack's keywords.
    """
    parts = []
    size = min(batch_size, len(images))
    for first in range(0, len(images), size):
        rows = np.resize(np.arange(first, min(first + size, len(images))), size)  # one shape, one compilation
        x, y = tf.constant(images[rows]), tf.constant(labels[rows])
        x = x if attack is None else ATTACKS[attack](network, x, y, **settings)
        logits = keras.ops.convert_to_numpy(network(x, training=False)).astype(np.float64)
        parts.append(logits[: len(images) - first])
    return of_logits(np.concatenate(parts), labels)


def of_logits(logits: np.ndarray, labels: np.ndarray) -> Losses:
    """Returns the `Losses` of logits, float64 (N, K); small losses stay precise, and NaN counts as an infinite loss."""
    true = np.arange(logits.shape[1]) == np.asarray(labels)[:, None]
    own = logits[true]
    wrong = scipy.special.logsumexp(np.where(true, -np.inf, logits), axis=1)
    with np.errstate(invalid="ignore"):
        loss = np.logaddexp(0.0, wrong - own)
    # Of those that tie the first, as `argmax` of what `predict` returns.
    answers = np.argmax(np.where(np.isnan(logits), -np.inf, logits), axis=1)
    return Losses(np.where(np.isnan(loss), np.inf, loss), (answers == np.asarray(labels)) & ~np.isnan(own))


def exceeds(values: np.ndarray, mean: float) -> float:
    """Returns the p-value of "the mean is at most `mean`", by Student's test of `values` (N,)."""
    error = _standard_error(values)
    excess = float(np.mean(values)) - mean
    if error == 0.0:
        return 0.0 if excess > 0.0 else 1.0
    return float(scipy.stats.t.sf(excess / error, len(values) - 1))


def interval(values: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float]:
    """Returns Student's interval (low, high) of the mean of `values` (N,)."""
    half = _quantile(len(values), confidence) * _standard_error(values)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def ratio_interval(
    numerator: np.ndarray, denominator: np.ndarray, *, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Returns Fieller's interval (low, high) of the ratio of the means of two values of the same images, (N,).

    It contains the ratios r for which Student's test does not reject that the mean of numerator - r denominator is 0.
    None if the mean of the denominator is not significantly different from 0: the interval is then unbounded.

    Source: Fieller, "Some problems in interval estimation", 1954.
    """
    size = len(numerator)
    square = _quantile(size, confidence) ** 2 / size
    above, below = float(np.mean(numerator)), float(np.mean(denominator))
    (var_above, covariance), (_, var_below) = np.cov(numerator, denominator)
    a, b, c = below**2 - square * var_below, above * below - square * covariance, above**2 - square * var_above
    if a <= 0.0:
        return None
    root = float(np.sqrt(max(0.0, b * b - a * c)))
    return float((b - root) / a), float((b + root) / a)


def _standard_error(values):
    return float(np.std(values, ddof=1)) / np.sqrt(len(values))


def _quantile(size, confidence):
    return float(scipy.stats.t.ppf(0.5 + confidence / 2, size - 1))
