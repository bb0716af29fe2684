"""Functions of the step, for learning rates and for regularizer weights alike.

Each is a `keras.optimizers.schedules.LearningRateSchedule` of the number of trained batches, so resumed or distributed
runs need no further state. A step is one batch, even if the gradients of several batches are accumulated for one
update. Times are in epochs; `steps_per_epoch` turns them into steps (leave it at 1 to give times in steps).
"""

import typing
from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import placement, validation

Schedule = Callable[[typing.Any], tf.Tensor]  # step -> value
Weight = float | Schedule  # of a regularizer


@keras.saving.register_keras_serializable(package="tf_nuat")
class Piecewise(keras.optimizers.schedules.LearningRateSchedule):
    """A piecewise linear function of the epoch; the last value holds forever.

    Args:
        points: pairs (epoch, value), sorted by epoch; two pairs with the same epoch make a jump to the second value.
        steps_per_epoch: number of steps of an epoch, above 0; or a variable that holds it and may be assigned later.

    Example:
        >>> from tf_nuat import schedules
        >>> schedules.Piecewise([(0, 0.0), (10, 1.0)])(5).numpy()
        np.float32(0.5)
    """

    def __init__(self, points: Iterable[tuple[float, float]], *, steps_per_epoch: float | tf.Variable = 1) -> None:
        points = [(float(epoch), float(value)) for epoch, value in points]
        epochs = [epoch for epoch, _ in points]
        if not points or epochs != sorted(epochs) or not np.all(np.isfinite(points)):
            validation.refuse("points", points, "pairs (epoch, value) of finite numbers, in the order of the epochs")
        self.points = points
        self.steps_per_epoch = steps_per_epoch
        if not isinstance(steps_per_epoch, tf.Variable):
            validation.number("steps_per_epoch", steps_per_epoch, above=0.0)

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        with placement.on_host():  # twenty operations on one number
            epoch = tf.cast(step, tf.float32) / tf.cast(self.steps_per_epoch, tf.float32)
            value = tf.fill(tf.shape(epoch), self.points[0][1])
            for (begin, low), (end, high) in zip(self.points, self.points[1:]):
                along = (epoch - begin) / (end - begin) if end > begin else tf.zeros_like(epoch)
                value = tf.where(epoch >= begin, low + (high - low) * along, value)
            return tf.where(epoch >= self.points[-1][0], self.points[-1][1], value)

    def get_config(self) -> dict[str, typing.Any]:
        return {"points": self.points, "steps_per_epoch": float(self.steps_per_epoch)}


def ramp(peak: float, epochs: float, *, wait: float = 0, steps_per_epoch: float = 1) -> Piecewise:
    """Returns 0 for `wait` epochs, linear growth to `peak` until epoch `epochs`, then `peak` (NuAT's lambda).

    Example:
        >>> from tf_nuat import schedules
        >>> [float(schedules.ramp(4.0, 10)(epoch)) for epoch in (0, 5, 10, 20)]
        [0.0, 2.0, 4.0, 4.0]
    """
    return Piecewise([(wait, 0.0), (epochs, peak)], steps_per_epoch=steps_per_epoch)


def triangle(peak: float, up: float, down: float, *, steps_per_epoch: float = 1) -> Piecewise:
    """Returns a rise from 0 to `peak` over `up` epochs and a fall to 0 over `down` (cyclic learning rate).

    Example:
        >>> from tf_nuat import schedules
        >>> [float(schedules.triangle(0.2, 10, 20)(epoch)) for epoch in (0, 10, 20, 30)]
        [0.0, 0.20000000298023224, 0.10000000149011612, 0.0]
    """
    return Piecewise([(0, 0.0), (up, peak), (up + down, 0.0)], steps_per_epoch=steps_per_epoch)


def cyclic_step(
    peak: float, up: float, down: float, freeze: float, drops: Sequence[float], *, steps_per_epoch: float = 1
) -> Piecewise:
    """Returns NuAT's cyclic-step learning rate: a triangle, cut off at epoch `freeze` and divided by 10 at each drop.

    Args:
        peak: highest learning rate, at epoch `up`.
        up, down: epochs of the rising side, and of the falling side if it went down to 0.
        freeze: epoch from which the value is constant, between `up` and `up + down`.
        drops: epochs, not before `freeze`, at each of which the value is divided by 10.
        steps_per_epoch: number of steps of an epoch, above 0.

    Example:
        >>> from tf_nuat import schedules
        >>> [round(float(schedules.cyclic_step(0.1, 40, 50, 80, [85])(epoch)), 4) for epoch in (40, 80, 86)]
        [0.1, 0.02, 0.002]
    """
    if not up <= freeze < up + down:
        validation.refuse("freeze", freeze, f"from up={up} to below up+down={up + down}")
    if list(drops) != sorted(drops) or any(drop < freeze for drop in drops):
        validation.refuse("drops", drops, f"increasing epochs, not before freeze={freeze}")
    value = peak * (up + down - freeze) / down
    points = [(0.0, 0.0), (up, peak), (freeze, value)]
    for drop in drops:
        points += [(drop, value), (drop, value / 10)]
        value /= 10
    return Piecewise(points, steps_per_epoch=steps_per_epoch)


def divide(start: float, factor: float, epochs: Iterable[float], *, steps_per_epoch: float = 1) -> Piecewise:
    """Returns `start`, divided by `factor`, a number above 0, again at each of `epochs`.

    Example:
        >>> from tf_nuat import schedules
        >>> [round(float(schedules.divide(0.1, 10, [5, 8])(epoch)), 4) for epoch in (0, 5, 8)]
        [0.1, 0.01, 0.001]
    """
    validation.number("factor", factor, above=0.0)
    points, value = [(0.0, start)], start
    for epoch in epochs:
        points += [(epoch, value), (epoch, value / factor)]
        value /= factor
    return Piecewise(points, steps_per_epoch=steps_per_epoch)


def constant(value: float, *, steps_per_epoch: float = 1) -> Piecewise:
    """Returns `value` at every step.

    Example:
        >>> from tf_nuat import schedules
        >>> float(schedules.constant(0.5)(3))
        0.5
    """
    return Piecewise([(0, value)], steps_per_epoch=steps_per_epoch)


# By name, for recipes, which are plain data.
SCHEDULES: dict[str, Callable[..., Piecewise]] = {
    "constant": constant,
    "ramp": ramp,
    "triangle": triangle,
    "cyclic_step": cyclic_step,
    "divide": divide,
}


def weight(argument: str, value: Weight) -> Weight:
    """Returns `value`, the weight of a regularizer: a number, at least 0, or a schedule of the step.

    Raises:
        ValueError: it is neither; the error names `argument`.

    Example:
        >>> from tf_nuat import schedules
        >>> schedules.weight("beta", 6.0)
        6.0
    """
    return value if callable(value) else validation.number(argument, value, at_least=0.0)


def value_at(weight: Weight, step: int | tf.Tensor) -> tf.Tensor:
    """Returns the float32 value at `step` of a weight, a schedule or a number.

    Example:
        >>> from tf_nuat import schedules
        >>> float(schedules.value_at(schedules.ramp(4.0, 10), 5))
        2.0
    """
    with placement.on_host():
        return tf.cast(weight(step) if callable(weight) else weight, tf.float32)
