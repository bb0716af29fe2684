"""Does the network give the same answer to the same image every time?"""

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from sanity import statistics
from sanity.result import Result, Verdict
from sanity.settings import Settings
from sanity.statistics import sample_size
from sanity.subject import Subject

PASSES = 5
BATCH = 16  # images that may share a draw: a network that draws once a call would else seldom be seen to
TOLERANCE = 1e-4  # of the length of the logits; parallel sums in float32 differ by less
ALONE = 0.05  # likewise, for an image by itself: in less precision, a batch of another size may be summed otherwise
NAME = "network_is_deterministic"
REFERENCE = (
    "Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks, "
    "2020 (AutoAttack's flag for randomized defenses); Athalye, Carlini and Wagner, Obfuscated gradients give a false "
    "sense of security, 2018, section 5.3 (expectation over transformation)"
)


def network_is_deterministic(subject: Subject, settings: Settings) -> Result:
    """Five passes over the same images must give the same logits, and so must an image by itself.

    Fails if the logits of any image differ by more than `TOLERANCE` times their length. Their mean, which changes no
    probability, is subtracted first. A deterministic network never fails, so one image is proof. Fails, too, if the
    logits of one in `BATCH` images, alone, differ by more than `ALONE` times their length from those in a batch. Passes
    if the sample rules out that `settings.detectable` of all images are affected.

    Example:
        >>> network_is_deterministic(subject, settings).verdict.value
        'pass'
    """
    varies, flips, depends = varying(subject)
    affected, size = varies | depends, len(subject)
    count, share = int(np.sum(affected)), float(np.mean(affected))
    low, high = statistics.wilson(count, size, confidence=settings.confidence)
    if count and not np.any(varies):
        verdict = Verdict.FAIL
        explanation = (
            f"The answer to an image depends on the other images of its batch: {count} of the images have other logits "
            "alone. What an attack finds then depends on the images that are attacked together, and no accuracy here "
            "is that of the network on an image."
        )
        remedy = (
            "Have the network look at each image alone: BatchNormalization by its moving statistics, and images that "
            "are normalised by their own mean or by that of the training set, not by that of the batch."
        )
    elif count:
        verdict = Verdict.FAIL
        explanation = (
            f"The network is random: the logits of {share:.1%} of the images change between {PASSES} passes over the "
            f"same images, and the predicted class of {np.mean(flips):.1%}. The gradient that an attack follows is "
            "then one draw of many, and an adversary that fooled the network once may not fool it again."
        )
        remedy = (
            "Do not report the accuracy under these attacks, which take the network for deterministic. If a layer that "
            "is meant for training was left on (dropout, noise), switch it off in inference. If the randomness is the "
            "defense, attack its expectation: average the gradient over many draws in every step (expectation over "
            "transformation), and average the accuracy over many draws."
        )
    elif high < settings.detectable:
        verdict = Verdict.PASS
        explanation = f"The logits are the same in {PASSES} passes over the same images."
        remedy = ""
    else:
        verdict = Verdict.INCONCLUSIVE
        needed = sample_size.ruling_out(settings.detectable, confidence=settings.confidence)
        explanation = (
            f"The logits are the same in {PASSES} passes over the same images, but these are too few to rule out that "
            f"{settings.detectable:.0%} of all images are affected."
        )
        remedy = f"Judge at least {needed} images (--samples)."
    return Result(
        name=NAME,
        verdict=verdict,
        quantity=f"images whose logits change between {PASSES} passes, or alone",
        value=share,
        threshold=0.0,
        sample_size=size,
        interval=(low, high),
        series=_series(affected, flips, settings),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
    )


def varying(subject: Subject) -> Sequence[np.ndarray]:
    """Returns for which images the logits differ between passes, the predicted class does, and the logits do alone.

    All three are bool (N,). One in `BATCH` images is looked at alone.
    """
    size = min(BATCH, subject.batch_size)
    return subject.per_image(NAME, lambda images, *_: _varying(subject.network, images, size))


def is_random(subject: Subject, results: Iterable[Result] = ()) -> bool:
    """Returns whether the network is random: not if this check, among the results, passed, else what passes show."""
    passed = any(result.name == NAME and result.verdict is Verdict.PASS for result in results)
    return not passed and bool(np.any(varying(subject)[0]))


def _varying(network, images, batch_size):
    """Returns the same as `varying`, for these images."""

    def logits(batch):
        """Returns the logits less their mean; not compiled: a layer that draws with NumPy would draw only once."""
        found = keras.ops.convert_to_numpy(network(batch, training=False)).astype(np.float64)
        return found - found.mean(axis=-1, keepdims=True)

    varies, flips, depends = [], [], []
    for first in range(0, len(images), batch_size):
        batch = images[first : first + batch_size]
        passes = np.stack([logits(batch) for _ in range(PASSES)])  # (passes, B, K)
        distance, length = np.linalg.norm(passes - passes[:1], axis=-1).max(axis=0), np.linalg.norm(passes[0], axis=-1)
        varies.append(distance > TOLERANCE * length)
        flips.append(np.any(passes.argmax(axis=-1) != passes[0].argmax(axis=-1), axis=0) & varies[-1])
        twice = np.repeat(batch[:1], 2, axis=0)  # of one image alone, some networks squeeze the batch away
        moved = np.linalg.norm(logits(twice)[0] - passes[0, 0])
        depends.append((np.arange(len(batch)) == 0) & (moved > ALONE * length))
    return np.concatenate(varies), np.concatenate(flips), np.concatenate(depends)


def _series(varies, flips, settings):
    shown = {"logits change": varies, "predicted class changes": flips}
    grouped = {(name, f"{PASSES} passes"): outcomes for name, outcomes in shown.items()}
    return statistics.bars("images", grouped, confidence=settings.confidence)
