"""Trains the epochs of a run, stage by stage; a killed run continues where it stopped."""

import itertools
import json
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_nuat import defenses
from tf_nuat.core import files, keras_compat
from tf_nuat.data.splits import Splits
from tf_nuat.models import precision
from tf_nuat.parallel import workers
from tf_nuat.training import backup, callbacks, minutes
from tf_nuat.training.building import build
from tf_nuat.training.callback_list import CallbackList
from tf_nuat.training.measuring import batch_of_attacks
from tf_nuat.training.progress import EpochLines, TensorBoard
from tf_nuat.training.recipe import Recipe

ALARM_IMAGES = 500

History = list[dict[str, float]]  # the logs of each epoch


class Trained(NamedTuple):
    """The result of training.

    Attributes:
        recipe: the recipe, with the number of epochs that was fitted to its `minutes`, if it has them.
        model: the defense of the last stage.
        history: logs of all epochs.
        passes: mean `Passes` of an image in an epoch.
    """

    recipe: Recipe
    model: defenses.Defense
    history: History
    passes: defenses.Passes


class Run(NamedTuple):
    """What the epochs of a run share: arguments of `tf_nuat.training.run`, and values made from them.

    `is_fitted`: whether the recipe's number of epochs is final; else it is first fitted to the recipe's `minutes`.
    `begun`: the `time.perf_counter` at which the minutes began.
    """

    recipe: Recipe
    splits: Splits
    out: pathlib.Path
    strategy: tf.distribute.Strategy
    save_every: float
    verbose: str | int
    is_fitted: bool = True
    jit_compile: bool = False
    begun: float = 0.0

    @property
    def shown(self) -> str | int:
        """The `verbose` of Keras: 0 if `EpochLines` shows the epochs, and on all workers but the chief."""
        return self.verbose if self.verbose != "auto" and workers.is_chief(self.strategy) else 0

    @property
    def lengths(self) -> list[int]:
        """Number of batches in each epoch, of all stages."""
        return list(itertools.chain(*self.recipe.steps(self.splits.steps_per_epoch)))


class TerminateOnNaN(keras.callbacks.TerminateOnNaN):
    """Keras's callback, which also sees a network that the last step of an epoch has broken.

    The loss of that step was computed before its update, so only the validation loss shows it. Put it first: then no
    other callback saves such a network.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.on_batch_end(self.params["steps"], {"loss": (logs or {}).get("val_loss")})


def train(run: Run, sources: list[keras.Model]) -> Trained:
    """Trains what is left of the stages of a run, and writes `last.keras`."""
    state = backup.restored(run.out / "state", run.strategy)
    if state.arrays is not None:
        logging.info("continuing after %d batches of epoch %d", state.batches, len(state.history) + 1)
    shares: list[int] = []
    model: Any = None  # before the first stage
    stretch = _stretch(run)
    for number in range(len(run.recipe.plan())):
        with run.strategy.scope():
            given = {"stage": number, "before": model, "sources": sources, "stretch": stretch}
            model = build(run.recipe, run.splits, jit_compile=run.jit_compile, **given)
        if stretch is not None and not run.is_fitted:
            run = _fitted(run, model, sources)
            stretch.assign(run.recipe.stretched(run.splits.steps_per_epoch))
        stages = run.recipe.steps(run.splits.steps_per_epoch)
        end = sum(map(len, stages[: number + 1]))
        model.build_state()  # the first step would make variables, and be traced a second time
        if state.arrays is not None and len(state.history) + bool(state.batches) <= end:
            backup.put_back(model, state.arrays)  # into the defense of the stage that saved it
            if not state.batches:
                state = state._replace(arrays=None)
        while len(state.history) < end and not has_ended(state.history, run.recipe):
            state = _train_until(end, model, run, state)
        shares.append(sum(run.lengths[: min(end, len(state.history))]) - sum(shares))
        if len(state.passes) == number:  # else this stage was over before the run was resumed
            state = state._replace(passes=[*state.passes, model.passes(run.recipe.batch_size)])
    if workers.is_chief(run.strategy):
        files.save_network(precision.computing_in(model.network, "float32"), run.out / "last.keras")
    mean_passes = defenses.Passes(*np.average(state.passes, axis=0, weights=shares).tolist())
    return Trained(run.recipe, model, state.history, mean_passes)


def _stretch(run: Run) -> tf.Variable | None:
    """Returns a variable with the schedules' steps per epoch, which depend on the speed; None without minutes."""
    if run.recipe.minutes is None:
        return None
    with run.strategy.scope():
        return tf.Variable(run.recipe.stretched(run.splits.steps_per_epoch), trainable=False, dtype=tf.float32)


