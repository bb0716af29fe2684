"""Do more steps of PGD make it stronger, until they make no difference?"""

import itertools
import typing

from sanity import statistics
from sanity.result import Result, Verdict
from sanity.series import Curves
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "step_count_saturates"
STEP_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
LARGEST_FALL = 0.01  # of accuracy over the last two counts, absolute
REFERENCE = (
    "Carlini et al., On evaluating adversarial robustness, 2019 (use enough iterations); "
    "Vivek and Babu, Regularizers for single-step adversarial training, 2020"
)


def step_size(epsilon, steps):
    """Returns 2.5 epsilon / steps, but no more than epsilon: any point of the ball is in reach, whatever the count."""
    return min(2.5 * epsilon / steps, epsilon)


def step_count_saturates(subject: Subject, settings: Settings) -> Result:
    """PGD with 1 step to `settings.most_steps`, one random start: accuracy must not rise, and must have settled.

    Fails where accuracy is significantly higher at some count than at a smaller one (all pairs of counts, so that the
    comparison was not chosen by looking), or where its fall over the last two counts is significantly larger than
    `LARGEST_FALL` (limit of a paired interval). A fall that is larger but not significantly so is inconclusive.

    A network that only single steps fail to fool, after catastrophic overfitting for instance, passes: its accuracy
    falls at once and settles. That FGSM overrates it is another check's to see.
    """
    counts = tuple(steps for steps in STEP_COUNTS if steps <= settings.most_steps)
    correct = {
        steps: subject.correct("pgd", epsilon=subject.epsilon, steps=steps, step_size=step_size(subject.epsilon, steps))
        for steps in counts
    }
    pairs = {
        f"from {few} to {many} steps": (correct[few], correct[many]) for few, many in itertools.combinations(counts, 2)
    }
    rise = statistics.clearest_increase(pairs, confidence=settings.confidence)
    fall = _last_fall(correct, settings)
    verdict, (explanation, remedy) = _decided(rise, fall, settings)
    if rise.verdict(settings) is Verdict.FAIL:
        quantity, value, threshold, interval = f"rise {rise.name}", rise.difference, 0.0, (rise.low, rise.high)
    else:
        quantity, value, threshold, interval = f"fall {fall.where}", fall.value, LARGEST_FALL, (fall.low, fall.high)
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=quantity,
        value=value,
        threshold=threshold,
        sample_size=len(subject),
        interval=interval,
        series=_series(correct, settings),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
    )


class Fall(typing.NamedTuple):
    """The fall of accuracy over the last two counts: where, how far, its interval, and how far it surely is."""

    where: str
    value: float
    low: float
    high: float
    surely: float


def _last_fall(correct, settings):
    few, many = list(correct)[-2:]
    pair = correct[many], correct[few]
    value, low, high = statistics.paired_difference(*pair, confidence=settings.confidence)
    _, surely, _ = statistics.paired_difference(*pair, confidence=1 - 2 * settings.alpha)
    return Fall(f"from {few} to {many} steps", value, low, high, surely)


def _decided(rise, fall, settings):
    """Returns the verdict, and the explanation and the remedy."""
    if rise.verdict(settings) is Verdict.FAIL:
        return Verdict.FAIL, (
            f"Accuracy rises by {rise.difference:.1%} {rise.name}. An attack that is given more steps can only "
            "become weaker if the gradients that it follows lead nowhere.",
            "Do not report the accuracy under PGD. Look for what breaks the gradients (saturated logits, rounding, "
            "randomness), attack a differentiable version of it, and add attacks that need no gradients.",
        )
    if fall.surely > LARGEST_FALL:
        return Verdict.FAIL, (
            f"Accuracy still falls by {fall.value:.1%} {fall.where}: PGD has not converged, and the accuracy under it "
            "is higher than what a longer attack would leave.",
            "Attack with more steps and several restarts until the accuracy no longer changes, and report that one. "
            "If it never settles, look at the loss surface: it may be too rough for gradients.",
        )
    if fall.value > LARGEST_FALL:
        return Verdict.INCONCLUSIVE, (
            f"Accuracy falls by {fall.value:.1%} {fall.where}, above {LARGEST_FALL:.0%}, but the sample is too small "
            "to be sure of it.",
            "Judge more images (--samples).",
        )
    if rise.verdict(settings) is Verdict.INCONCLUSIVE:
        return Verdict.INCONCLUSIVE, (
            f"The sample cannot rule out that accuracy rises with steps by {settings.detectable:.0%}.",
            "Judge more images (--samples).",
        )
    return Verdict.PASS, (
        f"Accuracy does not rise with steps and has settled: it falls by {fall.value:.1%} {fall.where}. "
        "More steps of this attack would not change the result.",
        "",
    )


def _series(correct, settings):
    curve = statistics.curve("PGD, one random start", correct, confidence=settings.confidence)
    return Curves(x_label="PGD steps", y_label="accuracy under attack", curves=(curve,))
