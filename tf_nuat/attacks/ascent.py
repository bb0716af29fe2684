"""Gradients with respect to images, and the ascent along them."""

from collections.abc import Callable

import tensorflow as tf

from tf_nuat import losses, norms
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits

# Images (B, H, W, C) -> (loss, logits): a scalar or one value per image, and the logits (B, K) behind it.
Objective = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def input_gradient(objective: Objective, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the gradient of `objective` at images x (B, H, W, C), and the logits that it was computed from.

    Args:
        objective: function of images that returns a loss, a scalar or one value per image, and the logits behind it.
        x: images. Their gradient is 0 if nothing differentiable connects them to the loss, as behind a rounding layer.
            Entries that are not finite become 0, too: they must not pass for a perturbation.

    Raises:
        ValueError: TensorFlow has no gradient for an operation on the way to the loss.
    """
    with validation.gradients("network"):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss, logits = objective(x)
        gradient = tape.gradient(loss, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.where(tf.math.is_finite(gradient), gradient, 0.0), logits


def cross_entropy_of(logits_fn: Logits, y: tf.Tensor) -> Objective:
    """Returns the objective that most attacks increase, the cross-entropy of each image; for `input_gradient`."""

    def objective(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = logits_fn(x)
        return losses.cross_entropy(logits, y), logits

    return objective


def ascend(
    objective: Objective,
    x: tf.Tensor,
    start: tf.Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int = 1,
    norm: str = "linf",
) -> tf.Tensor:
    """Returns `start` after `steps` steps along the gradient of `objective`, each projected onto the ball.

    Args:
        objective: what to increase, as in `input_gradient`.
        x: the clean images, the centre of the ball.
        start: where the first gradient is taken.
        epsilon, step_size: radius of the ball, length of a step.
        steps: number of steps. The Python number 1 takes the step in place, without a loop.
        norm: "linf", whose steps go along the sign of the gradient, or "l2".
    """
    project = norms.of(norm).projection(x, epsilon)

    def step(x_adv: tf.Tensor) -> tf.Tensor:
        gradient, _ = input_gradient(objective, x_adv)
        return project(x_adv + step_size * norms.of(norm).steepest(gradient))

    if isinstance(steps, int) and steps == 1:
        return step(start)
    _, x_adv = tf.while_loop(
        lambda taken, _: taken < steps,
        lambda taken, x_adv: (taken + 1, step(x_adv)),
        (tf.constant(0), start),
    )
    return x_adv
