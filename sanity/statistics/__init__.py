"""Intervals and tests for proportions, and for differences between proportions of the same images."""

from sanity.statistics.family import holm, holm_adjusted
from sanity.statistics.overrated import Overrating, clearest_overrating, is_overratable
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
    "Overrating",
    "accuracies",
    "bars",
    "clearest_increase",
    "clearest_overrating",
    "curve",
    "exceeds",
    "holm",
    "holm_adjusted",
    "is_overratable",
    "mcnemar",
    "mcnemar_two_sided",
    "paired_difference",
    "wilson",
]
