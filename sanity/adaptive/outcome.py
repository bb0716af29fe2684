"""The attacks that the adaptive stage tried, and their outcomes."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attack of the adaptive stage, on the images that earlier ones had left.

    Attributes:
        attack: the attack and what it was run on, in words.
        why: the observations that speak for it.
        images: number of images that were attacked before the time was over, at least 1.
        accuracy: share of these that remained correctly classified.
        interval: Wilson interval (low, high) of the accuracy.
        seconds: how long it took.

    Example:
        >>> Attempt("pgd", "gradients are zero", images=50, accuracy=0.4, interval=(0.28, 0.54), seconds=1.0).fooled
        30
    """

    attack: str
    why: str
    images: int
    accuracy: float
    interval: tuple[float, float]
    seconds: float

    @property
    def fooled(self) -> int:
        """Number of images that it fooled."""
        return round(self.images * (1.0 - self.accuracy))


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """The outcome of `sanity.adaptive.find_way_round`.

    Attributes:
        tried: the attempts, in their order; empty if no image or no time was left.
        best: the one that fooled most images; None if none fooled any.
        correct: which images of the sample withstood all attempts and all earlier attacks, bool (N,). Earlier outcomes
            by single random answers do not count. Not part of the JSON form.
        cut_short: names of the attempts that had no time for some image that withstood all the others.

    Example:
        >>> attempt = Attempt("pgd", "gradients are zero", images=2, accuracy=0.5, interval=(0.1, 0.9), seconds=1.0)
        >>> Adaptive((attempt,), attempt, np.array([True, False])).best.fooled
        1
    """

    tried: tuple[Attempt, ...]
    best: Attempt | None
    correct: np.ndarray = dataclasses.field(metadata={"json": False}, repr=False, compare=False)
    cut_short: tuple[str, ...] = ()
