"""PGD without early stopping that records every point, for the checks that inspect an attack."""

import typing
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sanity.measure.batches import of_all
from tf_nuat import losses, norms
from tf_nuat.attacks import ATTACKS
from tf_nuat.attacks.ascent import cross_entropy_of, input_gradient
from tf_nuat.attacks.search import choose
from tf_nuat.models.inference import graph_of


class Trace(typing.NamedTuple):
    """The record of PGD on N images, in `steps` steps, as arrays.

    Attributes:
        losses: (steps + 1, N), the cross-entropy at the start and after each step.
        margins: (steps + 1, N), the largest wrong logit minus the true one there.
        fooled: (steps + 1, N), bool, whether the network answers wrongly there: at a margin of 0 it may.
        slope: (N,), the largest absolute entry of the gradient of the cross-entropy at the clean image; 0 if the
            gradient is not finite.
        fooled_again: (N,), whether the best point fools the network a second time. It is the point of the highest
            margin among those that fooled the network, or among all points if none did.
        clean_logits, last_logits: (N, K), at the clean image and after the last step.
    """

    losses: np.ndarray
    margins: np.ndarray
    fooled: np.ndarray
    slope: np.ndarray
    fooled_again: np.ndarray
    clean_logits: np.ndarray
    last_logits: np.ndarray


def pgd(
    network: Callable,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    norm: str | norms.Norm = "linf",
    seed: int = 0,
    first: int = 0,
    batch_size: int,
) -> Trace:
    """Returns the `Trace` of the first ascent of `tf_nuat.attacks.pgd`, without early stopping.

    Args:
        network: images (B, H, W, C) -> logits (B, K); attacked in inference mode.
        images: (N, H, W, C), float32 in [0, 1].
        labels: integers (N,).
        epsilon, steps, step_size, norm, seed: as for `tf_nuat.attacks.pgd`: the same start, the same steps.
        first: number of the first image, on which its start depends.
        batch_size: images at a time, which bounds the memory.
    """
    logits_fn = graph_of(network)
    settings = {"epsilon": epsilon, "steps": steps, "step_size": step_size, "seed": seed, "norm": norms.of(norm).name}

    def traced(x, y, index):
        gradient, clean = input_gradient(cross_entropy_of(logits_fn, y), x)
        best, last, *curves = _walked(ATTACKS["pgd"].search(logits_fn, x, y, settings, index), logits_fn, y, steps)
        slope = tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3))
        fooled_again = losses.fooled(logits_fn(best), y)
        return *curves, slope, fooled_again, tf.cast(clean, tf.float32), tf.cast(last, tf.float32)

    loss, margin, fooled, *others = of_all(traced, images, labels, first=first, batch_size=batch_size)
    by_step = [np.ascontiguousarray(curve.T) for curve in (loss, margin, fooled)]
    return Trace(*by_step, *others)


def _walked(search, logits_fn, y, steps):
    """Runs the first ascent of a search, without early stopping, and returns its record.

    The record has the best point (see `Trace.fooled_again`), (B, H, W, C), and the logits of the last point, (B, K).
    For all points it has the loss, the margin, and whether the network is fooled, each (B, steps + 1).
    """
    start = search.first()
    none = (tf.fill(tf.shape(y), -np.inf), tf.zeros_like(y, tf.bool))
    written = [tf.TensorArray(kind, size=steps + 1, element_shape=[None]) for kind in (tf.float32, tf.float32, tf.bool)]

    def record(taken, x_adv, logits, best, highest, written):
        logits = tf.cast(logits, tf.float32)
        loss, margin, fooled = losses.cross_entropy(logits, y), losses.margin(logits, y), losses.fooled(logits, y)
        before, met = highest
        better = (fooled & ~met) | ((fooled == met) & (margin > before))
        written = [array.write(taken, value) for array, value in zip(written, (loss, margin, fooled))]
        return choose(better, x_adv, best), (tf.where(better, margin, before), met | fooled), written

    def step(taken, state, *found):
        moved, logits = search.climb(state)
        found = record(taken, state.x_adv, logits, *found)
        return taken + 1, state._replace(x_adv=moved, taken=state.taken + 1), *found

    taken, state, *found = tf.while_loop(
        lambda taken, *_: taken < steps, step, (tf.constant(0), start, start.x_adv, none, written)
    )
    last = logits_fn(state.x_adv)
    best, _, written = record(taken, state.x_adv, last, *found)
    return best, last, *(tf.transpose(array.stack()) for array in written)
