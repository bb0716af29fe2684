"""FGSM, the fast gradient sign method (Goodfellow et al., 2015)."""

import tensorflow as tf

from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.attacks.attack import attack
from tf_nuat.models.inference import Logits


@attack
def fgsm(logits_fn: Logits, x: tf.Tensor, y: tf.Tensor, *, epsilon: float, norm: str = "linf") -> tf.Tensor:
    """Returns x after one step of size `epsilon` along the sign of the gradient of the cross-entropy.

    In L2 the step is along the gradient itself, scaled to a length of `epsilon` (the fast gradient method).

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        norm: "linf" or "l2".

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.fgsm(network, x[:4], y[:4], epsilon=0.1)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    objective = cross_entropy_of(logits_fn, y)
    return ascend(objective, x, x, epsilon=epsilon, step_size=epsilon, steps=1, norm=norm)
