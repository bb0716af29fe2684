"""GAT: guided adversarial training (Sriramanan et al., 2020)."""

import typing

import keras
import tensorflow as tf

from tf_nuat import losses, parallel, schedules
from tf_nuat.attacks.ascent import ascend
from tf_nuat.attacks.nuclear import bernoulli_start
from tf_nuat.core import placement, validation
from tf_nuat.defenses.base import Defense, ObjectiveValue
from tf_nuat.defenses.passes import Passes


class GAT(Defense):
    """GAT: the squared distance of the predicted probabilities guides the attack and smooths the network.

    The attack takes one step of size epsilon along the gradient of `CE(f(x0), y) + lambda * D(f(x0), f(x))`; training
    minimizes `CE(f(x), y) + lambda * D(f(x_adv), f(x))`. D is the mean over the batch of
    `|softmax f(x_adv) - softmax f(x)|^2`, the sum of the squares over the classes.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model and length of the step, above 0.
        alpha: magnitude of the Bernoulli noise at which the gradient is taken, in [0, epsilon]; default `epsilon / 2`.
        guidance_weight: lambda, in the attack and in training: a number, at least 0, or a schedule of the step.
        alternate: whether to guide the attack on odd batches only, as on CIFAR-10; else on all.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.GAT(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, guidance_weight=10.0)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    COMPARES = True

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        alpha: float | None = None,
        guidance_weight: schedules.Weight = 10.0,
        alternate: bool = True,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.alpha = epsilon / 2 if alpha is None else alpha
        validation.number("alpha", self.alpha, at_least=0.0, at_most=epsilon)
        self.guidance_weight = schedules.weight("guidance_weight", guidance_weight)
        self.alternate = validation.one_of("alternate", alternate, (False, True))

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        weight = self.weight()
        if self.alternate:
            with placement.on_host():
                weight = tf.where(tf.equal(self.step % 2, 1), weight, 0.0)
        # Without guidance the probabilities of the clean images have the weight 0: zeros save the forward pass.
        clean = tf.cond(
            placement.is_zero(weight),
            lambda: tf.zeros((tf.shape(x)[0], self.network.output_shape[-1])),
            lambda: _probabilities(self.attacked(x)),
        )

        def guided(x_adv: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = self.attacked(x_adv)
            return losses.cross_entropy(logits, y) + weight * _distance(_probabilities(logits), clean), logits

        start = bernoulli_start(x, self.alpha, self.draw_seed) if start is None else start
        return ascend(guided, x, start, epsilon=self.epsilon, step_size=self.epsilon)

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        # Two forwards, adversarial first: with BatchNorm they are two batches, and the clean one comes last.
        adversarial = _probabilities(self.trained_network(x_adv, training=True))
        logits = self.trained_network(x, training=True)
        distance = _distance(adversarial, _probabilities(logits))
        return parallel.share_of_mean(losses.cross_entropy(logits, y) + self.weight() * distance), logits

    def passes(self, batch_size: int) -> Passes:
        # The clean images are forwarded in the attack of a guided batch.
        guided = 0.0 if self.guidance_weight == 0 else 0.5 if self.alternate else 1.0
        return Passes(input_gradient=1.0, training=2.0, forward=guided)

    def weight(self) -> tf.Tensor:
        """Returns lambda at this step, a float32 scalar."""
        return schedules.value_at(self.guidance_weight, self.batches)


class GATWA(GAT):
    """`GAT` with weight averaging: `ema_decay=0.9998` unless told otherwise.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.GATWA(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, epsilon: float, ema_decay: float | None = 0.9998, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, ema_decay=ema_decay, **options)


def _probabilities(logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(tf.cast(logits, tf.float32))


def _distance(probabilities: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.math.squared_difference(probabilities, others), axis=-1)
