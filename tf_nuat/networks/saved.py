"""Reads networks from files: those of Keras 1 to 3, SavedModel folders of TensorFlow, weights for an architecture."""

import contextlib
import functools
import inspect
import json
import math
import os
import pathlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import functions, json_input, keras_compat, network_file, validation
from tf_nuat.core.files import PathLike
from tf_nuat.networks import legacy, tensorflow_functions, untrusted, untrusted_graph

Read = tuple[keras.Model, list[str]]  # the network, and what was changed to read it, in words

_FILES = "a network saved by Keras (.keras, .h5), or the folder of a SavedModel"
_TRUST = "--trust (trust=True), which runs it, where you know who made the file"
# Functions of TensorFlow by the names under which Keras saves them as activations.
_ACTIVATIONS = {"softmax_v2": keras.activations.softmax, "log_softmax_v2": keras.activations.log_softmax}


def read(
    argument: str,
    path: PathLike,
    *,
    architecture: keras.Model | None = None,
    modules: Sequence[str] = (),
    trust: bool = False,
) -> Read:
    """Returns the network saved at `path`, not compiled, as it is, and what was changed to read it.

    Args:
        argument: what to call it in an error.
        path: a `.keras` file; an `.h5` file of Keras 1, 2 or 3; a folder of TensorFlow's SavedModel; or, with
            `architecture`, a file of weights.
        architecture: a network of the same layers, which gets the weights of the file.
        modules: names of modules to import before, which define custom layers.
        trust: whether code of the file (Lambda layers; operations that access files) may be run.

    Raises:
        ValueError: it is none of these, cannot be read, or has code that is not trusted.
    """
    path = pathlib.Path(path)
    objects = _objects_of(modules)
    if os.path.isfile(path / "saved_model.pb"):
        return _saved_model(argument, path, trust)
    if not os.path.isfile(path):  # of pathlib, it raises where a folder may not be entered
        is_folder = "a folder without saved_model.pb" if os.path.isdir(path) else "not a file"
        raise ValueError(f"{argument} is {str(path)!r}, which is {is_folder}; allowed: {_FILES}")
    if architecture is not None:
        return with_weights(argument, path, architecture)
    try:
        there = network_file.check(path)
        config = network_file.config_of(path)
    except Exception as error:  # whatever zipfile, json or h5py raises
        raise validation.not_read(argument, path, error, allowed=_FILES) from error
    if config is None:
        raise ValueError(
            f"{argument} is {str(path)!r}, which has weights and no architecture; allowed: with --network "
            "(architecture), the .json of model.to_json() or module:function, what has the same layers"
        )
    mended, changes = _checked(argument, path, config, objects, trust=trust)
    try:
        untrusted.check_size(mended, objects, there.all)
        with _with_config(path, mended if mended != config else None) as file:
            network = keras.saving.load_model(file, custom_objects=objects, compile=False, safe_mode=not trust)
        return tensorflow_functions.inlined(network), changes
    except Exception as error:  # Keras raises whatever zipfile, json or h5py raised
        refusal = validation.not_read(argument, path, error, allowed=_FILES)
        if network_file.is_hdf5(path) and (operations := _operations_in(config)):
            refusal = ValueError(
                f"{argument} is {os.fspath(path)!r}, an HDF5 file with operations ({', '.join(operations)}), which "
                "Keras writes there and cannot read; allowed: the same network as .keras, by "
                "model.save('network.keras') where it was made"
            )
        raise refusal from error


def _operations_in(config: dict[str, Any]) -> list[str]:
    """Returns the sorted names of the classes of a network's operations, such as `x / 255.0`, that are no layers."""
    kinds, ahead = set[str](), [keras.Operation]
    while ahead:
        found = [each for each in ahead.pop().__subclasses__() if not issubclass(each, keras.layers.Layer)]
        kinds.update(each.__name__ for each in found)
        ahead += found
    called = [each for each in json_input.dicts_in(config) if "inbound_nodes" in each]
    called = [each for each in called if isinstance(each.get("config"), dict)]
    # A layer, perhaps of the same name, has a dtype.
    return sorted(kinds.intersection(str(each.get("class_name")) for each in called if "dtype" not in each["config"]))


