"""A run that is killed and started again ends with the bits of one that is not; damaged checkpoints are passed over."""

import dataclasses
import errno
import logging as python_logging
import os
import random

import keras
import numpy as np
import pytest

import tf_nuat
from tests.helpers import linear
from tests.helpers.killed import EVERY_BATCH, assert_same_run, killed, run
from tf_nuat import training
from tf_nuat.core import files
from tf_nuat.training import AttackSpec, ScheduleSpec, Stage, backup, building, checkpoints

RECIPE = training.Recipe(
    dataset="digits",
    network="tests.helpers.tiny:network",
    network_options={},
    defense="nuat",
    epsilon=0.1,
    epochs=2,
    batch_size=128,  # 9 batches an epoch
    learning_rate=ScheduleSpec("triangle", peak=0.05, up=1, down=1),
    selection=AttackSpec("fgsm"),
    selection_images=64,
    measures={},  # tests/training/training_test.py has runs that are killed while they measure
    test_images=60,
    masking_alarm=None,
)
CASES = {
    "nuat2_wa": {"defense_options": {"nuclear_weight": ScheduleSpec("ramp", peak=1.0, epochs=2)}},
    "nuat_h": {"defense_options": {"threshold": 1.0}},
    "elle_a": {"defense_options": {"sensitivity": 0.0}},
    "free_at": {"defense_options": {"replays": 4}},
    "eat": {"sources": ("two_conv",), "source_epochs": 1},
}


@pytest.mark.parametrize("defense", CASES)
def test_a_run_that_is_killed_within_an_epoch_ends_with_the_same_bits(defense, tmp_path, monkeypatch):
    """Weights, averages, momentum, schedules, hybrid state, perturbations, the order of the data and the metrics."""
    recipe = dataclasses.replace(RECIPE, defense=defense, **CASES[defense])
    expected = run(recipe, tmp_path / "whole")
    out = tmp_path / "killed"
    sources = 9 if recipe.sources else 0  # batches of the sources' training, which comes first
    killed(monkeypatch, recipe, out, batch=sources + 13, save_every=EVERY_BATCH)  # the 4th of the second epoch
    if defense == "free_at":  # a second time, in the epoch that goes on
        killed(monkeypatch, recipe, out, batch=2, save_every=EVERY_BATCH)
    assert backup.restored(out / "state", None).batches == (6 if defense == "free_at" else 4)
    assert_same_run(out, run(recipe, out), tmp_path / "whole", expected)


def test_a_run_that_is_killed_between_stages_goes_on_in_the_right_one(tmp_path, monkeypatch):
    """Four times: after the first stage, in the second, after it, and after the last, before it is measured.

    The passes of a stage are those of its own batches, and outlast a kill in the next. NuAT-H takes a second step in
    some batches, which its passes have to count. Ordinary training attacks nobody, FGSM-AT half of the images.
    """
    stages = (Stage("standard", 1), Stage("nuat_h", 2, {"threshold": 1.0}), Stage("fgsm_at", 1))
    rate = ScheduleSpec("triangle", peak=0.05, up=2, down=2)
    recipe = dataclasses.replace(RECIPE, epochs=4, schedule_epochs=4, learning_rate=rate)
    recipe = dataclasses.replace(recipe, defense="standard+nuat_h+fgsm_at", stages=stages)
    extra, passes = [], tf_nuat.NuATH.passes
    monkeypatch.setattr(
        tf_nuat.NuATH, "passes", lambda self, size: extra.append(self.extra_epochs) or passes(self, size)
    )
    expected = run(recipe, tmp_path / "whole")
    assert extra[0] > 0 and expected.passes["input_gradient"] == pytest.approx((2 + extra[0] + 0.5) / 4)
    for when in ({"epoch": 1}, {"batch": 2, "save_every": EVERY_BATCH}, {"epoch": 3}, {"epoch": 4}):
        killed(monkeypatch, recipe, tmp_path / "killed", **when)
    card = run(recipe, tmp_path / "killed")
    assert_same_run(tmp_path / "killed", card, tmp_path / "whole", expected)
    assert card.passes == pytest.approx(expected.passes) and len(extra) == 2


def test_a_network_with_dropout_and_batch_norm_resumes_exactly(tmp_path, monkeypatch):
    """Keras's own random state, moving statistics and the scale of the loss are part of the state.

    Random starts follow from the batch, whose number the scale must not hide.
    """

    def built(*_):
        keras.utils.set_random_seed(3)
        layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(16)]
        layers += [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Dense(10)]
        return keras.Sequential(layers)

    monkeypatch.setattr(building, "build_network", built)
    recipe = dataclasses.replace(RECIPE, defense="fbf", precision="mixed_float16")
    expected = run(recipe, tmp_path / "whole")
    killed(monkeypatch, recipe, tmp_path / "killed", batch=12, save_every=EVERY_BATCH)
    assert_same_run(tmp_path / "killed", run(recipe, tmp_path / "killed"), tmp_path / "whole", expected)


