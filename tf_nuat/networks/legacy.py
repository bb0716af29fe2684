"""Converts configurations of networks from Keras 1 and 2 to the form of Keras 3.

Nothing of a configuration is built or run here.
"""

import inspect
import json
from collections.abc import Collection, Iterator
from typing import Any

import keras

from tf_nuat.core import json_input, keras_compat
from tf_nuat.networks import tensorflow_functions

Config = dict[str, Any]

# Arguments of layers of Keras 1 and their names today; None for those that were dropped, or concern only training.
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
    "input_dim": None,
    "input_dtype": None,
    "input_length": None,
    "beta_init": None,
    "gamma_init": None,
}
_OF_KERAS_1 = {*_RENAMED, "dim_ordering", "nb_row", "nb_col"} - {"length", "bias"}
_CLASSES: dict[str, tuple[str, dict[str, str]]] = {  # name today, and renamed arguments
    "Convolution2D": ("Conv2D", {}),
    "Deconvolution2D": ("Conv2DTranspose", {}),
    "SeparableConvolution2D": ("SeparableConv2D", {}),
    "SyncBatchNormalization": ("BatchNormalization", {}),
    "ThresholdedReLU": ("ReLU", {"theta": "threshold"}),
}
_DATA_FORMATS = {"tf": "channels_last", "th": "channels_first"}
# Arguments that Keras 2 saved and Keras 3 does not take; they change no output of a trained network.
_OF_TRAINING = ("trainable", "rng_type", "query_shape", "key_shape", "value_shape")
_ENDINGS_OF_TRAINING = ("_initializer", "_regularizer", "_constraint")


_ELSEWHERE = "allowed: the same network as a SavedModel, by model.save(FOLDER) in the Keras that made it"


class UnknownFunctionError(ValueError):
    """A network calls functions that Keras 3 does not have, or changed; the message continues the name of a file."""


def mended(config: Config) -> tuple[Config, list[str]]:
    """Returns a saved network's configuration in the form of Keras 3, and the changes, in words; [] if none is needed.

    Raises:
        UnknownFunctionError: it calls functions of TensorFlow that Keras 3 does not have, or that Keras 3 changed.
    """
    if _is_before_keras_3(config) and "hard_sigmoid" in _activations(config):  # its slope was 1/5 and is 1/6
        raise UnknownFunctionError(f"which has the hard_sigmoid of Keras 2, which Keras 3 changed; {_ELSEWHERE}")
    functions = sorted(_functions(config))
    unknown = [f"tf.{name}" for name in functions if name not in tensorflow_functions.FUNCTIONS]
    if unknown:
        raise UnknownFunctionError(f"which calls {', '.join(unknown)} as layers; {_ELSEWHERE}")
    changes = {f"{', '.join(f'tf.{name}' for name in functions)} as operations of Keras"} if functions else set()
    config = _with_other_names(config, changes)
    left_out = set[str]()
    _mend(config, changes, left_out)
    if left_out:
        changes.add(f"arguments that change no output left out: {', '.join(sorted(left_out))}")
    return config, sorted(changes)


def with_module(config: Config) -> Config:
    """Returns a saved network's configuration with the module of its class, which Keras 1 and 2 did not write."""
    found = {"module": "keras", "registered_name": None, **config}
    if (found["module"], found["class_name"]) == ("keras", "Functional"):  # Keras 3 finds it as a Model
        found["class_name"] = "Model"
    return found


def _is_before_keras_3(config: Config) -> bool:
    """Returns whether an input has the word for its shape that Keras 1 and 2 wrote."""
    return any("batch_input_shape" in each for each in json_input.dicts_in(config))


def _activations(config: Config) -> set[str]:
    """Returns the names of the activations of all layers, those within recurrent ones too."""
    found = (each[key] for each in json_input.dicts_in(config) for key in each if key.endswith("activation"))
    names = (each.get("config") if isinstance(each, dict) else each for each in found)
    return {name for name in names if isinstance(name, str)}


