"""Several tests that share one error probability."""

from collections.abc import Mapping, Sequence


def holm(p_values: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Returns the level of each test, so that the probability of any false rejection is at most `alpha`.

    The smallest p-value is compared with alpha / m, the next with alpha / (m - 1), and so on, up to the first that is
    not below its level. All later ones get the level of that one.

    Args:
        p_values: p-values of the m tests, by name.
        alpha: error probability of all tests together.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm({"a": 0.001, "b": 0.2}, alpha=0.01)
        {'a': 0.005, 'b': 0.01}
    """
    levels: dict[str, float] = {}
    level, rejects = alpha, True
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda each: each[1])):
        level = alpha / (len(p_values) - rank) if rejects else level
        rejects = rejects and p_value < level
        levels[name] = level
    return levels


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values, adjusted for testing all together, in their order: `holm` rejects those below alpha.

    Source: as for `holm`.

    Example:
        >>> holm_adjusted([0.001, 0.2])
        [0.002, 0.2]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
