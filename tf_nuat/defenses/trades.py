"""TRADES: a trade between accuracy and robustness (Zhang et al., 2019)."""

import typing

import keras
import tensorflow as tf

from tf_nuat import draws, losses, parallel, schedules
from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.core import validation
from tf_nuat.defenses.base import Defense, ObjectiveValue
from tf_nuat.defenses.passes import Passes

# Standard deviation of the noise that the attack begins with: at x itself the divergence has no gradient.
START_NOISE = 0.001


class TRADES(Defense):
    """TRADES: adversarial images keep the prediction of the clean ones, whatever it is (algorithm 1).

    The attack increases `KL(softmax f(x) || softmax f(x_adv))`; training minimizes
    `CE(f(x), y) + beta * mean KL(softmax f(x) || softmax f(x_adv))`, with gradients through both predictions.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model, above 0.
        beta: weight of the divergence, 1 / lambda of the paper: a number, at least 0, or a schedule of the step.
        steps: steps of the attack, at least 1.
        step_size: length of a step, above 0; default `epsilon / 4`, the authors' 2/255 of 8/255.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.TRADES(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, beta=6.0)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    COMPARES = True

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        beta: schedules.Weight = 6.0,
        steps: int = 10,
        step_size: float | None = None,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.beta = schedules.weight("beta", beta)
        self.steps = validation.whole_number("steps", steps, at_least=1)
        self.step_size = epsilon / 4 if step_size is None else step_size
        validation.number("step_size", self.step_size, above=0.0)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        # For a constant prediction p, KL(p || q) is the cross-entropy of q with p, less the entropy of p.
        return self.ascend(x, tf.nn.softmax(tf.cast(self.attacked(x), tf.float32)), start)

    def ascend(self, x: tf.Tensor, labels: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the images after the steps of the attack, which increase the cross-entropy.

        Args:
            x: clean images (B, H, W, C), the centre of the ball.
            labels: labels of the cross-entropy, integers (B,) or rows of probabilities (B, K).
            start: images at which the attack begins; None is x with a little normal noise.
        """
        if start is None:
            start = x + START_NOISE * draws.normal(x, self.draw_seed)
        return ascend(
            cross_entropy_of(self.attacked, labels),
            x,
            start,
            epsilon=self.epsilon,
            step_size=self.step_size,
            steps=self.steps,
        )

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        # Two forwards, adversarial first: with BatchNorm they are two batches, and the clean one comes last.
        adversarial_logits = self.trained_network(x_adv, training=True)
        logits = self.trained_network(x, training=True)
        per_example = losses.cross_entropy(logits, y) + self.weight() * losses.kl_divergence(logits, adversarial_logits)
        return parallel.share_of_mean(per_example), logits

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=float(self.steps), training=2.0, forward=1.0)

    def weight(self) -> tf.Tensor:
        """Returns beta at this step, a float32 scalar."""
        return schedules.value_at(self.beta, self.batches)


class TRADESWA(TRADES):
    """`TRADES` with weight averaging: `ema_decay=0.9998` unless told otherwise.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.TRADESWA(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, epsilon: float, ema_decay: float | None = 0.9998, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, ema_decay=ema_decay, **options)
