"""Derives the verdict and its wording from the results of the checks and the accuracies."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from sanity import statistics
from sanity.result import Result, Verdict
from sanity.settings import Settings

SUSPECTED, NOT_SEEN, UNSURE = "suspected", "not seen", "undecided"  # of masked gradients
ROBUST, PARTLY, NOT = "genuinely robust", "partly robust", "not robust"
MASKED, UNDECIDED, NOT_JUDGED = "masked gradients suspected", "undecided", "not judged"

RULE = (
    "A judgement answers two questions. Are gradients masked? Masking is suspected if a check of masking failed. It is "
    "undecided if such a check could not decide, or if none passed. Otherwise it is not seen. All these checks "
    "together suspect an honest network with a probability of at most alpha. How robust is the network? The lower "
    "limit of the interval of the worst-case accuracy decides. Above half of the clean accuracy, and above a quarter "
    "of the way from chance (the share of the commonest class) to it, the network is genuinely robust. Above chance "
    "alone, it is partly robust. Otherwise it is not robust. The verdict is the answer to the second question, unless "
    "masking is suspected or undecided."
)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The number of `images` that are classified correctly, the same as a fraction, and its interval (low, high).

    Example:
        >>> accuracy(np.array([True, True, True, False]), settings).accuracy
        0.75
    """

    correct: int
    images: int
    accuracy: float
    interval: tuple


@dataclasses.dataclass(frozen=True)
class WorstCase(Accuracy):
    """The accuracy in the worst case over `attacks` attacks.

    `attack`, in words, is the one that fooled the most images that PGD alone does not, and `fooled` is their number;
    each attack was run on the images that earlier ones had left. `left_out` names the attacks that were not run on all
    images: there was no time, they broke, or their check was not asked for. `answers` is the number of network answers
    whose mean decides on an image: more than one if answers are random. Then PGD alone, which is judged by one answer,
    is no comparison: all images that `attack` fooled count.

    Example:
        >>> WorstCase(3, 4, 0.75, (0.3, 0.95), attacks=2, attack="PGD").attack
        'PGD'
    """

    attacks: int
    attack: str
    fooled: int = 0
    left_out: tuple[str, ...] = ()
    answers: int = 1

    @property
    def against(self) -> str:
        """The attacks in words, as in "under the worst of 23 attacks"."""
        return f"the worst of {self.attacks} attacks" if self.attacks > 1 else "one attack"


def accuracy(correct: np.ndarray, settings: Settings) -> Accuracy:
    """Returns the `Accuracy` of outcomes, bool (N,).

    Example:
        >>> found = accuracy(np.array([True, True, True, False]), settings)
        >>> found.correct, [round(limit, 2) for limit in found.interval]
        (3, [0.3, 0.95])
    """
    count, size = int(np.sum(correct)), len(correct)
    return Accuracy(count, size, count / size, statistics.wilson(count, size, confidence=settings.confidence))


def masking(results: Iterable[Result]) -> str:
    """Returns whether masked gradients are suspected, not seen, or undecided, by the results of the checks.

    Example:
        >>> masking([result])
        'not seen'
    """
    verdicts = [result.verdict for result in results if result.masking]
    if Verdict.FAIL in verdicts:
        return SUSPECTED
    return UNSURE if Verdict.INCONCLUSIVE in verdicts or Verdict.PASS not in verdicts else NOT_SEEN


def is_upper_limit(masking: str, robust: WorstCase) -> bool:
    """Returns whether the worst case is only an upper limit: masking is not ruled out, or attacks were left out.

    Example:
        >>> is_upper_limit(UNSURE, WorstCase(80, 100, 0.8, (0.71, 0.87), attacks=3, attack="PGD"))
        True
    """
    return masking != NOT_SEEN or bool(robust.left_out)


def robustness(clean: Accuracy, robust: Accuracy, chance: float) -> str:
    """Returns how robust a network is, by the lower limit of its accuracy in the worst case; see `RULE`.

    Example:
        >>> clean, robust = (accuracy(np.arange(100) < number, settings) for number in (95, 80))
        >>> robustness(clean, robust, chance=0.1)
        'genuinely robust'
    """
    low = robust.interval[0]
    if low <= chance:
        return NOT
    return ROBUST if low > _enough(clean, chance) else PARTLY


