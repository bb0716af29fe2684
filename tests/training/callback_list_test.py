"""The callbacks of a run leave the device at work: most batches pass without a look at their numbers."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers.killed import EVERY_BATCH, run
from tests.training.backup_test import RECIPE
from tf_nuat import training
from tf_nuat.training import ScheduleSpec, backup, epochs


class Loss:
    """The loss of a batch, which notes that it was read."""

    def __init__(self, value=1.0):
        self.value, self.is_read = value, False

    def __float__(self):
        self.is_read = True
        return self.value


@pytest.fixture
def callbacks(tmp_path):
    """The callbacks of a run, as `fit` calls them, within an epoch of 45 batches."""
    recipe = dataclasses.replace(RECIPE, masking_alarm="warn", batch_size=28)
    splits = tf_nuat.data.load("digits", batch_size=recipe.batch_size)
    assert splits.steps_per_epoch == 45
    model = training.build(recipe, splits)
    model.build_state()
    run = epochs.Run(recipe, splits, tmp_path, tf.distribute.get_strategy(), 600.0, "auto")
    found = epochs._callbacks(model, run, backup.Backup(tmp_path / "state", lengths=run.lengths), [45, 12])
    found.on_train_begin()
    found.on_epoch_begin(0)
    return found


def test_the_numbers_of_every_20th_batch_and_of_the_last_are_read(callbacks):
    losses = [Loss() for _ in range(45)]
    for number, loss in enumerate(losses):
        callbacks.on_train_batch_begin(number)
        callbacks.on_train_batch_end(number, {"loss": loss})
    assert [number for number, loss in enumerate(losses, start=1) if loss.is_read] == [20, 40, 45]


def test_a_loss_that_is_no_number_stops_training_with_the_last_batch_of_an_epoch(callbacks):
    callbacks.on_train_batch_end(43, {"loss": Loss(math.nan)})
    with pytest.raises(RuntimeError, match="NaN or Inf loss"):
        callbacks.on_train_batch_end(44, {"loss": Loss(math.nan)})


def test_a_shorter_last_epoch_ends_training_with_its_last_batch(callbacks):
    model = callbacks.model
    model.stop_training = False
    for number in range(45):
        callbacks.on_train_batch_end(number, {"loss": Loss()})
    callbacks.on_epoch_begin(1)
    assert {each.params["steps"] for each in callbacks.callbacks} == {12}
    losses = [Loss() for _ in range(12)]
    for number, loss in enumerate(losses):
        assert not model.stop_training
        callbacks.on_train_batch_end(number, {"loss": loss})
    assert model.stop_training and losses[-1].is_read


def test_what_is_not_finite_is_not_saved_within_an_epoch(tmp_path):
    """The learning rate jumps to 1e8 after the first epoch; the state is saved after each batch."""
    recipe = dataclasses.replace(RECIPE, learning_rate=ScheduleSpec("divide", start=0.05, factor=5e-10, epochs=[1]))
    with pytest.raises(FloatingPointError, match="NaN or infinite in epoch 2"):
        run(recipe, tmp_path, save_every=EVERY_BATCH)
    state = backup.restored(tmp_path / "state", None)
    assert len(state.history) == 1 and all(np.isfinite(array).all() for array in state.arrays)
