"""Checkpoints of a run: the newest few are kept, so that an older one can replace a damaged one."""

import json
import os
import pathlib
import re
from typing import Any

import numpy as np
from absl import logging

from tf_nuat.core import files, json_input, npz_input

KEPT = 3


def save(folder: str | pathlib.Path, number: int, arrays: list[np.ndarray], facts: dict[str, Any]) -> None:
    """Writes a checkpoint, and removes all but the newest `KEPT`.

    Args:
        folder: folder of the checkpoints, made if it is missing.
        number: number of trained batches, higher than those of the checkpoints before.
        arrays: list of NumPy arrays.
        facts: dict of JSON values.

    Raises:
        files.NotSavedError: it cannot be written; the checkpoints before are unchanged.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    digest = np.array(files.digest(*arrays))
    files.save_arrays(_path(folder, number), *arrays, facts=np.array(json.dumps(facts)), digest=digest)
    for older in _numbers(folder)[KEPT:]:
        _path(folder, older).unlink()


def newest(folder: str | pathlib.Path) -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """Returns the arrays and the facts of the newest checkpoint that is not damaged, or None if there is none.

    A warning names each damaged one.
    """
    folder = pathlib.Path(folder)
    for number in _numbers(folder):
        path = _path(folder, number)
        try:
            return _read(path)
        except (ValueError, KeyError) as error:
            logging.warning("checkpoint %s is damaged (%s): the one before it is taken", path, type(error).__name__)
    return None


def _read(path: pathlib.Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    found = npz_input.load(f"checkpoint {path}", path)
    arrays = [found[f"arr_{index}"] for index in range(len(found) - 2)]
    facts = json_input.parsed(f"checkpoint {path}", str(found["facts"]))
    if files.digest(*arrays) != str(found["digest"]):
        raise ValueError("the digest is another one")
    return arrays, facts


def _path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"batches-{number}.npz"


def _numbers(folder: pathlib.Path) -> list[int]:
    """Returns the numbers of the checkpoints in a folder, the newest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    found = [re.fullmatch(r"batches-(\d+)\.npz", name) for name in names]
    return sorted((int(match.group(1)) for match in found if match), reverse=True)
