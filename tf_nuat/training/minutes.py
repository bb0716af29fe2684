"""Fits the number of epochs to a recipe's minutes, by the speed of the first steps."""

import dataclasses
import math
import time
import typing
from collections.abc import Callable, Sequence

import keras

from tf_nuat.training.recipe import Recipe

WARM_UP = 2  # batches that are not timed: their steps are compiled
PART = 0.03  # share of the minutes in which the speed is measured
LEAST, MOST = 10, 1000  # batches that are timed, if the minutes allow
RESERVE = 0.01  # share of the minutes for saving and logging

Logs = dict[str, float] | None  # what Keras hands to a callback


class TooFewError(ValueError):
    """The minutes are too few for a step of each stage and its validation."""


class Speed(typing.NamedTuple):
    """What a stage of training costs on this machine.

    Attributes:
        step: seconds of a batch.
        validation: seconds from the last batch of an epoch to the end of its last callback. It is measured in the first
            epoch of a `fit`, start-up included, since a network that withstands attacks will take longer to validate.
        start: seconds of `fit` before its first epoch and after its last, and of compiling for a later stage.
    """

    step: float
    validation: float
    start: float = 0.0


class Stopwatch(keras.callbacks.Callback):
    """Measures a `Speed`; ends the epoch once enough batches were timed. Put it last.

    Args:
        seconds: time after which `LEAST` timed batches are enough; with fewer, it takes four times as long.
        most: largest number of batches.
    """

    def __init__(self, seconds: float, most: int) -> None:
        super().__init__()
        self.seconds, self.most = seconds, most
        self.seconds_of_epoch = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.batches, self.begun = 0, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self.batches += 1
        self.trained = time.perf_counter()
        spent = self.trained - self.begun
        # Attacks may alternate from batch to batch: an even number of batches has both in equal parts.
        is_enough = spent > self.seconds * (1 if self.batches >= LEAST else 4) and self.batches % 2 == 0
        if is_enough or self.batches >= self.most:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        ended = time.perf_counter()
        self.seconds_of_epoch = ended - self.begun
        self.speed = Speed((self.trained - self.begun) / self.batches, ended - self.trained)


def measured(
    minutes: float, train: Callable[[int, Stopwatch], None], *, workers: int = 1, compiles_again: bool = False
) -> Speed:
    """Returns the `Speed` of a stage of training.

    Args:
        minutes: minutes of the stage, roughly.
        train: function of a number of batches and a callback that trains on at most so many batches, and validates.
        workers: number of processes that train together; several wait for each other, so all time `LEAST` batches.
        compiles_again: whether the stage compiles once more when it begins.
    """
    started = time.perf_counter()
    train(WARM_UP, Stopwatch(0.0, WARM_UP))  # the second time nothing is compiled
    compiling = time.perf_counter() - started if compiles_again else 0.0
    watch = Stopwatch(60.0 * minutes * PART, MOST) if workers == 1 else Stopwatch(math.inf, LEAST)
    begun = time.perf_counter()
    train(MOST, watch)
    return watch.speed._replace(start=time.perf_counter() - begun - watch.seconds_of_epoch + compiling)


def fitted(recipe: Recipe, steps_per_epoch: int, speeds: Sequence[Speed], seconds: float) -> Recipe:
    """Returns the recipe with as many epochs, perhaps a fraction, as end in time with their validations.

    Args:
        recipe: a `Recipe` with `minutes`.
        steps_per_epoch: batches in an epoch.
        speeds: the `Speed` of each stage on this machine.
        seconds: time that has passed since training began.

    Raises:
        TooFewError: the minutes are too few for a batch of each stage.
    """
    lengths = [stage.epochs for stage in recipe.plan()]

    def needs(steps: int) -> float:
        stages = recipe.steps(steps_per_epoch, steps)
        return sum(
            sum(epochs) * speed.step + len(epochs) * speed.validation + speed.start
            for epochs, speed in zip(stages, speeds, strict=True)
        )

    least = -(-sum(lengths) // min(lengths))
    left = 60.0 * typing.cast(float, recipe.minutes) * (1.0 - RESERVE) - seconds
    if needs(least) > left:
        enough = (seconds + needs(least)) / 60.0 / (1.0 - RESERVE)
        raise TooFewError(
            f"minutes is {recipe.minutes:g}, too few for a step and a validation; allowed: about {1.1 * enough:.2g} or "
            "more, on this machine"
        )
    enough_steps, too_many = least, int(left / min(speed.step for speed in speeds)) + 2
    while too_many - enough_steps > 1:
        middle = (enough_steps + too_many) // 2
        enough_steps, too_many = (middle, too_many) if needs(middle) <= left else (enough_steps, middle)
    return dataclasses.replace(recipe, epochs=enough_steps / steps_per_epoch)
