"""The nuclear-norm attack (Sriramanan et al., 2021, section 5.1, equation 1 and algorithm 1)."""

from typing import Any

import tensorflow as tf

from tf_nuat import draws, losses, norms, parallel
from tf_nuat.attacks.ascent import Objective, ascend
from tf_nuat.attacks.attack import attack
from tf_nuat.core import placement
from tf_nuat.models.inference import Logits


@attack
def nuclear(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    alpha: float | None = None,
    weight: Any = 1.0,
    steps: int = 1,
    step_size: float | None = None,
    seed: Any = 0,
    start: tf.Tensor | None = None,
    norm: str = "linf",
) -> tf.Tensor:
    """Returns images that increase the cross-entropy and the nuclear norm of the change of the batch's logits.

    The objective is `CE(f(x_adv), y) + weight * |f(x_adv) - f(x)|_* / B`, a statistic of the batch: the images of a
    batch shape each other's perturbations. Inside `strategy.run` the batch is the global one, and `steps` must be the
    Python number 1, because replicas cannot exchange tensors inside a loop.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        alpha: magnitude of the Bernoulli noise of the start, at least 0; default `epsilon / 2`.
        weight: lambda of equation 1, at least 0. Where it is 0 the clean images are not forwarded.
        steps: number of steps, at least 1.
        step_size: length of a step, above 0; default `epsilon`.
        seed: whole number or a pair of them, at least 0 and below 2**31; the same seed draws the same noise.
        start: images to begin at, instead of x with Bernoulli noise.
        norm: "linf" (the paper's) or "l2", the norm of the ball, of a step and of the noise.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.nuclear(network, x[:4], y[:4], epsilon=0.1, weight=4.0)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    alpha = epsilon / 2 if alpha is None else alpha
    step_size = epsilon if step_size is None else step_size
    if start is None:
        start = bernoulli_start(x, alpha, seed, norm)
    objective = _objective(logits_fn, x, y, weight, is_single=isinstance(steps, int) and steps == 1)
    return ascend(objective, x, start, epsilon=epsilon, step_size=step_size, steps=steps, norm=norm)


def _objective(logits_fn: Logits, x: tf.Tensor, y: tf.Tensor, weight: Any, *, is_single: bool) -> Objective:
    """Returns the objective of equation 1; `is_single` says whether it is computed only once."""
    with placement.on_host():
        weight = tf.convert_to_tensor(weight, tf.float32)

    def clean_logits() -> tf.Tensor:
        return tf.stop_gradient(tf.cast(logits_fn(x), tf.float32))

    # Several steps share one forward pass of the clean images. A single step leaves it to the branch below, which skips
    # it while the weight is 0: on half of NuAT's batches.
    shared = None if is_single else clean_logits()

    def objective(x_adv: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.cast(logits_fn(x_adv), tf.float32)
        change = tf.cond(
            placement.is_zero(weight),
            lambda: tf.zeros_like(logits),
            lambda: logits - (clean_logits() if shared is None else shared),
        )
        loss = parallel.share_of_mean(losses.cross_entropy(logits, y)) + losses.nuclear_penalty(change, weight)
        return loss, logits

    return objective


def bernoulli_start(x: tf.Tensor, alpha: float, seed: Any, norm: str = "linf") -> tf.Tensor:
    """Returns x plus or minus `alpha` in every pixel, cut to [0, 1] (algorithm 1, line 4).

    In L2 the signs are scaled to the length `alpha`, just as the paper's noise has the L-infinity norm `alpha`.
    """
    noise = norms.of(norm).steepest(draws.signs(x, seed))
    return tf.clip_by_value(x + alpha * noise, 0.0, 1.0)
