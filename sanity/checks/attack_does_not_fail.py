"""Does the white-box attack show any of the known signs of an attack that fails?"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from sanity import measure, statistics
from sanity.result import Result, Verdict, skipped
from sanity.settings import Settings
from sanity.statistics.tolerance import Share
from sanity.subject import Subject
from tf_nuat import draws, losses
from tf_nuat.core import threefry
from tf_nuat.models.inference import graph_of

NAME = "attack_does_not_fail"
REFERENCE = (
    "Pintor et al., Indicators of attack failure: debugging and improving optimization of adversarial examples, 2022, "
    "section 3"
)
DRAWS = 100
RADIUS = 1 / 2  # of the small ball, in epsilon, as in the authors' code
UNSTABLE = 0.1  # relative change of the margin
LAST, MOVED = 10, 0.05  # steps, and the share of its range that the margin may still gain in them

# Tolerated shares of the images, for the indicators that decide.
TOLERATED = {
    "unavailable gradients": 0.01,
    "unstable predictions": 0.1,
    "lost adversaries": 0.01,
    "transfer failure": 0.01,
}
SEEN = {
    "unavailable gradients": "the gradient of the loss is exactly zero, so that the attack has no direction to go",
    "unstable predictions": f"the margin changes by more than {UNSTABLE:.0%} between points that are nearly the same, "
    "so that the gradient at one says nothing about the next",
    "lost adversaries": "PGD meets an adversary on its way, but the attack whose accuracy is reported returns none",
    "transfer failure": "the adversary that the attack found does not fool the network when it is looked at again",
}
REMEDY = {
    "unavailable gradients": "Look for layers without a gradient (rounding, thresholds) and for logits so large that "
    "the softmax saturates; attack a differentiable version, and add attacks that need no gradients.",
    "unstable predictions": "Look for randomness and for layers that jump; average the gradient over several draws or "
    "nearby points (expectation over transformations), and add attacks that need no gradients.",
    "lost adversaries": "The attack, not the network, is at fault: have it return the best point that it has met.",
    "transfer failure": "If the network is random, attack its mean over several draws; if not, make sure that the "
    "network that is attacked is the one that is deployed, in the same precision.",
}


def attack_does_not_fail(subject: Subject, settings: Settings) -> Result:
    """PGD at epsilon must show none of the indicators of attack failure, on images that it leaves correct.

    For each indicator, the check compares the share of images that show it, among those that are correct without
    attack, with a tolerated share. It fails if a share is significantly larger (exact binomial, `settings.alpha`
    divided among the indicators) and PGD leaves more than chance. It passes if all intervals end less than
    `settings.detectable` above their tolerances. Four indicators decide, on images that PGD leaves:

    - unavailable gradients: the gradient of the cross-entropy at the clean image is zero or not finite;
    - unstable predictions: the margin changes by more than 10 % on average over 100 draws from a ball of radius
      epsilon / 2. On a linear network, no image that withstands PGD changes as much, unless its margin depends on fewer
      than six pixels: then do not rely on this indicator. The paper uses the loss of the attack; the relative change of
      the margin does not depend on the scale of the logits;
    - lost adversaries: PGD meets an adversary, but the attack that is reported, with the same settings, finds none;
    - transfer failure: the adversary that PGD found does not fool the network a second time.

    Three are reported. They say that PGD may be too weak, which is no sign of masking, or belong to another check:

    - silent success: PGD meets an adversary, but its last point is none. The reported attack stops at the first one;
    - incomplete optimisation: PGD finds no adversary. The highest margin so far gains more than 0.05 of the range of
      the margin in the last 10 steps, and the same gain again would fool the network;
    - unconstrained attack failure: PGD finds no adversary where any image is allowed (`large_epsilon_reaches_chance`).

    Skipped if no image is classified correctly.

    Example:
        >>> attack_does_not_fail(subject, settings).verdict.value
        'pass'
    """
    clean = subject.correct()
    size = int(np.sum(clean))
    if not size:
        reason = "The network classifies no image of the sample correctly: there is nothing to attack."
        remedy = "Check the labels and the scaling of the images."
        return skipped(NAME, reason, sample_size=len(subject), remedy=remedy, reference=REFERENCE)
    left = subject.correct("pgd", **settings.pgd(subject.epsilon))
    overrating = statistics.Overrating.of("PGD", left, subject, settings)
    shown = {indicator: each[clean] for indicator, each in _indicators(subject, settings, left).items()}
    found = {
        indicator: Share.of(int(np.sum(shown[indicator])), size, tolerance, settings, tests=len(TOLERATED))
        for indicator, tolerance in TOLERATED.items()
    }
    verdict, main, explanation, remedy = _decided(found, size, len(subject), overrating)
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=f"images with {main}",
        value=found[main].value,
        threshold=found[main].tolerance,
        sample_size=size,
        interval=(found[main].low, found[main].high),
        series=_series(shown, found, settings),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=overrating.p_value(min(share.p_value for share in found.values())),
    )


def _series(shown, found, settings):
    groups = {Verdict.FAIL: "failing", Verdict.INCONCLUSIVE: "undecided", Verdict.PASS: "tolerated"}
    bars = {}
    for indicator, each in shown.items():
        share = found.get(indicator)
        told = "reported" if share is None else f"tolerated: {share.tolerance:.3g}"
        bars[f"{indicator} ({told})", "reported" if share is None else groups[share.verdict]] = each
    return statistics.bars("images that show an indicator of failure", bars, confidence=settings.confidence)


def _decided(found, size, sample_size, overrating):
    """Returns the verdict, the indicator that decided it, the explanation and the remedy.

    `found` is a dict of indicators to the `Share` of the `size` images that show them, those of the sample that are
    correct without attack; `overrating` says whether a sign counts.
    """
    failing = [indicator for indicator, share in found.items() if share.verdict is Verdict.FAIL]
    failing.sort(key=lambda indicator: found[indicator].p_value)
    undecided = [indicator for indicator, share in found.items() if share.verdict is Verdict.INCONCLUSIVE]
    sign = Verdict.FAIL if failing else Verdict.INCONCLUSIVE if undecided else Verdict.PASS
    verdict = overrating.verdict(sign)
    if verdict is Verdict.FAIL:
        seen = "; ".join(f"{each}, {found[each].value:.1%} of the images: {SEEN[each]}" for each in failing)
        explanation = f"The attack fails. {seen[0].upper()}{seen[1:]}."
        remedy = f"Do not report the accuracy under this attack. {REMEDY[failing[0]]}"
        return verdict, failing[0], explanation, remedy
    if verdict is Verdict.INCONCLUSIVE:
        unsure = failing or undecided
        main = max(unsure, key=lambda each: found[each].high - found[each].tolerance)
        explanation = f"{size} images are too few to rule out that the attack fails ({', '.join(unsure)})."
        if overrating.words:
            seen = ", ".join(f"{each} on {found[each].value:.1%}" for each in unsure)
            explanation = f"The attack shows {seen} of the images.{overrating.words}"
        share = max((found[each] for each in unsure), key=lambda share: share.decisive or math.inf)
        needed = share.decisive and math.ceil(share.decisive / size * sample_size)  # --samples counts the others, too
        remedy = dataclasses.replace(share, decisive=needed).more
        return verdict, main, explanation, remedy
    main = min(found, key=lambda each: found[each].p_value)
    seen = ", ".join(f"{indicator} on {share.value:.1%}" for indicator, share in found.items())
    explanation = f"The attack shows no sign of failing beyond what is tolerated: {seen}.{overrating.words}"
    return Verdict.PASS, main, explanation, ""


def _indicators(subject, settings, left):
    """Returns which images show each indicator, a dict of names to bool (N,); `left` are the images that PGD leaves."""
    seen = subject.trace(**settings.pgd(subject.epsilon))
    met, gains = np.any(seen.fooled, axis=0), still_gaining(seen.margins) > MOVED
    return {
        "unavailable gradients": left & (seen.slope == 0.0),
        "unstable predictions": left & (instability(subject) > UNSTABLE),
        "lost adversaries": left & met,
        "transfer failure": left & met & ~seen.fooled_again,
        "silent success": met & ~seen.fooled[-1],
        "incomplete optimisation": left & ~met & gains & (after_as_much_again(seen.margins) > 0.0),
        "unconstrained attack failure": subject.correct("pgd", **settings.pgd(subject.largest)),
    }


def still_gaining(margins):
    """Returns the gain of the highest margin so far in the last `LAST` points, as a share of the margin's range, (N,).

    Args:
        margins: (points, N). The gain is 0 if the margin is the same at all points.
    """
    highest, gain = _last_gain(margins)
    span = highest - np.min(margins, axis=0)
    return np.divide(gain, span, out=np.zeros_like(gain), where=span > 0.0)


def after_as_much_again(margins):
    """Returns the highest margin, (N,), if the gain of the last `LAST` points were repeated."""
    highest, gain = _last_gain(margins)
    return highest + gain


def _last_gain(margins):
    highest = np.maximum.accumulate(margins, axis=0)
    return highest[-1], highest[-1] - highest[-min(LAST, len(margins))]


def instability(subject):
    """Returns the mean relative change of the margin over `DRAWS` points of a small ball around each image, (N,)."""
    logits_fn, radius = graph_of(subject.network), RADIUS * subject.epsilon

    def change(x, y, index):
        reference, keys = losses.margin(logits_fn(x), y), threefry.keys(draws.seed_pair(subject.seed), index)

        def draw(number, total):
            point = subject.norm.random_point(x, radius, draws.fold_in(keys, tf.fill(tf.shape(index), number)))
            return number + 1, total + tf.abs(losses.margin(logits_fn(point), y) - reference)

        _, total = tf.while_loop(lambda number, _: number < DRAWS, draw, (0, tf.zeros_like(reference)))
        size = tf.abs(reference)
        return [total / DRAWS / tf.where(size > 0.0, size, 1.0)]  # as in the authors' code

    def measured(images, labels, first):
        return measure.batches.of_all(change, images, labels, first=first, batch_size=subject.batch_size)

    (found,) = subject.per_image(NAME, measured)
    return found
