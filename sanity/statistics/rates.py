"""Rates of outcomes with Wilson's intervals, as the content of figures."""

import numpy as np

from sanity.series import Bar, Bars, Curve
from tf_nuat.evaluate import wilson


def bars(label: str, outcomes: dict, *, confidence: float = 0.95, levels: tuple = ()) -> Bars:
    """Returns `Bars` of the rates, with Wilson's limits, from top to bottom.

    Args:
        label: what the length of a bar shows.
        outcomes: dict of (name, group) to bool (N,).
        confidence: confidence of the limits.
        levels: tuple of (name, length) to be marked.

    Example:
        >>> bars("accuracy", {("PGD", "white box"): np.arange(100) < 60}).bars[0].y
        0.6
    """
    drawn = (
        Bar(name, float(np.mean(each)), *wilson(np.sum(each), len(each), confidence=confidence), group=group)
        for (name, group), each in outcomes.items()
    )
    return Bars(label, tuple(drawn), levels)


def accuracies(outcomes: dict, *, confidence: float = 0.95) -> Bars:
    """Returns `bars` of the accuracy that attacks leave; `outcomes` is a dict of (name, group) to bool (N,).

    Example:
        >>> accuracies({("PGD", "white box"): np.arange(100) < 60}).bars[0].y
        0.6
    """
    return bars("accuracy that remains", outcomes, confidence=confidence)


def curve(name: str, outcomes: dict, *, confidence: float = 0.95) -> Curve:
    """Returns the `Curve` of the rates, with Wilson's limits, of `outcomes`, a dict of x to bool (N,).

    Example:
        >>> curve("PGD", {1: np.arange(100) < 60, 10: np.arange(100) < 50}).y
        (0.6, 0.5)
    """
    limits = [wilson(np.sum(each), len(each), confidence=confidence) for each in outcomes.values()]
    return Curve(
        name=name,
        x=tuple(outcomes),
        y=tuple(float(np.mean(each)) for each in outcomes.values()),
        low=tuple(low for low, _ in limits),
        high=tuple(high for _, high in limits),
    )
