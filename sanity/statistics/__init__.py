"""Intervals and tests for proportions, and for differences between proportions of the same images."""

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
    "mcnemar",
    "mcnemar_two_sided",
    "paired_difference",
    "wilson",
]
