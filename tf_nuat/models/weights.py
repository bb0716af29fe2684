"""Copies networks, and copies weights between networks of the same layers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tf_nuat.core import files, keras_compat


def copy(network: keras.Model, to: keras.Model) -> None:
    """Gives `to` all weights of `network`, whose layers are the same."""
    assign(to, network.get_weights())


def assign(network: keras.Model, arrays: Sequence[np.ndarray]) -> None:
    """Gives `network` the weights `arrays`, in the order of `get_weights`."""
    network.set_weights(arrays)
    for layer in layers_of(network):
        keras_compat.renew_constants(layer)


def clone(network: keras.Model, changed: Callable[[keras.Layer, dict[str, Any]], dict[str, Any]]) -> keras.Model:
    """Returns a network of the same layers with new weights, each with the configuration `changed(layer, config)`.

    Raises:
        ValueError: the network cannot be cloned.
    """

    def clone_of(layer: keras.Layer) -> keras.Layer:
        return layer.__class__.from_config(changed(layer, layer.get_config()))

    try:
        return keras.models.clone_model(network, clone_function=clone_of, recursive=True)
    except Exception as error:  # whatever a layer of the user's own raises
        raise ValueError(
            f"the network cannot be cloned ({files.reason(error)}); allowed: one of Keras's functional or "
            "sequential kind"
        ) from error


def layers_of(network: keras.Model) -> Iterator[keras.Layer]:
    """Returns the layers of a network that compute; networks within it are replaced by their layers."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def trainable(network: keras.Model) -> tuple[bool, ...]:
    """Returns whether the network, and each layer and network within it, is trainable."""
    return tuple(layer.trainable for layer in _with_networks(network))


def set_trainable(network: keras.Model, flags: Sequence[bool]) -> None:
    """Sets the flags that `trainable` has returned for a network of the same layers."""
    for layer, flag in zip(_with_networks(network), flags):  # a network comes before its layers: it sets their flags
        layer.trainable = flag


def _with_networks(network: keras.Model) -> Iterator[keras.Layer]:
    yield network
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _with_networks(layer)
        else:
            yield layer
