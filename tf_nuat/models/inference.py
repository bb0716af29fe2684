"""The logits of a network in inference mode, as attacks and evaluations see them, and functions compiled for it."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from tf_nuat.models import precision
from tf_nuat.models.lifetime import made_once

Logits: TypeAlias = Any  # a `keras.Model` or a function: images (B, H, W, C) -> logits (B, K)


def compiled_for(logits_fn: Logits, function: Callable[..., Any], shape: Hashable = None) -> Callable[..., Any]:
    """Returns `function(logits_fn, ...)`, compiled, as a function of the other arguments.

    It is compiled once for each network and shape of images: otherwise TensorFlow would generalize over shapes.
    """
    return made_once(
        logits_fn,
        (function, shape),
        lambda: tf.function(functools.partial(function, logits_fn), autograph=False, reduce_retracing=True),
    )


def inference(logits_fn: Logits) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the logits of a network in inference mode: BatchNorm uses its moving statistics and keeps them.

    If the network computes in float16, gradients with respect to the images are scaled: see `_scaled`.
    """
    if not isinstance(logits_fn, keras.Model):
        return logits_fn
    network = functools.partial(logits_fn, training=False)
    return _scaled(network) if precision.computes_in_float16(logits_fn) else network


def graph_of(logits_fn: Logits) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns `inference` of a network, traced only once for all functions of batches of any size.

    Tracing a network takes longer than tracing an attack, and each attack would trace it several times. Batches of a
    fixed size keep that size, and trace the network as `inference` does. A function of images is returned as it is.
    """
    if not isinstance(logits_fn, keras.Model):
        return logits_fn
    direct, shape = inference(logits_fn), (None, *logits_fn.input_shape[1:])
    signature = (tf.TensorSpec(shape, tf.float32),)
    graph = made_once(logits_fn, graph_of, lambda: tf.function(direct, input_signature=signature, autograph=False))
    return lambda x: graph(x) if tf.is_symbolic_tensor(x) and x.shape.as_list() == list(shape) else direct(x)


LARGEST_SCALED = 256.0  # far from float16's largest and smallest numbers


def _scaled(network: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns `network`, with gradients scaled up while they pass through it, so that float16 does not round them to 0.

    The gradient of an image's loss with respect to its logits is scaled to about `LARGEST_SCALED`, and the gradient
    with respect to the image is scaled back: by powers of 2, which change no digit. The gradient may be tiny, for
    instance if the network is sure of the image. A gradient of 0 has no sign, and would end the attack.
    """

    @tf.custom_gradient
    def logits(x: tf.Tensor) -> Any:
        # Persistent, since whoever asks for the gradient of each logit, as FAB does, goes backward several times.
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x)
            outputs = network(x)

        def backward(upstream: tf.Tensor, variables: Any = ()) -> Any:
            largest = tf.reduce_max(tf.abs(tf.cast(upstream, tf.float32)), axis=-1, keepdims=True)
            exponent = tf.math.floor(tf.math.log(LARGEST_SCALED / tf.maximum(largest, _SMALLEST)) / tf.math.log(2.0))
            scale = tf.pow(2.0, exponent)  # in float32: float16 ends at 2 ** 16
            scaled = tf.cast(tf.cast(upstream, tf.float32) * scale, upstream.dtype)
            gradient = tape.gradient(outputs, x, scaled, unconnected_gradients="zero")
            return gradient / tf.cast(scale[:, :, None, None], gradient.dtype), [None for _ in variables]

        return outputs, backward

    return logits


_SMALLEST = 1e-30  # of a gradient that is scaled
