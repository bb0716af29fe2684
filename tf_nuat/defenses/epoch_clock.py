"""Tells a model when the epochs of `fit` begin and end, by a callback in front of the caller's own."""

import contextlib
import typing
from collections.abc import Iterator

import keras

if typing.TYPE_CHECKING:
    from tf_nuat.defenses.network_model import NetworkModel


@contextlib.contextmanager
def with_clock(callbacks: typing.Any, model: "NetworkModel") -> Iterator[typing.Any]:
    """A context with the callbacks of `fit`, preceded by one that tells `model` of its epochs.

    At the end, that one is removed from a `keras.callbacks.CallbackList`: the list may serve another `fit`.
    """
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: model.on_epoch_begin(epoch),
        on_epoch_end=lambda epoch, logs: model.on_epoch_end(),
    )
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        yield [clock, *keras.tree.flatten(callbacks or [])]
        return
    clock.set_model(model)
    callbacks.callbacks.insert(0, clock)
    try:
        yield callbacks
    finally:
        callbacks.callbacks.remove(clock)
