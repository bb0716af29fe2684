"""MI-FGSM, the momentum iterative method (Dong et al., 2018)."""

import tensorflow as tf

from tf_nuat import norms
from tf_nuat.attacks.ascent import cross_entropy_of, input_gradient
from tf_nuat.attacks.attack import attack
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits


@attack(decay=lambda name, value: validation.number(name, value, at_least=0.0))
def mifgsm(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    norm: str = "linf",
) -> tf.Tensor:
    """Returns x after `steps` steps along the sign of a running sum of gradients of the cross-entropy.

    Each gradient is divided by the mean of its absolute values before it is added (equation 6 of the paper divides by
    their sum: the directions are the same). In L2 the steps are along the running sum itself, scaled to a length of
    `step_size`.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        steps: number of steps, at least 1.
        step_size: length of a step, above 0; default `epsilon / steps`.
        decay: factor of the sum before each gradient is added, at least 0; 0 makes this I-FGSM.
        norm: "linf" or "l2".

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.mifgsm(network, x[:4], y[:4], epsilon=0.1, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    step_size = epsilon / tf.cast(steps, tf.float32) if step_size is None else step_size
    project = norms.of(norm).projection(x, epsilon)
    objective = cross_entropy_of(logits_fn, y)

    def step(taken: tf.Tensor, x_adv: tf.Tensor, momentum: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        gradient, _ = input_gradient(objective, x_adv)
        mean = tf.reduce_mean(tf.abs(gradient), axis=(1, 2, 3), keepdims=True)
        momentum = decay * momentum + tf.math.divide_no_nan(gradient, mean)
        return taken + 1, project(x_adv + step_size * norms.of(norm).steepest(momentum)), momentum

    first = (tf.constant(0), x, tf.zeros_like(x))
    _, x_adv, _ = tf.while_loop(lambda taken, *_: taken < steps, step, first)
    return x_adv
