"""Pre-trained robust networks by name: two in the package, the others from a folder or URL of the user's.

For each, `index.json` has a description, its measured robustness, its licence, and the SHA-256 of its file.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from tf_nuat.core import json_input, validation
from tf_nuat.networks.pretrained import fetching

PACKAGE = pathlib.Path(__file__).parent
INDEX = PACKAGE / "index.json"


class Entry(NamedTuple):
    """What the index says of a network.

    Attributes:
        name: of the network.
        path: of its file within a source, "mnist_nuat/nuat_1/network.keras"; its card lies beside it.
        sha256: of the file, hexadecimal.
        size: of the file, bytes.
        licence: SPDX identifier, of the network's weights.
        dataset, norm, epsilon: what it was trained to withstand.
        defense: how it was trained.
        clean: accuracy on the test images, in [0, 1].
        robust: accuracy under AutoAttack, in [0, 1].
        attacked: number of test images that AutoAttack got.
        is_in_package: whether the package has the file.
    """

    name: str
    path: str
    sha256: str
    size: int
    licence: str
    dataset: str
    norm: str
    epsilon: float
    defense: str
    clean: float
    robust: float
    attacked: int
    is_in_package: bool


def index() -> Mapping[str, Entry]:
    """Returns every pre-trained network's `Entry` by its name.

    >>> from tf_nuat.networks.pretrained import index
    >>> index()["mnist_nuat"].dataset
    'mnist'
    """
    found: dict[str, dict[str, Any]] = json_input.load("index", INDEX)
    return {name: Entry(name=name, **facts) for name, facts in found.items()}


def files(name: str, *, source: str | os.PathLike[str] | None = None) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the paths of a network's file, after a check of its checksum, and of its card.

    Args:
        name: of the network, a key of `index()`.
        source: for networks that are not in the package: a folder, or the URL of one, in which the file has the `path`
            of its entry, such as `results` in the project's repository. Files from a URL are kept in a cache; without
            `source`, only the cache is searched.

    Raises:
        ValueError: there is no such network, its file is not found, or the checksum is wrong.
    """
    entry = validation.one_of("name", name, index())
    if entry.is_in_package:
        return fetching.checked(entry, PACKAGE / f"{name}.keras"), PACKAGE / f"{name}.json"
    return fetching.from_cache(entry) if source is None else fetching.fetched(entry, os.fspath(source))


def pretrained(name: str, *, source: str | os.PathLike[str] | None = None) -> keras.Model:
    """Returns a pre-trained robust network, images (B, H, W, C), float32 in [0, 1] -> logits (B, K).

    `python -m tf_nuat.networks` lists the networks with their measured accuracies.

    Args:
        name: of the network, "mnist_nuat" for instance.
        source: a folder or URL, for networks that are not in the package: see `files`.

    Returns:
        A `keras.Model` of stock Keras layers, not compiled. Any defense trains it further.

    Raises:
        ValueError: there is no such network, it cannot be read, or its checksum is wrong.

    >>> import tf_nuat
    >>> network = tf_nuat.networks.pretrained("mnist_nuat")
    >>> network.input_shape, network.output_shape
    ((None, 28, 28, 1), (None, 10))
    """
    path, _ = files(name, source=source)
    return validation.load_network(f"network {name}", path)
