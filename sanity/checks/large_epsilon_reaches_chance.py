"""Does an attack without limits fool the network as often as chance would?"""

import numpy as np

from sanity import statistics
from sanity.result import Result, Verdict
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "large_epsilon_reaches_chance"
REFERENCE = (
    "Athalye, Carlini and Wagner, Obfuscated gradients give a false sense of security, 2018, section 3.1 (unbounded "
    "attacks do not reach 100 % success)"
)


def large_epsilon_reaches_chance(subject: Subject, settings: Settings) -> Result:
    """PGD at an epsilon so large that every image is allowed: accuracy must not stay above chance, the share of the
    commonest class.

    Fails where accuracy is significantly above chance (exact binomial), and PGD leaves more than chance at epsilon as
    well. Passes where its interval ends less than `settings.detectable` above chance.

    Example:
        >>> large_epsilon_reaches_chance(subject, settings).verdict.value
        'pass'
    """
    correct = subject.correct("pgd", **settings.pgd(subject.largest))
    chance = subject.chance
    count, size, accuracy = int(np.sum(correct)), len(subject), float(np.mean(correct))
    low, high = statistics.wilson(count, size, confidence=settings.confidence)
    within = subject.correct("pgd", **settings.pgd(subject.epsilon))
    moot = statistics.nothing_to_overrate("Within epsilon PGD", within, subject, settings)
    p_value = 1.0 if moot else statistics.exceeds(count, size, chance)
    verdict, explanation, remedy = _decided(accuracy, high, chance, p_value, moot, settings)
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=f"accuracy at epsilon {subject.largest:.4g}",
        value=accuracy,
        threshold=chance,
        sample_size=size,
        interval=(low, high),
        series=statistics.bars(
            "accuracy",
            {
                ("no attack", "clean"): subject.correct(),
                (f"PGD, epsilon {subject.largest:.4g}", "white box"): correct,
            },
            confidence=settings.confidence,
            levels=(("chance, the commonest class", chance),),
        ),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=p_value,
    )


def _decided(accuracy, high, chance, p_value, moot, settings):
    """Returns the verdict, the explanation and the remedy."""
    if p_value < settings.alpha:
        explanation = (
            f"{accuracy:.1%} of the images withstand an attack that may replace every pixel, above chance "
            f"({chance:.1%}). An image of another class was allowed; the attack did not get there."
        )
        remedy = (
            "Do not report the accuracy under PGD. The gradients do not lead to other classes: look for saturated "
            "logits, rounding or other layers without a gradient, and add attacks that need no gradients."
        )
        return Verdict.FAIL, explanation, remedy
    left = f"Without a limit PGD leaves {accuracy:.1%} of the images; "
    if moot or high < chance + settings.detectable:
        explanation = f"{left}chance is {chance:.1%}, and a significant excess would have been a sign.{moot}"
        return Verdict.PASS, explanation, ""
    limit = chance + settings.detectable
    explanation = f"{left}the sample is too small to tell that from {limit:.1%}, clearly above chance."
    return Verdict.INCONCLUSIVE, explanation, "Judge more images (--samples)."
