"""What the configuration of a network of someone else may name, and how large a network it may describe."""

import copy
import random
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tf_nuat.core import keras_compat

# Layers that run what is elsewhere, or is written in Python, and what they are, in words.
_CODE = {
    "Lambda": "Python code of whoever saved it",
    "__lambda__": "Python code of whoever saved it",
    "TFSMLayer": "a graph in a folder elsewhere",
    "TorchModuleWrapper": "Python code of whoever saved it",
    "JaxLayer": "Python code of whoever saved it",
    "FlaxLayer": "Python code of whoever saved it",
}
# Modules of Keras that have what networks are made of; others load files, download, or change settings.
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
    "src",  # of which Keras takes classes of layers and the like alone
)
LARGE = 2**26  # numbers: 256 MiB


def code_in(config: Any) -> str | None:
    """Returns what in a configuration would run code or reach for files, in words; None where nothing does."""
    for each in _objects(config):
        name, module = each["class_name"], each.get("module")
        if isinstance(name, str) and name in _CODE:
            return f"a {name} layer: {_CODE[name]}"
        parts = module.split(".") if isinstance(module, str) else [""]
        if parts[0] == "keras" and len(parts) > 1 and parts[1] not in _MODULES:
            return f"an object of {module}: no part of a network"
    return None


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields all that a configuration names by a class."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for each in config.values():
            yield from _objects(each)
    elif isinstance(config, list):
        for each in config:
            yield from _objects(each)


def check_size(config: dict[str, Any], objects: Mapping[str, Any], there: int) -> None:
    """Raises a `ValueError` where a network has far more weights than the `there` numbers that its file has.

    The network is built without them: what fails otherwise is left for Keras to say, when it reads the file.
    """
    state = random.getstate()  # from which Keras takes seeds
    try:
        described = {"module": "keras", "registered_name": None, **copy.deepcopy(config), "compile_config": None}
        if (described["module"], described["class_name"]) == ("keras", "Functional"):  # as `.h5` files have it
            described["class_name"] = "Model"
        with keras_compat.variables_without_values():
            needed = keras.saving.deserialize_keras_object(described, custom_objects=dict(objects)).count_params()
    except Exception:
        return
    finally:
        random.setstate(state)
    if needed > max(LARGE, 2 * there):
        raise ValueError(f"it describes {needed:,} weights, and has {there:,}")
