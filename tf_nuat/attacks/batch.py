"""Checks of what an attack is called with, against its network and its images."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import validation
from tf_nuat.models.inference import Logits
from tf_nuat.models.lifetime import made_once


def checked_batch(logits_fn: Logits, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns images and labels as attacks take them, and the number K of logits.

    Args:
        logits_fn, x, y: as for an attack that is called eagerly.

    Returns:
        images (B, H, W, C), labels, int64 (B,) or rows of probabilities (B, K), and K.

    Raises:
        ValueError: one of them is not valid.
    """
    if not callable(logits_fn):
        raise ValueError(f"logits_fn is a {type(logits_fn).__name__}; allowed: a keras.Model or a function of images")
    shape = None
    if isinstance(logits_fn, keras.Model):
        shape = validation.classifier("logits_fn", logits_fn).input_shape[1:]
    x = validation.images("x", x, input_shape=shape)
    num_classes = num_classes_of(logits_fn, x)
    return x, validation.labels("y", y, num_classes=num_classes, num_images=len(x)), num_classes


def num_classes_of(logits_fn: Logits, x: np.ndarray) -> int:
    """Returns the number K of logits of a network or function, for images like x (B, H, W, C).

    A function is traced once for each shape of images. If the trace does not tell K, the function runs on one image.

    Raises:
        ValueError: a function returns something else than logits (B, K) of at least 2 classes.
    """
    network = logits_fn.func if isinstance(logits_fn, functools.partial) else logits_fn  # as of `inference`
    if isinstance(network, keras.Model) and hasattr(network, "output_shape"):
        return network.output_shape[-1]

    def found() -> int:
        traced = tf.function(lambda images: logits_fn(images), autograph=False)
        logits = traced.get_concrete_function(tf.TensorSpec(x.shape, tf.float32)).structured_outputs
        if not tf.is_tensor(logits):
            raise ValueError(f"logits_fn returns a {type(logits).__name__}; allowed: a tensor of logits (B, K)")
        shape = logits.shape
        if shape.rank is None or shape[-1] is None:
            shape = logits_fn(tf.constant(x[:1], tf.float32)).shape
        if len(shape) != 2 or shape[-1] < 2:
            raise ValueError(
                f"logits_fn returns shape {tuple(shape)} for images of shape {x.shape}; allowed: logits (B, K) of at "
                "least 2 classes; tf.stack([tf.zeros_like(z), z], axis=1) are those of a sigmoid's single logit z (B,)"
            )
        return shape[-1]

    return made_once(logits_fn, (num_classes_of, x.shape[1:]), found)


def image_numbers(index: Any, num_images: int) -> np.ndarray:
    """Returns the numbers of the images (B,), on which their draws depend: `index`, or without it their places.

    Raises:
        ValueError: `index` has not one whole number for each image.
    """
    if index is None:
        return np.arange(num_images)
    numbers = validation.whole_numbers(np.asarray(index))
    if numbers is None or len(numbers) != num_images:
        refused = f"shape {np.shape(index)} and dtype {np.asarray(index).dtype}"
        raise ValueError(f"index has {refused}; allowed: whole numbers of shape ({num_images},), one for each image")
    return numbers


def check_surrogate(surrogate: Logits, x: np.ndarray, num_classes: int) -> None:
    """Raises a `ValueError` where a surrogate takes no images like x, or has another number of classes."""
    if isinstance(surrogate, keras.Model) and not validation.takes(surrogate.input_shape[1:], x.shape[1:]):
        takes = f"images of shape {surrogate.input_shape[1:]}"
        raise ValueError(f"surrogate takes {takes}; allowed: that of the network's images, {tuple(x.shape[1:])}")
    others = num_classes_of(surrogate, x)
    if others != num_classes:
        raise ValueError(f"surrogate has {others} classes; allowed: those of the network, {num_classes}")


def start_images(start: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Returns `start` as images of this shape (B, H, W, C), float32; raises a `ValueError` where it is none."""
    start = np.asarray(start, np.float32)
    if start.shape != shape:
        raise ValueError(f"start has shape {start.shape}; allowed: that of x, {shape}")
    if not np.all(np.isfinite(start)):
        raise ValueError("start has values that are not finite; allowed: images")
    return start