def _fitted(run: Run, model: defenses.Defense, sources: list[keras.Model]) -> Run:
    """Returns the run with the number of epochs that fit into its minutes; leaves the model as it was."""
    recipe, speeds = run.recipe, list[minutes.Speed]()
    trial = run._replace(out=run.out / "trial")  # saving after an epoch takes time, too
    try:
        each: Any = model
        for number in range(len(recipe.plan())):
            if number:  # only to be timed: the real stage begins where the one before it ends
                with run.strategy.scope():
                    each = build(recipe, run.splits, stage=number, before=each, sources=sources)
            speeds.append(_speed(trial, each, is_first=not number))
    finally:
        if workers.is_chief(run.strategy):
            shutil.rmtree(trial.out, ignore_errors=True)
    seconds = time.perf_counter() - run.begun
    shared = json.loads(workers.from_chief(json.dumps([speeds, seconds]).encode(), run.strategy))
    speeds, seconds = [minutes.Speed(*speed) for speed in shared[0]], shared[1]
    recipe = minutes.fitted(recipe, run.splits.steps_per_epoch, speeds, seconds)
    if workers.is_chief(run.strategy):
        steps = ", ".join(f"{speed.step:.3g}" for speed in speeds)
        logging.info("%g minutes are enough for %.4g epochs, by steps of %s s", recipe.minutes, recipe.epochs, steps)
        files.save_json(recipe.to_json(), run.out / "recipe.json")
    return run._replace(recipe=recipe, is_fitted=True)


def _speed(trial: Run, model: defenses.Defense, *, is_first: bool) -> minutes.Speed:
    """Returns the `Speed` of a stage with the defense `model`; leaves the model as it was."""
    model.build_state()
    before = [np.array(variable) for variable in backup.state_of(model)]
    keeps_state = backup.Backup(trial.out / "state", lengths=[minutes.WARM_UP, minutes.MOST])
    each_epoch = _measured_and_saved(model, trial, keeps_state)  # made once: attacks are timed after they are compiled

    def train_some(most: int, watch: minutes.Stopwatch) -> None:
        backup.put_back(model, before)
        with trial.splits.readable():
            model.fit(
                _batches_after(0, model, trial.splits),
                validation_data=trial.splits.validation,
                steps_per_epoch=most,
                epochs=1,
                verbose=0,
                callbacks=[*each_epoch, watch],
                **model.fit_options(),
            )

    of_stage = (trial.recipe.minutes or 0.0) / len(trial.recipe.plan())
    count = workers.count(trial.strategy)
    speed = minutes.measured(of_stage, train_some, workers=count, compiles_again=not is_first)
    backup.put_back(model, before)
    return speed


def _train_until(end: int, model: defenses.Defense, run: Run, state: backup.State) -> backup.State:
    """Trains the epochs until `end`, or the rest of an interrupted one; returns the new state."""
    splits, done, batches, lengths = run.splits, len(state.history), state.batches, run.lengths
    left = [lengths[done] - batches] if batches else lengths[done:end]
    keeps_state = backup.Backup(run.out / "state", lengths=lengths, state=state, save_every=run.save_every)
    try:
        with splits.readable():
            model.fit(
                _batches_after(sum(lengths[:done]) + batches, model, splits),
                validation_data=splits.validation,
                steps_per_epoch=left[0],
                initial_epoch=done,
                epochs=done + len(left),
                verbose=run.shown,
                callbacks=_callbacks(model, run, keeps_state, left),
                **model.fit_options(),
            )
    except RuntimeError as error:
        if not keras_compat.is_nan_loss(error):
            raise
        history = keeps_state.state.history
        kept = f"the network of epoch {best_epoch(history, run.recipe)}" if history else None
        raise FloatingPointError(
            f"the loss became NaN or infinite in epoch {len(history) + 1}; "
            + (f"{kept} is kept in {run.out / 'network.keras'}; " if kept else "no epoch was finished; ")
            + "try a lower learning rate"
        ) from error
    return keeps_state.state


