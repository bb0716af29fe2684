"""The epochs of a run: its stages one after the other, from where it was killed."""

import pathlib
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
from tf_nuat.training import backup, callbacks
from tf_nuat.training.building import build
from tf_nuat.training.measuring import batch_of_attacks
from tf_nuat.training.recipe import Recipe

ALARM_IMAGES = 500

History = list[dict[str, float]]  # the logs of each epoch


class Trained(NamedTuple):
    """What training came to.

    Attributes:
        model: the defense of the last stage.
        history: logs of all epochs.
        passes: mean `Passes` of an image in an epoch.
    """

    model: defenses.Defense
    history: History
    passes: defenses.Passes


class Run(NamedTuple):
    """What the epochs of a run share: arguments of `tf_nuat.training.run`, and what it has made of them."""

    recipe: Recipe
    splits: Splits
    out: pathlib.Path
    strategy: tf.distribute.Strategy
    save_every: float
    verbose: str | int


def train(run: Run, sources: list[keras.Model]) -> Trained:
    """Trains what is left of the stages of a run, and writes `last.keras`."""
    state = backup.restored(run.out / "state", run.strategy)
    if state.arrays is not None:
        logging.info("continuing after %d batches of epoch %d", state.batches, len(state.history) + 1)
    lengths: list[int] = []
    passes: list[defenses.Passes] = []
    model: Any = None  # before the first stage
    end = 0
    for number, stage in enumerate(run.recipe.plan()):
        end += stage.epochs
        with run.strategy.scope():
            model = build(run.recipe, run.splits, stage=number, before=model, sources=sources)
        if state.arrays is not None and len(state.history) + bool(state.batches) <= end:
            model.build_state()
            backup.put_back(model, state.arrays)  # into the defense of the stage that left it
            if not state.batches:
                state = state._replace(arrays=None)
        while len(state.history) < end and not has_ended(state.history, run.recipe):
            state = _train_until(end, model, run, state)
        lengths.append(max(0, min(end, len(state.history)) - sum(lengths)))
        passes.append(model.passes(run.recipe.batch_size))
    if workers.is_chief(run.strategy):
        files.save_network(precision.computing_in(model.network, "float32"), run.out / "last.keras")
    return Trained(model, state.history, defenses.Passes(*np.average(passes, axis=0, weights=lengths).tolist()))


def _train_until(end: int, model: defenses.Defense, run: Run, state: backup.State) -> backup.State:
    """Trains the epochs until `end`, or what is left of the one that was interrupted; returns the new state."""
    splits, done, batches = run.splits, len(state.history), state.batches
    keeps_state = backup.Backup(
        run.out / "state", steps_per_epoch=splits.steps_per_epoch, state=state, save_every=run.save_every
    )
    try:
        with splits.readable():
            model.fit(
                _batches_after(done * splits.steps_per_epoch + batches, model, splits),
                validation_data=splits.validation,
                steps_per_epoch=splits.steps_per_epoch - batches,
                initial_epoch=done,
                epochs=done + 1 if batches else end,
                verbose=run.verbose if workers.is_chief(run.strategy) else 0,
                callbacks=_callbacks(model, run, keeps_state),
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


def _callbacks(model: defenses.Defense, run: Run, keeps_state: backup.Backup) -> list[keras.callbacks.Callback]:
    """Returns what happens after each epoch, in this order: each sees the logs of those before it."""
    recipe, splits, is_chief = run.recipe, run.splits, workers.is_chief(run.strategy)
    order = np.random.default_rng(recipe.seed).permutation(len(splits.labels("validation")))
    images, labels = splits.take("validation", order[: recipe.selection_images])
    last, batch_size = recipe.chosen_by == "last", batch_of_attacks(recipe, splits)
    scores = [] if last else [logs[recipe.chosen_by] for logs in keeps_state.state.history]
    validates = callbacks.RobustValidation(
        images,
        labels,
        recipe.selection.bound(epsilon=recipe.epsilon, norm=recipe.norm),
        path=run.out / "network.keras" if is_chief else None,
        monitor=None if last else recipe.chosen_by,
        best=max(scores, default=-1.0),
        batch_size=batch_size,
    )

    def stop_early(epoch: int, logs: Mapping[str, float]) -> None:
        model.stop_training |= has_ended(keeps_state.state.history, recipe)

    # NaN raises at once: no other callback gets to save weights that are not numbers.
    every: list[keras.callbacks.Callback] = [keras.callbacks.TerminateOnNaN(raise_error=True), validates]
    if callbacks.MaskingAlarm.can_ring(alarm_images(recipe, splits)):
        seen = slice(ALARM_IMAGES)
        options: dict[str, Any] = {"epsilon": recipe.epsilon, "action": recipe.masking_alarm, "batch_size": batch_size}
        every.append(callbacks.MaskingAlarm(images[seen], labels[seen], **options))
    if is_chief:
        every.append(keras.callbacks.TensorBoard(run.out / "logs", write_graph=False))
    return [*every, keeps_state, keras.callbacks.LambdaCallback(on_epoch_end=stop_early)]


def _batches_after(count: int, model: defenses.Defense, splits: Splits) -> Any:
    """Returns the endless training batches after `count` batches, of which a defense may take each several times.

    Of several workers each reads the images of its own replicas alone.
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
    """Returns the number of validation images that the masking alarm looks at, 0 where it is not used."""
    if recipe.masking_alarm is None or recipe.norm not in callbacks.MaskingAlarm.NORMS:
        return 0
    return min(len(splits.labels("validation")), recipe.selection_images, ALARM_IMAGES)


def has_ended(history: History, recipe: Recipe) -> bool:
    """Returns whether training is over before its last epoch: the alarm rang, or patience is at its end."""
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
