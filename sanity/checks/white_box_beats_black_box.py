"""Does an attacker who sees the network do at least as well as one who only sees another network?"""

from sanity import statistics
from sanity.result import Result, Verdict, skipped
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "white_box_beats_black_box"
REFERENCE = (
    "Athalye, Carlini and Wagner, Obfuscated gradients give a false sense of security, 2018, section 3.1; "
    "Papernot et al., Practical black-box attacks against machine learning, 2017"
)
REMEDY = (
    "Do not report the accuracy under the attack that was beaten. Report the worst case over all attacks, and look for "
    "what hides the network's own gradients: layers without a gradient, saturated logits, single-step training that "
    "overfitted to its attack."
)


def white_box_beats_black_box(subject: Subject, settings: Settings) -> Result:
    """Adversaries that were computed on a surrogate must not fool the network more often than those computed on itself.

    There are four comparisons for each surrogate, on the same images; the check fails if one is significant. A
    comparison counts only if the attack on the network itself leaves significantly more than chance: otherwise nothing
    could be overrated.

    - transferred PGD and MI-FGSM, of as many steps, and FGSM against PGD on the network. PGD is the attack whose
      accuracy is reported, and whoever can transfer an FGSM sample has the means to run PGD on the network.
    - transferred FGSM against FGSM on the network, the same budget. This shows the masking that affects only single
      steps, after catastrophic overfitting. At a large epsilon the loss of an honest network is curved over the step,
      and its FGSM may fall a little behind a transferred one; but then hardly any image withstands either.

    If no surrogate is better than chance, a pass becomes inconclusive, unless the attacks on the network itself leave
    no more than chance. Skipped without surrogate.

    Example:
        >>> white_box_beats_black_box(subject, settings).verdict.value
        'skipped'
    """
    surrogates = subject.surrogates()
    if not surrogates:
        return skipped(
            NAME,
            "There is no surrogate to transfer attacks from, and no training data to train one.",
            sample_size=len(subject),
            remedy="Give a network that was trained by other means (--surrogate).",
            reference=REFERENCE,
        )
    white_box, transferred = _outcomes(subject, settings, surrogates)
    excess, verdict, p_value, left = _excess(white_box, transferred, subject, settings)
    blind = not any(statistics.is_overratable(each.correct, subject, settings) for each in surrogates)
    overratings = [statistics.Overrating.of(label, each, subject, settings) for label, each in white_box.items()]
    if verdict is Verdict.PASS and blind and not all(each.ruled_out for each in overratings):
        verdict = Verdict.INCONCLUSIVE
        explanation = "No surrogate classifies the sample better than chance: nothing that transfers can come from it."
        remedy = (
            "Give a network that was trained by other means (--surrogate), more time to train one (--minutes), or more "
            "images (--samples)."
        )
    else:
        explanation, remedy = _words(verdict, excess, left, settings)
    shown = {
        ("no attack", "clean"): subject.correct(),
        **{(f"{label} on the network itself", "white box"): correct for label, correct in white_box.items()},
        **{(f"{label} from {source}", "transfer"): correct for (label, source), correct in transferred.items()},
    }
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=f"images that are fooled in addition with {excess.name}",
        value=excess.difference,
        threshold=0.0,
        sample_size=len(subject),
        interval=(excess.low, excess.high),
        series=statistics.accuracies(shown, confidence=settings.confidence),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=p_value,
    )


def _outcomes(subject, settings, surrogates):
    """Returns which images withstand attacks on the network, by label, and transferred ones, by (label, surrogate)."""
    pgd = settings.pgd(subject.epsilon)
    attacks = {"PGD": ("pgd", pgd), "MI-FGSM": ("mifgsm", pgd), "FGSM": ("fgsm", {"epsilon": subject.epsilon})}

    def outcome(label, source=None):
        attack, options = attacks[label]
        return subject.correct(attack, source=source, **options)

    white_box = {label: outcome(label) for label in ("PGD", "FGSM")}
    return white_box, {(label, each.name): outcome(label, each.name) for each in surrogates for label in attacks}


def _excess(white_box, transferred, subject, settings):
    """Returns the clearest `Increase` of the fooled images and the rest of what `clearest_overrating` returns."""
    references = {"PGD": ["PGD"], "MI-FGSM": ["PGD"], "FGSM": ["PGD", "FGSM"]}
    compared = {
        f"{label} from {source} instead of {reference} on the network itself": (correct, white_box[reference])
        for (label, source), correct in transferred.items()
        for reference in references[label]
    }
    tests = len(transferred) + len({source for _, source in transferred})  # FGSM has two references
    return statistics.clearest_overrating(compared, subject, settings, tests=tests)


def _words(verdict, excess, left, settings):
    """Returns the explanation and the remedy; `left` says what the weaker attack leaves, if a sign may not count."""
    return {
        Verdict.FAIL: (
            f"With {excess.name}, {excess.difference:.1%} more images are fooled. Whoever knows the network can "
            "do at least as well as whoever does not, so its own gradients mislead.",
            REMEDY,
        ),
        Verdict.INCONCLUSIVE: (
            f"With {excess.name}, {excess.difference:.1%} more images are fooled.{left}"
            if left and excess.difference > 0.0
            else f"The sample cannot rule out that transfer attacks fool {settings.detectable:.0%} more images.{left}",
            "Judge more images (--samples).",
        ),
        Verdict.PASS: (
            f"With {excess.name}, {excess.difference:.1%} more images are fooled, which may be chance."
            if excess.difference > 0.0
            else "No transferred attack fools more images than the attack on the network itself.",
            "",
        ),
    }[verdict]
