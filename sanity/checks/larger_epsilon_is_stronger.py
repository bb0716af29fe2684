"""Does an attack that may change the image more fool the network more often?"""

import itertools

from sanity import statistics
from sanity.result import Result, Verdict
from sanity.series import Curves
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "larger_epsilon_is_stronger"
MULTIPLES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
REFERENCE = (
    "Athalye, Carlini and Wagner, Obfuscated gradients give a false sense of security, 2018, section 3.1; "
    "Carlini et al., On evaluating adversarial robustness, 2019"
)


def epsilons(epsilon, largest):
    """Returns the `MULTIPLES` of epsilon that are below `largest`, and `largest` itself, in ascending order."""
    return tuple(sorted({multiple * epsilon for multiple in MULTIPLES if multiple * epsilon < largest} | {largest}))


def larger_epsilon_is_stronger(subject: Subject, settings: Settings) -> Result:
    """PGD along growing epsilon: its success rate must not drop anywhere.

    Every image within a small distance is also within a larger one, so an attack that works can only gain. Fails if the
    success rate is significantly lower at some epsilon than at a smaller one, and PGD leaves more than chance at the
    larger one; all such pairs are compared.

    Example:
        >>> larger_epsilon_is_stronger(subject, settings).verdict.value
        'pass'
    """
    radii = epsilons(subject.epsilon, subject.largest)
    correct = {radius: subject.correct("pgd", **settings.pgd(radius)) for radius in radii}
    pairs = itertools.combinations(radii, 2)
    drop, verdict, p_value, left = statistics.clearest_overrating(
        {f"from epsilon {small:.3g} to {large:.3g}": (correct[small], correct[large]) for small, large in pairs},
        subject,
        settings,
    )
    explanation, remedy = {
        Verdict.FAIL: (
            f"The success rate of PGD drops by {drop.difference:.1%} {drop.name}, although every adversary within "
            "the smaller distance is within the larger one too: the attack fails to find what is there.",
            "Do not report the accuracy under PGD. Check the attack's step size; if it is right, look for what breaks "
            "the gradients away from the clean images, and add attacks that need no gradients.",
        ),
        Verdict.INCONCLUSIVE: (
            f"The success rate of PGD drops by {drop.difference:.1%} {drop.name}.{left}"
            if left and drop.difference > 0.0
            else f"The sample cannot rule out that the success rate drops by {settings.detectable:.0%}.{left}",
            "Judge more images (--samples).",
        ),
        Verdict.PASS: (_words_of_pass(drop), ""),
    }[verdict]
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=f"drop of success {drop.name}",
        value=drop.difference,
        threshold=0.0,
        sample_size=len(subject),
        interval=(drop.low, drop.high),
        series=_series(correct, subject, settings),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=p_value,
    )


def _words_of_pass(drop):
    if drop.difference > 0.0:
        return f"The success rate of PGD drops by {drop.difference:.1%} {drop.name} at most, which may be chance."
    return "The success rate of PGD drops nowhere as epsilon grows, as it must be."


def _series(correct, subject, settings):
    fooled = {radius: ~each for radius, each in correct.items()}
    curve = statistics.curve(f"PGD, {settings.steps} steps", fooled, confidence=settings.confidence)
    return Curves(
        x_label=subject.radius_label,
        y_label="images misclassified",
        curves=(curve,),
        x_scale="ordinal",
    )