def _functions(config: Config) -> set[str]:
    """Returns the names of the functions of TensorFlow that a network calls as layers."""
    layers = json_input.dicts_in(config)
    return {each["config"]["function"] for each in layers if each.get("class_name") in tensorflow_functions.CLASSES}


def _with_other_names(config: Config, changes: set[str]) -> Config:
    """Returns a copy in which no layer has a "/" in its name."""
    written = json.dumps(config)
    for name in sorted(_names(config)):
        if "/" in name:
            written = written.replace(json.dumps(name), json.dumps(name.replace("/", "_")))
            changes.add("names with / have _ instead")
    return json.loads(written)


def _names(config: Config) -> set[str]:
    """Returns the names of all layers."""
    names = (each.get("name") for each in json_input.dicts_in(config) if isinstance(each.get("config"), dict))
    return {name for name in names if isinstance(name, str)}


def _mend(value: Any, changes: set[str], left_out: set[str]) -> None:
    if isinstance(value, list):
        for each in value:
            _mend(each, changes, left_out)
    elif isinstance(value, dict):
        if value.get("class_name") == "Sequential":
            _mend_sequential(value)
        if isinstance(value.get("class_name"), str) and isinstance(value.get("config"), dict):
            _mend_layer(value, changes, left_out)
        for each in value.values():
            _mend(each, changes, left_out)


def _mend_sequential(network: Config) -> None:
    """Adds an input to a sequential network; older Keras has the input's shape in the first layer."""
    if isinstance(network["config"], list):
        network["config"] = {"name": "sequential", "layers": network["config"]}
    layers = network["config"].get("layers")
    if layers and layers[0]["class_name"] != "InputLayer" and "batch_input_shape" in layers[0].get("config", ()):
        shape = layers[0]["config"].pop("batch_input_shape")
        layers.insert(0, {"class_name": "InputLayer", "config": {"batch_shape": shape, "name": "images"}})


def _mend_layer(layer: Config, changes: set[str], left_out: set[str]) -> None:
    name, config = layer["class_name"], layer["config"]
    if "module" in layer:  # in the form that Keras 2 and 3 share, except for these differences
        layer["module"] = keras_compat.MODULES_OF_KERAS_2.get(layer["module"], layer["module"])
        if name != "InputLayer":
            config.pop("batch_input_shape", None)
    if "layers" in config:
        _mend_calls(config)
    if name in _CLASSES:
        layer["class_name"], renamed = _CLASSES[name]
        for old in renamed.keys() & config.keys():
            config[renamed[old]] = config.pop(old)
        changes.add(f"{name} as {layer['class_name']}")
    if _is_stock(layer["class_name"]):
        _mend_build(layer)
        taken = _keywords(getattr(keras.layers, layer["class_name"]))
        axis = config.get("axis")
        if layer["class_name"] == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
            config["axis"] = axis[0]
        if _OF_KERAS_1 & config.keys() - taken:
            _rename(config)
            changes.add("layers of Keras 1 in the words of Keras 3")
        for key in [key for key, given in config.items() if key not in taken and _is_neutral(key, given)]:
            del config[key]
            left_out.add(key)
    policy = config.get("dtype")
    if isinstance(policy, dict) and policy.get("class_name") == "Policy":
        config["dtype"] = policy["config"]["name"]
        changes.add(f"the policy {config['dtype']} in the form of Keras 3")


def _mend_build(layer: Config) -> None:
    """Drops the one shape of Keras 2 to build a layer from, if the layer needs several; it is built when it is called.

    So has attention those of its query and its value.
    """
    parameters = inspect.signature(getattr(keras.layers, layer["class_name"]).build).parameters.values()
    needed = [each for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD]
    if len(needed) > 2 and "input_shape" in (layer.get("build_config") or ()):  # the first is the layer
        del layer["build_config"]


