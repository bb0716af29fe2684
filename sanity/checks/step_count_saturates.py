"""Do more steps of PGD make it stronger, until they make no difference?"""

import itertools

from sanity import statistics
from sanity.result import Curves, Result, Verdict

STEP_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
LARGEST_FALL = 0.01  # of accuracy over the last two counts, absolute
REFERENCE = (
    "Carlini et al., On evaluating adversarial robustness, 2019 (use enough iterations); "
    "Vivek and Babu, Regularizers for single-step adversarial training, 2020"
)


def step_size(epsilon, steps):
    """Returns 2.5 epsilon / steps, but no more than epsilon: any point of the ball is in reach, whatever the count."""
    return min(2.5 * epsilon / steps, epsilon)


def step_count_saturates(subject, settings):
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
    rise = statistics.clearest_increase(
        {
            f"from {few} to {many} steps": (correct[few], correct[many])
            for few, many in itertools.combinations(counts, 2)
        },
        confidence=settings.confidence,
    )
    last = counts[-2:]
    fall, low, high = statistics.paired_difference(correct[last[1]], correct[last[0]], confidence=settings.confidence)
    _, surely, _ = statistics.paired_difference(correct[last[1]], correct[last[0]], confidence=1 - 2 * settings.alpha)

    quantity, value, threshold, interval = f"fall from {last[0]} to {last[1]} steps", fall, LARGEST_FALL, (low, high)
    if rise.verdict(settings) is Verdict.FAIL:
        verdict = Verdict.FAIL
        quantity, value, threshold, interval = f"rise {rise.name}", rise.difference, 0.0, (rise.low, rise.high)
        explanation = (
            f"Accuracy rises by {rise.difference:.1%} {rise.name}. An attack that is given more steps can only "
            "become weaker if the gradients that it follows lead nowhere."
        )
        remedy = (
            "Do not report the accuracy under PGD. Look for what breaks the gradients (saturated logits, rounding, "
            "randomness), attack a differentiable version of it, and add attacks that need no gradients."
        )
    elif surely > LARGEST_FALL:
        verdict = Verdict.FAIL
        explanation = (
            f"Accuracy still falls by {fall:.1%} {quantity[5:]}: PGD has not converged, and the accuracy under it is "
            "higher than what a longer attack would leave."
        )
        remedy = (
            "Attack with more steps and several restarts until the accuracy no longer changes, and report that one. "
            "If it never settles, look at the loss surface: it may be too rough for gradients."
        )
    elif fall > LARGEST_FALL:
        verdict = Verdict.INCONCLUSIVE
        explanation = (
            f"Accuracy falls by {fall:.1%} {quantity[5:]}, above {LARGEST_FALL:.0%}, but the sample is too small to "
            "be sure of it."
        )
        remedy = "Judge more images (--samples)."
    elif rise.verdict(settings) is Verdict.INCONCLUSIVE:
        verdict = Verdict.INCONCLUSIVE
        explanation = f"The sample cannot rule out that accuracy rises with steps by {settings.detectable:.0%}."
        remedy = "Judge more images (--samples)."
    else:
        verdict = Verdict.PASS
        explanation = (
            f"Accuracy does not rise with steps and has settled: it falls by {fall:.1%} {quantity[5:]}. "
            "More steps of this attack would not change the result."
        )
        remedy = ""
    return Result(
        name="step_count_saturates",
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


def _series(correct, settings):
    curve = statistics.curve("PGD, one random start", correct, confidence=settings.confidence)
    return Curves(x_label="PGD steps", y_label="accuracy under attack", curves=(curve,))
