"""The classes of a dataset: which number each gets, and names that the user gives."""

import functools
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from absl import logging

from tf_nuat.core import files, json_input
from tf_nuat.core.files import PathLike
from tf_nuat.data.arrays import Arrays
from tf_nuat.data.encoded import Files

# Names in the order of the outputs, a dict of names to indices or the reverse, or the path of a file with either.
ClassNames: TypeAlias = PathLike | Sequence[str] | Mapping[Any, Any]

ALLOWED = "the names of the classes in the order of the outputs, one a line, or a JSON list, or a JSON dict of indices"
SHOWN = 12  # names that a line shows
_WHOLE = re.compile("[0-9]{1,18}")  # that an int64 holds


def are_numbers(names: Iterable[str]) -> bool:
    """Returns whether all names are whole numbers, as "7" and "00012" are."""
    return all(_WHOLE.fullmatch(name) for name in names)


def in_order(names: Iterable[str]) -> list[str]:
    """Returns the names in the order of the classes: numerical if all are whole numbers, else alphabetical."""
    names = sorted(names)
    return sorted(names, key=int) if are_numbers(names) else names


def read_names(argument: str, value: Any) -> tuple[str, ...]:
    """Returns the names of the classes in the order of the outputs.

    Args:
        argument: what to call them in an error.
        value: the names; or a dict of index to name, or of name to index as Keras's `class_indices`; or the path of a
            file with one name a line, or with such a list or dict as JSON.

    Raises:
        ValueError: the file cannot be read, there are fewer than two names, one is there twice, is empty or has
            control characters, or the indices are not 0 to K - 1.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.data.read_class_names("class_names", ["cat", "dog"])
        ('cat', 'dog')
    """
    where = argument
    if isinstance(value, (str, os.PathLike)):
        where = f"{argument} is {json_input.shown(os.fspath(value))}, which"
        value = _content(argument, where, pathlib.Path(value))
    if isinstance(value, Mapping):
        value = _by_index(where, value)
    elif not isinstance(value, (list, tuple, np.ndarray)):
        raise ValueError(f"{where} has a {type(value).__name__}; allowed: {ALLOWED}")
    names = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if not isinstance(names, list) or len(names) < 2:
        raise ValueError(f"{where} has {np.size(names)} names; allowed: at least 2")
    seen = set()
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
            raise ValueError(f"{where} has {json_input.shown(name)} as name {number + 1}; allowed: {ALLOWED}")
        if name in seen:
            raise ValueError(f"{where} has {json_input.shown(name)} twice; allowed: names that differ")
        seen.add(name)
    return tuple(map(str, names))


def of_array(argument: str, value: Any) -> tuple[str, ...] | None:
    """Returns the names of classes that come with the images, an array or a list of text or whole numbers.

    Raises:
        ValueError: as `read_names`.
    """
    if value is None:
        return None
    names = np.ravel(np.asarray(value, object)).tolist()
    return read_names(argument, [str(each) if isinstance(each, (int, np.integer)) else each for each in names])


