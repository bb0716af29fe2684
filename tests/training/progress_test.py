"""The line of an epoch: what it says, and that it fits 80 columns; logs that cannot be written."""

import keras
import numpy as np
import pytest

from tf_nuat.core import files
from tf_nuat.training import progress


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (48, "48 s"), (100, "2 min"), (720, "12 min"), (12_000, "3.33 h")]
)
def test_a_duration_has_a_unit_that_fits(seconds, text):
    assert progress.duration(seconds) == text


def test_a_line_says_what_was_measured_and_the_time_left():
    logs = {"loss": 0.31234, "accuracy": 0.9, "val_accuracy": 0.975, "val_robust_accuracy": 0.8472, "val_loss": 0.2}
    assert progress.line(3, 10, logs, 60, 420) == (
        "epoch  3/10  loss 0.312  clean 97.5%  robust 84.7%  60 s  7 min left"
    )
    assert progress.line(10, 10, {"loss": 1.0}, 60, 0) == "epoch 10/10  loss 1  60 s"


def test_the_longest_line_fits_80_columns():
    logs = {"loss": 1.23456e-5, "val_accuracy": 1.0, "val_robust_accuracy": 1.0}
    assert len(progress.line(1, 120, logs, 12_000, 1_428_000)) <= 80


def test_the_time_left_is_that_of_the_batches_and_validations_to_come(monkeypatch, capsys):
    """Of 100, 100 and 3 batches at 0.1 s, each epoch with 20 s of validation."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = progress.EpochLines([100, 100, 3])

    def train(epoch, batches):
        lines.set_params({"steps": batches})
        lines.on_epoch_begin(epoch)
        for batch in range(batches):
            now[0] += 0.1
            lines.on_train_batch_end(batch)
        now[0] += 20.0
        lines.on_epoch_end(epoch)
        return capsys.readouterr().out.strip()

    lines.on_train_begin()
    assert train(0, 100).endswith("30 s  50 s left")
    assert train(1, 100).endswith("30 s  20 s left") and "left" not in train(2, 3)
    lines.on_train_begin()  # goes on from within the second epoch
    assert train(1, 50).endswith("25 s  20 s left")


def test_logs_that_cannot_be_written_are_named_in_a_line(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file where the folder of the logs would be")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    logs = progress.TensorBoard(taken / "logs", write_graph=False)
    with pytest.raises(
        files.NotSavedError, match="taken/logs cannot be written .*; what was saved before is kept"
    ) as seen:
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[logs])
    assert "\n" not in str(seen.value)
