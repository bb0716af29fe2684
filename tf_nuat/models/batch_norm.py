"""BatchNorm in one kernel, in 16 bits: Keras takes a dozen kernels in float32, between two casts.

A ResNet in bfloat16 spends most of its time in BatchNorm. In float32 there is little to gain on a CPU, and the kernel's
gradients are less exact.
"""

import types

import keras
import tensorflow as tf

from tf_nuat.models import weights


def fuse(network: keras.Model) -> None:
    """Makes BatchNorm layers that compute in 16 bits use one kernel of TensorFlow, with the same results as Keras.

    It changes nothing that is saved: the layers are Keras's own, and a network that is cloned or loaded computes as
    Keras does. It leaves out layers of a subclass, and those with options that the kernel does not have.
    """
    for layer in weights.layers_of(network):
        if type(layer) is keras.layers.BatchNormalization and _can_be_fused(layer):
            layer.call = types.MethodType(_call, layer)


def _can_be_fused(layer: keras.layers.BatchNormalization) -> bool:
    is_short = layer.compute_dtype in ("float16", "bfloat16")
    return is_short and layer.axis in (-1, 3) and not layer.synchronized and not layer.renorm


def _call(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    training: bool | None = None,
    mask: tf.Tensor | None = None,
) -> tf.Tensor:
    """The `call` of a layer that is fused, for batches of images; Keras's own `call` takes all else."""
    trains = training and layer.trainable
    if mask is not None or len(inputs.shape) != 4 or not (trains or _is_deterministic_in_inference()):
        return keras.layers.BatchNormalization.call(layer, inputs, training=training, mask=mask)
    mean, variance = tf.convert_to_tensor(layer.moving_mean), tf.convert_to_tensor(layer.moving_variance)
    scale = tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones_like(mean)
    offset = tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros_like(mean)
    given = {"scale": scale, "offset": offset, "epsilon": layer.epsilon}
    if not trains:
        return tf.compat.v1.nn.fused_batch_norm(inputs, mean=mean, variance=variance, is_training=False, **given)[0]
    outputs, batch_mean, unbiased = tf.compat.v1.nn.fused_batch_norm(inputs, is_training=True, **given)
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), unbiased.dtype)
    batch_variance = unbiased * (count - 1.0) / count  # Keras averages the biased one
    layer.moving_mean.assign(mean * layer.momentum + batch_mean * (1.0 - layer.momentum))
    layer.moving_variance.assign(variance * layer.momentum + batch_variance * (1.0 - layer.momentum))
    return outputs


def _is_deterministic_in_inference() -> bool:
    """Returns whether the gradient in inference is deterministic: on a GPU, TensorFlow raises if it has to be."""
    return not tf.config.list_physical_devices("GPU")
