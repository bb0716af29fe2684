"""Fingerprints of networks, from their weights and, where Keras can make it, their configuration."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from tf_nuat.core import files

# No logit depends on them. Keras draws a seed that is not given; a SavedModel may lie elsewhere.
_LEFT_OUT = ("name", "trainable", "build_config", "compile_config", "filepath", "seed")
_WIRING = ("keras_history", "input_layers", "output_layers")  # where a graph names its operations


def fingerprint(network: keras.Model) -> str:
    """Returns a hexadecimal string that two networks share only if their weights and configurations are equal.

    Operations count by their places, not by their names, so a network that is built again keeps its fingerprint. The
    code of a Lambda does not count. If Keras cannot make the configuration, for a custom layer without `get_config`,
    only the weights count.
    """
    text = files.digest(*network.get_weights()) + _configuration(network)
    return hashlib.sha256(text.encode()).hexdigest()


def _configuration(network: keras.Model) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns that functions are not safe to load
            described = keras.saving.serialize_keras_object(network)
        return json.dumps(_without_names(described, {}), sort_keys=True)
    except Exception:  # whatever a layer of the user's own raises
        return ""


def _without_names(value: Any, places: Mapping[Any, int]) -> Any:
    """Returns a configuration, or a part of one, with the names of a graph's operations replaced by their `places`."""
    if isinstance(value, (list, tuple)):
        return [_without_names(each, places) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__lambda__":
        return "__lambda__"  # the bytes of the same code differ between processes
    if isinstance(layers := value.get("layers"), list):
        places = {each.get("name"): place for place, each in enumerate(layers) if isinstance(each, dict)}
    return {name: _part(name, each, places) for name, each in value.items() if name not in _LEFT_OUT}


def _part(name: str, value: Any, places: Mapping[Any, int]) -> Any:
    if name == "dtype":  # its name counts
        return value
    if name in _WIRING:
        return keras.tree.map_structure(lambda each: places.get(each, each), value)
    return _without_names(value, places)
