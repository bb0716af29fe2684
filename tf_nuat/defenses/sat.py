"""SAT-R1, SAT-R2, SAT-R3: regularizers for single-step adversarial training (Vivek and Babu, 2020).

All three train on FGSM images. Each penalizes a difference that networks with masked gradients show and robust ones do
not. Each compares two kinds of adversarial images, which go through the network as one batch.
"""

import typing

import keras
import tensorflow as tf

from tf_nuat import attacks, losses, parallel, schedules
from tf_nuat.attacks.ascent import cross_entropy_of, input_gradient
from tf_nuat.attacks.rfgsm import random_step
from tf_nuat.core import validation
from tf_nuat.defenses.base import Defense, ObjectiveValue
from tf_nuat.defenses.passes import Passes


class SATR1(Defense):
    """SAT-R1: FGSM and I-FGSM images have the same logits (equation 14).

    Minimizes `CE(f(x_fgsm), y) + lambda / k * sum |g(x_fgsm) - g(x_ifgsm)|^2`, where the sum is over the last k images
    of the batch. Only these take the iterative attack.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model, above 0.
        regularizer_weight: lambda: a number, at least 0, or a schedule of the step.
        pairs: k, at least 1; in a smaller batch, all of its images.
        steps: steps of I-FGSM, at least 1, each of length `epsilon / steps`.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.SATR1(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, regularizer_weight=0.2)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    COMPARES = True

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        regularizer_weight: schedules.Weight = 0.2,
        pairs: int = 1,
        steps: int = 10,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.regularizer_weight = schedules.weight("regularizer_weight", regularizer_weight)
        self.pairs = validation.whole_number("pairs", pairs, at_least=1)
        self.steps = validation.whole_number("steps", steps, at_least=1)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the FGSM images (B, H, W, C), then the I-FGSM images of the pairs; `start` is not used.

        Without a regularizer (a weight that is the number 0) there are no pairs.
        """
        x_fgsm = attacks.fgsm(self.attacked, x, y, epsilon=self.epsilon)
        if self.regularizer_weight == 0:
            return x_fgsm
        own = parallel.own_of_last(self.pairs, x)
        # A replica without a pair attacks one image all the same: TensorFlow's fused convolutions take no empty batch.
        first = tf.shape(x)[0] - tf.maximum(own, 1)
        x_ifgsm = attacks.ifgsm(self.attacked, x[first:], y[first:], epsilon=self.epsilon, steps=self.steps)
        x_ifgsm = x_ifgsm[tf.shape(x_ifgsm)[0] - own :]
        return tf.concat([x_fgsm, x_ifgsm], axis=0)

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        if self.regularizer_weight == 0:
            return super().objective(x, x_adv, y)
        size = tf.shape(x)[0]
        logits = self.trained_network(x_adv, training=True)
        fgsm_logits, ifgsm_logits = logits[:size], logits[size:]
        distance = _squared_distance(fgsm_logits[size - tf.shape(ifgsm_logits)[0] :], ifgsm_logits)
        loss = parallel.share_of_mean(losses.cross_entropy(fgsm_logits, y))
        weight = schedules.value_at(self.regularizer_weight, self.batches)
        return loss + weight * parallel.share_of_mean(distance), fgsm_logits

    def passes(self, batch_size: int) -> Passes:
        share = 0.0 if self.regularizer_weight == 0 else min(self.pairs, batch_size) / batch_size
        return Passes(input_gradient=1.0 + self.steps * share, training=1.0 + share)


