"""`SingleStep`: the base of N-FGSM, GradAlign and ELLE, with FGSM images and an optional warm-up of epsilon."""

import typing

import keras
import tensorflow as tf

from tf_nuat import schedules
from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.defenses.base import Defense
from tf_nuat.defenses.passes import Passes


class SingleStep(Defense):
    """Minimizes the cross-entropy of the FGSM images of the whole batch; subclasses add noise or a regularizer.

    The authors of these methods attack in training mode. Here, as everywhere in this package, BatchNorm uses its moving
    statistics in an attack.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the threat model, above 0; in the L-infinity norm at most 1.
        epsilon_share: share of epsilon that the attack and its noise use: a number, at least 0, or a schedule of the
            step. A ramp from 0 to 1 warms up epsilon.
        norm: norm of the threat model, of the step and of the noise: "linf", as in the papers, or "l2".
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.
    """

    NORMS = ("linf", "l2")

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        epsilon_share: schedules.Weight = 1.0,
        norm: str = "linf",
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, norm=norm, **options)
        self.epsilon_share = schedules.weight("epsilon_share", epsilon_share)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the FGSM images (B, H, W, C) of x; `start`: where to take the gradient, instead of at x."""
        radius = self.radius()
        return ascend(
            cross_entropy_of(self.attacked, y),
            x,
            x if start is None else start,
            epsilon=radius,
            step_size=radius,
            norm=self.norm,
        )

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=1.0)

    def radius(self) -> tf.Tensor:
        """Returns epsilon at this step, a float32 scalar."""
        return self.epsilon * schedules.value_at(self.epsilon_share, self.batches)
