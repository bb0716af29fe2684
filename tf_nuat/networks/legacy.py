"""Configurations of networks that Keras 1 and 2 wrote, in words that Keras 3 understands.

Data become data: nothing of a configuration is built or run here.
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

Config = dict[str, Any]

# What Keras 1 called the arguments of its layers; what is None was dropped since, or concerns training alone.
_RENAMED: dict[str, str | None] = {
    "border_mode": "padding",
    "subsample": "strides",
    "nb_filter": "filters",
    "output_dim": "units",
    "bias": "use_bias",
    "p": "rate",
    "init": "kernel_initializer",
    "length": None,
    "W_regularizer": None,
    "b_regularizer": None,
    "W_constraint": None,
    "b_constraint": None,
    "gamma_regularizer": None,
    "beta_regularizer": None,
    "input_dim": None,
    "input_dtype": None,
    "input_length": None,
    "mode": None,
    "beta_init": None,
    "gamma_init": None,
}
_OF_KERAS_1 = {*_RENAMED, "dim_ordering", "nb_row", "nb_col"} - {"length", "mode", "bias"}
_CLASSES_OF_KERAS_1 = {
    "Convolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
_DATA_FORMATS = {"tf": "channels_last", "th": "channels_first"}


def mended(config: Config) -> tuple[Config, list[str]]:
    """Returns a saved network's configuration as Keras 3 reads it, and what was changed, in words; none for its own."""
    config, changes = copy.deepcopy(config), set[str]()
    _mend(config, changes)
    return config, sorted(changes)


def has_layer(config: Any, class_name: str) -> bool:
    """Returns whether a layer of that class is anywhere in a configuration."""
    if isinstance(config, dict):
        return config.get("class_name") == class_name or any(has_layer(each, class_name) for each in config.values())
    return isinstance(config, (list, tuple)) and any(has_layer(each, class_name) for each in config)


def _mend(value: Any, changes: set[str]) -> None:
    if isinstance(value, list):
        for each in value:
            _mend(each, changes)
    elif isinstance(value, dict):
        if isinstance(value.get("class_name"), str) and isinstance(value.get("config"), dict):
            _mend_layer(value, changes)
        for each in value.values():
            _mend(each, changes)


def _mend_layer(layer: Config, changes: set[str]) -> None:
    name, config = layer["class_name"], layer["config"]
    if name in ("TFOpLambda", "SlicingOpLambda"):
        _as_layer(layer, changes)
    elif name in _CLASSES_OF_KERAS_1 or (_is_stock(name) and _OF_KERAS_1 & set(config)):
        layer["class_name"] = _CLASSES_OF_KERAS_1.get(name, name)
        _rename(config)
        changes.add("layers of Keras 1 in the words of Keras 3")
    if _is_stock(layer["class_name"]):
        taken = _keywords(getattr(keras.layers, layer["class_name"]))
        for key in [key for key, given in config.items() if key not in taken and _is_neutral(key, given)]:
            del config[key]
            changes.add(f"{key} of {layer['class_name']}, which says nothing, left out")


def _rename(config: Config) -> None:
    if "nb_row" in config:
        config["kernel_size"] = [config.pop("nb_row"), config.pop("nb_col")]
    if "dim_ordering" in config:
        config["data_format"] = _DATA_FORMATS.get(config.pop("dim_ordering"))
    for old, new in _RENAMED.items():
        if old in config:
            value = config.pop(old)
            if new is not None:
                config.setdefault(new, value)


def _is_stock(name: str) -> bool:
    return inspect.isclass(getattr(keras.layers, name, None))


def _keywords(kind: type) -> set[str]:
    """Returns the keywords that a layer takes, those of its bases with them."""
    constructors = (vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base))
    return {name for each in constructors for name in inspect.signature(each).parameters} | {
        "batch_input_shape",
        "batch_shape",
        "input_shape",
        "build_config",
    }


def _is_neutral(key: str, value: Any) -> bool:
    """Whether a keyword that a layer does not take says nothing: it is off, or the one group that there always is."""
    return value is None or value is False or (key == "groups" and value == 1)


# Operations of TensorFlow that a functional network of Keras 2 has as layers.


def _rescaled(scale: Callable[[Any], Any], offset: Callable[[Any], Any]) -> Callable[[Any], tuple[str, Config]]:
    return lambda y: ("Rescaling", {"scale": scale(y), "offset": offset(y)})


def _activated(name: str) -> Callable[[Any], tuple[str, Config]]:
    return lambda y: ("Activation", {"activation": name})


# Of a function of TensorFlow: the layer, and its configuration from the second operand.
_OPERATIONS: Mapping[str, Callable[[Any], tuple[str, Config]]] = {
    "math.truediv": _rescaled(lambda y: 1.0 / y, lambda y: 0.0),
    "math.divide": _rescaled(lambda y: 1.0 / y, lambda y: 0.0),
    "math.multiply": _rescaled(lambda y: y, lambda y: 0.0),
    "math.subtract": _rescaled(lambda y: 1.0, lambda y: -y),
    "math.add": _rescaled(lambda y: 1.0, lambda y: y),
    "__operators__.add": _rescaled(lambda y: 1.0, lambda y: y),
    "cast": _activated("linear"),
    "identity": _activated("linear"),
    "nn.relu": _activated("relu"),
    "nn.relu6": _activated("relu6"),
    "nn.sigmoid": _activated("sigmoid"),
    "math.sigmoid": _activated("sigmoid"),
    "nn.softmax": _activated("softmax"),
}


def _as_layer(layer: Config, changes: set[str]) -> None:
    """Makes of an operation with a constant the layer that does the same; leaves what is none of these as it is."""
    function = layer["config"].get("function")
    operands = [node[3] for node in layer.get("inbound_nodes", ()) if len(node) > 3]
    constant = operands[0].get("y") if operands and isinstance(operands[0], dict) else None
    is_number = isinstance(constant, (int, float)) and not isinstance(constant, bool)
    if function not in _OPERATIONS or len(operands) != 1 or ("Rescaling" in _kind(function) and not is_number):
        return
    layer["class_name"], config = _OPERATIONS[function](constant)
    layer["config"] = {"name": layer["config"].get("name"), **config}
    operands[0].clear()
    changes.add(f"the operation tf.{function} as a layer {layer['class_name']}")


def _kind(function: str) -> str:
    return _OPERATIONS[function](1.0)[0]
