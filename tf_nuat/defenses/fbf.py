"""FBF, "fast is better than free": single-step training from a random start (Wong et al., 2020)."""

import typing

import keras
import tensorflow as tf

from tf_nuat import norms
from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.core import validation
from tf_nuat.defenses.base import Defense
from tf_nuat.defenses.passes import Passes


class FBF(Defense):
    """FBF: minimizes the cross-entropy of images after one step from a random point of the ball (algorithm 3).

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model, above 0.
        step_size: length of the step, above 0; default `1.25 * epsilon`. The step is projected onto the ball.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.FBF(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, step_size=0.125)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, epsilon: float, step_size: float | None = None, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.step_size = 1.25 * epsilon if step_size is None else step_size
        validation.number("step_size", self.step_size, above=0.0)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        return ascend(
            cross_entropy_of(self.attacked, y),
            x,
            norms.LINF.random_point(x, self.epsilon, self.draw_seed) if start is None else start,
            epsilon=self.epsilon,
            step_size=self.step_size,
        )

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=1.0)
