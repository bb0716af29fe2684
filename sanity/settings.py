"""What all checks share: how sure they are, and how hard they attack."""

import dataclasses

from tf_nuat import validation


@dataclasses.dataclass(frozen=True)
class Settings:
    """Statistical thresholds and the white-box attack.

    Attributes:
        alpha: significance level of a check, in (0, 1): an honest network fails it with at most this probability. A
            check that makes several comparisons divides it among them (Bonferroni).
        confidence: confidence of the intervals that are reported, in (0, 1).
        detectable: a check passes only where the sample rules out a sign of masking of this size, in (0, 1);
            0.05 is 5 points of accuracy. A smaller sample is inconclusive.
        steps: steps of the PGD that stands for "the white-box attack" where a check compares it with another, at
            least 1; the step size is 2.5 epsilon / steps.

    Raises:
        ValueError: an attribute is out of its range.
    """

    alpha: float = 0.01
    confidence: float = 0.95
    detectable: float = 0.05
    steps: int = 40

    def __post_init__(self):
        for name in ("alpha", "confidence", "detectable"):
            validation.number(name, getattr(self, name), above=0.0, below=1.0)
        validation.whole_number("steps", self.steps, at_least=1)

    def pgd(self, epsilon):
        """Returns the keywords of the white-box PGD at `epsilon`: one random start, step size 2.5 epsilon / steps."""
        return {"epsilon": epsilon, "steps": self.steps, "step_size": 2.5 * epsilon / self.steps}
