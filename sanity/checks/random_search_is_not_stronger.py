"""Do random changes of the images fool the network where the attack along the gradients does not?"""

from sanity import measure, statistics
from sanity.result import Result, Verdict
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "random_search_is_not_stronger"
TOLERANCE = 0.005  # of the images
REFERENCE = (
    "Athalye, Carlini and Wagner, Obfuscated gradients give a false sense of security, 2018, section 3.1 (random "
    "sampling finds adversarial examples); Carlini et al., On evaluating adversarial robustness, 2019"
)


def random_search_is_not_stronger(subject: Subject, settings: Settings) -> Result:
    """Random points of the ball around the images that withstood PGD: none of them should fool the network.

    An image counts if one of `settings.points` random points fools the network and PGD does not. Fails if such images
    are significantly more than `TOLERANCE` of the sample (exact binomial). Passes if the sample rules out
    `settings.detectable` more than that, or if PGD leaves no more than chance. The share is that of all images, see
    `sanity.measure.survivors.Loss`.

    Example:
        >>> random_search_is_not_stronger(subject, settings).verdict.value
        'pass'
    """
    pgd = subject.correct("pgd", **settings.pgd(subject.epsilon))
    drawn = subject.correct("random_search", among=pgd, epsilon=subject.epsilon, queries=settings.points)
    loss = measure.survivors.loss(pgd, drawn, settings, tolerance=TOLERANCE)
    overrating = statistics.Overrating.of("PGD", pgd, subject, settings)
    verdict = overrating.verdict(loss.verdict)
    found = (
        f"PGD leaves {loss.left} of {loss.images} images; one of {settings.points} random points of the ball fools "
        f"{loss.fooled} of them, {loss.value:.1%} of all"
    )
    too_small = f" The sample is too small to rule out {TOLERANCE + settings.detectable:.1%}."
    explanation, remedy = {
        Verdict.FAIL: (
            f"{found}. Guessing finds what the gradients do not lead to: they are masked, or the attack is broken.",
            "Do not report the accuracy under PGD. Check the attack's step size and epsilon; if they are right, look "
            "for noise at inference (then attack the expectation over it), rounding and layers without a gradient.",
        ),
        Verdict.INCONCLUSIVE: (f"{found}.{overrating.words or too_small}", loss.more),
        Verdict.PASS: (
            f"{found}. More than {TOLERANCE:.1%}, beyond chance, would have been a sign.{overrating.words}",
            "",
        ),
    }[verdict]
    outcomes = {
        ("no attack", "clean"): subject.correct(),
        (f"PGD, {settings.steps} steps", "white box"): pgd,
        (f"then {settings.points} random points", "without gradients"): drawn,
    }
    return Result(
        name=NAME,
        verdict=verdict,
        quantity="images that random points fool and PGD does not",
        value=loss.value,
        threshold=TOLERANCE,
        sample_size=loss.images,
        interval=(loss.low, loss.high),
        series=statistics.accuracies(outcomes, confidence=settings.confidence),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=overrating.p_value(loss.p_value),
    )
