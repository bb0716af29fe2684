"""Checks the JSON files of a prepared dataset before TensorFlow Datasets reads them.

They name the class of each feature, and TensorFlow Datasets imports the module of any class that they name.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from tf_nuat.core import json_input

NAMES = ("dataset_info.json", "features.json")
CLASSES = ("pythonClassName", "python_class_name", "type")  # keys of the name of a class; "type" is that of old files
FILES = ("names_file",)  # keys of the path of a file
STOCK = "tensorflow_datasets.core.features."


def foreign_in(folder: pathlib.Path) -> str | None:
    """Returns, in words, what the files of a prepared dataset name from outside TensorFlow Datasets; None for nothing.

    Raises:
        ValueError: a file cannot be read, or is not JSON.
    """
    for name in NAMES:
        if not os.path.lexists(folder / name):
            continue
        for key, text in _texts(json_input.load(name, folder / name)):
            # A name without a dot is that of no module.
            if key in CLASSES and "." in text and not text.startswith(STOCK):
                return f"{name} names the class {json_input.shown(text)}, whose module would be imported"
            if key in FILES:
                return f"{name} names the file {json_input.shown(text)}"
    return None


def _texts(content: Any) -> Iterator[tuple[str, str]]:
    """Yields the key and the text of every text, at any depth, also within a text that is itself JSON."""
    ahead = [("", content)]
    while ahead:
        key, value = ahead.pop()
        if isinstance(value, dict):
            ahead += value.items()
        elif isinstance(value, list):
            ahead += [("", each) for each in value]
        elif isinstance(value, str):
            yield key, value
            with contextlib.suppress(ValueError, RecursionError):
                ahead.append(("", json.loads(value)))
