"""Classifiers as their owners have them: small networks with the weights of one training, each with its pipeline.

Every network here computes the logits of `body` for images in [0, 1], once its owner's pipeline has prepared them. What
differs is what it takes, what it ends in, and how it is kept.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.helpers import small

TESTED = 100  # images that owner and adapted network answer
GREY, COLOUR = (8, 8, 1), (8, 8, 3)


@dataclasses.dataclass(frozen=True)
class Owned:
    """A classifier and what its owner knows of it.

    Attributes:
        given: the model, or the path of its file.
        classes: images in [0, 1] -> the classes that the owner's pipeline predicts.
        logits: the same images, a tensor -> the logits before the original's softmax; None where it has none.
        said: words that the changes contain, one text for each change, in order.
        options: of `adapt`.
        colour: whether the images have three channels.
        is_stock: whether the adapted network consists of stock layers, which load in safe mode.
        has_offset: whether logits may differ by one number for each image, as logarithms of probabilities do.
    """

    given: keras.Model | pathlib.Path
    classes: Callable[[np.ndarray], np.ndarray]
    logits: Callable[[tf.Tensor], tf.Tensor] | None = None
    said: Sequence[str] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    colour: bool = False
    is_stock: bool = True
    has_offset: bool = False


@functools.cache
def images(colour: bool = False) -> np.ndarray:
    """Returns the test images, digits of grey or of three channels."""
    x, _ = small.digits().arrays("test")
    return coloured(x[:TESTED]) if colour else x[:TESTED]


def coloured(x: np.ndarray) -> np.ndarray:
    """Returns images with three channels that differ: an order of colours can be told from its reverse."""
    return np.concatenate([x, 0.5 * (1.0 - x), 0.25 * x**2], axis=-1)


def argmax(network: keras.Model, prepare: Callable = lambda x: x) -> Callable[[np.ndarray], np.ndarray]:
    """Returns images -> classes: of several outputs the highest, of one whether it exceeds a half."""

    def classes(x):
        scores = np.asarray(network(prepare(x), training=False))
        scores = scores.reshape(len(scores), -1)
        return scores.argmax(axis=1) if scores.shape[1] > 1 else np.int64(scores[:, 0] > 0.5)

    return classes


def owned(network: keras.Model, before: keras.Model, *said: str, prepare: Callable = lambda x: x, **more: Any) -> Owned:
    """Returns an `Owned` whose owner calls `network`, and whose logits are those of `before`, on prepared images."""
    more = {"given": network, "classes": argmax(network, prepare), **more}
    return Owned(logits=lambda x: before(prepare(x), training=False), said=said, **more)


@functools.cache
def trained(kind: str = "grey") -> list[np.ndarray]:
    """Returns the weights of `layers()` after training: on "grey" or "colour" digits, or whether they are "high"."""
    x, y = small.digits().arrays("train")
    x, y = (coloured(x) if kind == "colour" else x), (np.int64(y >= 5) if kind == "high" else y)
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input(x.shape[1:]), *layers(colour=kind == "colour")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss, steps_per_execution=small.EPOCH)
    network.fit(x, y, epochs=4, batch_size=32, verbose=0)
    return network.get_weights()


def layers(activation: Any = None, *, colour: bool = False, classes: int = 10) -> list[keras.Layer]:
    """Returns the layers of the network that is trained, from images to logits or to their `activation`."""
    if colour:
        body = [
            keras.layers.Conv2D(8, 3, name="convolution"),
            keras.layers.BatchNormalization(name="normalization"),
            keras.layers.ReLU(name="relu"),
        ]
        return [*body, keras.layers.Flatten(name="flat"), keras.layers.Dense(classes, activation, name="classes")]
    hidden = keras.layers.Dense(32, activation="relu", name="hidden")
    return [keras.layers.Flatten(name="flat"), hidden, keras.layers.Dense(classes, activation, name="classes")]


def built(
    parts: Sequence[Callable],
    weights: Sequence[np.ndarray] | None = None,
    *,
    shape: Sequence[int] = GREY,
    **options: Any,
) -> keras.Model:
    """Returns a functional network of layers, or functions, with the weights of the grey training or others."""
    inputs = x = keras.Input(tuple(shape), **options)
    for part in parts:
        x = part(x)
    network = keras.Model(inputs, x)
    network.set_weights(trained() if weights is None else weights)
    return network


def body(*, scale: Any = 1.0, offset: Any = 0.0, colour: bool = False, reverse: bool = False) -> keras.Model:
    """Returns the network from `scale` * image + `offset` to the logits; `reverse` exchanges red and blue before."""
    first, bias, *others = trained("colour" if colour else "grey")
    if colour:
        first = first[:, :, ::-1] if reverse else first
        first = first / np.broadcast_to(scale, 3)[:, None]
        bias = bias - np.sum(first * np.broadcast_to(offset, 3)[:, None], axis=(0, 1, 2))
    else:
        first = first / scale
        bias = bias - offset * first.sum(axis=0)
    return built(layers(colour=colour), [first, bias, *others], shape=COLOUR if colour else GREY)


def behind(network: keras.Model, *parts: Callable) -> keras.Model:
    """Returns the network with layers, or functions, behind it."""
    x = network.output
    for part in parts:
        x = part(x)
    return keras.Model(network.input, x)


def in_front(network: keras.Model, *parts: Callable, shape: Sequence[int], **options: Any) -> keras.Model:
    """Returns the network with layers, or functions, in front of it."""
    inputs = x = keras.Input(tuple(shape), **options)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, network(x))
