"""Shows the progress of a run: a line per epoch, within 80 columns, a bar on a terminal, and logs for TensorBoard."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf
from tqdm import tqdm

from tf_nuat.core import files


class TensorBoard(keras.callbacks.TensorBoard):
    """Writes logs for TensorBoard; if that fails, on a full disk for instance, training ends with a one-line error.

    Raises:
        NotSavedError: the folder cannot be written.
    """

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        with self._writing():
            super().on_train_begin(logs)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        with self._writing():
            super().on_test_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        with self._writing():
            super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        with self._writing():
            super().on_train_end(logs)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise files.not_saved(self.log_dir, error) from error


class EpochLines(keras.callbacks.Callback):
    """Prints a line after each epoch: loss, accuracies on the validation split, seconds, and the time left.

    Put it after the callbacks that measure: it shows their logs. On a terminal, a bar shows the batches of the epoch.

    Args:
        lengths: batches of each epoch of the whole run; the last epoch of a stage may have fewer.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__()
        self.lengths = list(lengths)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.training = self.validating = 0.0  # seconds
        self.batches = self.epochs = 0  # trained in that time

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.begun = time.monotonic()
        title = f"epoch {epoch + 1}/{len(self.lengths)}"
        steps = self.params["steps"]
        self.bar = tqdm(total=steps, desc=title, unit="batch", leave=False, disable=not sys.stderr.isatty())

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.bar.update(batch - self.bar.n)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.trained = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.bar.close()
        self.training += self.trained - self.begun
        self.validating += time.monotonic() - self.trained
        self.batches, self.epochs = self.batches + self.params["steps"], self.epochs + 1
        to_come = self.lengths[epoch + 1 :]
        left = sum(to_come) * self.training / self.batches + len(to_come) * self.validating / self.epochs
        seconds = (self.training + self.validating) / self.epochs
        print(line(epoch + 1, len(self.lengths), logs or {}, seconds, left), flush=True)


def line(epoch: int, epochs: int, logs: dict[str, float], seconds: float, left: float) -> str:
    """Returns the line of an epoch.

    Args:
        epoch: number of the epoch, from 1.
        epochs: number of epochs of the whole run.
        logs: what was measured, as Keras passes it to callbacks.
        seconds: time of an epoch, validation included.
        left: seconds until the last one ends.
    """
    cells = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}", f"loss {logs.get('loss', float('nan')):.3g}"]
    for title, name in (("clean", "val_accuracy"), ("robust", "val_robust_accuracy")):
        if name in logs:
            cells.append(f"{title} {logs[name]:.1%}")
    cells.append(duration(seconds))
    if epoch < epochs:
        cells.append(f"{duration(left)} left")
    return "  ".join(cells)


def duration(seconds: float) -> str:
    """Returns a time in the largest unit that is small enough to be exact: "48 s", "12 min", "3.33 h".

    >>> from tf_nuat.training.progress import duration
    >>> duration(12_000)
    '3.33 h'
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3600:.3g} h"
