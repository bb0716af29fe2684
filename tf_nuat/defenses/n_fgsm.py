"""N-FGSM: a single step from noise larger than epsilon, without a projection (de Jorge et al., 2022)."""

import typing

import keras
import tensorflow as tf

from tf_nuat import norms
from tf_nuat.attacks.ascent import cross_entropy_of, input_gradient
from tf_nuat.core import validation
from tf_nuat.defenses.single_step import SingleStep


class NFGSM(SingleStep):
    """N-FGSM: minimizes the cross-entropy of images after strong noise and one step, not projected (algorithm 1).

    The noise is drawn from the ball of radius `noise_scale * epsilon`, and the step of size epsilon goes on from there:
    images may end up to `(noise_scale + 1) * epsilon` away. The gradient is taken in inference mode.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the threat model and length of the step, above 0; in the L-infinity norm at most 1.
        noise_scale: radius of the noise divided by epsilon, at least 0 (the paper has 2).
        **options: those of `SingleStep`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.NFGSM(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, noise_scale=2.0)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, epsilon: float, noise_scale: float = 2.0, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.noise_scale = validation.number("noise_scale", noise_scale, at_least=0.0)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the images (B, H, W, C) after noise and step; `start`: where the step begins, after the noise."""
        norm, radius = norms.of(self.norm), self.radius()
        if start is None:
            start = norm.random_point(x, self.noise_scale * radius, self.draw_seed)
        gradient, _ = input_gradient(cross_entropy_of(self.attacked, y), start)
        return tf.clip_by_value(start + radius * norm.steepest(gradient), 0.0, 1.0)
