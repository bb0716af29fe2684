"""Whether the accuracy under an attack is high enough to be overrated because of masked gradients."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping

import numpy as np

from sanity.result import Verdict
from sanity.settings import Settings
from sanity.statistics.paired import Increase, clearest_increase
from tf_nuat.evaluate import exceeds, wilson


class Judged(typing.Protocol):
    """The part of a `sanity.subject.Subject` that is needed here."""

    @property
    def chance(self) -> float: ...

    def __len__(self) -> int: ...


def is_overratable(correct: np.ndarray, subject: Judged, settings: Settings) -> bool:
    """Returns whether an attack leaves significantly more images `correct`, bool (N,), than chance would.

    If not, no sign of masking counts: nobody would report such an accuracy. The significance level is that of the
    intervals, `1 - settings.confidence`.

    Example:
        >>> [is_overratable(np.arange(100) < left, subject, settings) for left in (50, 5)]
        [True, False]
    """
    return exceeds(int(np.sum(correct)), len(subject), subject.chance) < 1.0 - settings.confidence


@dataclasses.dataclass(frozen=True)
class Overrating:
    """Whether the accuracy under an attack may be overrated. If neither flag is true, the sample is too small to tell.

    Attributes:
        possible: whether the attack leaves significantly more than chance: a sign of masking counts.
        ruled_out: whether it does not, and the sample rules out that it leaves `settings.detectable` more than chance.
        words: what the attack leaves, as a sentence that follows another; "" if a sign counts.

    Example:
        >>> found = [Overrating.of("PGD", np.arange(100) < left, subject, settings) for left in (50, 12, 5)]
        >>> [(each.possible, each.ruled_out) for each in found]
        [(True, False), (False, False), (False, True)]
    """

    possible: bool
    ruled_out: bool
    words: str

    @classmethod
    def of(cls, label: str, correct: np.ndarray, subject: Judged, settings: Settings) -> typing.Self:
        """Returns the `Overrating` of an attack that is called `label` and leaves `correct`, bool (N,)."""
        if is_overratable(correct, subject, settings):
            return cls(True, False, "")
        _, high = wilson(int(np.sum(correct)), len(subject), confidence=settings.confidence)
        left = f" {label} leaves {np.mean(correct):.1%} of the images,"
        if high < subject.chance + settings.detectable:
            nothing = "there is nothing that masked gradients could make look better than it is."
            return cls(False, True, f"{left} no more than chance ({subject.chance:.1%}): {nothing}")
        return cls(False, False, f"{left} and they are too few to tell that from chance ({subject.chance:.1%}).")

    def verdict(self, sign: Verdict) -> Verdict:
        """Returns the verdict of a check whose own numbers say `sign`.

        If overrating is possible, `sign` decides. If it is ruled out, the check passes. If the sample is too small to
        tell, a failure becomes inconclusive, and any other `sign` stays.
        """
        if self.possible:
            return sign
        if self.ruled_out:
            return Verdict.PASS
        return Verdict.INCONCLUSIVE if sign is Verdict.FAIL else sign

    def p_value(self, p_value: float) -> float:
        """Returns the p-value of a check whose own numbers say `p_value`: 1 if no sign counts."""
        return p_value if self.possible else 1.0


def clearest_overrating(
    comparisons: Mapping[str, tuple[np.ndarray, np.ndarray]],
    subject: Judged,
    settings: Settings,
    *,
    tests: int | None = None,
) -> tuple[Increase, Verdict, float, str]:
    """Returns the clearest increase that counts, the verdict on all of them, its p-value, and words.

    The `Overrating` of the second outcome, which the weaker attack leaves, says whether an increase counts. If the
    sample is too small to tell, the words are those of the `Overrating`; otherwise "". See `clearest_increase`.

    Example:
        >>> comparisons = {"PGD over FGSM": (np.arange(100) < 50, np.arange(100) < 60)}
        >>> clearest_overrating(comparisons, subject, settings)[1].value
        'fail'
    """
    found = {
        name: Overrating.of("The weaker attack", second, subject, settings) for name, (_, second) in comparisons.items()
    }
    tests = tests or len(comparisons)

    def clearest(names: Iterable[str]) -> Increase:
        chosen = {name: comparisons[name] for name in names}
        return clearest_increase(chosen, tests=tests, confidence=settings.confidence)

    counted = [name for name, each in found.items() if each.possible]
    too_few = [name for name, each in found.items() if not each.possible and not each.ruled_out]
    increase = clearest(counted or comparisons)
    verdict = increase.verdict(settings) if counted else Verdict.PASS
    p_value = increase.p_value if counted else 1.0
    if verdict is Verdict.PASS and too_few:
        unsure = clearest(too_few)
        if unsure.verdict(settings) is not Verdict.PASS:
            return unsure, Verdict.INCONCLUSIVE, p_value, found[unsure.name].words
    return increase, verdict, p_value, ""
