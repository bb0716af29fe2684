"""PGD-AT: adversarial training as robust optimization (Madry et al., 2018)."""

import typing

import keras
import tensorflow as tf

from tf_nuat import norms
from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.core import validation
from tf_nuat.defenses.base import Defense
from tf_nuat.defenses.passes import Passes


class PGDAT(Defense):
    """PGD-AT: minimizes the cross-entropy of the images at which PGD ends (equation 2.1).

    The adversary is the last point of the ascent, not the best one on its way as in `attacks.pgd`.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the threat model, above 0; in the L-infinity norm at most 1.
        steps: steps of PGD, at least 1.
        step_size: length of a step, above 0; default `epsilon / 4`, the authors' 2/255 of 8/255.
        random_start: whether to start from a uniform draw from the ball; else from the clean images.
        norm: "linf" or "l2", the norm of the threat model.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.PGDAT(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, steps=7)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    NORMS = ("linf", "l2")

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        steps: int = 7,
        step_size: float | None = None,
        random_start: bool = True,
        norm: str = "linf",
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, norm=norm, **options)
        self.steps = validation.whole_number("steps", steps, at_least=1)
        self.step_size = epsilon / 4 if step_size is None else step_size
        validation.number("step_size", self.step_size, above=0.0)
        self.random_start = validation.one_of("random_start", random_start, (False, True))

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        if start is None:
            start = x
            if self.random_start:
                start = norms.of(self.norm).random_point(x, self.epsilon, self.draw_seed)
        return ascend(
            cross_entropy_of(self.attacked, y),
            x,
            start,
            epsilon=self.epsilon,
            step_size=self.step_size,
            steps=self.steps,
            norm=self.norm,
        )

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=self.steps)
