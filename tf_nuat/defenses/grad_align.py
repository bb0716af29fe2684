"""GradAlign: gradients at an image and next to it point the same way (Andriushchenko and Flammarion, 2020)."""

import typing

import keras
import tensorflow as tf

from tf_nuat import draws, losses, norms, parallel, schedules
from tf_nuat.attacks.ascent import Objective, input_gradient
from tf_nuat.defenses.base import ObjectiveValue
from tf_nuat.defenses.passes import Passes
from tf_nuat.defenses.single_step import SingleStep
from tf_nuat.models import precision
from tf_nuat.models.inference import LARGEST_SCALED


class GradAlign(SingleStep):
    """GradAlign: FGSM training, with a penalty on gradients that turn within the ball (equation 5).

    Minimizes `CE(f(x_fgsm), y) + w * mean(1 - cos(g(x), g(x + u)))`, where g is the gradient of the cross-entropy with
    respect to the image and u a random change within the ball, not clipped to [0, 1]. The mean leaves out images with a
    gradient of 0. Training differentiates g with respect to the weights, a second derivative. The FGSM image is taken
    in inference mode. If `epsilon_share` warms up epsilon, u has the full radius from the beginning, as in the authors'
    code.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the threat model and length of the step, above 0; in the L-infinity norm at most 1.
        alignment_weight: w: a number, at least 0, or a schedule of the step (the paper has 0.2 at 8/255 on CIFAR-10).
        **options: those of `SingleStep`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.GradAlign(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, alignment_weight=0.2)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    COMPARES = True

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        alignment_weight: schedules.Weight = 0.2,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.alignment_weight = schedules.weight("alignment_weight", alignment_weight)

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor, noise: tf.Tensor | None = None) -> ObjectiveValue:
        """Returns the loss and the logits of the clean images; `noise`: the change u (B, H, W, C), None draws it."""
        if noise is None:
            noise = self.epsilon * norms.of(self.norm).random_change(x, draws.fold_in(self.draw_seed, 1))
        # Three forwards in this order: with BatchNorm they are three batches.
        cross_entropy = losses.cross_entropy(self.trained_network(x_adv, training=True), y)
        gradient, logits = input_gradient(self._in_training(y), x)
        gradient_in_noise, _ = input_gradient(self._in_training(y), x + noise)
        alignment, is_known = cosine(gradient, gradient_in_noise)
        penalty = parallel.share_of_mean(1.0 - alignment, counted=is_known)
        weight = schedules.value_at(self.alignment_weight, self.batches)
        return parallel.share_of_mean(cross_entropy) + weight * penalty, logits

    def _in_training(self, y: tf.Tensor) -> Objective:
        """Returns the cross-entropy in training mode, scaled if float16 would round its gradients to 0."""
        scale = LARGEST_SCALED if precision.computes_in_float16(self.trained_network) else 1.0

        def objective(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = self.trained_network(images, training=True)
            return scale * losses.cross_entropy(logits, y), logits

        return objective

    def passes(self, batch_size: int) -> Passes:
        # Each of the two gradients is a pass, and its derivative another.
        return Passes(input_gradient=1.0, training=5.0)


def cosine(gradient: tf.Tensor, other: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the cosines (B,), float32, of the angles between gradients (B, H, W, C), and which are known, bool (B,).

    A gradient that is 0 has no direction: the cosine is then 1, and its derivatives are 0.
    """
    first, second = (_scaled(tf.cast(each, tf.float32)) for each in (gradient, other))
    axes = tf.range(1, tf.rank(first))
    is_known = tf.reduce_any(first != 0.0, axes) & tf.reduce_any(second != 0.0, axes)
    # The derivative of a length is NaN at 0, so gradients without a direction are replaced before, too.
    chosen = is_known[:, None, None, None]
    first, second = (tf.where(chosen, each, tf.ones_like(each)) for each in (first, second))
    lengths = tf.sqrt(tf.reduce_sum(first * first, axes) * tf.reduce_sum(second * second, axes))
    return tf.reduce_sum(first * second, axes) / lengths, is_known


def _scaled(gradient: tf.Tensor) -> tf.Tensor:
    """Returns each image's gradient divided by its largest entry: the squares of small ones would underflow."""
    largest = tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3), keepdims=True)
    return tf.math.divide_no_nan(gradient, tf.stop_gradient(largest))
