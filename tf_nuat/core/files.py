"""Files that are replaced atomically: a kill leaves the old one or the new one, and never a part."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeAlias

import keras
import numpy as np
from absl import logging

PathLike: TypeAlias = str | os.PathLike[str]

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what a file system without locks answers


class NotSavedError(OSError):
    """A file cannot be written; the message is one line that names it. What was there before is unchanged."""


def not_saved(path: PathLike, error: BaseException) -> NotSavedError:
    """Returns the error that says that `path` cannot be written, and why: `error`."""
    return NotSavedError(f"{path} cannot be written ({reason(error)}); what was saved before is kept")


def save_arrays(path: PathLike, *unnamed: Any, **arrays: Any) -> None:
    """Replaces `path`, an `.npz` file of these arrays."""
    _replace(pathlib.Path(path), lambda file: np.savez(file, *unnamed, **arrays))


def save_json(content: Any, path: PathLike, *, indent: int | None = 2) -> None:
    """Replaces `path`, a JSON file; with `indent` None it is one line, for long arrays of numbers."""
    save_text(json.dumps(content, indent=indent) + "\n", path)


def save_text(text: str, path: PathLike) -> None:
    """Replaces `path`, a file in UTF-8; what is not Unicode, as in the name of a file, is escaped."""
    save_bytes(text.encode("utf-8", "backslashreplace"), path)


def save_bytes(content: bytes, path: PathLike) -> None:
    """Replaces `path`."""
    _replace(pathlib.Path(path), lambda file: file.write(content))


def save_network(network: keras.Model, path: PathLike) -> None:
    """Replaces `path`, a network's `.keras` file."""
    with _replacing(pathlib.Path(path)) as unfinished:
        network.save(unfinished)


def _replace(path: pathlib.Path, write: Callable[[IO[bytes]], Any]) -> None:
    with _replacing(path) as unfinished, open(unfinished, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A context that yields the name of a file to write. At its end the file becomes `path`."""
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise not_saved(path, error) from error


def user_cache() -> pathlib.Path:
    """Returns the folder for what can be made again: tf_nuat in `XDG_CACHE_HOME` or, if that is not set, ~/.cache."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tf_nuat"


def reason(error: BaseException) -> str:
    """Returns why something failed, as part of a line: the system's words for a file, or the start of a message."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return line((str(error).strip() or type(error).__name__).splitlines()[0])


def line(text: str, most: int = 200) -> str:
    """Returns text for use within a line: at most `most` characters, with line feeds and controls escaped."""
    text = text if len(text) <= most else f"{text[:most]}..."
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def in_one_line(text: str) -> str:
    """Returns a text of several lines, such as a message of TensorFlow's, for use within a line."""
    return line(" ".join(text.split()), 300)


@contextlib.contextmanager
def owned(argument: str, folder: PathLike) -> Iterator[None]:
    """A context in which an existing folder belongs to this process: another process that asks for it is refused.

    The lock is the operating system's: it ends with the process, however the process ends. On a file system without
    locks, as some of clusters are, there is a warning instead.

    Args:
        argument: what to call the folder in an error.
        folder: its path.

    Raises:
        ValueError: another process has it; the message has its number and host.
    """
    path = pathlib.Path(folder) / ".lock"
    with _locked(argument, path) as file:
        with contextlib.suppress(OSError):  # on a full disk the lock still holds, without a name
            os.truncate(path, 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(argument: str, path: pathlib.Path) -> IO[str]:
    """Returns the file at `path`, open and locked."""
    while True:
        try:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (it stays open)
        except OSError as error:
            raise ValueError(
                f"{argument} is {str(path.parent)!r}, which cannot be written ({reason(error)})"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                who = file.read() or "another process"
            raise ValueError(
                f"{argument} is {str(path.parent)!r}, into which {who} writes; allowed: another folder, or this one "
                "when that has ended"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logging.warning("%s cannot be locked (%s): let no other process write into it", path.parent, reason(error))
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()  # the previous owner has removed the file meanwhile


def digest(*arrays: np.ndarray) -> str:
    """Returns a hexadecimal string that two sequences of arrays share only if they are equal."""
    found = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        found.update(repr((array.shape, array.dtype.str)).encode())
        found.update(array.view(np.uint8).data)  # no copy; NumPy has no memoryview of bfloat16 itself
    return found.hexdigest()
