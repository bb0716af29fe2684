"""Runs that are killed, and what a run that goes on has to end with."""

import keras
import numpy as np
import pytest

from tf_nuat import training
from tf_nuat.training import backup

EVERY_BATCH = 0  # seconds between checkpoints


def run(recipe, out, **options):
    """Returns the card of a quiet run on one device."""
    return training.run(recipe, out, strategy="one", verbose=0, **options)


def killed(monkeypatch, recipe, out, *, batch=None, epoch=None, **options):
    """Runs `recipe` until it has trained so many batches in all, or saved so many epochs."""
    seen = {"batches": 0}

    def dying(whole, is_time):
        def method(self, number, logs=None):
            whole(self, number, logs)
            if is_time(number):
                raise KeyboardInterrupt

        return method

    def is_batch(number):
        seen["batches"] += 1
        return seen["batches"] - 1 == batch  # one more begins

    with monkeypatch.context() as patch:
        whole = backup.Backup.on_train_batch_begin
        patch.setattr(backup.Backup, "on_train_batch_begin", dying(whole, is_batch))
        whole = backup.Backup.on_epoch_end
        patch.setattr(backup.Backup, "on_epoch_end", dying(whole, lambda number: number + 1 == epoch))
        with pytest.raises(KeyboardInterrupt):
            run(recipe, out, **options)
    assert not (out / "card.json").exists()


def assert_same_run(folder, card, other_folder, other_card, *, metrics=0.0):
    """Two runs ended with the same bits: the networks of the last and of the best epoch, and all that was measured.

    The metrics of an epoch may differ by the share `metrics`.
    """
    assert card.measured == other_card.measured and card.epoch_chosen == other_card.epoch_chosen
    assert len(card.history) == len(other_card.history)
    for ours, theirs in zip(card.history, other_card.history):
        assert {**ours, "seconds": 0} == pytest.approx({**theirs, "seconds": 0}, rel=metrics, abs=0.0)
    for name in ("last.keras", "network.keras"):
        ours, theirs = (keras.saving.load_model(each / name, compile=False) for each in (folder, other_folder))
        for one, other in zip(ours.get_weights(), theirs.get_weights()):
            np.testing.assert_array_equal(one, other, err_msg=name)
    assert not (folder / "state").exists()
