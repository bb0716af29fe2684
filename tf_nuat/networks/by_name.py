"""What a recipe may name as its network: one of `NETWORKS`, a function of the user's own, or a saved network."""

import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tf_nuat import networks
from tf_nuat.core import functions, validation


def check_name(argument: str, name: Any) -> str:
    """Returns `name`, as text, where `builder` knows it; raises what that raises."""
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    builder(argument, name)
    return name


def builder(argument: str, name: Any) -> Callable[..., keras.Model]:
    """Returns the function `(input_shape, num_classes, **options) -> keras.Model` that builds the network `name`.

    Args:
        argument: what to call the name in an error.
        name: a name in `NETWORKS`; `module:function`, such a function of the user's own; or the path of a `.keras`
            file, a network that is trained further, which takes no options and has shapes of its own.

    Raises:
        ValueError: it is none of these, the function cannot be imported, or the file is missing.
    """
    if name in networks.NETWORKS:
        return networks.NETWORKS[name]
    if functions.is_name(name):
        return functions.named(argument, name)
    if not (isinstance(name, str) and name.endswith(".keras") and pathlib.Path(name).is_file()):
        names = ", ".join(sorted(networks.NETWORKS))
        validation.refuse(argument, name, f"{names}, module:function, or the path of a .keras file")

    def saved_network(input_shape: Sequence[int], num_classes: int) -> keras.Model:
        del input_shape, num_classes  # it has its own, which `fitting` looks at
        return validation.load_network(argument, name)

    return saved_network


def fitting(argument: str, network: Any, *, input_shape: Sequence[int], num_classes: int) -> keras.Model:
    """Returns `network`, a classifier of images (B, *`input_shape`) with a logit for each of `num_classes`.

    Raises:
        ValueError: it is something else.
    """
    validation.classifier(argument, network)
    taken = network.input_shape[1:]
    if any(size not in (None, actual) for size, actual in zip(taken, input_shape)):
        raise ValueError(
            f"{argument} takes images of {taken}; allowed: {tuple(input_shape)}, the shape of those of the data "
            "(input_shape changes it, where they are read from files)"
        )
    if network.output_shape[1] != num_classes:
        raise ValueError(f"{argument} has {network.output_shape[1]} outputs; allowed: {num_classes}, one of each class")
    return network


def check_saving(argument: str, network: keras.Model) -> None:
    """Raises a `ValueError` where `network` cannot be loaded once it is saved, as layers of one's own may not."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "network.keras"
        try:
            network.save(path)
            keras.saving.load_model(path, compile=False)
        except Exception as error:  # whatever a layer of the user's own raises
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{argument} cannot be saved and loaded again ({reason}); allowed: layers of Keras without Lambda, or "
                "such as keras.saving.register_keras_serializable registers"
            ) from error
