"""Networks that compute in 16 bits: for training, and for the gradients of an attack.

Weights stay in float32, and so does the last layer, whose logits are compared with one another. An attack's gradients
may be coarse: what counts is whether the adversary fools the network itself, in float32.
"""

import functools
import os
import pathlib
from collections.abc import Callable

import keras
import tensorflow as tf

from tf_nuat.core import keras_compat, validation
from tf_nuat.models import batch_norm, weights
from tf_nuat.models.lifetime import made_once

PRECISIONS = ("auto", "float32", "bfloat16")  # of an attack's gradients
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")  # of training: names of Keras's dtype policies
LEAST_CAPABILITY = {"bfloat16": (8, 0), "float16": (7, 0)}  # compute capability of GPUs that multiply the type
CPU_FLAGS = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}  # as Linux names them


def attacked(network: Callable[..., tf.Tensor], precision: str) -> Callable[..., tf.Tensor]:
    """Returns the network for the gradients of an attack: `network`, or its twin in bfloat16 with equal weights.

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
        return computing_in(network, "mixed_bfloat16")
    except ValueError as error:
        if precision == "auto":
            return network
        raise ValueError(f"precision is 'bfloat16', and {error}; or float32") from error


def of_gradients(network: Callable[..., tf.Tensor], precision: str) -> str:
    """Returns the precision that `attacked` chooses, "float32" or "bfloat16"; arguments and errors are the same."""
    return "float32" if attacked(network, precision) is network else "bfloat16"


def computing_in(network: keras.Model, policy: str) -> keras.Model:
    """Returns the twin of `network` that computes in `policy`, one of `POLICIES`, with the current weights.

    Every call returns the same twin, and updates its weights. A network that already has that policy is returned as it
    is.

    Raises:
        ValueError: the network cannot be cloned.
    """
    if isinstance(network, keras.Model) and _has_policy(network, policy):
        return network
    twin = made_once(network, (computing_in, policy), lambda: _twin(network, policy))
    weights.copy(network, to=twin)
    return twin


def computes_in_float16(network: keras.Model) -> bool:
    """Returns whether a layer of the network computes in float16, where small gradients are 0."""
    return any(layer.compute_dtype == "float16" for layer in weights.layers_of(network))


def _last_layers(network: keras.Model) -> set[keras.Layer]:
    last = {keras_compat.operation_of(tensor) for tensor in keras.tree.flatten(getattr(network, "outputs", ()))}
    return set().union(*(_last_layers(layer) if isinstance(layer, keras.Model) else {layer} for layer in last))


def _has_policy(network: keras.Model, policy: str) -> bool:
    last = _last_layers(network)
    return all(_policy_of(layer, last, policy) == layer.dtype_policy.name for layer in weights.layers_of(network))


def _policy_of(layer: keras.Layer, last: set[keras.Layer], policy: str) -> str:
    return "float32" if layer in last else policy


def _twin(network: keras.Model, policy: str) -> keras.Model:
    last = _last_layers(network)
    twin = weights.clone(network, lambda layer, config: {**config, "dtype": _policy_of(layer, last, policy)})
    batch_norm.fuse(twin)
    return twin


LEAST_WORK = 100_000  # number of weights, below which other work takes most of the time


def pays(network: keras.Model) -> bool:
    """Returns whether bfloat16 is faster: the hardware multiplies it, and most of the time goes into products."""
    return multiplies("bfloat16") and network.count_params() >= LEAST_WORK


@functools.cache
def multiplies(dtype: str) -> bool:
    """Returns whether the hardware is known to multiply numbers of `dtype`: "float32", "bfloat16" or "float16".

    Other hardware converts each number to float32 and back, which takes several times as long as float32 alone.
    """
    if dtype == "float32":
        return True
    devices = tf.config.list_physical_devices("GPU")
    if devices:
        details = tf.config.experimental.get_device_details(devices[0])
        return details.get("compute_capability", (0, 0)) >= LEAST_CAPABILITY[dtype]
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    uses_them = os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"
    return uses_them and any(flag in flags.split() for flag in CPU_FLAGS[dtype])
