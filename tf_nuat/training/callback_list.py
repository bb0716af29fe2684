"""Keras's list of callbacks: the host waits for the device after some batches only, and an epoch may be shorter."""

from collections.abc import Sequence
from typing import Any

import keras


class CallbackList(keras.callbacks.CallbackList):
    """Calls `on_train_batch_end` after every `EVERY`-th batch of an epoch and after the last.

    With TensorFlow, Keras makes Python numbers of the logs of a batch before it calls a callback, and so waits for the
    step to end: a GPU then has nothing to do until the host has begun the next. The logs are means over the epoch so
    far, in which a loss that is not a number stays. What has to see every batch has `on_train_batch_begin`.

    A last epoch that is shorter belongs to the same `fit`: to end one and begin another takes seconds.

    Args:
        *arguments, **options: those of `keras.callbacks.CallbackList`.
        lengths: batches of each epoch: `steps_per_epoch` of `fit`, and perhaps fewer in the last.
    """

    EVERY = 20

    def __init__(self, *arguments: Any, lengths: Sequence[int], **options: Any) -> None:
        super().__init__(*arguments, steps=lengths[0], **options)
        self.lengths = list(lengths)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.params["steps"] = self.lengths.pop(0)  # what the callbacks see, too
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        is_last = batch + 1 == self.params["steps"]
        if is_last or (batch + 1) % self.EVERY == 0:
            super().on_train_batch_end(batch, logs)
        if is_last and not self.lengths:
            self.model.stop_training = True  # `fit` goes on to the validation, and ends after it
