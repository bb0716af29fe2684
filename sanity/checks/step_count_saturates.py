"""Do more steps of PGD make it stronger, never weaker?"""

import itertools

import numpy as np

from sanity import statistics
from sanity.result import Result, Verdict
from sanity.series import Curves
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "step_count_saturates"
STEP_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
LARGEST_FALL = 0.01  # of accuracy over the last two counts, absolute, if it has settled
REFERENCE = (
    "Carlini et al., On evaluating adversarial robustness, 2019 (use enough iterations); "
    "Vivek and Babu, Regularizers for single-step adversarial training, 2020"
)


def step_size(epsilon: float, steps: int, settings: Settings) -> float:
    """Returns `settings.way` epsilon / steps, at most epsilon: any point of the ball is in reach whatever the count."""
    return min(settings.way * epsilon / steps, epsilon)


def step_count_saturates(subject: Subject, settings: Settings) -> Result:
    """PGD with 1 step to `settings.most_steps`, one random start: accuracy must not rise with the number of steps.

    Fails if accuracy is significantly higher at some count than at a smaller one, and above chance there. All such
    pairs of counts are compared, so that none is chosen after looking. The check also reports whether accuracy has
    settled: a fall over the last two counts says that PGD is not the strongest attack, which is no sign of masking.

    A network that withstands single steps alone, after catastrophic overfitting for instance, passes: its accuracy
    falls at once and settles. Other checks detect that FGSM overrates it.

    Example:
        >>> step_count_saturates(subject, settings).verdict.value
        'pass'
    """
    counts = tuple(steps for steps in STEP_COUNTS if steps <= settings.most_steps)
    epsilon = subject.epsilon
    correct = {
        steps: subject.correct("pgd", epsilon=epsilon, steps=steps, step_size=step_size(epsilon, steps, settings))
        for steps in counts
    }
    pairs = itertools.combinations(counts, 2)
    rise, verdict, p_value, left = statistics.clearest_overrating(
        {f"from {few} to {many} steps": (correct[few], correct[many]) for few, many in pairs}, subject, settings
    )
    explanation, remedy = _words(verdict, rise, _settled(correct), left, settings)
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=f"rise of the accuracy {rise.name}",
        value=rise.difference,
        threshold=0.0,
        sample_size=len(subject),
        interval=(rise.low, rise.high),
        series=_series(correct, settings),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=p_value,
    )


def _settled(correct):
    """Returns, as a sentence, whether the accuracy still falls over the last two counts."""
    few, many = list(correct)[-2:]
    fall = float(np.mean(correct[few]) - np.mean(correct[many]))
    if fall > LARGEST_FALL:
        return f"From {few} to {many} steps it still falls, by {fall:.1%}: PGD of {few} steps leaves too much."
    return f"From {few} to {many} steps it falls by {max(fall, 0.0):.1%}: it has settled."


def _words(verdict, rise, settled, left, settings):
    """Returns the explanation and the remedy.

    `settled` says whether accuracy has settled, `left` what the weaker attack leaves, if a sign may not count.
    """
    seen = f"Accuracy rises by {rise.difference:.1%} {rise.name}, which may be chance."
    if rise.difference <= 0.0:
        seen = "Accuracy does not rise with the number of steps."
    return {
        Verdict.FAIL: (
            f"Accuracy rises by {rise.difference:.1%} {rise.name}. An attack that is given more steps can only "
            "become weaker if the gradients that it follows lead nowhere.",
            "Do not report the accuracy under PGD. Look for what breaks the gradients (saturated logits, rounding, "
            "randomness), attack a differentiable version of it, and add attacks that need no gradients.",
        ),
        Verdict.INCONCLUSIVE: (
            f"Accuracy rises by {rise.difference:.1%} {rise.name}.{left}"
            if left and rise.difference > 0.0
            else f"The sample cannot rule out that accuracy rises with steps by {settings.detectable:.0%}.{left}",
            "Judge more images (--samples).",
        ),
        Verdict.PASS: (f"{seen} {settled}", ""),
    }[verdict]


def _series(correct, settings):
    curve = statistics.curve("PGD, one random start", correct, confidence=settings.confidence)
    return Curves(x_label="PGD steps", y_label="accuracy under attack", curves=(curve,))
