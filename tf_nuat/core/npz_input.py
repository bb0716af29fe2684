"""Safely reads `.npz` files that someone else saved, or refuses them in one line before they are unpacked."""

import contextlib
import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tf_nuat.core import files
from tf_nuat.core.files import PathLike

ALLOWED = "arrays that numpy.savez saved"
_ENDING = ".npy"  # of an array's name in the archive
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Archive:
    """An open `.npz` file.

    Attributes:
        names: list of the names in it.
    """

    def __init__(self, where: str, allowed: str, archive: zipfile.ZipFile) -> None:
        self._where, self._allowed, self._archive = where, allowed, archive
        members = archive.infolist()
        self._members = {each.filename.removesuffix(_ENDING): each for each in members}
        self.names = list(self._members)
        if len(self.names) < len(members):
            raise ValueError("it has a name twice")
        check_sizes(members, os.path.getsize(archive.filename or ""))

    def read(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Returns those arrays with these names that are there, or all arrays for None.

        Raises:
            ValueError: one is no array, has Python objects, is damaged, or is not as large as it says.
        """
        names = self.names if names is None else [name for name in names if name in self._members]
        for name in names:
            if not self._members[name].filename.endswith(_ENDING):
                raise ValueError(f"{self._where} is of another kind: {name} is no array; allowed: {self._allowed}")
        try:
            for name in names:
                self._check_header(name)
            return {name: self._array(name) for name in names}
        except Exception as error:  # whatever the readers of archives and of arrays raise, for want of memory too
            raise _unreadable(self._where, self._allowed, error) from error

    def _check_header(self, name: str) -> None:
        """Raises a `ValueError` if an array is not what its header says; unpacks nothing but the header."""
        member = self._members[name]
        with self._archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version not in _READ_HEADER:
                raise ValueError(f"{name} is of version {version} of NumPy's format")
            shape, _, dtype = _READ_HEADER[version](file)
            size = file.tell() + dtype.itemsize * math.prod(shape)
        if dtype.hasobject:
            raise ValueError(f"Object arrays are Python's own, and {name} is one")
        if min(shape, default=0) < 0 or size != member.file_size:
            raise ValueError(f"{name} says to have {size:,} bytes, and has {member.file_size:,}")

    def _array(self, name: str) -> np.ndarray:
        with self._archive.open(self._members[name]) as file:
            return np.lib.format.read_array(file, allow_pickle=False)  # its last byte compares the checksum


@contextlib.contextmanager
def opened(where: str, path: PathLike, *, allowed: str = ALLOWED) -> Iterator[Archive]:
    """A context with an `Archive`, of which nothing is unpacked yet.

    Args:
        where: beginning of an error, "dataset is 'x.npz', which".
        path: of the file.
        allowed: end of an error.

    Raises:
        ValueError: it is no such file, or would unpack to far more than its size.
    """
    with contextlib.ExitStack() as stack:
        try:
            if not os.path.isfile(path):  # a pipe would block
                raise ValueError("it is not a file")
            archive = Archive(where, allowed, stack.enter_context(zipfile.ZipFile(path)))
        except Exception as error:  # whatever the reader of archives raises
            raise _unreadable(where, allowed, error) from error
        yield archive


def load(
    where: str, path: PathLike, names: Iterable[str] | None = None, *, allowed: str = ALLOWED
) -> dict[str, np.ndarray]:
    """Returns the arrays of an `.npz` file that have these names (None: all), a dict of names to arrays.

    Arguments and errors are those of `opened` and `Archive.read`; a missing name is an error, too.
    """
    with opened(where, path, allowed=allowed) as archive:
        names = archive.names if names is None else list(names)
        if lacking := [name for name in names if name not in archive.names]:
            raise ValueError(f"{where} lacks {lacking[0]}; allowed: {allowed}")
        return archive.read(names)


class Shape(NamedTuple):
    """The type and the shape that an array of a file has to have.

    Attributes:
        kinds: of its dtype, letters of `numpy.dtype.kind`: "iu" for whole numbers, "f", "b", "U" for text.
        shape: tuple of sizes, None for any.
    """

    kinds: str
    shape: tuple[int | None, ...]


def check(where: str, arrays: dict[str, np.ndarray], wanted: dict[str, Shape], *, allowed: str = ALLOWED) -> None:
    """Raises a `ValueError` where an array is missing, or of another type or shape than is wanted."""
    for name, (kinds, shape) in wanted.items():
        if name not in arrays:
            raise ValueError(f"{where} lacks {name}; allowed: {allowed}")
        array = arrays[name]
        fits = len(array.shape) == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape))
        if array.dtype.kind not in kinds or not fits:
            raise ValueError(f"{where} has {name} of shape {array.shape} and dtype {array.dtype}; allowed: {allowed}")


# A large archive that unpacks to more than so many times its size is not an honest one.
MOST_EXPANSION = 100
LARGE = 2**28


def check_sizes(members: Iterable[zipfile.ZipInfo], size: int) -> None:
    """Raises a `ValueError` if an archive of `size` bytes would unpack to far more, or to more than memory."""
    check_size(sum(member.file_size for member in members), size)


def check_size(total: int, size: int) -> None:
    """Raises a `ValueError` if a file of `size` bytes would unpack to `total`, and that is far more, or over memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total > memory:
        raise ValueError(f"it would become {total:,} bytes, more than this machine's memory, {memory:,}")
    if total > max(LARGE, MOST_EXPANSION * size):
        raise ValueError(f"it would become {total:,} bytes, {total // max(1, size):,} times its size")


def _unreadable(where: str, allowed: str, error: Exception) -> ValueError:
    return ValueError(f"{where} cannot be read ({files.reason(error)}); allowed: {allowed}")