def is_sure(clean: Accuracy, robust: Accuracy, chance: float) -> bool:
    """Returns whether more images could hardly change `robustness`: none of its thresholds lies within the interval.

    Example:
        >>> clean, robust = (accuracy(np.arange(100) < number, settings) for number in (95, 80))
        >>> is_sure(clean, robust, chance=0.1)
        True
    """
    low, high = robust.interval
    return not any(low <= limit <= high for limit in (chance, _enough(clean, chance)))


def _enough(clean: Accuracy, chance: float) -> float:
    """Returns the accuracy above which a network is genuinely robust; with two classes, guessing reaches the half."""
    return max(clean.accuracy / 2, chance + (clean.accuracy - chance) / 4)


def overall(results: Sequence[Result], clean: Accuracy, robust: Accuracy, chance: float) -> str:
    """Returns the verdict that follows from the results of the checks and the two accuracies, by `RULE`.

    Example:
        >>> clean, robust = (accuracy(np.arange(100) < number, settings) for number in (95, 80))
        >>> overall([result], clean, robust, chance=0.1)
        'genuinely robust'
    """
    found = masking(results)
    return {SUSPECTED: MASKED, UNSURE: UNDECIDED}.get(found) or robustness(clean, robust, chance)


def headline(verdict: str, results: Sequence[Result], *, is_upper_limit: bool = False) -> str:
    """Returns the verdict in words, with its reason.

    `is_upper_limit` is what the function of this name returned.

    Example:
        >>> print(headline(NOT, [result]))
        Not robust, and no sign of masked gradients: an honest failure.
    """
    if verdict == MASKED:
        return f"Masked gradients suspected. {_reason(_of(results, Verdict.FAIL))}"
    if verdict == UNDECIDED:
        open_ones = _of(results, Verdict.INCONCLUSIVE)
        return f"Undecided whether gradients are masked. {_reason(open_ones) or 'No check could be made.'}"
    most = "At most " if is_upper_limit else ""
    return {
        ROBUST: f"{most}genuinely robust, and no sign of masked gradients.".capitalize(),
        PARTLY: f"{most}partly robust, and no sign of masked gradients.".capitalize(),
        NOT: "Not robust, and no sign of masked gradients: an honest failure.",
    }[verdict]


def advice(results: Sequence[Result], robust: WorstCase, found: str, *, confidence: float = 0.95) -> str:
    """Returns what to do next; `found` is what `robustness` returned, `confidence` that of the interval.

    Example:
        >>> robust = WorstCase(80, 100, 0.8, (0.71, 0.87), attacks=3, attack="PGD")
        >>> print(advice([result], robust, ROBUST))
        Publish 80.0% (95 % interval 71.0% to 87.0%, 100 images), with epsilon, the norm, and the attacks. card.md,
        beside this report, says all of it.
    """
    low, high = robust.interval
    interval = f"{100.0 * confidence:g} % interval {low:.1%} to {high:.1%}"
    figure = f"{robust.accuracy:.1%} ({interval}, {robust.images} images)"
    seen = masking(results)
    if seen == SUSPECTED:
        first = _of(results, Verdict.FAIL)[0]
        return f"{first.remedy} Whatever is published: at most {figure} withstand what was tried here."
    if seen == UNSURE:
        remedies = [each.remedy for each in _of(results, Verdict.INCONCLUSIVE)]
        first = remedies[0] if remedies else "Run more of the checks (--checks)."
        time = "Give it more time (--minutes) or a larger budget (--budget)."
        return time if "--minutes" in first else f"{first} {time}"
    missing = "; ".join(robust.left_out)
    limit = f" That is an upper limit: {missing} did not run on all images." if missing else ""
    if found == NOT:
        return f"Train with a defense that makes it robust. If you publish a figure, publish {figure}.{limit}"
    if limit:
        remedy = "Run all checks (--checks all) and give them more time (--minutes); a check that broke says why."
        return f"Do not publish {figure} yet.{limit} {remedy}"
    return f"Publish {figure}, with epsilon, the norm, and the attacks. card.md, beside this report, says all of it."


def _of(results, verdict):
    """Returns the results of checks of masking with this verdict: certain signs first, then by p-value."""
    found = [result for result in results if result.masking and result.verdict is verdict]
    return sorted(found, key=lambda result: -1.0 if result.p_value is None else result.p_value)


def _reason(results):
    """Returns the explanation of the first of these results, and the number of the others."""
    if not results:
        return ""
    first, *others = results
    more = f" {len(others)} other checks say so, too." if len(others) > 1 else ""
    more = " Another check says so, too." if len(others) == 1 else more
    return f"{first.explanation}{more}"
