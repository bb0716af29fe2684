"""What the adaptive stage tried, and what that left."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attack of the adaptive stage, on the images that those before it had left.

    Attributes:
        attack: the attack and what it was run on, in words.
        why: what was seen that speaks for it.
        images: number of images that were attacked, at least 1.
        accuracy: share of these that it left correctly classified.
        interval: Wilson interval (low, high) of that.
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
    """What `sanity.adaptive.find_way_round` returns.

    Attributes:
        tried: the attempts, in their order; empty where no image was left to attack.
        best: the one that fooled most images; None where none fooled any.
        correct: which images of the sample withstood all of them and whatever was run before, bool (N,). What single
            random answers said before does not count. Not part of the JSON form.

    Example:
        >>> attempt = Attempt("pgd", "gradients are zero", images=2, accuracy=0.5, interval=(0.1, 0.9), seconds=1.0)
        >>> Adaptive((attempt,), attempt, np.array([True, False])).best.fooled
        1
    """

    tried: tuple[Attempt, ...]
    best: Attempt | None
    correct: np.ndarray = dataclasses.field(metadata={"json": False}, repr=False, compare=False)
