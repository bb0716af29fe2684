"""Does the loss rise with epsilon, and about as much for one step as for many?"""

import dataclasses
import itertools

import numpy as np

from sanity import measure, statistics
from sanity.result import Result, Verdict, skipped
from sanity.series import Curve, Curves
from sanity.settings import Settings
from sanity.statistics.tolerance import Share
from sanity.subject import Subject

NAME = "loss_rises_with_epsilon"
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of epsilon
LARGEST_FALL = 0.01  # of the mean loss, as a share of ln K
LEAST_RATIO = 0.5
RAY = tuple(part / 8 for part in range(1, 8))  # of epsilon
RAY_TOLERANCE = 0.01  # of the images: none on honest networks, 4 to 8 % on those that overfitted mildly to FGSM
SIGNS = 4  # among which alpha is divided
FEWEST_IMAGES = 30  # below, the mean of losses is not normal enough for Student's test
SINGLE, ITERATIVE = "FGSM", "I-FGSM"
REFERENCE = (
    "Vivek and Babu, Regularizers for single-step adversarial training, 2020, sections 4.2 and 4.3, figures 1, 2 and 5"
)
REMEDY = (
    "Do not report the accuracy under single-step attacks, and train against several steps, or with a regularizer that "
    "keeps the loss smooth (NuAT, SAT-R1 to R3, GAT). If the training was not single-step, look for what breaks the "
    "gradients: saturated logits, rounding, randomness."
)


@dataclasses.dataclass(frozen=True)
class Sign:
    """A sign of masking, as it was measured.

    `p_value` is that of its absence, times the number of signs; `ruled_out` says whether the sample rules it out;
    `left` says what the attack leaves, if the sign may not count.
    """

    quantity: str
    value: float | None
    threshold: float
    interval: tuple | None
    p_value: float
    ruled_out: bool
    explanation: str
    left: str = ""
    good: str = "at most"


def loss_rises_with_epsilon(subject: Subject, settings: Settings) -> Result:
    """The mean loss at the end of FGSM and of I-FGSM must rise with epsilon, and FGSM's must not fall far behind.

    The loss of an image is its cross-entropy divided by ln K, at most 1 (see `Losses.share_of_chance`). Without the
    limit, a few lost images would dominate the mean: on an undefended network, many steps drive them far beyond one
    step. The four signs, on the same images, share `settings.alpha` (Bonferroni):

    - at epsilon, FGSM raises the mean by less than `LEAST_RATIO` of what I-FGSM does (Student's test of the
      difference, which is Fieller's of the ratio). This is ruled out, however small the ratio, if the rises differ by
      less than `settings.detectable`;
    - the mean falls by more than `LARGEST_FALL` from some part of epsilon to a larger one. All pairs of both attacks
      are compared (paired Student's test, the share of this sign divided among the pairs);
    - the loss does not rise at all on more than half of the images (exact binomial);
    - the ray: FGSM leaves more than `RAY_TOLERANCE` of the images correct, although a shorter step in the same
      direction, one of `RAY` in epsilon, fools them (exact binomial).

    A sign counts only if the attack leaves significantly more images correct than chance would. Otherwise nothing could
    be overrated, and even the loss of an honest network may fall if it is curved over so large a step. Skipped if the
    network is no better than chance without attack.

    Example:
        >>> loss_rises_with_epsilon(subject, settings).verdict.value
        'pass'
    """
    size = len(subject)
    if size < FEWEST_IMAGES:
        return _too_few(size)
    clean = _under(subject)
    if not statistics.is_overratable(clean.correct, subject, settings):
        return skipped(
            NAME,
            "Without attack the network is no better than chance: its loss cannot rise much, and nothing is overrated.",
            sample_size=size,
            remedy="Train the network first.",
            reference=REFERENCE,
        )
    measured = {label: _losses(subject, settings, label, clean) for label in (SINGLE, ITERATIVE)}
    shares = {
        label: {radius: each.share_of_chance(subject.num_classes) for radius, each in losses.items()}
        for label, losses in measured.items()
    }
    overrated = {
        label: {
            radius: statistics.Overrating.of(label, each.correct, subject, settings) for radius, each in losses.items()
        }
        for label, losses in measured.items()
    }
    pairs = list(itertools.combinations(shares[SINGLE], 2))
    signs = [_behind(shares, overrated, settings), _fall(shares, pairs, overrated, settings)]
    signs += [_flat(measured, overrated, settings), _ray(subject, measured[SINGLE], overrated[SINGLE], settings)]
    return _result(signs, size, _series(shares, subject, settings), settings)


