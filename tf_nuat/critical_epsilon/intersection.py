"""Finds where losses at several epsilons reach a threshold, by interpolation or by extrapolation of a line.

Losses are (R, E): R runs at the same E epsilons. The uncertainty is that of the mean of the runs.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.stats

from tf_nuat.core import validation

CONFIDENCE = 0.95


Losses = Sequence[Sequence[float]] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An estimate of the epsilon at which a loss reaches a threshold.

    Attributes:
        epsilon: the mean of the estimates of the runs.
        low, high: its 95 % interval, Student's, cut off at 0; None where there is one run.
        each: the estimates of the runs, a tuple.
        lines: (intercept, slope) of the line of each run, a tuple; None for an interpolation.
    """

    epsilon: float
    low: float | None
    high: float | None
    each: tuple[float, ...]
    lines: tuple[tuple[float, ...], ...] | None = None


def interpolated(epsilons: Sequence[float], losses: Losses, thresholds: Sequence[float]) -> Estimate:
    """Returns the `Estimate` of the largest epsilon with a loss not above the threshold, by linear interpolation.

    Args:
        epsilons: at least two different ones (E,), above 0, in any order.
        losses: (R, E).
        thresholds: (R,), one per run.

    Raises:
        ValueError: the epsilons do not bracket the threshold (the error says which way to extend them), or an argument
            is out of range.

    Source: Xing et al., "Phase transition from clean training to adversarial training", 2022, section 5.2.
    """
    ordered, rows = _checked(epsilons, losses)
    each = np.broadcast_to(np.asarray(thresholds, float), len(rows))
    return _estimate([_last_crossing(ordered, row, threshold) for row, threshold in zip(rows, each)])


def extrapolated(epsilons: Sequence[float], losses: Losses, threshold: float) -> Estimate:
    """Returns the `Estimate` of the epsilon at which lines through small epsilons reach the threshold.

    Args:
        epsilons: at least two different ones (E,), above 0, in any order.
        losses: (R, E); a line is fitted to those of each run, by least squares.
        threshold: a number.

    Raises:
        ValueError: a line does not rise, or it is above the threshold at 0; or an argument is out of range.

    Source: Xing et al., 2022, section 6.
    """
    ordered, rows = _checked(epsilons, losses)
    lines = tuple(map(tuple, np.polynomial.polynomial.polyfit(ordered, rows.T, 1).T.tolist()))
    for number, (intercept, slope) in enumerate(lines, start=1):
        if slope <= 0:
            raise ValueError(
                f"epsilons are {_written(ordered)}, where the losses of run {number} do not rise "
                f"({_written(rows[number - 1])}); allowed: larger ones, or longer fine-tuning"
            )
        if intercept >= threshold:
            raise ValueError(
                f"epsilons are {_written(ordered)}, where the line of run {number} is {intercept:.4g} at epsilon 0, "
                f"not below the clean test loss {threshold:.4g}; allowed: longer fine-tuning, or smaller ones"
            )
    return dataclasses.replace(_estimate([(threshold - a) / b for a, b in lines]), lines=lines)


def check_epsilons(argument: str, epsilons: Sequence[float], *, at_least: int = 2) -> np.ndarray:
    """Returns `epsilons` in increasing order, floats (E,): at least so many, different, above 0.

    Raises:
        ValueError: they are not; the error names `argument`.
    """
    for epsilon in epsilons:
        validation.number(argument, epsilon, above=0.0)
    if len(set(epsilons)) != len(epsilons) or len(epsilons) < at_least:
        raise ValueError(f"{argument} are {_written(epsilons) or 'none'}; allowed: at least {at_least} different ones")
    return np.sort(np.asarray(epsilons, float))


def check_brackets(epsilon: float, loss: float, threshold: float, *, is_lowest: bool) -> None:
    """Checks that the loss at the lowest, or highest, of the epsilons is on the right side of the threshold.

    Raises:
        ValueError: it is not; the error says which way to extend the epsilons.
    """
    if is_lowest and loss > threshold:
        end, where, further = "lowest", "above", "smaller"
    elif not is_lowest and loss <= threshold:
        end, where, further = "highest", "not above", "larger"
    else:
        return
    raise ValueError(
        f"epsilons have {epsilon:.4g} as the {end}, where the training loss {loss:.4g} is {where} the clean test loss "
        f"{threshold:.4g}; allowed: epsilons that bracket it, extend them by {further} ones"
    )


def check_below(epsilon: float, loss: float, threshold: float) -> None:
    """Checks that the loss at an epsilon from which a line is extrapolated has not passed the threshold.

    Raises:
        ValueError: it has.
    """
    if loss > threshold:
        raise ValueError(
            f"epsilons have {epsilon:.4g}, where the training loss {loss:.4g} is above the clean test loss "
            f"{threshold:.4g}; allowed: smaller ones, or longer fine-tuning"
        )


def _checked(epsilons: Sequence[float], losses: Losses) -> tuple[np.ndarray, np.ndarray]:
    """Returns the epsilons (E,) in increasing order, and the losses (R, E) at them."""
    rows = np.atleast_2d(np.asarray(losses, float))
    ordered = check_epsilons("epsilons", list(epsilons))
    if rows.ndim != 2 or rows.shape[1] != len(ordered) or not len(rows):
        raise ValueError(f"losses have shape {rows.shape}; allowed: (runs, {len(ordered)}), one per epsilon")
    if not np.isfinite(rows).all():
        raise ValueError(f"losses are {_written(rows.ravel())}; allowed: finite numbers")
    return ordered, rows[:, np.argsort(np.asarray(epsilons, float))]


def _last_crossing(epsilons: np.ndarray, losses: np.ndarray, threshold: float) -> float:
    """Returns the largest epsilon with a loss not above the threshold: noisy losses may cross it several times."""
    check_brackets(epsilons[0], losses[0], threshold, is_lowest=True)
    check_brackets(epsilons[-1], losses[-1], threshold, is_lowest=False)
    below = np.flatnonzero(losses <= threshold)[-1]
    share = (threshold - losses[below]) / (losses[below + 1] - losses[below])
    return epsilons[below] + share * (epsilons[below + 1] - epsilons[below])


def _estimate(found: Sequence[float]) -> Estimate:
    each, count = tuple(map(float, found)), len(found)
    mean = float(np.mean(each))
    if count == 1:
        return Estimate(mean, None, None, each)
    half = scipy.stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * np.std(each, ddof=1) / math.sqrt(count)
    return Estimate(mean, max(0.0, mean - float(half)), mean + float(half), each)


def _written(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
