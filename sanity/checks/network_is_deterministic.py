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
TOLERANCE = 1e-4  # of the length of the logits; parallel sums in float32 differ by less
NAME = "network_is_deterministic"
REFERENCE = (
    "Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks, "
    "2020 (AutoAttack's flag for randomized defenses); Athalye, Carlini and Wagner, Obfuscated gradients give a false "
    "sense of security, 2018, section 5.3 (expectation over transformation)"
)


def network_is_deterministic(subject: Subject, settings: Settings) -> Result:
    """Five passes over the same images must give the same logits.

    Fails if the logits of any image differ by more than `TOLERANCE` times their length. Their mean, which changes no
    probability, is subtracted first. A deterministic network never fails, so one image is proof. Passes if the sample
    rules out that `settings.detectable` of all images are affected.

    Example:
        >>> network_is_deterministic(subject, settings).verdict.value
        'pass'
    """
    varies, flips = varying(subject)
    count, size, share = int(np.sum(varies)), len(subject), float(np.mean(varies))
    low, high = statistics.wilson(count, size, confidence=settings.confidence)
    if count:
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
        quantity=f"images whose logits change between {PASSES} passes",
        value=share,
        threshold=0.0,
        sample_size=size,
        interval=(low, high),
        series=_series(varies, flips, settings),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
    )


def varying(subject: Subject) -> Sequence[np.ndarray]:
    """Returns for which images the logits, and for which the predicted class, differ between passes, both bool (N,)."""
    return subject.per_image(NAME, lambda images, *_: _varying(subject.network, images, subject.batch_size))


def is_random(subject: Subject, results: Iterable[Result] = ()) -> bool:
    """Returns whether the network is random: what this check decided, if among the results, else what passes show."""
    for result in results:
        if result.name == NAME and result.verdict in (Verdict.PASS, Verdict.FAIL):
            return result.verdict is Verdict.FAIL
    return bool(np.any(varying(subject)[0]))


def _varying(network, images, batch_size):
    """Returns the same as `varying`, for these images."""
    varies, flips = [], []
    for first in range(0, len(images), batch_size):
        batch = images[first : first + batch_size]
        # Not compiled: a layer that draws with NumPy would draw only once, at the first call.
        passes = [keras.ops.convert_to_numpy(network(batch, training=False)) for _ in range(PASSES)]
        logits = np.stack(passes).astype(np.float64)  # (passes, B, K)
        logits -= logits.mean(axis=-1, keepdims=True)
        distance = np.linalg.norm(logits - logits[:1], axis=-1).max(axis=0)
        varies.append(distance > TOLERANCE * np.linalg.norm(logits[0], axis=-1))
        flips.append(np.any(logits.argmax(axis=-1) != logits[0].argmax(axis=-1), axis=0) & varies[-1])
    return np.concatenate(varies), np.concatenate(flips)


def _series(varies, flips, settings):
    shown = {"logits change": varies, "predicted class changes": flips}
    grouped = {(name, f"{PASSES} passes"): outcomes for name, outcomes in shown.items()}
    return statistics.bars("images", grouped, confidence=settings.confidence)
