"""Inspects files of networks before Keras reads them: what they are, and whether they are safe to read.

Nothing in a file is unpacked before its size is known, and no other file is opened.
"""

import io
import json
import math
import mmap
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py

from tf_nuat.core import json_input, npz_input
from tf_nuat.core.files import PathLike

CONFIG, WEIGHTS = "config.json", "model.weights.h5"  # in a `.keras` file
_HEAP = b"GCOL\1\0\0\0"  # how a global heap begins
# How files begin that are taken for a network's, and what they are.
_OF_ANOTHER_KIND = {
    b"PK": "it is an archive that is not whole",
    b"{": "it is JSON, which --network takes, for a file of weights",
    b"<": "it is a page of the web",
    b"version https://git-lfs": "it is a pointer of Git LFS; git lfs pull gets the file",
    b"\x1f\x8b": "it is compressed; gunzip unpacks it",
    b"\x80": "it is a pickle, as of PyTorch",
}
MOST_LEVELS = 100  # of brackets: each network within a network has four


def is_hdf5(path: PathLike) -> bool:
    """Returns whether a file begins as HDF5 does.

    `h5py.is_hdf5` also looks at offsets 512, 1024, 2048 and so on, where a `.keras` file may have its weights.
    """
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def config_of(path: PathLike) -> dict[str, Any] | None:
    """Returns the configuration in a file that Keras saved; None where it has weights alone.

    Raises:
        Exception: whatever the readers of archives, of JSON and of HDF5 raise.
    """
    if is_hdf5(path):
        return _attribute(path, "model_config")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(CONFIG)
        if member.file_size > json_input.MOST_BYTES:
            raise ValueError(f"{CONFIG} has {member.file_size:,} bytes, more than {json_input.MOST_BYTES:,}")
        return _parsed(archive.read(member), CONFIG)


def compiled_with(path: PathLike) -> dict[str, Any]:
    """Returns what the network of a file was compiled with; {} where it does not say, or cannot be read."""
    try:
        found = _attribute(path, "training_config") if is_hdf5(path) else (config_of(path) or {})["compile_config"]
    except Exception:  # of a file of weights, which has neither
        return {}
    return found if isinstance(found, dict) else {}


class Numbers(NamedTuple):
    """How many numbers a file has.

    Attributes:
        all: those of all its datasets.
        of_layers: those without the optimizer, which Keras saves beside the layers, and without the states of random
            draws, which are unsigned.
    """

    all: int
    of_layers: int


def check(path: PathLike) -> Numbers:
    """Checks that a file is safe to read; returns how many numbers it has.

    Raises:
        ValueError: the file would unpack to far more than its size or to more than memory, or it has names of places
            outside of it, or weights in another file.
        Exception: whatever the readers of archives and of HDF5 raise.
    """
    size = os.path.getsize(path)
    if is_hdf5(path):
        with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            _check_heaps(mapped)
        with h5py.File(path, "r") as file:
            return _check_hdf5(file, size)
    if not zipfile.is_zipfile(path):
        raise ValueError(_of_another_kind(path))
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        npz_input.check_sizes(members, size)
        names = [member.filename for member in members]
        for name in names:
            if name.startswith(("/", "\\")) or ".." in pathlib.PurePosixPath(name.replace("\\", "/")).parts:
                raise ValueError(f"it has {json_input.shown(name)}, a place outside of it")
        if len(set(names)) < len(names):
            raise ValueError("it has a name twice")
        if WEIGHTS not in names:
            raise ValueError(f"it has no {WEIGHTS}")
        contents = archive.read(WEIGHTS)
    _check_heaps(contents)
    with h5py.File(io.BytesIO(contents), "r") as file:
        return _check_hdf5(file, len(contents))


def _of_another_kind(path: PathLike) -> str:
    """Returns what a file is that is neither HDF5 nor an archive, in words."""
    with open(path, "rb") as file:
        begin = file.read(64)
    if not begin:
        return "it is empty"
    if os.path.basename(path) == "saved_model.pb":
        return "it is a part of a SavedModel, whose folder is wanted"
    found = (words for how, words in _OF_ANOTHER_KIND.items() if begin.lstrip().startswith(how))
    return next(found, "it is neither HDF5 nor an archive")


def _check_heaps(contents: bytes | mmap.mmap) -> None:
    """Raises a `ValueError` if a global heap, which has the texts of an HDF5 file, is damaged.

    The library goes from object to object by their sizes, and never ends if a free one has the size 0.
    """
    version = contents[8]
    lengths = contents[14] if version < 2 else contents[10]
    if lengths != 8:
        raise ValueError(f"its sizes have {lengths} bytes, not 8")
    begin = contents.find(_HEAP)
    while begin >= 0:
        place, end = begin + 16, begin + int.from_bytes(contents[begin + 8 : begin + 16], "little")
        while place + 16 <= min(end, len(contents)):
            index = int.from_bytes(contents[place : place + 2], "little")
            size = int.from_bytes(contents[place + 8 : place + 16], "little")
            if index == 0 and size < 16:
                raise ValueError("it has a damaged heap")
            place += size if index == 0 else 16 + -(-size // 8) * 8
        begin = contents.find(_HEAP, begin + 8)


def _check_hdf5(file: h5py.File, size: int) -> Numbers:
    """Returns how many numbers an open file of `size` bytes has; raises as `check`."""
    count, of_layers, stored = 0, 0, 0
    for name, dataset in _datasets(file):
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"it has {json_input.shown(name)}, weights that are in another file")
        numbers = 0 if dataset.shape is None else math.prod(dataset.shape)
        count += numbers
        stored += numbers * dataset.dtype.itemsize
        if dataset.dtype.kind != "u" and not dataset.name.startswith("/optimizer/"):
            of_layers += numbers
    npz_input.check_size(stored, size)
    return Numbers(count, of_layers)


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields the name of each dataset of an open file and the dataset, once; raises as `check`.

    It visits the groups in a loop: the library would recurse into them, to any depth.
    """
    ahead, seen = [file["/"]], set()
    while ahead:
        group = ahead.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"it has {json_input.shown(name)}, a {type(link).__name__}, where weights belong")
            found = group[name]
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(found, h5py.Group):
                ahead.append(found)
            elif isinstance(found, h5py.Dataset):
                yield name, found


def _attribute(path: PathLike, name: str) -> dict[str, Any] | None:
    with h5py.File(path, "r") as file:
        written = file.attrs.get(name)
    return None if written is None else _parsed(written, name)


def _parsed(written: str | bytes, name: str) -> dict[str, Any] | None:
    found = json.loads(written)
    json_input.check_levels(found, MOST_LEVELS)
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"{name} is a {type(found).__name__}")
    return found
