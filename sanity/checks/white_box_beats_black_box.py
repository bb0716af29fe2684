"""Does an attacker who sees the network do at least as well as one who only sees another network?"""

import numpy as np

from sanity import statistics
from sanity.result import Bars, Result, Verdict, skipped

REFERENCE = (
    "Athalye, Carlini and Wagner, Obfuscated gradients give a false sense of security, 2018, section 3.1; "
    "Papernot et al., Practical black-box attacks against machine learning, 2017"
)
REMEDY = (
    "Do not report the accuracy under the attack that was beaten. Report the worst case over all attacks, and look for "
    "what hides the network's own gradients: layers without a gradient, saturated logits, single-step training that "
    "overfitted to its attack."
)


def white_box_beats_black_box(subject, settings):
    """Adversaries that were computed on a surrogate must not fool the network more often than those computed on itself.

    For each surrogate, on the same images, four comparisons; fails where one is significant:

    - transferred PGD, MI-FGSM and FGSM with PGD, of as many steps: PGD is the attack whose accuracy is reported, and
      whoever can transfer an FGSM sample has the means to run PGD on the network.
    - transferred FGSM with FGSM, the same budget. This shows the masking that only single steps suffer from, after
      catastrophic overfitting. It counts only where FGSM leaves significantly more than chance: at a large epsilon the
      loss of an honest network is curved over the step, and its FGSM may fall a little behind a transferred one; but
      then hardly any image withstands either, and there is nothing that could be overrated.

    A surrogate that is no better than chance says nothing: the check is then inconclusive. Skipped without surrogate.
    """
    name = "white_box_beats_black_box"
    surrogates = subject.surrogates()
    if not surrogates:
        return skipped(
            name,
            "There is no surrogate to transfer attacks from, and no training data to train one.",
            sample_size=len(subject),
            remedy="Give a network that was trained by other means (--surrogate).",
            reference=REFERENCE,
        )
    pgd, single = settings.pgd(subject.epsilon), {"epsilon": subject.epsilon}
    attacks = {"PGD": ("pgd", pgd), "MI-FGSM": ("mifgsm", pgd), "FGSM": ("fgsm", single)}

    def outcome(label, source=None):
        attack, options = attacks[label]
        return subject.correct(attack, source=source, **options)

    white_box = {label: outcome(label) for label in ("PGD", "FGSM")}
    transferred = {(label, each.name): outcome(label, each.name) for each in surrogates for label in attacks}
    chance = 1.0 / subject.num_classes
    overrated = statistics.exceeds(np.sum(white_box["FGSM"]), len(subject), chance) < settings.alpha
    references = {"PGD": ["PGD"], "MI-FGSM": ["PGD"], "FGSM": ["PGD", "FGSM"] if overrated else ["PGD"]}
    excess = statistics.clearest_increase(
        {
            f"{label} from {source} instead of {reference} on the network itself": (correct, white_box[reference])
            for (label, source), correct in transferred.items()
            for reference in references[label]
        },
        tests=4 * len(surrogates),
        confidence=settings.confidence,
    )
    learned = [
        each for each in surrogates if statistics.exceeds(np.sum(each.correct), len(subject), chance) < settings.alpha
    ]
    verdict = excess.verdict(settings)
    if verdict is Verdict.PASS and not learned:
        verdict = Verdict.INCONCLUSIVE
        explanation = "No surrogate classifies the sample better than chance: nothing that transfers can come from it."
        remedy = "Give a network that was trained by other means (--surrogate), or judge more images (--samples)."
    else:
        explanation, remedy = {
            Verdict.FAIL: (
                f"With {excess.name}, {excess.difference:.1%} more images are fooled. Whoever knows the network can "
                "do at least as well as whoever does not, so its own gradients mislead.",
                REMEDY,
            ),
            Verdict.INCONCLUSIVE: (
                f"The sample cannot rule out that a transferred attack fools {settings.detectable:.0%} more images.",
                "Judge more images (--samples).",
            ),
            Verdict.PASS: ("No transferred attack fools more images than the attack on the network itself.", ""),
        }[verdict]
    return Result(
        name=name,
        verdict=verdict,
        quantity=f"images that are fooled in addition with {excess.name}",
        value=excess.difference,
        threshold=0.0,
        sample_size=len(subject),
        interval=(excess.low, excess.high),
        series=_series(subject.correct(), white_box, transferred, settings),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
    )


def _series(clean, white_box, transferred, settings):
    white_box = {f"{label} on the network itself": correct for label, correct in white_box.items()}
    transferred = {f"{label} from {source}": correct for (label, source), correct in transferred.items()}
    groups = {"clean": {"no attack": clean}, "white box": white_box, "transfer": transferred}
    bars = [
        statistics.bar(name, correct, group=group, confidence=settings.confidence)
        for group, outcomes in groups.items()
        for name, correct in outcomes.items()
    ]
    return Bars(label="accuracy that remains", bars=tuple(bars))
