"""How much do the logits of robust and of fooled images move under attack, by the norm that NuAT keeps small?"""

import numpy as np

from sanity.result import Result, Verdict, skipped
from sanity.series import Bar, Bars
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "nuclear_norm_separates"
BATCH = 64  # images, as in the training of NuAT on MNIST
FEWEST = 10  # images of each kind
DRAWS = 400
REFERENCE = "Sriramanan et al., Towards efficient and effective adversarial training, 2021, section 4.1 and figure 3a"


def nuclear_norm_separates(subject: Subject, settings: Settings) -> Result:
    """Reports the nuclear norm of what PGD does to the logits, of images that withstand it and of those that do not.

    The matrix has a row for each image of a batch: the logits at the last point of PGD, without early stopping, minus
    those of the image. The norm grows with the number of rows, so both kinds get the same number: up to `BATCH`, drawn
    `DRAWS` times with replacement from the images that are correct without attack. The check reports the mean over the
    draws, per image. The value is the mean of the robust images divided by that of the fooled ones; its interval is
    that of the draws (bootstrap).

    The ratio is no evidence, and the check never fails. An image is fooled if its logits move far enough, so the fooled
    images tend to have the larger norm whether gradients are masked or not. How far they move depends on the scale of
    the logits. On digits, the ratio is 0.97 for a PGD-AT network.

    Skipped if there are fewer than `FEWEST` images of either kind.

    Example:
        >>> nuclear_norm_separates(subject, settings).verdict.value
        'reported'
    """
    norms, sizes, size = measured(subject, settings)
    if norms is None:
        return skipped(
            NAME,
            f"{sizes['robust']} images withstand PGD and {sizes['fooled']} do not: {FEWEST} of each kind are needed "
            "to compare them. This is reported for interest alone.",
            sample_size=len(subject),
            remedy="There is nothing to be done.",
            reference=REFERENCE,
        )
    means = {name: float(np.mean(drawn)) for name, drawn in norms.items()}
    ratio = means["robust"] / means["fooled"]
    tails = 0.5 - settings.confidence / 2, 0.5 + settings.confidence / 2
    limits = tuple(np.quantile(norms["robust"] / norms["fooled"], tails).tolist())
    return Result(
        name=NAME,
        verdict=Verdict.REPORTED,
        quantity="nuclear norm of the robust images, relative to that of the fooled ones",
        value=ratio,
        threshold=1.0,
        sample_size=len(subject),
        interval=(min(limits[0], ratio), max(limits[1], ratio)),
        series=_series(norms, sizes, tails),
        explanation=(
            f"For interest, and no evidence for or against masked gradients: where PGD ends, the logits of {size} "
            f"images that withstand it have moved by {means['robust']:.3g} per image in the nuclear norm, those of "
            f"{size} that do not by {means['fooled']:.3g}. NuAT trains for a small norm, and its authors found the "
            "smaller ones at robust images."
        ),
        remedy="",
        reference=REFERENCE,
        masking=False,
    )


def measured(subject, settings):
    """Returns (norms, sizes, size): what `per_image` draws, the numbers of images, and the number of rows of a draw.

    `norms` and `sizes` are dicts of "robust" and "fooled": to arrays (DRAWS,) and to numbers. `norms` is None if there
    is nothing to compare.
    """
    clean, robust = subject.correct(), subject.correct("pgd", **settings.pgd(subject.epsilon))
    found = subject.trace(**settings.pgd(subject.epsilon))
    moved = found.last_logits.astype(np.float64) - found.clean_logits
    counted = clean & np.all(np.isfinite(moved), axis=1)
    groups = {"robust": moved[counted & robust], "fooled": moved[counted & ~robust]}
    sizes = {name: len(rows) for name, rows in groups.items()}
    size = min(BATCH, *sizes.values())
    if size < FEWEST or not np.any(groups["fooled"]):
        return None, sizes, size
    norms = {name: per_image(rows, size, (subject.seed, number)) for number, (name, rows) in enumerate(groups.items())}
    return norms, sizes, size


def per_image(rows, size, seed):
    """Returns the nuclear norms of `DRAWS` batches of `size` rows, drawn from `rows` (N, K), over `size`: (DRAWS,).

    `seed` is a whole number, or a sequence of them.
    """
    chosen = np.random.default_rng(seed).integers(len(rows), size=(DRAWS, size))
    return np.array([np.linalg.norm(rows[each], "nuc") for each in chosen]) / size


def _series(norms, sizes, tails):
    limits = {name: np.quantile(drawn, tails).tolist() for name, drawn in norms.items()}
    highest = max(high for _, high in limits.values())
    bars = []
    for name, (low, high) in limits.items():
        mean = float(np.mean(norms[name]))
        shown = f"{name}, {sizes[name]} images: {mean:.3g}"
        bars.append(Bar(shown, mean / highest, min(low, mean) / highest, max(high, mean) / highest, group=name))
    return Bars(label="nuclear norm per image, relative to the highest limit", bars=tuple(bars))
