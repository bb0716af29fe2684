"""ELLE and ELLE-A: efficient local linearity regularization (Abad Rocamora et al., 2024)."""

import typing

import keras
import tensorflow as tf

from tf_nuat import draws, losses, norms, parallel, schedules
from tf_nuat.core import validation
from tf_nuat.defenses.base import Facts, ObjectiveValue
from tf_nuat.defenses.passes import Passes
from tf_nuat.defenses.single_step import SingleStep

Noise = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # two changes (B, H, W, C), and the places (B,) between them


class ELLE(SingleStep):
    """ELLE: FGSM training, with a penalty on a loss that is not linear within the ball (algorithm 1).

    Minimizes `CE(f(x_fgsm), y) + w * mean((l(c) - (1 - t) l(a) - t l(b))^2)`: l is the cross-entropy of an image, a and
    b are random points of the ball, not clipped to [0, 1], t is drawn from [0, 1) and `c = (1 - t) a + t b`. It takes
    no second derivatives. The FGSM image is taken in inference mode.

    In bfloat16, rounding adds a linearity error of about 1e-6 with a ResNet-18 on CIFAR-10. That is as large as the
    error of a robust network, and changes the loss by 0.004 if w is 4,000.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the threat model and length of the step, above 0; in the L-infinity norm at most 1.
        linearity_weight: w: a number, at least 0, or a schedule of the step (the authors have 1,000 up to 8/255, and
            5,000 up to 20/255).
        **options: those of `SingleStep`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.ELLE(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, linearity_weight=1000.0)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    COMPARES = True

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        linearity_weight: schedules.Weight = 1000.0,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.linearity_weight = schedules.weight("linearity_weight", linearity_weight)

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor, noise: Noise | None = None) -> ObjectiveValue:
        """Returns the loss, the logits of the adversarial images and, as a fact, the linearity error of the batch.

        `noise`: the changes of a and of b (B, H, W, C) and t (B,); None draws them.
        """
        logits = self.trained_network(x_adv, training=True)
        squares = self.squared_errors(x, y, self._drawn(x) if noise is None else noise)
        with parallel.weighing(None):  # sample weights do not bend the loss
            error = parallel.total(tf.stop_gradient(parallel.share_of_mean(squares)))
        penalty = self.weight(error) * parallel.share_of_mean(squares)
        cross_entropy = parallel.share_of_mean(losses.cross_entropy(logits, y))
        return cross_entropy + penalty, logits, {"linearity_error": error}

    def squared_errors(self, x: tf.Tensor, y: tf.Tensor, noise: Noise) -> tf.Tensor:
        """Returns the squared deviation of the loss from linear between two points of each ball, (B,), in float32."""
        first, second, place = noise
        place = tf.reshape(tf.cast(place, tf.float32), (-1,))
        share = place[:, None, None, None]
        a, b = x + first, x + second
        c = (1.0 - share) * a + share * b
        # One forward of all three: with BatchNorm they are one batch.
        logits = self.trained_network(tf.concat([a, b, c], axis=0), training=True)
        at_a, at_b, at_c = (losses.cross_entropy(each, y) for each in tf.split(logits, 3))
        return tf.square(at_c - (1.0 - place) * at_a - place * at_b)

    def weight(self, error: tf.Tensor) -> tf.Tensor:
        """Returns w at this step, a float32 scalar; `error` is the linearity error of its batch."""
        return schedules.value_at(self.linearity_weight, self.batches)

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=1.0, training=4.0)

    def _drawn(self, x: tf.Tensor) -> Noise:
        first, second, third = (draws.fold_in(self.draw_seed, number) for number in (1, 2, 3))
        radius, norm = self.radius(), norms.of(self.norm)
        changes = (radius * norm.random_change(x, seed) for seed in (first, second))
        return *changes, draws.uniform(x[:, 0, 0, 0], third)


class ELLEA(ELLE):
    """ELLE-A: ELLE whose weight is large while the loss is unusually far from linear, and fades between.

    The weight begins at 0. If the linearity error of a step exceeds the mean of the errors so far by `sensitivity`
    standard deviations, the weight jumps to `linearity_weight`. Every other step has `decay` times the weight before.
    The authors' code needs three errors before it jumps, where this needs one, and it jumps a step later.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the threat model and length of the step, above 0; in the L-infinity norm at most 1.
        linearity_weight: the largest weight: a number, at least 0, or a schedule of the step (the authors have 4,000).
        sensitivity: number of standard deviations, at least 0.
        decay: factor of the weight in a step without a jump, in [0, 1).
        **options: those of `SingleStep`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.ELLEA(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        linearity_weight: schedules.Weight = 4000.0,
        sensitivity: float = 2.0,
        decay: float = 0.99,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, linearity_weight=linearity_weight, **options)
        self.sensitivity = validation.number("sensitivity", sensitivity, at_least=0.0)
        self.decay = validation.number("decay", decay, at_least=0.0, below=1.0)
        self.last_weight = self.scalar_state("last_weight")
        self.errors = self.scalar_state("errors")
        self.error_mean = self.scalar_state("error_mean")
        self.error_deviations = self.scalar_state("error_deviations")
        self.jumps = self.scalar_state("jumps")

    def weight(self, error: tf.Tensor) -> tf.Tensor:
        largest = super().weight(error)
        return tf.where(self.jumps_at(error), largest, self.decay * self.last_weight.value)

    def jumps_at(self, error: tf.Tensor) -> tf.Tensor:
        """Returns whether an error is unusually large compared to those so far, a boolean scalar; never the first."""
        variance = self.error_deviations.value / tf.maximum(self.errors.value, 1.0)
        limit = self.error_mean.value + self.sensitivity * tf.sqrt(variance)
        return (self.errors.value > 0.0) & (error > limit)

    def observe(self, facts: Facts) -> None:
        """Keeps the weight, and mean and squared deviations of the errors, without errors that are not finite."""
        error = facts["linearity_error"]
        is_known = tf.math.is_finite(error)
        self.last_weight.assign(tf.where(is_known, self.weight(error), self.last_weight.value))
        self.jumps.assign_add(tf.cast(is_known & self.jumps_at(error), tf.float32))
        self.errors.assign_add(tf.cast(is_known, tf.float32))
        # Welford's algorithm: sums of squares would lose the digits of the deviations.
        change = tf.where(is_known, error - self.error_mean.value, 0.0)
        self.error_mean.assign_add(change / tf.maximum(self.errors.value, 1.0))
        beyond = tf.where(is_known, error - self.error_mean.value, 0.0)
        self.error_deviations.assign_add(change * beyond)

    def card_facts(self) -> dict[str, float]:
        return {"linearity_weight_jumps": parallel.scalar(self.jumps)}