def test_a_full_disk_keeps_the_checkpoint_before_and_one_that_is_damaged_costs_no_more_than_itself(
    tmp_path, monkeypatch, caplog
):
    expected = run(RECIPE, tmp_path / "whole")
    out = tmp_path / "full"
    saved = []

    def fsync(descriptor):
        saved.append(descriptor)
        if len(saved) > 6:  # that of the recipe is the first
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        with pytest.raises(files.NotSavedError, match="batches-6.npz cannot be written .No space left") as raised:
            run(RECIPE, out, save_every=EVERY_BATCH)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in (out / "state").iterdir()) == [f"batches-{n}.npz" for n in (3, 4, 5)]
    newest = out / "state" / "batches-5.npz"
    newest.write_bytes(newest.read_bytes()[:-1000])
    with caplog.at_level(python_logging.WARNING):
        assert backup.restored(out / "state", None).batches == 4
        card = run(RECIPE, out)
    assert "batches-5.npz is damaged" in caplog.text
    assert_same_run(out, card, tmp_path / "whole", expected)


def test_a_checkpoint_of_another_network_is_refused(tmp_path, monkeypatch):
    killed(monkeypatch, RECIPE, tmp_path / "one", batch=1, save_every=EVERY_BATCH)
    (tmp_path / "other").mkdir()
    (tmp_path / "one" / "state").rename(tmp_path / "other" / "state")
    other = dataclasses.replace(RECIPE, network="two_conv")
    with pytest.raises(ValueError, match="the checkpoint has .* allowed: a checkpoint of the same recipe") as raised:
        run(other, tmp_path / "other")
    assert "\n" not in str(raised.value)


def test_a_ring_keeps_the_newest_and_reads_what_was_written(tmp_path):
    assert checkpoints.newest(tmp_path / "none") is None
    for number in (8, 9, 10, 11):
        checkpoints.save(tmp_path, number, [np.full(3, number), np.float32(0.5)], {"epoch": number})
    assert sorted(os.listdir(tmp_path)) == ["batches-10.npz", "batches-11.npz", "batches-9.npz"]
    arrays, facts = checkpoints.newest(tmp_path)
    assert facts == {"epoch": 11} and arrays[0].tolist() == [11, 11, 11] and arrays[1] == 0.5


def test_no_flipped_bit_and_no_cut_passes_for_the_checkpoint(tmp_path):
    """Whatever is wrong with the newest file, what comes back is its contents, or the one before it."""
    older, newer = [np.arange(50.0), np.int32(1)], [np.arange(50.0) + 1, np.int32(2)]
    checkpoints.save(tmp_path, 1, older, {"n": 1})
    checkpoints.save(tmp_path, 2, newer, {"n": 2})
    path = tmp_path / "batches-2.npz"
    whole = path.read_bytes()
    draws, outcomes = random.Random(0), []
    for _ in range(300):
        damaged = bytearray(whole)
        if draws.random() < 0.2:
            damaged = damaged[: draws.randrange(len(whole))]
        else:
            damaged[draws.randrange(len(whole))] ^= 1 << draws.randrange(8)
        path.write_bytes(damaged)
        arrays, facts = checkpoints.newest(tmp_path)
        expected = {1: older, 2: newer}[facts["n"]]
        assert all(np.array_equal(one, other) for one, other in zip(arrays, expected)) and len(arrays) == 2
        outcomes.append(facts["n"])
    assert 1 in outcomes and outcomes.count(1) > 200  # most flips are found; the others are in bytes that say nothing


def test_no_checkpoints_in_the_past(tmp_path):
    with pytest.raises(ValueError, match="save_every is -1; allowed: a number at least 0"):
        run(RECIPE, tmp_path, save_every=-1)


def test_the_seconds_of_an_epoch_go_on_where_it_is_resumed(tmp_path):
    splits = tf_nuat.data.load("digits", batch_size=128)
    state = backup.State([], batches=4, seconds=100.0)
    model = training.build(RECIPE, splits)
    model.build_state()
    state = state._replace(arrays=[np.asarray(each) for each in backup.state_of(model)])
    keeps = backup.Backup(tmp_path, lengths=[9], state=state)
    model.fit(splits.train_from(0, 4), steps_per_epoch=5, epochs=1, verbose=0, callbacks=[keeps])
    assert 100.0 < keeps.state.history[0]["seconds"] < 160.0


def test_the_end_of_an_epoch_is_saved_whatever_its_numbers(tmp_path):
    model = linear.compiled(tf_nuat.Standard)
    model.build_state()
    model.network.set_weights([np.full_like(weight, np.inf) for weight in model.network.get_weights()])
    keeps = backup.Backup(tmp_path, lengths=[2], save_every=EVERY_BATCH)
    keeps.set_model(model)
    keeps.on_train_begin()
    keeps.on_epoch_begin(0)
    keeps.on_train_batch_begin(1)
    assert backup.restored(tmp_path, None) == backup.State([])
    keeps.on_epoch_end(0, {"loss": 1.0})
    assert len(backup.restored(tmp_path, None).history) == 1
