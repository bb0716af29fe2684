"""The share of the images that shows a sign, compared with a tolerated share."""

import dataclasses
import typing

from sanity import statistics
from sanity.result import Verdict
from sanity.settings import Settings
from sanity.statistics import sample_size


@dataclasses.dataclass(frozen=True)
class Share:
    """The share of images that shows a sign, and what follows from it.

    Attributes:
        count, images: number of images that show the sign, and number of all images.
        tolerance: the share that may show it.
        low, high: Wilson's interval of the share.
        p_value: of "the share is no larger than `tolerance`", exact binomial, times the number of tests, at most 1.
        verdict: fail if the share is significantly above `tolerance`; pass if the sample rules out
            `settings.detectable` more than `tolerance`; else inconclusive.
        decisive: number of images that would decide at this share, if inconclusive; None if unknown.
    """

    count: int
    images: int
    tolerance: float
    low: float
    high: float
    p_value: float
    verdict: Verdict
    decisive: int | None

    @classmethod
    def of(
        cls, count: int, images: int, tolerance: float, settings: Settings, *, tests: int = 1, **more: typing.Any
    ) -> typing.Self:
        """Returns the `Share` of `count` of `images`; it is one of `tests` that divide alpha (Bonferroni).

        `more` are the attributes that a subclass adds.
        """
        low, high, p_value, verdict = _judged(count, images, tolerance, settings, tests)
        decisive = None
        if verdict is Verdict.INCONCLUSIVE:
            decisive = sample_size.deciding(
                lambda number: _judged(round(count / images * number), number, tolerance, settings, tests)[-1], images
            )
        return cls(count, images, tolerance, low, high, p_value, verdict, decisive, **more)

    @property
    def value(self) -> float:
        """The share."""
        return self.count / self.images

    @property
    def more(self) -> str:
        """What to do if the sample is too small."""
        return f"Judge {f'about {self.decisive:,}' if self.decisive else 'more'} images (--samples)."


def _judged(count, images, tolerance, settings, tests):
    low, high = statistics.wilson(count, images, confidence=settings.confidence)
    p_value = min(1.0, tests * statistics.exceeds(count, images, tolerance))
    if p_value < settings.alpha:
        return low, high, p_value, Verdict.FAIL
    return low, high, p_value, Verdict.PASS if high < tolerance + settings.detectable else Verdict.INCONCLUSIVE
