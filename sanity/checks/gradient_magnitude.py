"""How large are the gradients of the loss, and are they numbers at all?"""

import numpy as np

from sanity import statistics
from sanity.measure.gradients import MOST_WITHOUT
from sanity.result import Result, Verdict
from sanity.series import Histogram
from sanity.settings import Settings
from sanity.statistics import sample_size
from sanity.subject import Subject

NAME = "gradient_magnitude"
LEVELS = 255  # the papers measure pixels in [0, 255]
MOST_BINS = 24
MOST_EXPONENT = 308  # of a finite number
REFERENCE = (
    "Wang and Zhang, Bilateral adversarial training, 2019, supplement, section 4, table 4; Athalye, Carlini and "
    "Wagner, Obfuscated gradients give a false sense of security, 2018 (vanishing and exploding gradients)"
)


def gradient_magnitude(subject: Subject, settings: Settings) -> Result:
    """Reports the squared L2 norm of the gradient of the cross-entropy at the images: its mean, largest and spread.

    The magnitude is no verdict: networks that are robust have smaller gradients than those that are not, but how much
    smaller says little. Fails where a gradient is not a finite number, which no sound network has (one is proof), or
    where it is exactly zero for significantly more than `MOST_WITHOUT` of the images (exact binomial).

    Zero gradients are the subject of `gradients_are_available`, too, which also looks where PGD begins. They fail here
    because a mean over them is not a small gradient; it is one sign, not two.
    """
    found = subject.gradients
    size = len(subject)
    infinite, zeros = int(np.sum(~found.finite)), int(np.sum(found.zero))
    count = infinite + zeros
    share = count / size
    low, high = statistics.wilson(count, size, confidence=settings.confidence)
    if infinite or statistics.exceeds(zeros, size, MOST_WITHOUT) < settings.alpha:
        verdict = Verdict.FAIL
    elif share <= MOST_WITHOUT and high < MOST_WITHOUT + settings.detectable:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.INCONCLUSIVE
    explanation, remedy = _words(verdict, infinite / size, zeros / size, share, settings)
    return Result(
        name=NAME,
        verdict=verdict,
        quantity="images whose gradient is zero or not finite",
        value=share,
        threshold=MOST_WITHOUT,
        sample_size=size,
        interval=(low, high),
        series=_series(found),
        explanation=f"{explanation} {_magnitude(found.squared_norm[found.finite])}",
        remedy=remedy,
        reference=REFERENCE,
    )


def _words(verdict, infinite, zeros, share, settings):
    """Returns the explanation and the remedy; `infinite` and `zeros` are shares of the images, `share` that of both."""
    if infinite:
        return (
            f"For {infinite:.1%} of the images the gradient of the loss is not a finite number. Attacks take it "
            "for zero and do not move, and the images seem to withstand them.",
            "Do not report the accuracy under attacks that follow gradients. Look for a square root, a logarithm or a "
            "division that meets zero, or numbers too large for the precision, and make it stable.",
        )
    needed = sample_size.ruling_out(MOST_WITHOUT + settings.detectable, confidence=settings.confidence)
    return {
        Verdict.FAIL: (
            f"For {zeros:.1%} of the images the gradient of the loss is exactly zero. That is no sign of "
            "robustness, as a small gradient can be: attacks do not move at all.",
            "Do not report the accuracy under attacks that increase the cross-entropy. Attack the margin of the logits "
            "instead (pgd with loss='margin', apgd_dlr), and add attacks that need no gradients (square).",
        ),
        Verdict.PASS: ("The gradients are finite, and there are some to follow.", ""),
        Verdict.INCONCLUSIVE: (
            f"The gradient is exactly zero for {share:.1%} of the images, which are too few to tell whether it is for "
            f"more than {MOST_WITHOUT:.0%} of all.",
            f"Judge at least {needed} images (--samples).",
        ),
    }[verdict]


def _magnitude(squared_norm):
    if not len(squared_norm):
        return "There is no gradient to measure."
    mean, largest = float(np.mean(squared_norm)), float(np.max(squared_norm))
    return (
        f"The squared norm of the gradient is {mean:.2g} on average and at most {largest:.2g}, for pixels in [0, 1]; "
        f"for pixels in [0, {LEVELS}], as in the literature, {mean / LEVELS**2:.2g} and {largest / LEVELS**2:.2g}."
    )


def _series(found):
    """The numbers of images between powers of ten and their parts; zeros have no place there, nor has what is none."""
    zeros, infinite = int(np.sum(found.zero)), int(np.sum(~found.finite))
    positive = found.squared_norm[found.finite & ~found.zero]
    # The square of the smallest gradients is 0 even in double precision.
    exponents = np.log10(np.maximum(positive, np.finfo(np.float64).tiny))
    edges = counts = ()
    if len(positive):
        first, last = np.floor(exponents.min()), np.floor(exponents.max()) + 1.0
        parts = max(1, int(MOST_BINS // (last - first)))
        width = 1.0 / parts if last - first <= MOST_BINS else np.ceil((last - first) / MOST_BINS)
        places = np.arange(int(np.ceil((last - first) / width)) + 1) * width + first
        counts = tuple(np.histogram(exponents, places)[0].tolist())
        edges = tuple((10.0 ** np.minimum(places, MOST_EXPONENT)).tolist())
    apart = (("exactly zero", zeros), *((("not finite", infinite),) if infinite else ()))
    return Histogram(x_label="squared norm of the gradient, pixels in [0, 1]", edges=edges, counts=counts, apart=apart)
