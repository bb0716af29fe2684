"""What a recipe may name as its network: one of `NETWORKS`, a function of the user's own, or a saved network."""

import inspect
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from absl import logging

from tf_nuat import networks
from tf_nuat.core import functions, keras_compat, validation
from tf_nuat.networks import saved
from tf_nuat.networks.adapt import adapt
from tf_nuat.networks.outputs import AUTO

ENDINGS = (".keras", ".h5", ".hdf5")  # of files that Keras writes


def check_name(argument: str, name: Any) -> str:
    """Returns `name` as text if `builder` knows it; else raises the error of `builder`."""
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    builder(argument, name)
    return name


def builder(argument: str, name: Any) -> Callable[..., keras.Model]:
    """Returns the function `(input_shape, num_classes, **options) -> keras.Model` that builds the network `name`.

    Args:
        argument: what to call the name in an error.
        name: a name in `NETWORKS`; `module:function`, such a function of the user's own; or the path of a network that
            Keras saved, to train it further. Its options are those of `networks.adapt`.

    Raises:
        ValueError: it is none of these, the function cannot be imported, or the file is missing.
    """
    if isinstance(name, str) and name in networks.NETWORKS:
        return networks.NETWORKS[name]
    if functions.is_name(name):
        return functions.named(argument, name)
    if not is_saved(name):
        names = ", ".join(sorted(networks.NETWORKS))
        validation.refuse(argument, name, f"{names}, module:function, or the path of a file that Keras saved")

    def saved_network(
        input_shape: Sequence[int],
        num_classes: int,
        *,
        pixels: str = "0..1",
        outputs: str = AUTO,
        modules: Sequence[str] = (),
    ) -> keras.Model:
        del num_classes  # the saved network has its own, which `fitting` checks
        adapted = adapt(
            name, pixels=pixels, outputs=outputs, modules=modules, input_shape=input_shape, argument=argument
        )
        for change in adapted.changes:
            logging.info("%s %s: %s", argument, name, change)
        return adapted.network

    return saved_network


def changes(name: str, options: Mapping[str, Any], *, input_shape: Sequence[int]) -> list[str]:
    """Returns the changes of `adapt` to a network from a file, in words; [] for other names or a missing file."""
    try:
        return adapt(name, input_shape=input_shape, **options).changes if is_saved(name) else []
    except ValueError:  # a card is written all the same
        return []


def is_saved(name: Any) -> bool:
    """Returns whether `name` looks like the path of a file that Keras saved, or of a SavedModel."""
    if not isinstance(name, str) or not name:
        return False
    path = pathlib.Path(name)
    return (path.suffix in ENDINGS and os.path.isfile(path)) or os.path.isfile(path / "saved_model.pb")


def architecture(argument: str, name: str, *, modules: Sequence[str] = (), trust: bool = False) -> keras.Model:
    """Returns a network to load weights into, from the JSON of `model.to_json()`, a network's file, or a function.

    Args:
        argument: what to call the name in an error.
        name: path of a `.json` file, or of a network that Keras saved; `module:function`, or a name in `NETWORKS`,
            which is called without arguments.
        modules: names of modules to import before, which define custom layers.
        trust: whether Lambda layers of a file may be run.

    Raises:
        ValueError: it is none of these.
    """
    if name.endswith(".json"):
        return saved.from_json(argument, name, modules=modules, trust=trust)[0]
    if is_saved(name):
        return saved.read(argument, name, modules=modules, trust=trust)[0]
    build = builder(argument, name)
    needed = [each.name for each in inspect.signature(build).parameters.values() if each.default is each.empty]
    if needed:
        validation.refuse(argument, name, f"a function without arguments; this one needs {', '.join(needed)}")
    return build()


def fitting(argument: str, network: Any, *, input_shape: Sequence[int], num_classes: int) -> keras.Model:
    """Returns `network` if it is a classifier of images (B, *`input_shape`) with a logit for each of `num_classes`.

    Raises:
        ValueError: it is not.
    """
    validation.classifier(argument, network)
    taken = network.input_shape[1:]
    if not validation.takes(taken, input_shape):
        raise ValueError(
            f"{argument} takes images of {taken}; allowed: {tuple(input_shape)}, the shape of those of the data "
            "(input_shape changes it, where they are read from files)"
        )
    if network.output_shape[1] != num_classes:
        raise ValueError(f"{argument} has {network.output_shape[1]} outputs; allowed: {num_classes}, one of each class")
    return network


def check_saving(argument: str, network: keras.Model) -> None:
    """Raises a `ValueError` if `network` cannot be saved and loaded again, as may happen with custom layers."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "network.keras"
        try:
            network.save(path)
            keras.saving.load_model(path, compile=False)
        except Exception as error:  # whatever a layer of the user's own raises
            reason = keras_compat.reason_of(error)
            raise ValueError(
                f"{argument} cannot be saved and loaded again ({reason}); allowed: layers of Keras without Lambda, or "
                "such as keras.saving.register_keras_serializable registers"
            ) from error