def _callbacks(model: defenses.Defense, run: Run, keeps_state: backup.Backup, lengths: list[int]) -> CallbackList:
    """Returns the callbacks for epochs of `lengths` batches; each sees what those before it add to the logs."""
    history = keeps_state.state.history

    def stop_early(epoch: int, logs: Mapping[str, float]) -> None:
        model.stop_training |= has_ended(keeps_state.state.history, run.recipe)

    every: list[keras.callbacks.Callback] = [TerminateOnNaN(raise_error=True)]
    every += [*_measured_and_saved(model, run, keeps_state), keras.callbacks.LambdaCallback(on_epoch_end=stop_early)]
    if run.verbose == "auto" and workers.is_chief(run.strategy):
        every.append(EpochLines(run.lengths))
    shown: dict[str, Any] = {"add_history": True, "add_progbar": run.shown != 0, "verbose": run.shown}
    return CallbackList(every, model=model, epochs=len(history) + len(lengths), lengths=lengths, **shown)


def _measured_and_saved(
    model: defenses.Defense, run: Run, keeps_state: backup.Backup
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that validate, log, and save the best network and the state of training."""
    is_chief = workers.is_chief(run.strategy)
    every = _validating(model, run, run.out / "network.keras" if is_chief else None, keeps_state.state.history)
    if is_chief:
        every.append(TensorBoard(run.out / "logs", write_graph=False))
    return [*every, keeps_state]


def _validating(
    model: defenses.Defense, run: Run, path: pathlib.Path | None, history: History
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that validate, and save the network to `path` if it is better than those of `history`."""
    recipe, splits = run.recipe, run.splits
    order = np.random.default_rng(recipe.seed).permutation(len(splits.labels("validation")))
    images, labels = splits.take("validation", order[: recipe.selection_images])
    last, batch_size = recipe.chosen_by == "last", batch_of_attacks(recipe, splits)
    scores = [] if last else [logs[recipe.chosen_by] for logs in history]
    validates = callbacks.RobustValidation(
        images,
        labels,
        recipe.selection.bound(epsilon=recipe.epsilon, norm=recipe.norm),
        path=path,
        monitor=None if last else recipe.chosen_by,
        best=max(scores, default=-1.0),
        batch_size=batch_size,
    )
    if not callbacks.MaskingAlarm.can_ring(alarm_images(recipe, splits)):
        return [validates]
    seen = slice(ALARM_IMAGES)
    options: dict[str, Any] = {"epsilon": recipe.epsilon, "action": recipe.masking_alarm, "batch_size": batch_size}
    return [validates, callbacks.MaskingAlarm(images[seen], labels[seen], **options)]


def _batches_after(count: int, model: defenses.Defense, splits: Splits) -> Any:
    """Returns the endless training batches after the first `count`, where each replay of a batch counts as one.

    Each of several workers reads the images of its own replicas only.
    """
    used, again = divmod(count, model.replays)
    place = divmod(used, splits.steps_per_epoch)
    strategy = model.distribute_strategy
    if workers.count(strategy) == 1:
        return model.replayed(splits.train_from(*place)).skip(again)
    replicas = strategy.num_replicas_in_sync
    own = replicas // workers.count(strategy)

    def share(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shares = range(context.input_pipeline_id * own, (context.input_pipeline_id + 1) * own)
        return model.replayed(splits.train_from(*place, shares=shares, of=replicas)).skip(again)

    return strategy.distribute_datasets_from_function(share)


def alarm_images(recipe: Recipe, splits: Splits) -> int:
    """Returns the number of validation images for the masking alarm, 0 without an alarm."""
    if recipe.masking_alarm is None or recipe.norm not in callbacks.MaskingAlarm.NORMS:
        return 0
    return min(len(splits.labels("validation")), recipe.selection_images, ALARM_IMAGES)


def has_ended(history: History, recipe: Recipe) -> bool:
    """Returns whether training ends before its last epoch: the alarm stops it, or `patience` has run out."""
    if not history:
        return False
    if recipe.masking_alarm == "stop" and history[-1].get("masking_alarm"):
        return True
    return recipe.patience is not None and len(history) - best_epoch(history, recipe) >= recipe.patience


def best_epoch(history: History, recipe: Recipe) -> int:
    """Returns the epoch, from 1, whose network is kept."""
    if recipe.chosen_by == "last":
        return len(history)
    return int(np.argmax([logs[recipe.chosen_by] for logs in history])) + 1
