"""Keras's list of callbacks, which has the host wait for the device after some batches, not after each."""

from typing import Any

import keras


class CallbackList(keras.callbacks.CallbackList):
    """Calls `on_train_batch_end` after every `EVERY`-th batch of an epoch and after the last.

    With TensorFlow, Keras makes Python numbers of the logs of a batch before it calls a callback, and so waits for the
    step to end: a GPU then has nothing to do until the host has begun the next. The logs are means over the epoch so
    far, in which a loss that is not a number stays. What has to see every batch has `on_train_batch_begin`.

    Args:
        *arguments, **options: those of `keras.callbacks.CallbackList`, `steps` among them.
    """

    EVERY = 20

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if (batch + 1) % self.EVERY == 0 or batch + 1 == self.params["steps"]:
            super().on_train_batch_end(batch, logs)
