"""Intervals and tests for differences between proportions of the same images.

Outcomes are bool arrays (N,), one entry per image. Everything is a closed form or an exact test.
"""

import dataclasses
import math

import numpy as np
import scipy.stats

from sanity.result import Verdict
from sanity.settings import Settings
from tf_nuat.evaluate import exceeds


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the p-value of "`second` is true no more often than `first`", for outcomes of the same images.

    The exact, one-sided test: of the images whose outcomes differ, half would be true in `second` by chance.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.

    Example:
        >>> fgsm, pgd = np.arange(100) < 50, np.arange(100) < 60
        >>> round(mcnemar(fgsm, pgd), 4)
        0.001
    """
    gained, lost = _discordant(first, second)
    return exceeds(gained, gained + lost, 0.5) if gained + lost else 1.0


def mcnemar_two_sided(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the p-value of "`first` and `second` are true equally often", for outcomes of the same images.

    It is twice the smaller of the two one-sided p-values of `mcnemar`, at most 1.

    Example:
        >>> round(mcnemar_two_sided(np.arange(100) < 50, np.arange(100) < 60), 4)
        0.002
    """
    return min(1.0, 2.0 * min(mcnemar(first, second), mcnemar(second, first)))


def paired_difference(first: np.ndarray, second: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Returns (difference, low, high) of the rate of `second` minus that of `first`, for outcomes of the same images.

    The interval is Wald's, with one image added to each kind of discordant pairs. This keeps its coverage for small
    samples and when no outcome differs. The interval is centred on the difference of the enlarged counts.

    Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", 2012.

    Example:
        >>> [round(each, 3) for each in paired_difference(np.arange(100) < 50, np.arange(100) < 60)]
        [0.1, 0.034, 0.162]
    """
    gained, lost = _discordant(first, second)
    n = len(first)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _quantile(confidence) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return (gained - lost) / n, max(-1.0, up - down - half), min(1.0, up - down + half)


@dataclasses.dataclass(frozen=True)
class Increase:
    """The clearest of several increases that should not be there.

    Attributes:
        name: which comparison it is.
        difference, low, high: the increase and its interval, for this comparison alone.
        highest: the highest limit of the intervals of all comparisons.
        p_value: of the increase, times the number of comparisons (Bonferroni), at most 1.

    Example:
        >>> Increase("PGD over FGSM", 0.1, 0.04, 0.16, highest=0.16, p_value=0.001).verdict(settings).value
        'fail'
    """

    name: str
    difference: float
    low: float
    high: float
    highest: float
    p_value: float

    def verdict(self, settings: Settings) -> Verdict:
        """Fail if significant; pass if the sample rules out an increase of `settings.detectable`; else inconclusive."""
        if self.p_value < settings.alpha:
            return Verdict.FAIL
        return Verdict.PASS if self.highest < settings.detectable else Verdict.INCONCLUSIVE


def clearest_increase(comparisons: dict, *, tests: int | None = None, confidence: float = 0.95) -> Increase:
    """Returns the `Increase` with the smallest p-value among `comparisons`, a dict of name to (first, second).

    `tests` is the number of planned comparisons, if some of them are left out; default: the number of `comparisons`.

    Example:
        >>> clearest_increase({"PGD over FGSM": (np.arange(100) < 50, np.arange(100) < 60)}).difference
        0.1
    """
    tests = tests or len(comparisons)
    found = []
    for name, (first, second) in comparisons.items():
        p_value = min(1.0, mcnemar(first, second) * tests)
        found.append((p_value, name, paired_difference(first, second, confidence=confidence)))
    p_value, name, (difference, low, high) = min(found, key=lambda entry: (entry[0], -entry[2][0]))
    return Increase(name, difference, low, high, max(entry[2][2] for entry in found), p_value)


def _discordant(first, second):
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    return int(np.sum(second & ~first)), int(np.sum(first & ~second))


def _quantile(confidence):
    return float(scipy.stats.norm.ppf(0.5 + confidence / 2))
