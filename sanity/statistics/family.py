"""Several tests that share one error probability."""

from collections.abc import Mapping


def holm(p_values: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Returns the level at which each test is judged, so that any of them errs with a probability of at most `alpha`.

    The smallest p-value is compared with alpha / m, the next with alpha / (m - 1), and so on, up to the first that is
    not below its level: what comes after it keeps that one.

    Args:
        p_values: of the m tests, by name.
        alpha: of all together.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    levels: dict[str, float] = {}
    level, rejects = alpha, True
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda each: each[1])):
        level = alpha / (len(p_values) - rank) if rejects else level
        rejects = rejects and p_value < level
        levels[name] = level
    return levels
