"""Does an attack that sees no gradients find what the attack along the gradients does not?"""

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

    PGD with one random start misses a few images of an honest network as well: of 300 MNIST images Square finds 3
    behind a TRADES network and 6 behind one of SAT-R2, and APGD along the same loss finds all 6. Of 300 digits it finds
    9 behind a network without any defense, of which APGD finds one and PGD on the margin of the logits 7. Behind small
    dense networks of PGD-AT, TRADES and NuAT it finds 22 to 57 of 353 digits, of which these two leave up to 7, and
    APGD towards every wrong class none. So a second look is taken at what Square found, with these three. Fails where
    one of two proportions of all images (see `sanity.measure.survivors.Loss`) is significantly too large (exact
    binomial, alpha divided by 2):

    - those that Square fools and no gradients lead to, above `TOLERANCE`: the gradients mislead;
    - those that Square fools and PGD does not, above `settings.detectable`: PGD is too weak, or the cross-entropy
      has no gradient where the logits have one. By itself this is no sign of masked gradients.

    Passes where the sample rules out `settings.detectable` more than each; else inconclusive.
    """
    pgd, square, hidden = _left(subject, settings)
    misled = measure.survivors.loss(pgd, pgd & ~hidden, settings, tolerance=TOLERANCE, tests=2)
    missed = measure.survivors.loss(pgd, square, settings, tolerance=settings.detectable, tests=2)
    verdicts = {missed.verdict: missed, misled.verdict: misled}  # where both agree it is `misled`
    verdict = next(each for each in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS) if each in verdicts)
    loss = verdicts[verdict]
    explanation, remedy = _words(verdict, loss, misled, missed, settings)
    outcomes = {
        ("no attack", "clean"): subject.correct(),
        (f"PGD, {settings.steps} steps", "white box"): pgd,
        (f"then Square, {settings.queries:,} queries", "without gradients"): square,
        ("PGD, then a second look at what Square found", "second look"): square | hidden,
    }
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=f"images that Square fools and {'no gradients lead to' if loss is misled else 'PGD does not'}",
        value=loss.value,
        threshold=loss.tolerance,
        sample_size=loss.images,
        interval=(loss.low, loss.high),
        series=statistics.accuracies(outcomes, confidence=settings.confidence),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        masking=verdict is Verdict.FAIL and loss is misled,
    )


def _left(subject, settings):
    """Returns which images withstand PGD, which of these Square as well, and which that Square fools all gradients."""
    epsilon = subject.epsilon
    pgd = subject.correct("pgd", **settings.pgd(epsilon))
    square = subject.correct("square", among=pgd, epsilon=epsilon, queries=settings.queries)
    hidden = subject.correct("apgd_ce", among=pgd & ~square, epsilon=epsilon, steps=STEPS)
    margin = {"epsilon": epsilon, "steps": STEPS, "step_size": 2.5 * epsilon / STEPS, "loss": "margin"}
    hidden = subject.correct("pgd", among=hidden, **margin)
    if subject.num_classes >= FEWEST_CLASSES:
        hidden = subject.correct("apgd_t", among=hidden, **targeted(subject, settings))
    return pgd, square, hidden


def _words(verdict, loss, misled, missed, settings):
    """Returns the explanation and the remedy; `loss` is that of the two proportions which decided."""
    found = (
        f"PGD leaves {missed.left} of {missed.images} images, of which Square, a search without gradients, fools "
        f"{missed.fooled} ({missed.value:.1%} of all). {misled.fooled} of these ({misled.value:.1%}) withstand APGD "
        "and PGD on the margin as well, and APGD towards each class"
    )
    if verdict is Verdict.FAIL and loss is misled:
        return (
            f"{found}: adversaries are there, and the gradients do not lead to them. The accuracy under PGD is too "
            "high.",
            "Do not report the accuracy under PGD: report what is left after Square as well, or after AutoAttack. "
            "Look for what breaks the gradients: saturated logits, rounding, layers without a gradient.",
        )
    return {
        Verdict.FAIL: (
            f"{found}. PGD on the cross-entropy, as run here, is far too weak.",
            "Do not report the accuracy under PGD: report that under AutoAttack. Check PGD's step size, steps and "
            "epsilon, and whether the logits are so large that the softmax saturates.",
        ),
        Verdict.INCONCLUSIVE: (
            f"{found}. The sample is too small to rule out {loss.tolerance + settings.detectable:.1%}.",
            loss.more,
        ),
        Verdict.PASS: (f"{found}: no sign that the gradients mislead.", ""),
    }[verdict]
