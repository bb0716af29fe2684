"""How large are the gradients of the loss, and are they numbers at all?"""

import numpy as np

from sanity import measure_gradients, sample_size, statistics
from sanity.measure_gradients import MOST_WITHOUT
from sanity.result import Curves, Result, Verdict

NAME = "gradient_magnitude"
LEVELS = 255  # the papers measure pixels in [0, 255]
MOST_TICKS = 9
REFERENCE = (
    "Wang and Zhang, Bilateral adversarial training, 2019, supplement, section 4, table 4; Athalye, Carlini and "
    "Wagner, Obfuscated gradients give a false sense of security, 2018 (vanishing and exploding gradients)"
)


def gradient_magnitude(subject, settings):
    """Reports the squared L2 norm of the gradient of the cross-entropy at the images: its mean, largest and spread.

    The magnitude is no verdict: networks that are robust have smaller gradients than those that are not, but how much
    smaller says little. Fails where a gradient is not a finite number, which no sound network has (one is proof), or
    where it is exactly zero for significantly more than `MOST_WITHOUT` of the images (exact binomial).

    Zero gradients are the subject of `gradients_are_available`, too, which also looks where PGD begins. They fail here
    because a mean over them is not a small gradient; it is one sign, not two.
    """
    found = measure_gradients.at(subject.network, subject.images, subject.labels, batch_size=subject.batch_size)
    size = len(subject)
    infinite, zeros = int(np.sum(~found.finite)), int(np.sum(found.zero))
    count = infinite + zeros
    share = count / size
    low, high = statistics.wilson(count, size, confidence=settings.confidence)
    magnitude = _magnitude(found.squared_norm[found.finite])
    if infinite:
        verdict = Verdict.FAIL
        explanation = (
            f"For {infinite / size:.1%} of the images the gradient of the loss is not a finite number. Attacks take it "
            f"for zero and do not move, and the images seem to withstand them. {magnitude}"
        )
        remedy = (
            "Do not report the accuracy under attacks that follow gradients. Look for a square root, a logarithm or a "
            "division that meets zero, or numbers too large for the precision, and make it stable."
        )
    elif statistics.exceeds(zeros, size, MOST_WITHOUT) < settings.alpha:
        verdict = Verdict.FAIL
        explanation = (
            f"For {zeros / size:.1%} of the images the gradient of the loss is exactly zero. That is no sign of "
            f"robustness, as a small gradient can be: attacks do not move at all. {magnitude}"
        )
        remedy = (
            "Do not report the accuracy under attacks that increase the cross-entropy. Attack the margin of the logits "
            "instead (pgd with loss='margin', apgd_dlr), and add attacks that need no gradients (square)."
        )
    elif share <= MOST_WITHOUT and high < MOST_WITHOUT + settings.detectable:
        verdict = Verdict.PASS
        explanation = f"The gradients are finite, and there are some to follow. {magnitude}"
        remedy = ""
    else:
        verdict = Verdict.INCONCLUSIVE
        needed = sample_size.ruling_out(MOST_WITHOUT + settings.detectable, confidence=settings.confidence)
        explanation = (
            f"The gradient is exactly zero for {share:.1%} of the images, which are too few to tell whether it is for "
            f"more than {MOST_WITHOUT:.0%} of all. {magnitude}"
        )
        remedy = f"Judge at least {needed} images (--samples)."
    return Result(
        name=NAME,
        verdict=verdict,
        quantity="images whose gradient is zero or not finite",
        value=share,
        threshold=MOST_WITHOUT,
        sample_size=size,
        interval=(low, high),
        series=_series(found, settings),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
    )


def _magnitude(squared_norm):
    if not len(squared_norm):
        return "There is no gradient to measure."
    mean, largest = float(np.mean(squared_norm)), float(np.max(squared_norm))
    return (
        f"The squared norm of the gradient is {mean:.2g} on average and at most {largest:.2g}, for pixels in [0, 1]; "
        f"for pixels in [0, {LEVELS}], as in the literature, {mean / LEVELS**2:.2g} and {largest / LEVELS**2:.2g}."
    )


def _series(found, settings):
    """The cumulative distribution, at powers of ten; images without a gradient lie below all of them."""
    squared_norm = np.where(found.finite, found.squared_norm, np.inf)
    positive = squared_norm[(squared_norm > 0.0) & found.finite]
    if not len(positive):
        return Curves(
            x_label="squared norm of the gradient",
            y_label="images with at most that",
            curves=(statistics.curve("at the images", {1.0: squared_norm <= 1.0}, confidence=settings.confidence),),
        )
    first, last = np.floor(np.log10(positive.min())), np.ceil(np.log10(positive.max()))
    every = max(1, int(np.ceil((last - first) / (MOST_TICKS - 1))))
    ticks = [float(10.0**exponent) for exponent in np.arange(last, first - every, -every)[::-1]]
    curve = statistics.curve(
        "at the images", {tick: squared_norm <= tick for tick in ticks}, confidence=settings.confidence
    )
    return Curves(
        x_label="squared norm of the gradient (pixels in [0, 1])", y_label="images with at most that", curves=(curve,)
    )
