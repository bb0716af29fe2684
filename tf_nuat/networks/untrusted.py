"""Limits for the configuration of someone else's network: what it may name, and the size that it may describe."""

import copy
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tf_nuat.core import json_input, keras_compat
from tf_nuat.networks import legacy

# Layers that run Python code, or something from elsewhere, and what that is, in words.
_CODE = {
    "Lambda": "Python code of whoever saved it",
    "__lambda__": "Python code of whoever saved it",
    "TFSMLayer": "a graph in a folder elsewhere",
    "TorchModuleWrapper": "Python code of whoever saved it",
    "JaxLayer": "Python code of whoever saved it",
    "FlaxLayer": "Python code of whoever saved it",
}
# Modules of Keras with the parts of networks; others load files, download, or change settings.
_MODULES = (
    "activations",
    "constraints",
    "dtype_policies",
    "engine",  # of Keras 2
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "quantizers",
    "regularizers",
    "src",  # Keras takes only classes of layers and the like from it
)
_PACKAGES = ("keras_cv", "keras_hub", "keras_nlp")  # Keras imports them if a file names them
LARGE = 2**26  # numbers: 256 MiB


def code_in(config: Any, objects: Mapping[str, Any]) -> str | None:
    """Returns what in a configuration would run code or access files, in words; None if nothing does.

    Args:
        config: the configuration.
        objects: objects, by name, that it may name besides those of Keras.
    """
    for each in json_input.dicts_in(config):
        if "class_name" not in each:
            continue
        module = each["module"] if isinstance(each.get("module"), str) else ""
        for name in _names(each):
            # Keras looks up the joined name: "layers.Lambda" of "keras" is the Lambda of "keras.layers".
            *place, last = f"{module}.{name}".split(".")
            if last in _CODE:
                return f"a {last} layer: {_CODE[last]}"
            if place[0] == "keras" and len(place) > 1 and place[1] not in _MODULES:
                return f"an object of {'.'.join(place)}: no part of a network"
        package = module.partition(".")[0]
        if package in _PACKAGES and package not in sys.modules:
            return f"an object of {package}, which is imported only by --import {package}"
        if (called := _called(each, objects)) is not None:
            return f"{json_input.shown(called)} where a class belongs: it would be called"
    return None


def is_code(kind: type) -> bool:
    """Returns whether a class is one of Keras's own that run code, whatever name a module has for it."""
    return kind.__name__ in _CODE and kind.__module__.partition(".")[0] == "keras"


def _names(described: dict[str, Any]) -> Iterator[str]:
    """Yields the names by which Keras looks for a class, or for a function."""
    names = [described.get(key) for key in ("class_name", "registered_name", "spec_name")]
    if described["class_name"] == "function":
        names.append(described.get("config"))
    yield from (name for name in names if isinstance(name, str))


def _called(described: dict[str, Any], objects: Mapping[str, Any]) -> str | None:
    """Returns the name of an object where a class that Keras builds belongs, but which is none; None if all are.

    If a file is in the form of Keras 2, Keras calls objects without `from_config` with the keywords in the file.
    """
    if described["class_name"] == "function":  # which is passed on, as an activation, and not called
        return None
    for name in _names(described):
        found = keras.saving.get_registered_object(name, custom_objects=objects)
        if found is None and "module" not in described:
            found = getattr(keras.layers, name, None)
        if found is not None and not hasattr(found, "from_config"):
            return name
    return None


def check_size(config: dict[str, Any], objects: Mapping[str, Any], there: int) -> None:
    """Raises a `ValueError` if a network has far more weights than its file has numbers, which is `there`.

    The network is built without values of its weights. Keras reports any other failure later, when it reads the file.
    """
    state = random.getstate()  # from which Keras takes seeds
    try:
        described = {**legacy.with_module(copy.deepcopy(config)), "compile_config": None}
        with keras_compat.variables_without_values():
            needed = keras.saving.deserialize_keras_object(described, custom_objects=dict(objects)).count_params()
    except Exception:
        return
    finally:
        random.setstate(state)
    if needed > max(LARGE, 2 * there):
        raise ValueError(f"it describes {needed:,} weights, and has {there:,}")