def _mend_calls(network: Config) -> None:
    """Rewrites single inputs and outputs, calls of nested networks, and tensors in keywords in the form of Keras 3.

    In Keras 2, call 0 of a nested network is the one that made it.
    """
    for key in ("input_layers", "output_layers"):
        only = network.get(key)
        if isinstance(only, list) and len(only) == 1 and isinstance(only[0], list):
            (network[key],) = network[key]
    kinds = {each.get("name"): each["class_name"] for each in network["layers"] if "layers" in each.get("config", ())}
    calls = list(_calls([each.get("inbound_nodes", ()) for each in network["layers"]], kinds))
    outputs = [call for call in _calls(network.get("output_layers", ()), kinds) if kinds[call[0]] == "Sequential"]
    for name in kinds:
        of_name = [call for call in calls + outputs if call[0] == name]
        if of_name and min(call[1] for call in of_name) > 0:
            for call in of_name:
                call[1] -= 1
    names = {each.get("name") for each in network["layers"]}
    for layer in network["layers"]:
        nodes = layer.get("inbound_nodes", ())
        is_function = layer["class_name"] in tensorflow_functions.CLASSES
        if is_function or any(_has_keywords(node, names) for node in nodes):
            layer["inbound_nodes"] = [_node(node, is_function) for node in nodes]


def _has_keywords(node: Any, names: Collection[str]) -> bool:
    """Returns whether a call in the form of Keras 2 has tensors in its keywords."""
    if not isinstance(node, list) or not node:
        return False
    calls = [node] if isinstance(node[0], str) else node
    return any(any(_calls(call[3], names)) for call in calls if len(call) > 3)


def _calls(value: Any, names: Collection[str]) -> Iterator[list[Any]]:
    """Yields all [name, number of the call, number of the output, ...] of layers with one of the names."""
    if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str):
        if value[0] in names and isinstance(value[1], int):
            yield value
        value = value[3:]
    if isinstance(value, (list, tuple, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _calls(each, names)


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
    """Returns the keywords that a layer takes: its own and, if it passes on others, those of its bases."""
    found = {"batch_input_shape", "batch_shape", "input_shape", "build_config"}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            taken = inspect.signature(vars(base)["__init__"]).parameters.values()
            found |= {each.name for each in taken}
            if all(each.kind is not each.VAR_KEYWORD for each in taken):
                break
    return found


def _is_neutral(key: str, value: Any) -> bool:
    """Returns whether a keyword that a layer does not take has no effect on its outputs."""
    is_off = value is None or value is False or (key, value) in (("groups", 1), ("mode", 0))
    return is_off or key in _OF_TRAINING or key.endswith(_ENDINGS_OF_TRAINING)


def _node(node: Any, is_function: bool) -> Config:
    """Returns a call in the form of Keras 3, whose first argument is ["name", 0, 0, {keywords}] or a list of such.

    For a layer that takes one tensor, the list has one entry; but a function may take a list of one tensor.
    """
    if not node or isinstance(node, dict):
        return node
    if len(node) == 1 and not is_function:
        (node,) = node
    is_list = isinstance(node[0], list)
    first = [_argument(each[:3]) for each in node] if is_list else _argument(node[:3])
    keywords = (node[0] if is_list else node)[3:] or [{}]
    named = {key: _argument(each) for key, each in keywords[0].items() if key != "name"}
    if node[0] == "_CONSTANT_VALUE":  # the first argument of a layer has to be a tensor
        return {"args": [named.pop("y")], "kwargs": {tensorflow_functions.CONSTANT: first, **named}}
    return {"args": [first], "kwargs": named}


def _argument(value: Any) -> Any:
    """Returns a tensor, a constant, a list of them or a part of a slice in the form of Keras 3."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        if value[0] == "_CONSTANT_VALUE":
            return value[2]
        config = {"shape": [None], "dtype": "float32", "keras_history": value}
        return {"class_name": "__keras_tensor__", "config": config}
    if isinstance(value, dict) and value.get("class_name") == "__ellipsis__":
        return tensorflow_functions.ELLIPSIS
    return [_argument(each) for each in value] if isinstance(value, list) else value
