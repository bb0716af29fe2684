"""Files that are replaced at once: a kill leaves the old one or the new one, and never a part."""

import hashlib
import json
import os
import pathlib

import numpy as np


def save_arrays(path, **arrays):
    """Replaces `path`, an `.npz` file of these arrays."""
    _replace(pathlib.Path(path), lambda file: np.savez(file, **arrays))


def save_json(content, path):
    """Replaces `path`, a JSON file."""
    text = json.dumps(content, indent=2) + "\n"
    _replace(pathlib.Path(path), lambda file: file.write(text.encode("utf-8")))


def save_network(network, path):
    """Replaces `path`, a network's `.keras` file."""
    path = pathlib.Path(path)
    unfinished = path.with_name(f".unfinished-{path.name}")
    network.save(unfinished)
    os.replace(unfinished, path)


def _replace(path, write):
    unfinished = path.with_name(f".unfinished-{path.name}")
    with open(unfinished, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def digest(*arrays):
    """Returns a hexadecimal string that two sequences of arrays share only where they are equal."""
    found = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        found.update(repr((array.shape, array.dtype.str)).encode())
        found.update(array)
    return found.hexdigest()