def _too_few(size):
    return Result(
        name=NAME,
        verdict=Verdict.INCONCLUSIVE,
        quantity="",
        value=None,
        threshold=None,
        sample_size=size,
        interval=None,
        series=None,
        explanation=f"{size} images are too few to compare mean losses.",
        remedy=f"Judge at least {FEWEST_IMAGES} images, better 1,000 (--samples).",
        reference=REFERENCE,
    )


def _losses(subject, settings, label, clean):
    """Returns the `Losses` at each part of epsilon, by radius."""
    found = {0.0: clean}
    for radius in (part * subject.epsilon for part in PARTS[1:]):
        options = {"epsilon": radius}
        if label == ITERATIVE:
            options.update(steps=settings.ascent_steps, step_size=radius / settings.ascent_steps)
        found[radius] = _under(subject, {SINGLE: "fgsm", ITERATIVE: "ifgsm"}[label], **options)
    return found


def _under(subject, attack=None, **settings):
    settings |= subject.threat(attack)

    def measured(images, labels, first):
        options = {"batch_size": subject.batch_size, **settings}
        found = measure.losses.under(subject.network, images, labels, attack, **options)
        return found.loss, found.correct

    return measure.losses.Losses(*subject.per_image((NAME, attack, *settings.items()), measured))


def _behind(shares, overrated, settings):
    epsilon = max(shares[SINGLE])
    single, iterative = (shares[label][epsilon] - shares[label][0.0] for label in (SINGLE, ITERATIVE))
    mean = float(np.mean(iterative))
    ratio = float(np.mean(single)) / mean if mean > 0.0 else None
    limits = measure.losses.ratio_interval(single, iterative, confidence=settings.confidence) if ratio else None
    _, gap = measure.losses.interval(iterative - single, confidence=settings.confidence)
    overrating = overrated[SINGLE][epsilon]
    ruled_out = overrating.ruled_out or gap < settings.detectable or (limits is not None and limits[0] >= LEAST_RATIO)
    # If no loss rises, FGSM cannot fall behind: the other signs show it.
    counts = mean > 0.0 and overrating.possible and not ruled_out
    lag = LEAST_RATIO * iterative - single
    return Sign(
        quantity=f"rise of the loss at epsilon under {SINGLE}, as a share of that under {ITERATIVE}",
        value=ratio if limits else None,
        threshold=LEAST_RATIO,
        interval=limits,
        p_value=min(1.0, SIGNS * measure.losses.exceeds(lag, 0.0)) if counts else 1.0,
        ruled_out=ruled_out,
        explanation=(
            f"A single step raises the loss by {np.mean(single):.1%} of that of chance, many steps raise it by "
            f"{mean:.1%}: the gradient at the image does not show the way to where the loss is high."
        ),
        left=overrating.words,
        good="at least",
    )


def _fall(shares, pairs, overrated, settings):
    found = []
    for label, (small, large) in itertools.product(shares, pairs):
        falls = shares[label][small] - shares[label][large]
        overrating = overrated[label][large]
        if not overrating.ruled_out:
            p_value = overrating.p_value(measure.losses.exceeds(falls, LARGEST_FALL))
            found.append((p_value, -float(np.mean(falls)), label, small, large))
    if not found:
        return Sign("fall of the loss", 0.0, LARGEST_FALL, (0.0, 0.0), 1.0, True, "")
    p_value, _, label, small, large = min(found)
    falls = shares[label][small] - shares[label][large]
    limits = measure.losses.interval(falls, confidence=settings.confidence)
    where = f"under {label} from epsilon {small:.3g} to {large:.3g}"
    highest = max(
        measure.losses.interval(shares[each][low] - shares[each][high], confidence=settings.confidence)[1]
        for _, _, each, low, high in found
    )
    fall = float(np.mean(falls))
    return Sign(
        quantity=f"fall of the loss {where}",
        value=fall,
        threshold=LARGEST_FALL,
        interval=limits,
        p_value=min(1.0, SIGNS * len(shares) * len(pairs) * p_value),
        ruled_out=highest < settings.detectable,
        explanation=(
            f"The mean loss falls by {fall:.1%} of that of chance {where}, although whatever is within the smaller "
            "distance is within the larger one too: the gradients do not lead to where the loss is high."
        ),
        left=overrated[label][large].words,
    )


