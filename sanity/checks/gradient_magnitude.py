"""How large are the gradients of the loss, and are they numbers at all?"""

import numpy as np

from sanity import statistics
from sanity.result import Result, Verdict
from sanity.series import Histogram
from sanity.settings import Settings
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

    The magnitude decides nothing: robust networks have smaller gradients than others, but how much smaller says little.
    The check fails if a gradient at an image, or a logit during PGD, is not a finite number. No sound network has such
    a value, so a single one is proof.

    Zero gradients are the subject of `gradients_are_available`.

    Example:
        >>> gradient_magnitude(subject, settings).verdict.value
        'pass'
    """
    found, size = subject.gradients, len(subject)
    on_the_way = ~np.all(np.isfinite(subject.trace(**settings.pgd(subject.epsilon)).margins), axis=0)
    count = int(np.sum(~found.finite | on_the_way))
    low, high = statistics.wilson(count, size, confidence=settings.confidence)
    explanation, remedy = _words(float(np.mean(~found.finite)), float(np.mean(on_the_way)))
    return Result(
        name=NAME,
        verdict=Verdict.FAIL if count else Verdict.PASS,
        quantity="images with a gradient, or on PGD's way with logits, that are not finite numbers",
        value=count / size,
        threshold=0.0,
        sample_size=size,
        interval=(low, high),
        series=_series(found),
        explanation=f"{explanation} {_magnitude(found.squared_norm[found.finite])}",
        remedy=remedy,
        reference=REFERENCE,
    )


def _words(at_images, on_the_way):
    """Returns the explanation and the remedy; both arguments are shares of the images."""
    remedy = (
        "Do not report the accuracy under attacks that follow gradients. Look for a square root, a logarithm or a "
        "division that meets zero, or numbers too large for the precision, and make it stable."
    )
    if at_images:
        return (
            f"For {at_images:.1%} of the images the gradient of the loss is not a finite number. Attacks take it for "
            "zero and do not move, and the images seem to withstand them.",
            remedy,
        )
    if on_the_way:
        return (
            f"The logits of {on_the_way:.1%} of the images are not finite numbers somewhere on the way of PGD, "
            "although they are at the images: there is no gradient to follow from there. Such a point counts as an "
            "adversary.",
            remedy,
        )
    return "The gradients at the images, and the logits on the way of PGD, are finite numbers.", ""


def _magnitude(squared_norm):
    if not len(squared_norm):
        return "There is no gradient to measure."
    mean, largest = float(np.mean(squared_norm)), float(np.max(squared_norm))
    return (
        f"The squared norm of the gradient is {mean:.2g} on average and at most {largest:.2g}, for pixels in [0, 1]; "
        f"for pixels in [0, {LEVELS}], as in the literature, {mean / LEVELS**2:.2g} and {largest / LEVELS**2:.2g}."
    )


def _series(found):
    """Returns the histogram between powers of ten and their parts; zeros and non-finite values are counted apart."""
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
