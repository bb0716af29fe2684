"""Keras's list of callbacks, but the host waits for the device less often, and the last epoch may be shorter."""

from collections.abc import Sequence
from typing import Any

import keras


class CallbackList(keras.callbacks.CallbackList):
    """Calls `on_train_batch_end` after every `EVERY`-th batch of an epoch and after the last.

    With TensorFlow, Keras converts the logs of a batch to Python numbers before it calls a callback, and so waits for
    the step to end: a GPU is then idle until the host begins the next step. The logs are means over the epoch so far,
    so a NaN loss stays in them. A callback that must see every batch has `on_train_batch_begin`.

    A shorter last epoch belongs to the same `fit`, because ending one and beginning another takes seconds.

    Args:
        *arguments, **options: those of `keras.callbacks.CallbackList`.
        lengths: batches of each epoch: `steps_per_epoch` of `fit`, and perhaps fewer in the last.
    """

    EVERY = 20

    def __init__(self, *arguments: Any, lengths: Sequence[int], **options: Any) -> None:
        super().__init__(*arguments, steps=lengths[0], **options)
        self.lengths = list(lengths)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.params["steps"] = self.lengths.pop(0)  # callbacks read it, too
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        is_last = batch + 1 == self.params["steps"]
        if is_last or (batch + 1) % self.EVERY == 0:
            super().on_train_batch_end(batch, logs)
        if is_last and not self.lengths:
            self.model.stop_training = True  # `fit` goes on to the validation, and ends after it
