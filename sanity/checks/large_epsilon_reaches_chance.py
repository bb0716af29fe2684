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

    Fails if accuracy is significantly above chance (exact binomial), and PGD leaves more than chance at epsilon, too.
    Passes if the interval of the accuracy ends less than `settings.detectable` above chance.

    Example:
        >>> large_epsilon_reaches_chance(subject, settings).verdict.value
        'pass'
    """
    correct = subject.correct("pgd", **settings.pgd(subject.largest))
    chance = subject.chance
    count, size, accuracy = int(np.sum(correct)), len(subject), float(np.mean(correct))
    low, high = statistics.wilson(count, size, confidence=settings.confidence)
    within = subject.correct("pgd", **settings.pgd(subject.epsilon))
    overrating = statistics.Overrating.of("Within epsilon PGD", within, subject, settings)
    p_value = statistics.exceeds(count, size, chance)
    if p_value < settings.alpha:
        sign = Verdict.FAIL
    else:
        sign = Verdict.PASS if high < chance + settings.detectable else Verdict.INCONCLUSIVE
    verdict = overrating.verdict(sign)
    explanation, remedy = _words(verdict, accuracy, chance, overrating.words, settings)
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
        p_value=overrating.p_value(p_value),
    )


def _words(verdict, accuracy, chance, within, settings):
    """Returns the explanation and the remedy; `within` says what PGD leaves within epsilon if no sign counts."""
    left = f"Without a limit PGD leaves {accuracy:.1%} of the images; "
    limit = chance + settings.detectable
    too_few = f"{left}the sample is too small to tell that from {limit:.1%}, clearly above chance."
    return {
        Verdict.FAIL: (
            f"{accuracy:.1%} of the images withstand an attack that may replace every pixel, above chance "
            f"({chance:.1%}). An image of another class was allowed; the attack did not get there.",
            "Do not report the accuracy under PGD. The gradients do not lead to other classes: look for saturated "
            "logits, rounding or other layers without a gradient, and add attacks that need no gradients.",
        ),
        Verdict.PASS: (f"{left}chance is {chance:.1%}, and a significant excess would have been a sign.{within}", ""),
        Verdict.INCONCLUSIVE: (
            f"{left}chance is {chance:.1%}.{within}" if within else too_few,
            "Judge more images (--samples).",
        ),
    }[verdict]
