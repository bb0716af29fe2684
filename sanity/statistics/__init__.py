"""Intervals and tests for proportions, and for differences between proportions of the same images."""

from sanity.statistics.paired import (
    Increase,
    bar,
    clearest_increase,
    curve,
    exceeds,
    mcnemar,
    mcnemar_two_sided,
    paired_difference,
    wilson,
)

__all__ = [
    "Increase",
    "bar",
    "clearest_increase",
    "curve",
    "exceeds",
    "mcnemar",
    "mcnemar_two_sided",
    "paired_difference",
    "wilson",
]
