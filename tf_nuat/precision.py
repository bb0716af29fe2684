"""A network's twin in bfloat16, whose gradients are computed several times as fast where the hardware multiplies it.

An attack's gradients may be coarse: what counts is whether the adversary fools the network itself, in float32.
"""

import functools
import os
import pathlib

import keras
import tensorflow as tf

from tf_nuat import validation

PRECISIONS = ("auto", "float32", "bfloat16")


def attacked(network, precision):
    """Returns what to take the gradients of an attack on: `network`, or its twin in bfloat16, whose weights are equal.

    Args:
        network: a `keras.Model`, or any function, which has no twin.
        precision: "float32", "bfloat16", or "auto": bfloat16 where it is likely to pay, see `pays`.

    Raises:
        ValueError: `precision` is none of these, or it is "bfloat16" and the network cannot be cloned.
    """
    validation.one_of("precision", precision, PRECISIONS)
    if precision == "float32" or (precision == "auto" and not (isinstance(network, keras.Model) and pays(network))):
        return network
    try:
        twin = _twin(network)
    except Exception as error:  # whatever a layer of the user's own raises
        if precision == "auto":
            return network
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise ValueError(
            f"precision is 'bfloat16', and the network cannot be cloned ({reason}); allowed: float32, or a network of "
            "Keras's functional or sequential kind"
        ) from error
    twin.set_weights(network.get_weights())
    return twin


@functools.lru_cache(maxsize=4)
def _twin(network):
    last = {tensor._keras_history.operation for tensor in keras.tree.flatten(network.outputs)}

    def clone(layer):
        config = layer.get_config()
        # The last layer's logits are compared with one another, for which bfloat16 has too few digits.
        config["dtype"] = "float32" if layer in last else "mixed_bfloat16"
        return layer.__class__.from_config(config)

    return keras.models.clone_model(network, clone_function=clone, recursive=True)


LEAST_WORK = 100_000  # weights, below which the time goes elsewhere


def pays(network):
    """Returns whether bfloat16 is faster: the hardware multiplies it, and most of the time goes into products."""
    return _hardware_multiplies() and network.count_params() >= LEAST_WORK


@functools.cache
def _hardware_multiplies():
    devices = tf.config.list_physical_devices("GPU")
    if devices:
        details = tf.config.experimental.get_device_details(devices[0])
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0" and ("avx512_bf16" in flags or "amx_bf16" in flags)
