"""Intervals and tests for proportions, and for differences between proportions of the same images."""

from sanity.statistics.family import holm, holm_adjusted
from sanity.statistics.overrated import is_overratable, nothing_to_overrate
from sanity.statistics.paired import (
    Increase,
    clearest_increase,
    mcnemar,
    mcnemar_two_sided,
    paired_difference,
)
from sanity.statistics.rates import accuracies, bars, curve
from tf_nuat.evaluate import exceeds, wilson

__all__ = [
    "Increase",
    "accuracies",
    "bars",
    "clearest_increase",
    "curve",
    "exceeds",
    "holm",
    "holm_adjusted",
    "is_overratable",
    "mcnemar",
    "mcnemar_two_sided",
    "nothing_to_overrate",
    "paired_difference",
    "wilson",
]
