"""Does the gradient at an image say what the network does around it?"""

import dataclasses
from typing import Any

import numpy as np

from sanity import measure, statistics
from sanity.result import Result, Verdict, skipped
from sanity.series import Panel, Surface
from sanity.settings import Settings
from sanity.statistics.tolerance import Share
from sanity.subject import Subject

NAME = "loss_surface_is_smooth"
POINTS = 10
EXPLAINED = 0.1  # of the change of the margin, which the gradient must predict at least
EXPLAINED_SPREAD = 0.5  # of how the changes differ from point to point: then the gradient tells which point is better
TRIVIAL = 0.1  # of the margin: an error below that misleads nobody

# Of the images. Chosen on these networks, with 200 (MNIST, CIFAR-10) or 353 images (digits). The numbers are the share
# of images and, in brackets, the median error relative to the change:
#   honest      digits, epsilon 0.1 and 0.2: undefended, linear and PGD-AT 0 % (at most 0.2); MNIST, 0.3: undefended 0 %
#                (0.3), NuAT 2 % (0.9), PGD-AT 5.5 % (0.9), TRADES 3 % (0.8), SAT-R2 1 % (1.1), SAT-R3 3 % (1.3), GAT
#                3.5 % (1.3), FBF 5.5 % (1.6); CIFAR-10, 2/255 and 8/255: a small undefended one 0 % (0.2, 0.5)
#   seen         overfitted catastrophically on MNIST (SAT-R1 with lambda 0) 20 and 72 % (0.8, 1.2); on digits, at 0.1
#                and 0.2: ripples on the images 91 and 79 % (3 to 4), 16 levels of grey 31 and 85 % (1)
#   seen at 0.1 but not at 0.2: noise 31 and 4 %
#   not seen    two others of MNIST that FGSM leaves at 89 and 93 % and PGD at 11 and 9 %: FGSM-AT 6.5 % (0.6), RFGSM-AT
#                4.5 % (1.0). The check is blind to them: the honest ones are as high. Winners-take-all 12 and 7 %
# The relative error alone does not separate them: a network that is robust on MNIST is nearly constant around an image,
# and no gradient predicts the small rest. Nor does the error of the cross-entropy: 0.3 to 0.8 for undefended networks,
# 0.2 to 0.9 for robust ones, 0.3 to 1 for overfitted ones.
# Radial basis functions on digits, at 0.2: on 34 % of the images the margin falls by about the same at all points. No
# gradient predicts that, but FGSM raises the loss by 0.86 of what many steps do. Of how the points differ the gradient
# leaves 0.17 to 0.47 on most of these images, and more than half on all images at which the masked networks mislead.
TOLERATED = 0.1
PARTS = tuple(float(part) for part in np.round(np.linspace(-1.0, 1.0, 13), 6))  # of epsilon
MOST_IMAGES = 20  # in the mean of the figure
REFERENCE = (
    "Qin et al., Adversarial robustness through local linearization, 2019, section 3; Vivek and Babu, Regularizers for "
    "single-step adversarial training, 2020, section 3.3; Sriramanan et al., Towards efficient and effective "
    "adversarial training, 2021, section 6.3 and figure 1"
)