def _flat(measured, overrated, settings):
    epsilon, size = max(measured[SINGLE]), len(measured[SINGLE][0.0].loss)
    counts = {
        label: int(np.sum(losses[epsilon].loss <= losses[0.0].loss))
        for label, losses in measured.items()
        if not overrated[label][epsilon].ruled_out
    }
    if not counts:
        return Sign("images whose loss does not rise", 0.0, 0.5, (0.0, 0.0), 1.0, True, "")
    p_values = {
        label: min(1.0, SIGNS * len(measured) * overrated[label][epsilon].p_value(statistics.exceeds(count, size, 0.5)))
        for label, count in counts.items()
    }
    label = min(counts, key=lambda each: (p_values[each], -counts[each]))
    share, limits = counts[label] / size, statistics.wilson(counts[label], size, confidence=settings.confidence)
    _, highest = statistics.wilson(max(counts.values()), size, confidence=settings.confidence)
    return Sign(
        quantity=f"images whose loss does not rise under {label}",
        value=share,
        threshold=0.5,
        interval=limits,
        p_value=p_values[label],
        ruled_out=highest < 0.5 + settings.detectable,
        explanation=(
            f"On {share:.1%} of the images {label} does not raise the loss at all: there is no gradient, or it leads "
            "nowhere."
        ),
        left=overrated[label][epsilon].words,
    )


def _ray(subject, single, overrated, settings):
    epsilon, clean = max(single), single[0.0].correct
    overrating = overrated[epsilon]
    before = [clean]
    if not overrating.ruled_out:
        before = [_under(subject, "fgsm", epsilon=part * epsilon).correct for part in RAY]
    left = clean & single[epsilon].correct
    share = Share.of(int(np.sum(left & ~np.all(before, axis=0))), len(left), RAY_TOLERANCE, settings, tests=SIGNS)
    return Sign(
        quantity=f"images that {SINGLE} leaves correct although a shorter step the same way fools the network",
        value=share.value,
        threshold=RAY_TOLERANCE,
        interval=(share.low, share.high),
        p_value=overrating.p_value(share.p_value),
        ruled_out=overrating.ruled_out or share.verdict is Verdict.PASS,
        explanation=(
            f"On {share.value:.1%} of the images {SINGLE} fails, although an adversary lies on its way: the network "
            "has learned to be right where a step of that length ends, and nowhere before."
        ),
        left=overrating.words,
    )


def _result(signs, size, series, settings):
    certain = [each for each in signs if each.p_value < settings.alpha]
    undecided = [each for each in signs if not each.ruled_out]
    if certain:
        verdict, sign, remedy = Verdict.FAIL, certain[0], REMEDY
        explanation = sign.explanation
    elif undecided:
        verdict, sign = Verdict.INCONCLUSIVE, min(undecided, key=lambda each: each.p_value)
        explanation = f"The sample is too small to judge the {sign.quantity}.{sign.left}"
        remedy = "Judge more images (--samples)."
    else:
        verdict, remedy, (behind, *_, ray) = Verdict.PASS, "", signs
        sign = behind if behind.value is not None and behind.value >= LEAST_RATIO else ray
        explanation = _words_of_pass(sign, behind)
    measured = sign.value is not None
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=sign.quantity,
        value=sign.value,
        threshold=sign.threshold if measured else None,
        sample_size=size,
        interval=sign.interval if measured else None,
        series=series,
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=min(each.p_value for each in signs),
        good=sign.good,
    )


def _words_of_pass(sign, behind):
    if sign is behind:
        return (
            f"The loss rises with epsilon, and a single step raises it by {sign.value:.0%} of what many steps do; "
            f"significantly less than {LEAST_RATIO:.0%} would have been a sign."
        )
    return (
        "The loss rises with epsilon. A single step raises it by less than many do, but by so little less, or on so "
        f"few images that it leaves, that nothing is overrated; it passes no adversary on more than "
        f"{sign.value:.1%} of the images."
    )


def _series(shares, subject, settings):
    curves = []
    for label, losses in shares.items():
        limits = [measure.losses.interval(each, confidence=settings.confidence) for each in losses.values()]
        curves.append(
            Curve(
                name=label if label == SINGLE else f"{label}, {settings.ascent_steps} steps",
                x=tuple(losses),
                y=tuple(float(np.mean(each)) for each in losses.values()),
                low=tuple(max(0.0, low) for low, _ in limits),
                high=tuple(min(1.0, high) for _, high in limits),
            )
        )
    return Curves(
        x_label=subject.radius_label,
        y_label="mean loss, share of ln K",
        curves=tuple(curves),
        x_scale="ordinal",
    )
