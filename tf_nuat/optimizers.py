"""SGD as the papers use it."""

import typing

import keras
import tensorflow as tf

from tf_nuat import schedules
from tf_nuat.core import keras_compat, validation

NO_MOMENTUM = 1e-30  # stands for 0: 1e-30 times the last velocity vanishes


@keras.saving.register_keras_serializable(package="tf_nuat")
class CoupledSGD(keras.optimizers.SGD):
    """SGD that adds weight decay to the gradient of every trainable variable, before the momentum.

    Variables passed to `exclude_from_weight_decay` have no weight decay.

    Keras's own `weight_decay` shrinks the variable outside of the momentum, and its velocity includes the learning rate
    of each gradient's step. Here, as in PyTorch's SGD, which the papers used:
    `velocity = momentum * velocity + gradient + weight_decay * variable`, `variable -= learning_rate * velocity`.

    Args:
        learning_rate: number or schedule.
        momentum: in [0, 1).
        weight_decay: at least 0.
        **options: those of `keras.optimizers.SGD`, except `nesterov`.

    Example:
        >>> import tf_nuat
        >>> optimizer = tf_nuat.optimizers.CoupledSGD(0.1, momentum=0.9, weight_decay=5e-4)
    """

    def __init__(
        self,
        learning_rate: float | schedules.Schedule = 0.1,
        *,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        **options: typing.Any,
    ) -> None:
        validation.number("momentum", momentum, at_least=0.0, below=1.0)
        # The base class makes no velocity, neither here nor in `build`, if the momentum is 0.
        super().__init__(learning_rate, momentum=float(momentum) or NO_MOMENTUM, nesterov=False, **options)
        self.coupled_weight_decay = validation.number("weight_decay", weight_decay, at_least=0.0)

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        gradient = tf.cast(gradient, variable.dtype)
        if self.coupled_weight_decay and keras_compat.takes_weight_decay(self, variable):
            gradient += tf.cast(self.coupled_weight_decay, variable.dtype) * variable
        velocity = keras_compat.momentum_of(self, variable).value
        # One pass over the memory; assignments in Python would take five.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
        )

    def get_config(self) -> dict[str, typing.Any]:
        config = super().get_config()
        del config["nesterov"]
        momentum = 0.0 if self.momentum == NO_MOMENTUM else self.momentum
        return {**config, "momentum": momentum, "weight_decay": self.coupled_weight_decay}
