"""A Keras callback that saves the whole state of training, and functions that restore it."""

import json
import pathlib
import time
import typing
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import validation
from tf_nuat.parallel import workers
from tf_nuat.training import checkpoints

Logs = dict[str, float] | None  # what Keras hands to a callback


class State(typing.NamedTuple):
    """How far training has come.

    Attributes:
        history: list of dicts, the logs of the finished epochs.
        batches: number of batches trained in the current epoch.
        seconds: time that these batches took.
        arrays: saved values of the variables, to be restored; None if there are none.
        passes: the `Passes` of the finished stages, whose defenses a resumed run does not restore.
    """

    history: list[dict[str, float]]
    batches: int = 0
    seconds: float = 0.0
    arrays: list[np.ndarray] | None = None
    passes: Sequence[Sequence[float]] = ()


class Backup(keras.callbacks.Callback):
    """Saves the whole state of training, so that a resumed run continues from it bit for bit.

    The state has the weights, averages, optimizer and the defense's own state, the metrics of the epoch so far, and the
    number of trained batches. It is saved after each epoch, and within an epoch every `save_every` seconds, as one of
    the newest few checkpoints (`tf_nuat.training.checkpoints`). Of several workers only the chief writes. Put the
    callback last, so that it sees what other callbacks add to the logs. Within an epoch, a state with numbers that are
    not finite is not saved.

    Args:
        folder: where the checkpoints are kept.
        lengths: batches in each epoch.
        state: the `State` that training goes on from.
        save_every: seconds of training that a kill may cost, at least 0.

    Attributes:
        state: the `State` now.
    """

    LOOK_EVERY = 20  # batches after which several workers look at the chief's clock

    def __init__(
        self,
        folder: str | pathlib.Path,
        *,
        lengths: Sequence[int],
        state: State | None = None,
        save_every: float = 600.0,
    ) -> None:
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.lengths = lengths
        self.save_every = validation.number("save_every", save_every, at_least=0.0)
        self.state = state or State([])

    def on_train_begin(self, logs: Logs = None) -> None:
        self.saved = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        # `fit` has just reset the metrics, and the defense has counted a new epoch.
        if self.state.batches:
            put_back(self.model, self.state.arrays or [])
        self.first, self.begin = self.state.batches, time.perf_counter() - self.state.seconds
        self.trained: float | None = None  # when validation begins
        self.state = self.state._replace(arrays=None)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        # The batches before this one have ended. Nothing is saved after the last batch of an epoch: the epoch is over
        # only after its validation.
        if batch:
            batches, now = self.first + batch, time.perf_counter()
            self.state = self.state._replace(batches=batches, seconds=now - self.begin)
            if self._is_time(batches, now):
                self._save()

    def on_test_begin(self, logs: Logs = None) -> None:
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = {} if logs is None else logs
        logs["seconds"] = (time.perf_counter() if self.trained is None else self.trained) - self.begin
        done = {name: float(value) for name, value in logs.items()}
        self.state = State([*self.state.history, done], passes=self.state.passes)
        self._save()

    def _is_time(self, batches: int, now: float) -> bool:
        strategy = self.model.distribute_strategy
        is_time = now - self.saved >= self.save_every
        if workers.count(strategy) == 1:
            return is_time
        return batches % self.LOOK_EVERY == 0 and bool(workers.gathered(is_time, strategy)[0])

    def _save(self) -> None:
        arrays = [np.asarray(variable) for variable in state_of(self.model)]  # every worker reads them
        if self.state.batches and not all(np.isfinite(array).all() for array in arrays):
            return  # training is about to end: see `callback_list`
        if workers.is_chief(self.model.distribute_strategy):
            number = sum(self.lengths[: len(self.state.history)]) + self.state.batches
            checkpoints.save(self.folder, number, arrays, self.state._replace(arrays=None)._asdict())
        self.saved = time.perf_counter()


def restored(folder: str | pathlib.Path, strategy: tf.distribute.Strategy | None) -> State:
    """Returns the `State` of the newest checkpoint in `folder`; on several workers, that of the chief.

    Without a checkpoint it is the state before training.
    """
    found = checkpoints.newest(folder) if workers.is_chief(strategy) else None
    arrays, facts = found or ([], {})
    facts = json.loads(workers.from_chief(json.dumps(facts).encode(), strategy))
    if not facts:
        return State([])
    return State(**{**facts, "arrays": workers.arrays_from_chief(arrays, strategy)})


def state_of(model: keras.Model) -> list[Any]:
    """Returns the variables that training changes: those of the compiled and built defense, optimizer and metrics."""
    found = [*model.variables, *model.optimizer.variables]
    for metric in model.metrics:
        found.extend(metric.variables)
    return list({id(variable): variable for variable in found}.values())


def put_back(model: keras.Model, arrays: Sequence[np.ndarray]) -> None:
    """Assigns `arrays` to the variables of `state_of`.

    Raises:
        ValueError: they are those of another network, defense or optimizer.
    """
    variables = state_of(model)
    shapes, given = [tuple(variable.shape) for variable in variables], [array.shape for array in arrays]
    if shapes != given:
        raise ValueError(
            f"the checkpoint has {len(given)} arrays, not those of the {len(shapes)} variables of this training; "
            "allowed: a checkpoint of the same recipe"
        )
    for variable, array in zip(variables, arrays):
        variable.assign(array)
