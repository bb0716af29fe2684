"""I-FGSM, the basic iterative method (Kurakin et al., 2017)."""

import tensorflow as tf

from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.attacks.attack import attack
from tf_nuat.models.inference import Logits


@attack
def ifgsm(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    steps: int = 7,
    step_size: float | None = None,
    norm: str = "linf",
) -> tf.Tensor:
    """Returns x after `steps` steps along the sign of the gradient of the cross-entropy.

    In L2 the steps are along the gradient itself, scaled to a length of `step_size`.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        steps: number of steps, at least 1.
        step_size: length of a step, above 0; default `epsilon / steps`.
        norm: "linf" or "l2".

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.ifgsm(network, x[:4], y[:4], epsilon=0.1, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    step_size = epsilon / tf.cast(steps, tf.float32) if step_size is None else step_size
    objective = cross_entropy_of(logits_fn, y)
    return ascend(objective, x, x, epsilon=epsilon, step_size=step_size, steps=steps, norm=norm)
