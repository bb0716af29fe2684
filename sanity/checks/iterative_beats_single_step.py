"""Does an attack of many steps fool at least as many images as one of a single step?"""

from sanity import statistics
from sanity.result import Result, Verdict
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "iterative_beats_single_step"
REFERENCE = (
    "Athalye, Carlini and Wagner, Obfuscated gradients give a false sense of security, 2018, section 3.1 (one-step "
    "attacks perform better than iterative attacks); Carlini et al., On evaluating adversarial robustness, 2019"
)


def attacks(epsilon, settings):
    """Returns the attacks to compare: a dict of label to (attack, keywords), the single step first."""
    return {
        "FGSM": ("fgsm", {"epsilon": epsilon}),
        "I-FGSM": ("ifgsm", {"epsilon": epsilon, "steps": settings.steps, "step_size": epsilon / settings.steps}),
        "PGD": ("pgd", settings.pgd(epsilon)),
    }


def iterative_beats_single_step(subject: Subject, settings: Settings) -> Result:
    """FGSM must not fool more images than I-FGSM or PGD of the same epsilon.

    Many small steps can go wherever the one of FGSM goes. Fails if FGSM leaves significantly fewer images correct than
    I-FGSM or PGD, and PGD leaves more than chance. A network that overfitted to single steps passes, because FGSM is
    the attack that fails there.

    Example:
        >>> iterative_beats_single_step(subject, settings).verdict.value
        'pass'
    """
    compared = attacks(subject.epsilon, settings)
    correct = {label: subject.correct(attack, **options) for label, (attack, options) in compared.items()}
    single, *iterative = correct
    excess = statistics.clearest_increase(
        {label: (correct[single], correct[label]) for label in iterative}, confidence=settings.confidence
    )
    overrating = statistics.Overrating.of("PGD", correct["PGD"], subject, settings)
    verdict = overrating.verdict(excess.verdict(settings))
    too_few = f"The sample cannot rule out that a single step fools {settings.detectable:.0%} more images than many."
    explanation, remedy = {
        Verdict.FAIL: (
            f"{excess.name} with {settings.steps} steps leaves {excess.difference:.1%} more images correct than "
            f"{single} with one. Many small steps can go wherever a large one goes, so the gradients along the way "
            "mislead, or the attack is set up wrongly.",
            "Do not report the accuracy under the iterative attack. Check its step size and number of steps first. If "
            "they are right, the loss is too rough to be followed: look for what breaks the gradients away from the "
            "clean images, and add attacks that need no gradients.",
        ),
        Verdict.INCONCLUSIVE: (
            f"{excess.name} leaves {excess.difference:.1%} more images correct than {single}.{overrating.words}"
            if overrating.words and excess.difference > 0.0
            else f"{too_few}{overrating.words}",
            "Judge more images (--samples).",
        ),
        Verdict.PASS: (_words_of_pass(excess, overrating.words), ""),
    }[verdict]
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=f"images that {excess.name} leaves correct beyond {single}",
        value=excess.difference,
        threshold=0.0,
        sample_size=len(subject),
        interval=(excess.low, excess.high),
        series=_series(subject.correct(), correct, settings),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=overrating.p_value(excess.p_value),
    )


def _words_of_pass(excess, left):
    if excess.difference > 0.0:
        return f"{excess.name} leaves {excess.difference:.1%} more images than FGSM, which may be chance.{left}"
    return f"Attacks of many steps fool at least as many images as a single step, as they must.{left}"


def _series(clean, correct, settings):
    single, *iterative = correct
    shown = {("no attack", "clean"): clean, (single, "one step"): correct[single]}
    shown |= {(label, f"{settings.steps} steps"): correct[label] for label in iterative}
    return statistics.accuracies(shown, confidence=settings.confidence)
