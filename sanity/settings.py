"""What all checks share: how sure they are, and how hard they attack."""

import dataclasses
import typing

from tf_nuat.core import validation


@dataclasses.dataclass(frozen=True)
class Settings:
    """Statistical thresholds and the white-box attack.

    Attributes:
        alpha: error probability of a judgement, in (0, 1): at most this often are masked gradients suspected of an
            honest network. The checks that speak of masking share it (Holm), and a check that makes several comparisons
            divides its share among them (Bonferroni). Of a check alone it is the significance level.
        confidence: confidence of the intervals that are reported, in (0, 1).
        detectable: a check passes only where the sample rules out a sign of masking of this size, in (0, 1);
            0.05 is 5 points of accuracy. A smaller sample is inconclusive.
        steps: steps of the PGD that stands for "the white-box attack" where a check compares it with another, at
            least 1; the step size is `way` epsilon / steps.
        way: length of all steps of PGD together, in epsilon, above 0: that of the norm.
        most_steps: steps at most where their number is what is looked at, at least 2 and `steps`.
        restarts: restarts of PGD where it is compared with attacks that know the defense, at least 1.
        fab_targets: classes that FAB is run towards, at least 1. It seldom finds what APGD-T does not.
        queries: of Square, at least 1: 1,000 take a minute for LeNet+ and 1,000 images on two cores.
        points: of random search, at least 1.
        slow_images: number of images for `second_opinion`, which takes long an image, at least 2.
        planted_images: number of images for `decision_boundary_binarization`, which takes long, too, at least 2. Of an
            attack that misses one planted adversary in ten, 250 tell so in three cases of four, 100 in one of three.

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
        """Steps of the I-FGSM whose loss is compared with that of one step: 20 at most; 40 raise it by 2 % more."""
        return min(self.steps, 20)


class Budget(typing.NamedTuple):
    """What a judgement may cost at most.

    Attributes:
        settings: the `Settings`.
        samples: number of images, unless another is given or there are more classes.
        minutes: how long it takes, unless something else is given.
        slow_minutes: as `minutes`, for a network that is slow: its checks on the fewest images take more than half of
            them.

    Example:
        >>> from sanity.settings import BUDGETS
        >>> BUDGETS["quick"].minutes, BUDGETS["quick"].samples
        (2.0, 400)
    """

    settings: Settings
    samples: int
    minutes: float
    slow_minutes: float


# The steps of PGD are not fewer where it is quick: 20 stop too soon on networks that are robust.
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
