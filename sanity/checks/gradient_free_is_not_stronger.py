"""Does an attack that sees no gradients find what the attack along the gradients does not?"""

import numpy as np

from sanity import measure, statistics
from sanity.checks.adaptive_attack_is_not_stronger import FEWEST_CLASSES, targeted
from sanity.result import Result, Verdict
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "gradient_free_is_not_stronger"
STEPS = 100  # of the second look
TOLERANCE = 0.005  # of the images
REFERENCE = (
    "Carlini et al., On evaluating adversarial robustness, 2019 (try gradient-free attacks); Andriushchenko et al., "
    "Square attack, 2020; Athalye, Carlini and Wagner, Obfuscated gradients give a false sense of security, 2018"
)


def gradient_free_is_not_stronger(subject: Subject, settings: Settings) -> Result:
    """Square on the images that withstood PGD: it must find no adversaries that gradients do not lead to.

    PGD with one random start misses a few images of honest networks, too. Of 300 MNIST images that PGD attacked, Square
    finds 3 more for a TRADES network and 6 more for a SAT-R2 network; APGD along the same loss finds all 6. Of 300
    digits it finds 9 more for an undefended network; APGD finds one of these, PGD on the margin of the logits 7. For
    small dense networks of PGD-AT, TRADES and NuAT it finds 22 to 57 more of 353 digits; these two attacks leave up to
    7 of them, and APGD towards every wrong class leaves none. So these three attacks take a second look at the images
    that Square fools. The check fails if the images that withstand this second look are significantly more than
    `TOLERANCE` of all images (exact binomial; see `sanity.measure.survivors.Loss`), and PGD leaves more than chance. It
    passes if the sample rules out `settings.detectable` more. Images that Square fools and PGD alone does not are no
    sign: PGD may be weak, or the cross-entropy has no gradient where the logits have one, which
    `gradients_are_available` detects.

    Example:
        >>> gradient_free_is_not_stronger(subject, settings).verdict.value
        'pass'
    """
    pgd, square, hidden = _left(subject, settings)
    loss = measure.survivors.loss(pgd, pgd & ~hidden, settings, tolerance=TOLERANCE)
    overrating = statistics.Overrating.of("PGD", pgd, subject, settings)
    verdict = overrating.verdict(loss.verdict)
    found = (
        f"PGD leaves {loss.left} of {loss.images} images, of which Square, a search without gradients, fools "
        f"{int(np.sum(pgd & ~square))}. {loss.fooled} of these ({loss.value:.1%} of all images) withstand APGD and PGD "
        "on the margin as well, and APGD towards each class"
    )
    explanation, remedy = _words(verdict, found, loss, overrating.words, settings)
    outcomes = {
        ("no attack", "clean"): subject.correct(),
        (f"PGD, {settings.steps} steps", "white box"): pgd,
        (f"then Square, {settings.queries:,} queries", "without gradients"): square,
        ("PGD, then a second look at what Square found", "second look"): square | hidden,
    }
    return Result(
        name=NAME,
        verdict=verdict,
        quantity="images that Square fools and no gradients lead to",
        value=loss.value,
        threshold=loss.tolerance,
        sample_size=loss.images,
        interval=(loss.low, loss.high),
        series=statistics.accuracies(outcomes, confidence=settings.confidence),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=overrating.p_value(loss.p_value),
    )


def _left(subject, settings):
    """Returns which images withstand PGD, which of these withstand Square, and which of the rest the second look."""
    epsilon = subject.epsilon
    pgd = subject.correct("pgd", **settings.pgd(epsilon))
    square = subject.correct("square", among=pgd, epsilon=epsilon, queries=settings.queries)
    hidden = subject.correct("apgd_ce", among=pgd & ~square, epsilon=epsilon, steps=STEPS)
    margin = {"epsilon": epsilon, "steps": STEPS, "step_size": settings.way * epsilon / STEPS, "loss": "margin"}
    hidden = subject.correct("pgd", among=hidden, **margin)
    if subject.num_classes >= FEWEST_CLASSES:
        hidden = subject.correct("apgd_t", among=hidden, **targeted(subject, settings))
    return pgd, square, hidden


def _words(verdict, found, loss, left, settings):
    """Returns the explanation and the remedy; `found` is what was seen, `left` what PGD leaves if no sign counts."""
    too_small = f" The sample is too small to rule out {loss.tolerance + settings.detectable:.1%}."
    return {
        Verdict.FAIL: (
            f"{found}: adversaries are there, and the gradients do not lead to them. The accuracy under PGD is too "
            "high.",
            "Do not report the accuracy under PGD: report what is left after Square as well, or after AutoAttack. "
            "Look for what breaks the gradients: saturated logits, rounding, layers without a gradient.",
        ),
        Verdict.INCONCLUSIVE: (f"{found}.{left or too_small}", loss.more),
        Verdict.PASS: (f"{found}. More than {TOLERANCE:.1%}, beyond chance, would have been a sign.{left}", ""),
    }[verdict]