def loss_surface_is_smooth(subject: Subject, settings: Settings) -> Result:
    """At random points of the ball, the gradient at the image must predict something of how the margin has changed.

    The error of an image is the mean over `POINTS` points of |m(x + d) - m(x) - d . grad m(x)|, where m is the true
    logit minus the strongest wrong one. The surface misleads at an image under four conditions. The error is above
    1 - `EXPLAINED` of the mean change itself: the gradient explains nothing. Nor does it explain `EXPLAINED_SPREAD` of
    how the changes differ from point to point: a change that is the same everywhere misleads no attack. The error is
    above `TRIVIAL` of the margin: it matters. FGSM leaves the image correct: it may be overrated. The check fails if
    the surface misleads at significantly more than `TOLERATED` of the images (exact binomial), and FGSM leaves more
    than chance.

    The margin replaces the loss because the cross-entropy of a confident network is curved even if the network is
    linear. The figure shows the loss.

    Skipped if no image is classified correctly.

    Example:
        >>> loss_surface_is_smooth(subject, settings).verdict.value
        'pass'
    """
    clean, size = subject.correct(), len(subject)
    if not np.any(clean):
        return skipped(
            NAME,
            "The network classifies no image of the sample correctly: there is no margin to look at.",
            sample_size=size,
            remedy="Check the labels and the scaling of the images.",
            reference=REFERENCE,
        )
    options: dict[str, Any] = {"epsilon": subject.epsilon, "norm": subject.norm}
    options |= {"seed": subject.seed, "batch_size": subject.batch_size}

    def linearity(images, labels, first):
        of_images = measure.surface.linearity(subject.network, images, labels, points=POINTS, first=first, **options)
        return dataclasses.astuple(of_images)

    found = measure.surface.Linearity(*subject.per_image(NAME, linearity))
    fgsm = subject.correct("fgsm", epsilon=subject.epsilon)
    overrating = statistics.Overrating.of("FGSM", fgsm, subject, settings)
    misleading = misleads(found) & clean & fgsm
    share = Share.of(int(np.sum(misleading)), size, TOLERATED, settings)
    verdict = overrating.verdict(share.verdict)
    ratio = float(np.median(relative_error(found)[clean]))
    explanation, remedy = _words(verdict, share, ratio, overrating.words)
    return Result(
        name=NAME,
        verdict=verdict,
        quantity="images at which the gradient predicts nothing of the change around them, and FGSM fails",
        value=share.value,
        threshold=TOLERATED,
        sample_size=size,
        interval=(share.low, share.high),
        series=_series(subject, found, misleading if np.any(misleading) else clean, options),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=overrating.p_value(share.p_value),
    )


def _words(verdict, share, ratio, left):
    """Returns the explanation and the remedy.

    `ratio` is the relative error at the median image, `left` what FGSM leaves if no sign counts.
    """
    seen = (
        f"On {share.value:.1%} of the images FGSM fails and the gradient predicts nothing of how the margin changes "
        f"around them. (Its error, relative to the change, is {ratio:.2g} at the median image: 0 for a linear "
        "network, 1 for a gradient of zero.) (Of the figure, the diamond between the middles of its sides is within "
        "epsilon.)"
    )
    return {
        Verdict.FAIL: (
            f"{seen} An attack that follows it is led astray, and the image only seems to withstand it.",
            "Do not report the accuracy under single-step attacks; compare PGD with attacks that need no gradients "
            "(square). Train against several steps or with a regularizer that keeps the loss smooth (NuAT, SAT, GAT), "
            "and look for what breaks the surface: rounding, randomness, activations that jump.",
        ),
        Verdict.INCONCLUSIVE: (
            f"{seen}{left}"
            if left
            else f"{share.images} images are too few to tell whether the surface is smooth. {seen}",
            share.more,
        ),
        Verdict.PASS: (f"{seen} More than {TOLERATED:.0%}, beyond chance, would have been a sign.{left}", ""),
    }[verdict]


def relative_error(found):
    """Returns the error of each image divided by its change, (N,); 1 if nothing changes and nothing is predicted."""
    none = found.change + found.error == 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.where(none, 1.0, found.error / found.change), nan=1.0, posinf=np.finfo(np.float64).max)


def misleads(found):
    """Returns at which images the gradient explains nothing of a change that matters, bool (N,)."""
    explains_nothing = found.error > (1.0 - EXPLAINED) * found.change
    explains_nothing &= found.spread_error >= (1.0 - EXPLAINED_SPREAD) * found.spread
    return explains_nothing & (found.error > TRIVIAL * np.abs(found.margin))


def _series(subject, found, among, options):
    """Returns the mean surface of images evenly spaced in the sample, and that of the image with the largest error."""
    (rows,) = np.nonzero(among)
    worst = int(rows[np.argmax((found.error / np.maximum(np.abs(found.margin), 1e-12))[rows])])
    chosen = np.unique(np.linspace(0, len(subject) - 1, min(len(subject), MOST_IMAGES)).astype(int))
    rows = np.append(chosen, worst)
    sample = subject.network, subject.images[rows], subject.labels[rows]
    heights = measure.surface.plane(*sample, parts=PARTS, **options)
    panels = (
        (f"mean of {len(chosen)} images", heights[:-1].mean(axis=0)),
        (f"image {worst}: largest error", heights[-1]),
    )
    return Surface(
        x_label=f"along the {subject.norm.direction_label}, in epsilon",
        y_label=f"along {subject.norm.random_label}, orthogonal, in epsilon",
        z_label="loss, share of ln K",
        x=PARTS,
        y=PARTS,
        panels=tuple(Panel(name, tuple(tuple(np.round(row, 4).tolist()) for row in z)) for name, z in panels),
    )
