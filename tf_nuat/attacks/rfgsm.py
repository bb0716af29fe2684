"""R-FGSM: a small random step, then FGSM with what is left of epsilon (Tramer et al., 2018)."""

from typing import Any

import tensorflow as tf

from tf_nuat import draws
from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.attacks.attack import attack
from tf_nuat.models.inference import Logits


@attack
def rfgsm(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    alpha: float | None = None,
    seed: Any = 0,
    start: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns x after a random step of size `alpha` and a gradient step of size `epsilon - alpha`.

    The random step follows the sign of a Gaussian draw; the gradient of the cross-entropy is taken where it ends.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the L-infinity ball, above 0.
        alpha: length of the random step, at least 0; default `epsilon / 2`. If it is `epsilon` or more, there is no
            gradient step, and the random step is cut to the ball.
        seed: whole number or a pair of them, at least 0 and below 2**31; the same seed draws the same step.
        start: images to take the gradient at, instead of a random step from x.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.rfgsm(network, x[:4], y[:4], epsilon=0.1, alpha=0.05)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    alpha = epsilon / 2 if alpha is None else alpha
    if start is None:
        start = random_step(x, alpha, seed)
    step_size = tf.maximum(tf.convert_to_tensor(epsilon - alpha, x.dtype), 0.0)  # below 0, it would go down the loss
    return ascend(cross_entropy_of(logits_fn, y), x, start, epsilon=epsilon, step_size=step_size, steps=1)


def random_step(x: tf.Tensor, alpha: float, seed: Any) -> tf.Tensor:
    """Returns x after a step of size `alpha` along the sign of a Gaussian draw, cut to [0, 1]."""
    return tf.clip_by_value(x + alpha * tf.sign(draws.normal(x, seed)), 0.0, 1.0)
