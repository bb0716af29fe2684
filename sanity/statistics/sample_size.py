"""The number of images that would decide an inconclusive check."""

import math
from collections.abc import Callable

import scipy.stats

from sanity.result import Verdict

MOST = 1_000_000  # images, at which the search stops


def ruling_out(share: float, *, confidence: float = 0.95) -> int:
    """Returns the smallest number of images, none of them affected, whose Wilson interval ends below `share`.

    The upper limit for no success among n is z^2 / (n + z^2), with z the normal quantile of the confidence.
    """
    z = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
    return math.floor(z * z * (1.0 - share) / share) + 1


def deciding(verdict: Callable[[int], Verdict], images: int) -> int | None:
    """Returns a number of images above `images`, a multiple of ten, that decides; None if none up to `MOST` does.

    Args:
        verdict: function of a number of images that returns the `Verdict`, for instance at the observed share.
        images: number of images that was too small.
    """
    while images < MOST:
        images = (int(images * 1.1) // 10 + 1) * 10
        if verdict(images) is not Verdict.INCONCLUSIVE:
            return images
    return None
