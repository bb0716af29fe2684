"""AWP: adversarial weight perturbation (Wu et al., 2020), on PGD-AT and on TRADES."""

import typing
from collections.abc import Iterable

import keras
import tensorflow as tf

from tf_nuat import parallel, schedules
from tf_nuat.defenses.base import Defense, Gradients
from tf_nuat.defenses.passes import Passes
from tf_nuat.defenses.pgd_at import PGDAT
from tf_nuat.defenses.trades import TRADES


class WeightPerturbation(Defense):
    """Mixin in front of a defense: takes gradients at adversarially moved weights and applies them to the unmoved ones.

    Each weight w with more than one dimension moves by `awp_gamma * |w| * g / |g|`, where g is the gradient of the
    global batch's loss with respect to w. The training step uses loss, logits and gradients at the moved weights.
    """

    def __init__(
        self, network: keras.Model, *, awp_gamma: schedules.Weight, epsilon: float, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.awp_gamma = schedules.weight("awp_gamma", awp_gamma)

    def gradients(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor, **shared: typing.Any) -> Gradients:
        """Returns the `Gradients` at the moved weights, and restores the weights bit for bit."""
        statistics = self.trained_network.non_trainable_variables
        statistics_before = _values(statistics)
        gradients = super().gradients(x, x_adv, y, **shared).gradients
        # BatchNorm's statistics see the batch once, at the moved weights.
        _assign(statistics, statistics_before)

        moving = [
            (weight, gradient)
            for weight, gradient in zip(self.trained_network.trainable_variables, gradients)
            if len(weight.shape) > 1 and gradient is not None
        ]
        weights = [weight for weight, _ in moving]
        weights_before = _values(weights)
        gamma = schedules.value_at(self.awp_gamma, self.batches)
        totals = parallel.total([gradient for _, gradient in moving])
        _assign(weights, [w + perturbation(w, g, gamma) for w, g in zip(weights_before, totals)])
        at_moved_weights = super().gradients(x, x_adv, y, **shared)
        _assign(weights, weights_before)  # adding and subtracting the perturbation would round
        return at_moved_weights

    def passes(self, batch_size: int) -> Passes:
        passes = super().passes(batch_size)
        return passes._replace(training=2.0 * passes.training)


class AWP(WeightPerturbation, PGDAT):
    """PGD-AT with adversarial weight perturbation (algorithm 1).

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        awp_gamma: norm of the perturbation of a weight relative to that of the weight: a number, at least 0, or a
            schedule of the step (0 for a warm-up, whose steps take as long as the others).
        **options: those of `PGDAT`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.AWP(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, awp_gamma=0.01)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, awp_gamma: schedules.Weight = 0.01, epsilon: float, **options: typing.Any
    ) -> None:
        super().__init__(network, awp_gamma=awp_gamma, epsilon=epsilon, **options)


class AWPTRADES(WeightPerturbation, TRADES):
    """TRADES with adversarial weight perturbation.

    Args:
        network, awp_gamma: see `AWP`; gamma is half as large by default, as in the authors' code.
        **options: those of `TRADES`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.AWPTRADES(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, beta=6.0)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, awp_gamma: schedules.Weight = 0.005, epsilon: float, **options: typing.Any
    ) -> None:
        super().__init__(network, awp_gamma=awp_gamma, epsilon=epsilon, **options)


def perturbation(weight: tf.Tensor, gradient: tf.Tensor, gamma: float | tf.Tensor) -> tf.Tensor:
    """Returns the tensor with the norm `gamma * |weight|` and the direction of `gradient`; 0 if `gradient` is 0."""
    # A gradient that overflowed must not reach BatchNorm's statistics. Division by the largest entry keeps the squares
    # of small gradients from underflowing.
    gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
    direction = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient)))
    return tf.cast(gamma, weight.dtype) * tf.norm(weight) * tf.math.divide_no_nan(direction, tf.norm(direction))


def _values(variables: Iterable[keras.Variable]) -> list[tf.Tensor]:
    return [tf.identity(variable.value) for variable in variables]


def _assign(variables: Iterable[keras.Variable], values: list[tf.Tensor]) -> None:
    """Assigns values within a training step; every replica assigns its own."""

    def assign_all(strategy: tf.distribute.Strategy, values: list[tf.Tensor]) -> None:
        for variable, value in zip(variables, values):
            strategy.extended.update(variable.value, lambda own, new: own.assign(new), args=(value,), group=False)

    tf.distribute.get_replica_context().merge_call(assign_all, args=(values,))