def from_json(argument: str, path: PathLike, *, modules: Sequence[str] = (), trust: bool = False) -> Read:
    """Returns the network that a `.json` file of `model.to_json()` describes, and what was changed; as `read`."""
    objects = _objects_of(modules)
    described = json_input.load(argument, pathlib.Path(path))
    if not isinstance(described, dict):  # as json.dump(model.to_json(), file) writes: JSON within a text
        raise ValueError(
            f"{argument} is {os.fspath(path)!r}, which has a {type(described).__name__}; allowed: the text of "
            "model.to_json(), as file.write(model.to_json()) writes it"
        )
    config, changes = _checked(argument, path, described, objects, trust=trust)
    try:
        described = legacy.with_module(config)
        network = keras.saving.deserialize_keras_object(described, custom_objects=objects, safe_mode=not trust)
        return tensorflow_functions.inlined(network), changes
    except Exception as error:  # whatever a configuration makes Keras raise
        raise validation.not_read(argument, path, error) from error


def _checked(
    argument: str, path: PathLike, config: dict[str, Any], objects: Mapping[str, Any], *, trust: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Returns a configuration as Keras 3 reads it, and what was changed; raises if it has code that is not trusted."""
    where = f"{argument} is {os.fspath(path)!r}"
    try:
        mended, changes = legacy.mended(config)
    except legacy.UnknownFunctionError as error:
        raise ValueError(f"{where}, {error}") from error
    except Exception as error:  # whatever a damaged configuration raises
        raise validation.not_read(argument, path, error) from error
    if not trust and (code := untrusted.code_in(mended, objects)):  # checks what Keras will get
        raise ValueError(f"{where}, which has {code}; allowed: {_TRUST}")
    if trust:
        keras_compat.give_names_to_lambdas({"K": keras.backend, "keras": keras, "np": np, "tf": tf})
    return mended, changes


def _objects_of(modules: Sequence[str]) -> dict[str, Any]:
    """Imports `modules`; returns the objects that a file may name, by name: theirs for networks, and some of ours."""
    layers_of_functions = dict.fromkeys(tensorflow_functions.CLASSES, tensorflow_functions.TensorFlowFunction)
    found: dict[str, Any] = {**_ACTIVATIONS, **layers_of_functions}
    for name in modules:
        module = functions.imported("--import", name)
        public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        found.update({key: value for key, value in public.items() if _is_for_networks(value)})
    return found


def _is_for_networks(value: Any) -> bool:
    """Returns whether a file may name a value of a module: a class that Keras builds, or a function like an activation.

    A module also has the names that it imports, perhaps `shutil.rmtree`, which no network needs.
    """
    if inspect.isclass(value):
        return hasattr(value, "from_config") and not untrusted.is_code(value)
    function = value.func if isinstance(value, functools.partial) else value
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    return callable(value) and package not in sys.stdlib_module_names


@contextlib.contextmanager
def _with_config(path: pathlib.Path, config: dict[str, Any] | None) -> Iterator[pathlib.Path]:
    """A context with the path of the file or, with another configuration, of a copy that has it.

    Keras tells the kind of a file from the ending of its name, so the path has the ending that fits.
    """
    ending = ".h5" if network_file.is_hdf5(path) else ".keras"
    if config is None and (path.suffix == ending or (ending == ".h5" and path.suffix == ".hdf5")):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / f"network{ending}"
        if config is None:
            copy.symlink_to(path.resolve())
        else:
            _copy_with(config, path, copy)
        yield copy


def _copy_with(config: dict[str, Any], path: pathlib.Path, copy: pathlib.Path) -> None:
    """Writes `copy`, whose ending tells its kind: the file `path` with another configuration."""
    if copy.suffix == ".h5":
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as changed:
        for item in archive.infolist():
            is_config = item.filename == network_file.CONFIG
            changed.writestr(item, json.dumps(config) if is_config else archive.read(item))


def with_weights(argument: str, path: PathLike, architecture: keras.Model) -> Read:
    """Returns the architecture with the weights of a file, in the form of Keras 3 or of earlier versions.

    Layers that are not built get none, and Keras does not always say so.
    """
    path = pathlib.Path(path)
    with tempfile.TemporaryDirectory() as folder:
        try:
            there = network_file.check(path)
            if network_file.is_hdf5(path):
                with h5py.File(path, "r") as file:  # Keras 1 and 2 list their layers, in networks within a group
                    ending = ".h5" if "layer_names" in file.attrs or "model_weights" in file else ".weights.h5"
            else:
                ending = ".keras"
            copy = pathlib.Path(folder) / f"network{ending}"
            copy.symlink_to(path.resolve())
            architecture.load_weights(copy)
            if ending != ".h5":  # of that Keras counts the layers itself
                _check_that_all_are_used(there.of_layers, architecture)
        except Exception as error:  # whatever h5py, zipfile or Keras raises
            raise validation.not_read(argument, path, error, "which does not fit the architecture") from error
    return architecture, ["weights put into the architecture"]


def _check_that_all_are_used(there: int, architecture: keras.Model) -> None:
    """Raises ValueError if a file has more weights, `there`, than the architecture: Keras 3 skips the rest."""
    taken = sum(math.prod(each.shape) for each in architecture.variables if not each.dtype.startswith("uint"))
    if there > taken:
        raise ValueError(f"it has {there:,} weights, and the architecture takes {taken:,}")


def _saved_model(argument: str, path: pathlib.Path, trust: bool) -> Read:
    """Returns a network of one layer, the graph of a SavedModel's serving signature; it may have several outputs."""
    where = f"{argument} is {str(path)!r}, a SavedModel"
    try:
        reaching = untrusted_graph.reaching_operation(path)
    except Exception as error:  # whatever the reader of protocol buffers raises
        raise validation.not_read(argument, path, error, "which TensorFlow cannot read") from error
    if reaching is not None and not trust:
        raise ValueError(f"{where} with the operation {reaching}, which reaches beyond it; allowed: {_TRUST}")
    try:
        signatures = tf.saved_model.load(os.fspath(path)).signatures
    except Exception as error:  # whatever a damaged graph makes TensorFlow raise
        raise validation.not_read(argument, path, error, "which TensorFlow cannot read") from error
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if name is None:
        raise ValueError(f"{where} without signatures; allowed: one that model.export(...) wrote")
    specs = list(signatures[name].structured_input_signature[1].values())
    if len(specs) != 1:
        raise ValueError(f"{where} that takes {len(specs)} inputs; allowed: one, of images")
    if not specs[0].dtype.is_floating:
        raise ValueError(
            f"{where} that takes {specs[0].dtype.name}, through which no gradient flows; allowed: floating point, as "
            "the graph without its first cast takes"
        )
    if specs[0].shape.rank is None or specs[0].shape.rank < 2 or specs[0].shape[0] is not None:
        raise ValueError(f"{where} that takes {specs[0].shape}; allowed: a batch of any size, (None, ...)")
    inputs = keras.Input(tuple(specs[0].shape[1:]), dtype=specs[0].dtype.name)
    outputs = keras.layers.TFSMLayer(os.fspath(path), call_endpoint=name, dtype=specs[0].dtype.name)(inputs)
    if isinstance(outputs, dict) and len(outputs) == 1:
        (outputs,) = outputs.values()
    return keras.Model(inputs, outputs), ["the graph of a SavedModel as one layer: it can be judged, not trained"]
