"""Is there a gradient for an attack to follow, where attacks begin?"""

import numpy as np
import tensorflow as tf

from sanity import measure, statistics
from sanity.measure.gradients import MOST_WITHOUT
from sanity.result import Result, Verdict
from sanity.settings import Settings
from sanity.statistics import sample_size
from sanity.subject import Subject
from tf_nuat import draws
from tf_nuat.core import threefry

NAME = "gradients_are_available"
REFERENCE = (
    "Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks, "
    "2020 (AutoAttack's flag for zero gradients); Pintor et al., Indicators of attack failure, 2022 (unavailable "
    "gradients); Carlini and Wagner, Defensive distillation is not robust to adversarial examples, 2016"
)


def gradients_are_available(subject: Subject, settings: Settings) -> Result:
    """The gradient of the cross-entropy must not be exactly zero, where FGSM begins and where PGD does.

    Fails if it is zero for significantly more than `MOST_WITHOUT` of the images themselves, or of random points of
    their balls (exact binomial, both together at `settings.alpha`). Only images that PGD leaves correct count: those
    that it fools all the same are not overrated. A gradient that is not finite counts as zero, because attacks take it
    for zero. Passes if the sample rules out that the share is larger by `settings.detectable`.

    Masking by large logits shows here: where the true class leads by more than about 100, the probabilities of all
    others round to zero in float32, and so does the gradient.

    Example:
        >>> gradients_are_available(subject, settings).verdict.value
        'pass'
    """
    left = subject.correct("pgd", **settings.pgd(subject.epsilon))
    overrating = statistics.Overrating.of("PGD", left, subject, settings)
    missing = {
        "images": subject.gradients.missing & left,
        "random points within epsilon": _at_random_points(subject) & left,
    }
    where = max(missing, key=lambda name: np.sum(missing[name]))
    count, size, share = int(np.sum(missing[where])), len(subject), float(np.mean(missing[where]))
    low, high = statistics.wilson(count, size, confidence=settings.confidence)
    p_value = min(1.0, len(missing) * statistics.exceeds(count, size, MOST_WITHOUT))
    if p_value < settings.alpha:
        sign = Verdict.FAIL
    elif high < MOST_WITHOUT + settings.detectable:
        sign = Verdict.PASS
    else:
        sign = Verdict.INCONCLUSIVE
    verdict = overrating.verdict(sign)
    needed = sample_size.ruling_out(MOST_WITHOUT + settings.detectable, confidence=settings.confidence)
    more = f"at least {needed}" if size < needed else "more"
    explanation, remedy = _words(verdict, share, where, overrating.words, more, settings)
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=f"{where} where the gradient of the loss is zero, and that PGD leaves",
        value=share,
        threshold=MOST_WITHOUT,
        sample_size=size,
        interval=(low, high),
        series=statistics.bars(
            "gradient exactly zero, and PGD fails",
            {(name, "no gradient"): outcomes for name, outcomes in missing.items()},
            confidence=settings.confidence,
            levels=((f"allowed, {MOST_WITHOUT:.0%}", MOST_WITHOUT),),
        ),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=overrating.p_value(p_value),
    )


def _words(verdict, share, where, left, more, settings):
    """Returns the explanation and the remedy.

    `share` is that of the points that `where` names; `left` says what PGD leaves, `more` how many images decide.
    """
    found = f"The gradient of the loss is exactly zero, and PGD fails, for {share:.1%} of the {where}"
    too_few = f", but these are too few to rule out that it is for {MOST_WITHOUT + settings.detectable:.0%} of all."
    return {
        Verdict.FAIL: (
            f"For {share:.1%} of the {where} the gradient of the loss is exactly zero, and PGD fails: an attack that "
            "follows it does not move, and the images seem to withstand it. No network is robust for that reason.",
            "Do not report the accuracy under attacks that increase the cross-entropy. If the logits are very large "
            "(a temperature, distillation), attack their margin instead (pgd with loss='margin', apgd_dlr). If a layer "
            "has no gradient (rounding, thresholds), replace it by a smooth one in the backward pass. Add attacks that "
            "need no gradients (square), and transfer adversaries from another network.",
        ),
        Verdict.PASS: (f"{found}. More than {MOST_WITHOUT:.0%}, beyond chance, would have been a sign.{left}", ""),
        Verdict.INCONCLUSIVE: (
            f"{found}.{left}" if left else f"{found}{too_few}",
            f"Judge {more} images (--samples).",
        ),
    }[verdict]


def _at_random_points(subject):
    """Returns whether there is no gradient where PGD begins, at a random point of each ball, bool (N,).

    FGSM and I-FGSM begin at the images.
    """

    def missing(images, labels, first):
        keys = threefry.keys(draws.seed_pair(subject.seed), np.arange(first, first + len(images)))
        drawn = subject.norm.random_point(tf.constant(images), subject.epsilon, keys).numpy()
        return [measure.gradients.at(subject.network, drawn, labels, batch_size=subject.batch_size).missing]

    (found,) = subject.per_image(NAME, missing)
    return found
