"""An image list: a `.csv` file with a row for each image, its path and its label."""

import csv
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from tf_nuat.core import files
from tf_nuat.core.files import PathLike
from tf_nuat.data import classes
from tf_nuat.data.encoded import Files

Row: TypeAlias = tuple[int, list[str]]  # number of its line, and its fields

# Names of the columns, in upper or lower case.
PATHS = ("path", "file", "filename", "image", "filepath", "file_path", "file_name", "image_path")
LABELS = ("label", "class", "target", "class_name")
SPLITS = ("split",)
# Names of the splits, in upper or lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}
ALLOWED = (
    f"a header with a column of paths ({', '.join(PATHS)}), one of labels ({', '.join(LABELS)}) and, where it gives "
    "the splits, one called split"
)
_WHOLE = re.compile(r"([0-9]{1,18})(\.0*)?")  # pandas writes 3.0 where another row of the column had no label


def read(argument: str, path: PathLike) -> tuple[dict[str, Files], list[str]]:
    """Returns the images of a list and the names of their classes.

    The list is a table with a header, its fields between commas (or semicolons, or tabs). One column has the path of an
    image, from the folder of the list or from the root; another has its label, the name of a class or a whole number.
    An optional column `split` has a name in `SPLIT_NAMES`. Classes are numbered in the order of their names or, if all
    labels are whole numbers, of these.

    Args:
        argument: what to call the list in an error.
        path: path of the list.

    Returns:
        (dict of the splits that are there to `Files`, names of the classes); without a column `split` the only split is
        "train".

    Raises:
        ValueError: the list cannot be read or has another form, a file is missing, a class has no training image, or
            lines of one image differ in its label or its split.
    """
    where = f"{argument} is {str(path)!r}"
    header, rows = _table(where, path)
    at_path, at_label, at_split = _columns(where, path, header)
    for line, fields in rows:
        if not fields[at_path].strip() or not fields[at_label].strip():
            raise ValueError(f"{where}, where line {line} lacks its path or its label; allowed: both in every line")
    labels = _labels([fields[at_label].strip() for _, fields in rows])
    names = classes.in_order(set(labels))
    if len(names) < 2:
        raise ValueError(f"{where}, which has images of {len(names)} class; allowed: at least 2 classes")
    number = {name: index for index, name in enumerate(names)}
    numbers = np.array([number[label] for label in labels], np.int64)
    splits = np.array(["train" if at_split is None else _split(where, row, at_split) for row in rows])
    if "train" in splits and not (counts := np.bincount(numbers[splits == "train"], minlength=len(names))).all():
        raise ValueError(
            f"{where}, where class {names[int(counts.argmin())]!r} has no image to train on; "
            "allowed: at least one of every class"
        )
    places = _existing(where, pathlib.Path(path).parent, [fields[at_path].strip() for _, fields in rows])
    _check_repeated(where, [line for line, _ in rows], places, labels, None if at_split is None else splits.tolist())
    files = Files(numbers, np.array(places))
    return {split: files.select(np.flatnonzero(splits == split)) for split in dict.fromkeys(splits.tolist())}, names


def are_within(argument: str, path: PathLike, folders: Sequence[PathLike]) -> bool:
    """Returns whether all images of the list at `path` are within one of the folders; links are not followed.

    Raises:
        ValueError: as `read`.
    """
    within = tuple(os.path.join(os.path.abspath(folder), "") for folder in folders)
    given, _ = read(argument, path)
    return all(
        os.path.abspath(os.fsdecode(place)).startswith(within) for files in given.values() for place in files.places
    )


def _table(where: str, path: PathLike) -> tuple[list[str], list[Row]]:
    """Returns the header of a table and its rows, without empty ones."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
            rows = [(reader.line_num, fields) for fields in reader if fields]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{where}, which cannot be read ({files.reason(error)}); allowed: a table in UTF-8") from error
    if len(rows) < 2:
        raise ValueError(f"{where}, which has {len(rows)} lines; allowed: a header, and a line for each image")
    (_, header), *rows = rows
    for line, fields in rows:
        if len(fields) != len(header):
            raise ValueError(
                f"{where}, where line {line} has {len(fields)} fields; allowed: {len(header)}, as the header"
            )
    return header, rows


def _columns(where: str, path: PathLike, header: Sequence[str]) -> tuple[int, int, int | None]:
    """Returns the indices of the columns of paths, of labels and of splits; the last is None if there is none."""
    names = [name.strip().lower() for name in header]
    found = []
    for what, known in (("paths", PATHS), ("labels", LABELS), ("splits", SPLITS)):
        there = [index for index, name in enumerate(names) if name in known]
        if len(there) > 1 or (not there and known is not SPLITS):
            given = ", ".join(header[index] for index in there) or ", ".join(header)
            has = f"{len(there) or 'no'} column{'s' * (len(there) > 1)} of {what} ({files.in_one_line(given)})"
            raise ValueError(f"{where}, which has {has}; allowed: {ALLOWED}")
        found.append(there[0] if there else None)
    at_path, at_label, at_split = found
    assert at_path is not None and at_label is not None
    # A column without a name is the index that pandas writes.
    if unused := [header[index] for index, name in enumerate(names) if name and index not in found]:
        classes.say(f"columns of {path} that are not used: {files.in_one_line(', '.join(unused))}")
    return at_path, at_label, at_split


def _labels(labels: list[str]) -> list[str]:
    """Returns the labels; if all are whole numbers, these are written alike ("3" for "03" and "3.0")."""
    matches = [_WHOLE.fullmatch(label) for label in labels]
    return [str(int(match[1])) for match in matches if match] if all(matches) else labels


def _split(where: str, row: Row, column: int) -> str:
    line, fields = row
    split = SPLIT_NAMES.get(fields[column].strip().lower())
    if split is None:
        raise ValueError(
            f"{where}, where split is {fields[column][:100]!r} in line {line}; "
            "allowed: train, validation (or val), test"
        )
    return split


def _existing(where: str, folder: pathlib.Path, paths: Sequence[str]) -> list[bytes]:
    """Returns the paths of the images as bytes; raises if one is not a file."""
    joined = [os.path.join(folder, path) for path in paths]
    missing = [path for path in dict.fromkeys(joined) if not os.path.isfile(path)]
    if missing:
        raise ValueError(
            f"{where}, of whose {len(joined)} images {len(missing)} are missing, {missing[0][:500]!r} the first; "
            "allowed: paths of files, from the folder of the list or from the root"
            + (", with / between folders" if "\\" in missing[0] and os.sep == "/" else "")
        )
    return [os.fsencode(path) for path in joined]


def _check_repeated(
    where: str, lines: Sequence[int], places: Sequence[bytes], labels: Sequence[str], splits: Sequence[str] | None
) -> None:
    """Raises a `ValueError` if two lines of one image differ in its label or its split, which may be drawn (None)."""
    first: dict[bytes, int] = {}
    for index, place in enumerate(places):
        other = first.setdefault(os.path.normpath(place), index)
        if other == index:
            continue
        if splits is None or splits[index] != splits[other] or labels[index] != labels[other]:
            raise ValueError(
                f"{where}, where lines {lines[other]} and {lines[index]} have the same image; allowed: each image in "
                "one line or, with a column split, in several of the same split and label"
            )
