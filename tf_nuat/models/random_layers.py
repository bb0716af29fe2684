"""Layers that draw random numbers in training: augmentation at the beginning of a network, and others within it.

Augmentation belongs before the attack: the attack begins at the augmented image, and the clean and adversarial images
of a step have the same augmentation. A training step calls these layers once, and then bypasses them.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_nuat.core import keras_compat
from tf_nuat.models import weights

# Each replica is traced in a thread of its own, and a context variable belongs to a thread.
_augmented: contextvars.ContextVar[bool] = contextvars.ContextVar("augmented", default=False)
# Their outputs are no images: pixels are 0, or scaled beyond 1.
_DROPOUT = (keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.AlphaDropout)


def augmentation(network: keras.Model) -> list[keras.Layer]:
    """Returns the layers, from the first on, that change images at random in training and do nothing else."""
    return _augmentation(network)[0]


def within(network: keras.Model) -> list[keras.Layer]:
    """Returns the other layers that draw random numbers in training: dropout, mostly."""
    first = augmentation(network)
    return [layer for layer in weights.layers_of(network) if states(layer) and layer not in first]


def states(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the variables from which a layer draws its random numbers."""
    kept = {id(weight) for weight in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in kept]


def augmented(network: keras.Model, x: tf.Tensor) -> tf.Tensor:
    """Returns images x (B, H, W, C) behind the network's augmentation, in [0, 1] and float32; x where it has none."""
    layers = augmentation(network)
    if not layers:
        return x
    for layer in layers:
        x = layer(x, training=True)
    return tf.clip_by_value(tf.cast(x, tf.float32), 0.0, 1.0)


def prepare(network: keras.Model) -> None:
    """Makes the augmentation of a network return its inputs within `past_augmentation`."""
    for layer in augmentation(network):
        keras_compat.return_inputs_while(layer, _augmented.get)


@contextlib.contextmanager
def past_augmentation() -> Iterator[None]:
    """A context in which a prepared network bypasses its augmentation: its images are augmented already."""
    token = _augmented.set(True)
    try:
        yield
    finally:
        _augmented.reset(token)


def of_augmented_images(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a method that takes images that are augmented already: see `past_augmentation`."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with past_augmentation():
            return function(*arguments, **options)

    return wrapped


def _augmentation(network: keras.Model) -> tuple[list[keras.Layer], bool]:
    """Returns the layers of `augmentation`, and whether the network has no others."""
    found: list[keras.Layer] = []
    for layer in keras_compat.first_operations(network):
        if isinstance(layer, keras.Model):
            inner, is_all = _augmentation(layer)
            found += inner
            if not is_all:
                return found, False
        elif _changes_images(layer, network.input_shape):
            found.append(layer)
        else:
            return found, False
    return found, True


def _changes_images(layer: keras.Operation, shape: tuple[int | None, ...]) -> bool:
    if not isinstance(layer, keras.Layer) or isinstance(layer, _DROPOUT) or not states(layer):
        return False
    return tuple(layer.compute_output_shape(shape)) == tuple(shape)  # not that of a crop
