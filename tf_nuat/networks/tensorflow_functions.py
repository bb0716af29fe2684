"""Functions of TensorFlow that Keras 2 kept in functional networks as layers, `TFOpLambda` and `SlicingOpLambda`.

A network is read with a `TensorFlowFunction` in place of each. `inlined` then replaces these by operations of Keras,
which any Keras 3 loads.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tf_nuat.core import keras_compat

CLASSES = ("TFOpLambda", "SlicingOpLambda")

CONSTANT = "first"  # keyword for a first argument that is not a tensor
ELLIPSIS = "..."  # in a slice

ops = keras.ops


def _getitem(tensor: Any, slice_spec: Any) -> Any:
    spec = slice_spec if isinstance(slice_spec, (list, tuple)) else [slice_spec]
    parts = [slice(each["start"], each["stop"], each["step"]) if isinstance(each, dict) else each for each in spec]
    if ELLIPSIS in parts:
        place = parts.index(ELLIPSIS)
        parts[place : place + 1] = [slice(None)] * (len(tensor.shape) - len(parts) + 1)
    return tensor[tuple(parts)]


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis=None, keepdims=False: function(x, axis=axis, keepdims=keepdims)


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of two operands, of which one may be a list of constants."""

    def of_operands(x: Any, y: Any) -> Any:
        return function(*(np.asarray(each, "float32") if isinstance(each, list) else each for each in (x, y)))

    return of_operands


def _silu(x: Any, beta: float = 1.0) -> Any:
    return x * ops.sigmoid(beta * x)


def _resized(x: Any, size: Any, method: str = "bilinear", antialias: bool = False, **others: Any) -> Any:
    if any(others.values()):
        raise ValueError(f"tf.image.resize with {others}; allowed: size, method and antialias")
    return ops.image.resize(x, tuple(size), interpolation=method, antialias=antialias)


# By the names that TensorFlow exports them under, with TensorFlow's keywords.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "__operators__.add": _arithmetic(ops.add),
    "__operators__.getitem": _getitem,
    "cast": lambda x, dtype: ops.cast(x, dtype),
    "clip_by_value": lambda x, clip_value_min, clip_value_max: ops.clip(x, clip_value_min, clip_value_max),
    "concat": lambda values, axis: ops.concatenate(values, axis=axis),
    "expand_dims": lambda x, axis: ops.expand_dims(x, axis),
    "identity": lambda x: x,
    "image.resize": _resized,
    "math.abs": ops.abs,
    "math.add": _arithmetic(ops.add),
    "math.divide": _arithmetic(ops.divide),
    "math.exp": ops.exp,
    "math.log": ops.log,
    "math.maximum": _arithmetic(ops.maximum),
    "math.minimum": _arithmetic(ops.minimum),
    "math.multiply": _arithmetic(ops.multiply),
    "math.negative": ops.negative,
    "math.pow": _arithmetic(ops.power),
    "math.reduce_max": _reduced(ops.max),
    "math.reduce_mean": _reduced(ops.mean),
    "math.reduce_sum": _reduced(ops.sum),
    "math.sigmoid": ops.sigmoid,
    "math.sqrt": ops.sqrt,
    "math.square": ops.square,
    "math.subtract": _arithmetic(ops.subtract),
    "math.tanh": ops.tanh,
    "math.truediv": _arithmetic(ops.divide),
    "nn.bias_add": lambda x, bias, data_format=None: _arithmetic(ops.add)(x, bias),
    "nn.gelu": lambda x, approximate=False: ops.gelu(x, approximate=approximate),
    "nn.leaky_relu": lambda x, alpha=0.2: ops.leaky_relu(x, negative_slope=alpha),
    "nn.log_softmax": lambda x, axis=-1: ops.log_softmax(x, axis=axis),
    "nn.relu": ops.relu,
    "nn.relu6": ops.relu6,
    "nn.sigmoid": ops.sigmoid,
    "nn.silu": _silu,
    "nn.softmax": lambda x, axis=-1: ops.softmax(x, axis=-1 if axis is None else axis),
    "nn.swish": _silu,
    "nn.tanh": ops.tanh,
    "reshape": lambda x, shape: ops.reshape(x, shape),
    "split": lambda x, num_or_size_splits, axis=0: ops.split(x, num_or_size_splits, axis=axis),
    "squeeze": lambda x, axis=None: ops.squeeze(x, axis=axis),
    "stack": lambda values, axis=0: ops.stack(values, axis=axis),
    "transpose": lambda x, perm=None: ops.transpose(x, perm),
}


class TensorFlowFunction(keras.layers.Layer):
    """Stands for one of `FUNCTIONS` while a network is read."""

    def __init__(self, function: str, **config: Any) -> None:
        super().__init__(**config)
        self.function = function

    def call(self, *arguments: Any, **keywords: Any) -> Any:
        if CONSTANT in keywords:
            arguments = (keywords.pop(CONSTANT), *arguments)
        return FUNCTIONS[self.function](*arguments, **keywords)


def inlined(network: keras.Model) -> keras.Model:
    """Returns the network with each `TensorFlowFunction` replaced by operations of Keras; other layers are shared."""
    if not any(_has_function(layer) for layer in network.layers):
        return network

    def same(layer: keras.layers.Layer) -> keras.layers.Layer:
        return inlined(layer) if _has_function(layer) and isinstance(layer, keras.Model) else layer

    def call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        if isinstance(layer, TensorFlowFunction):
            return _named(layer.name.replace(".", "_"), layer.call(*arguments, **keywords), (arguments, keywords))
        return layer(*arguments, **keywords)

    if isinstance(network, keras.Sequential):
        return keras.Sequential([keras.Input(network.input_shape[1:]), *map(same, network.layers)], name=network.name)
    return keras.models.clone_model(network, clone_function=same, call_function=call)


def _named(name: str, outputs: Any, inputs: Any) -> Any:
    """Names the operations from `inputs` to `outputs` after a layer, because their own names may not be unique."""
    reached = {id(each) for each in keras.tree.flatten(inputs)}
    ahead, number = keras.tree.flatten(outputs), 0
    while ahead:
        tensor = ahead.pop()
        if id(tensor) not in reached:
            reached.add(id(tensor))
            number += 1
            keras_compat.operation_of(tensor).name = f"{name}_{number}"
            ahead += keras_compat.inputs_of(tensor)
    return outputs


def _has_function(layer: Any) -> bool:
    if isinstance(layer, keras.Model):
        return any(_has_function(each) for each in layer.layers)
    return isinstance(layer, TensorFlowFunction)