class SATR2(Defense):
    """SAT-R2: FGSM and R-FGSM images have the same logits (equation 15).

    Minimizes `CE(f(x_fgsm), y) + lambda / B * sum |g(x_fgsm) - g(x_rfgsm)|^2`.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model, above 0.
        alpha: length of the random step of R-FGSM, in [0, epsilon]; default `epsilon / 30`, the authors' 0.01 of 0.3
            (on CIFAR-10 they have 2/255 of 8/255). R-FGSM stays within epsilon, as in its paper. The authors' code
            takes a step of epsilon after the noise, and so ends up to alpha outside the ball.
        regularizer_weight: lambda: a number, at least 0, or a schedule of the step.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.SATR2(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, alpha=0.01)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    COMPARES = True

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        alpha: float | None = None,
        regularizer_weight: schedules.Weight = 5.0,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.alpha = epsilon / 30 if alpha is None else alpha
        validation.number("alpha", self.alpha, at_least=0.0, at_most=epsilon)
        self.regularizer_weight = schedules.weight("regularizer_weight", regularizer_weight)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the FGSM images (B, H, W, C), then the R-FGSM images (B, H, W, C).

        `start`: where R-FGSM takes its gradient, instead of after its random step.
        """
        x_fgsm = attacks.fgsm(self.attacked, x, y, epsilon=self.epsilon)
        x_rfgsm = attacks.rfgsm(
            self.attacked, x, y, epsilon=self.epsilon, alpha=self.alpha, seed=self.draw_seed, start=start
        )
        return tf.concat([x_fgsm, x_rfgsm], axis=0)

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        fgsm_logits, rfgsm_logits = tf.split(self.trained_network(x_adv, training=True), 2)
        loss = parallel.share_of_mean(losses.cross_entropy(fgsm_logits, y))
        weight = schedules.value_at(self.regularizer_weight, self.batches)
        return loss + weight * parallel.share_of_mean(_squared_distance(fgsm_logits, rfgsm_logits)), fgsm_logits

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=2.0, training=2.0)


class SATR3(Defense):
    """SAT-R3: the loss grows with the length of the FGSM step (equation 16).

    Minimizes `loss_high + lambda * max(0, loss_low - tau * loss_high)`. The two losses are the mean cross-entropies
    after steps of lengths epsilon and `epsilon_low` along the same gradient.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model, above 0; the length of the long step.
        epsilon_low: length of the short step, in (0, epsilon); default `epsilon / 2` (the authors' code has 0.1 of 0.3
            on MNIST, 2/255 of 8/255 on CIFAR-10).
        alpha: magnitude of the random signs from which both steps start, in [0, epsilon]; default 0, as in the paper.
            The authors' code has 0.01 and 2/255. As there, the steps keep their lengths, and so end up to alpha outside
            the ball.
        regularizer_weight: lambda: a number, at least 0, or a schedule of the step.
        tau: largest ratio of the two losses that is not penalized, in (0, 1).
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.SATR3(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, tau=0.4)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        epsilon_low: float | None = None,
        alpha: float = 0.0,
        regularizer_weight: schedules.Weight = 1.0,
        tau: float = 0.4,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.epsilon_low = epsilon / 2 if epsilon_low is None else epsilon_low
        validation.number("epsilon_low", self.epsilon_low, above=0.0, below=epsilon)
        self.alpha = validation.number("alpha", alpha, at_least=0.0, at_most=epsilon)
        self.regularizer_weight = schedules.weight("regularizer_weight", regularizer_weight)
        self.tau = validation.number("tau", tau, above=0.0, below=1.0)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the images after the short step (B, H, W, C), then those after the long one (B, H, W, C).

        Without a regularizer (a weight that is the number 0) there are only the latter.
        """
        if start is None:
            start = random_step(x, self.alpha, self.draw_seed) if self.alpha else x
        gradient, _ = input_gradient(cross_entropy_of(self.attacked, y), start)
        direction = tf.sign(gradient)
        lengths = (self.epsilon,) if self.regularizer_weight == 0 else (self.epsilon_low, self.epsilon)
        steps = (tf.clip_by_value(start + epsilon * direction, 0.0, 1.0) for epsilon in lengths)
        return tf.concat(list(steps), axis=0)

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        if self.regularizer_weight == 0:
            return super().objective(x, x_adv, y)
        low_logits, high_logits = tf.split(self.trained_network(x_adv, training=True), 2)
        low, high = (parallel.share_of_mean(losses.cross_entropy(part, y)) for part in (low_logits, high_logits))
        # The hinge is that of the global batch, also for a replica whose own share is on its other side.
        excess = low - self.tau * high
        active = tf.cast(parallel.total(tf.stop_gradient(excess)) > 0.0, tf.float32)
        weight = schedules.value_at(self.regularizer_weight, self.batches)
        return high + weight * active * excess, high_logits

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=1.0, training=1.0 if self.regularizer_weight == 0 else 2.0)


def _squared_distance(logits: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    difference = tf.cast(logits, tf.float32) - tf.cast(others, tf.float32)
    return tf.reduce_sum(tf.square(difference), axis=-1)
