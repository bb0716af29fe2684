"""The settings that all checks share: statistical thresholds and the strength of the attacks."""

import dataclasses
import typing

from tf_nuat.core import validation


@dataclasses.dataclass(frozen=True)
class Settings:
    """Statistical thresholds and the strength of the attacks.

    Attributes:
        alpha: largest probability of suspecting masked gradients in an honest network, in (0, 1). The checks that test
            for masking share it (Holm), and a check with several comparisons divides its share among them (Bonferroni).
            For a single check it is the significance level.
        confidence: confidence of the intervals that are reported, in (0, 1).
        detectable: a check passes only if the sample rules out a sign of masking of this size, in (0, 1); 0.05 is 5
            points of accuracy. A smaller sample is inconclusive.
        steps: steps of PGD, the white-box attack that checks compare with others, at least 1; the step size is
            `way` epsilon / steps.
        way: total length of all steps of PGD, in epsilon, above 0; a judgement takes that of the norm.
        most_steps: largest number of steps in checks that vary it, at least 2 and `steps`.
        restarts: restarts of PGD in the comparison with stronger attacks, at least 1.
        fab_targets: number of classes that FAB targets, at least 1. It seldom finds what APGD-T does not.
        queries: queries of Square, at least 1: 1,000 take a minute for LeNet+ and 1,000 images on two cores.
        points: points of random search, at least 1.
        slow_images: number of images for `second_opinion`, which is slow, at least 2.
        planted_images: number of images for `decision_boundary_binarization`, which is slow, too, at least 2. If an
            attack misses one planted adversary in ten, 250 images show it in three cases of four, 100 in one of three.

    Raises:
        ValueError: an attribute is out of its range.

    Example:
        >>> Settings(steps=20).pgd(epsilon=0.1)
        {'epsilon': 0.1, 'steps': 20, 'step_size': 0.0125}
    """

    alpha: float = 0.01
    confidence: float = 0.95
    detectable: float = 0.05
    steps: int = 40
    way: float = 2.5
    most_steps: int = 500
    restarts: int = 5
    fab_targets: int = 3
    queries: int = 1000
    points: int = 100
    slow_images: int = 200
    planted_images: int = 250

    def __post_init__(self) -> None:
        for name in ("alpha", "confidence", "detectable"):
            validation.number(name, getattr(self, name), above=0.0, below=1.0)
        for name in ("steps", "restarts", "fab_targets", "queries", "points"):
            validation.whole_number(name, getattr(self, name), at_least=1)
        for name in ("slow_images", "planted_images"):
            validation.whole_number(name, getattr(self, name), at_least=2)
        validation.number("way", self.way, above=0.0)
        validation.whole_number("most_steps", self.most_steps, at_least=max(2, self.steps))

    def pgd(self, epsilon: float) -> dict:
        """Returns the keywords of the white-box PGD at `epsilon`: one random start, step size `way` epsilon / steps."""
        return {"epsilon": epsilon, "steps": self.steps, "step_size": self.way * epsilon / self.steps}

    @property
    def ascent_steps(self) -> int:
        """Steps of the I-FGSM whose loss is compared with FGSM's: 20 at most; 40 raise the loss by only 2 % more."""
        return min(self.steps, 20)


class Budget(typing.NamedTuple):
    """The most that a judgement may cost.

    Attributes:
        settings: the `Settings`.
        samples: number of images, unless another is given or there are more classes.
        minutes: time limit, unless another is given.
        slow_minutes: as `minutes`, for a slow network: one whose checks on the fewest images take more than half of
            `minutes`.

    Example:
        >>> from sanity.settings import BUDGETS
        >>> BUDGETS["quick"].minutes, BUDGETS["quick"].samples
        (2.0, 400)
    """

    settings: Settings
    samples: int
    minutes: float
    slow_minutes: float


# `quick` keeps all steps of PGD: 20 are too few on robust networks.
BUDGETS = {
    "quick": Budget(Settings(most_steps=100, restarts=2, queries=300, points=50, planted_images=60), 400, 2.0, 3.0),
    "standard": Budget(Settings(), 1600, 12.0, 12.0),
    "thorough": Budget(
        Settings(steps=100, restarts=10, fab_targets=9, queries=5000, points=1000, slow_images=500, planted_images=500),
        3200,
        60.0,
        60.0,
    ),
}