def _content(argument: str, where: str, path: pathlib.Path) -> Any:
    try:
        if not os.path.isfile(path):  # reading a pipe would block
            raise ValueError(f"{where} is not a file; allowed: a file of {ALLOWED}")
        if path.stat().st_size > json_input.MOST_BYTES:
            raise ValueError(f"{where} is too large; allowed: at most {json_input.MOST_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} cannot be read ({files.reason(error)}); allowed: a text file in UTF-8") from error
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{"):
        return json_input.load(argument, path)
    # A blank line in between is kept, and refused later: it may or may not stand for a class.
    return [line.strip() for line in text.rstrip().split("\n")]


def _by_index(where: str, value: Mapping[Any, Any]) -> list[Any]:
    """Returns the names in a dict, of index to name or of name to index, in the order of the indices."""
    if all(isinstance(each, str) for each in value.values()):
        named = {str(index): name for index, name in value.items()}
    elif all(isinstance(each, (int, np.integer)) and not isinstance(each, bool) for each in value.values()):
        named = {str(index): name for name, index in value.items()}
    else:
        raise ValueError(f"{where} has a dict of other values; allowed: {ALLOWED} to names, or names to indices")
    for index in range(len(value)):
        if str(index) not in named:
            raise ValueError(f"{where} has no name of index {index}; allowed: indices 0 to {len(value) - 1}, each once")
    return [named[str(index)] for index in range(len(value))]


def numbered(
    dataset: str, given: Mapping[str, Any], own: tuple[str, ...], wanted: tuple[str, ...] | None, *, to_train: bool
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Returns the images of a dataset and the names of its classes, numbered as wanted.

    Args:
        dataset: its name.
        given: dict of its splits to `Arrays` or `Encoded` images.
        own: the names that it has for its classes, in its own order.
        wanted: the names in the order of the outputs; None: those of the dataset, with a message if their order may be
            a surprise.
        to_train: whether the dataset has training images: then every class must have some.

    Raises:
        ValueError: the names do not fit.
    """
    first = next(iter(given.values()))
    are_folders = isinstance(first, Files) and os.path.isdir(dataset)
    if wanted is None:
        if are_folders:
            _say_order_of_folders(dataset, own)
        elif isinstance(first, Files):
            _say_order_of_numbers(dataset, own, to_train=to_train)
        return given, own
    are_indices = isinstance(first, Arrays) and own == tuple(map(str, range(len(own))))
    options = {"are_folders": are_folders, "are_indices": are_indices, "to_train": to_train}
    number = outputs(dataset, own, wanted, **options)
    return {split: images.relabelled(number) for split, images in given.items()}, wanted


def outputs(
    dataset: str,
    own: Sequence[str],
    wanted: Sequence[str],
    *,
    are_folders: bool = False,
    are_indices: bool = False,
    to_train: bool = True,
) -> np.ndarray:
    """Returns the index, int64 (K,), of each class of a dataset in the names that the user gives.

    Args:
        dataset: its name, for errors.
        own: the names that the dataset has for its classes.
        wanted: those that the user gives, in the order of the outputs.
        are_folders: whether `own` are the names of folders: each must be in `wanted`, and the other way round.
        are_indices: whether `own` are just the numbers 0 to K - 1, which `wanted` names.
        to_train: whether there are training images: then every class must have some.

    Raises:
        ValueError: the names do not fit.
    """
    index = {name: number for number, name in enumerate(wanted)}
    lacking = [name for name in own if name not in index]
    if are_indices or (lacking and not are_folders and are_numbers(own)):
        numbers = list(map(int, own))
        if max(numbers) >= len(wanted):
            raise ValueError(
                f"class_names has {len(wanted)} names; allowed: at least {max(numbers) + 1}, as {dataset} has the "
                f"label {max(numbers)}"
            )
    elif lacking:
        what = "class folder" if are_folders else "class"
        raise ValueError(
            f"class_names lacks {lacking[0]!r}, a {what} of {dataset}; "
            "allowed: the names of all its classes, in the order of the network's outputs"
        )
    else:
        numbers = [index[name] for name in own]
    without = [wanted[number] for number in sorted(set(range(len(wanted))) - set(numbers))]
    if without and (are_folders or to_train):
        what = "class folder" if are_folders else "training image"
        raise ValueError(
            f"class_names has {json_input.shown(without[0])}, of which {dataset} has no {what}; "
            f"allowed: the names of its {len(own)} classes"
        )
    return np.array(numbers, np.int64)


def _say_order_of_folders(dataset: str, names: Sequence[str]) -> None:
    """Says that class folders are in numerical order, if the alphabetical order is different."""
    by_name = sorted(names)
    if by_name != list(names):
        say(
            f"class folders of {dataset} are whole numbers, and are numbered in that order: {_listed(names)}. "
            f"keras.utils.image_dataset_from_directory numbers them by name: {_listed(by_name)}. For that order, or "
            "another, give the names in it, one a line: --class_names FILE (class_names= in Python)"
        )


def _say_order_of_numbers(dataset: str, names: Sequence[str], *, to_train: bool) -> None:
    """Says that labels are renumbered, if they are whole numbers but not 0 to K - 1."""
    if are_numbers(names) and list(names) != [str(number) for number in range(len(names))]:
        # Every class must have training images, so with those the user cannot name the classes in between.
        how = f" To keep their numbers, name the classes 0 to {names[-1]}: --class_names FILE (class_names= in Python)"
        say(
            f"labels of {dataset} are not 0 to {len(names) - 1}, and are numbered in their order: class 0 is label "
            f"{names[0]}, class {len(names) - 1} is label {names[-1]}.{'' if to_train else how}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


@functools.cache  # a command that opens a dataset twice says it once
def say(line: str) -> None:
    """Says a line to the user of a command, on the standard error stream, once."""
    logging.warning("%s", line)
