"""A folder of class folders: the images of a class are the files of the folder that bears its name."""

import os
import pathlib
import stat
from collections.abc import Callable, Sequence

import numpy as np

from tf_nuat.core import files
from tf_nuat.core.files import PathLike
from tf_nuat.data import classes
from tf_nuat.data.encoded import Files
from tf_nuat.data.image_lists import SPLIT_NAMES

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
OTHERS = (".avif", ".heic", ".heif", ".jfif", ".jp2", ".ppm", ".tif", ".tiff")  # of pictures that are not read


def read(argument: str, path: PathLike) -> tuple[dict[str, Files], list[str]]:
    """Returns the images of a folder and the names of their classes.

    The folder holds class folders, or folders of splits that hold them. Names of split folders are those in
    `SPLIT_NAMES`, in upper or lower case: `train`, `validation` (or `val`, `valid`) and `test`. Classes are numbered in
    the order of their names or, if all names are whole numbers, of these. Hidden files and folders (their names begin
    with a dot), and files without an image's extension, are skipped. A line says so if these are pictures, or if a
    class folder has folders in it.

    Args:
        argument: what to call the folder in an error.
        path: the folder.

    Returns:
        (dict of the splits that are there to `Files`, names of the classes); without split folders the only split is
        "train".

    Raises:
        ValueError: the folder has another structure or cannot be read, a class has no images, an image is a broken
            link, two folders are the same split, or splits have different classes.
    """
    path = pathlib.Path(path)
    places = split_folders(path)
    if not any(map(folders_in, places)):  # folders of these names without class folders are classes
        places = {path: "train"}
    names: list[str] = []
    given: dict[str, Files] = {}
    for place, split in places.items():
        if split in given:
            first = next(each for each in places if places[each] == split)
            raise ValueError(
                f"{argument} is {str(path)!r}, which has both {first.name} and {place.name}; allowed: one of them"
            )
        there = folders_in(place)
        if len(there) < 2:
            raise ValueError(
                f"{argument} is {str(place)!r}, which has {len(there)} class folders; allowed: at least 2, "
                "each with images, in the folder or in its train, validation (or val, valid) and test folders"
            )
        names = names or classes.in_order(there)
        if different := sorted(set(there) ^ set(names)):
            raise ValueError(
                f"{argument} is {str(path)!r}, where the splits differ in the class folder {different[0]!r}; "
                "allowed: the same classes in every split"
            )
        given[split] = _files(argument, place, names)
    return given, names


def split_folders(path: PathLike) -> dict[pathlib.Path, str]:
    """Returns the folders in `path` with the name of a split, and the split of each, "train" first.

    Raises:
        ValueError: it cannot be read.
    """
    found = {pathlib.Path(path, name): SPLIT_NAMES.get(name.lower(), "") for name in folders_in(path)}
    return {place: split for split in dict.fromkeys(SPLIT_NAMES.values()) for place in found if found[place] == split}


def folders_in(path: PathLike) -> list[str]:
    """Returns the sorted names of the folders in `path`, without the hidden ones; [] if it is not a folder.

    Raises:
        ValueError: it cannot be read.
    """
    return _names(path, lambda entry: entry.is_dir()) if os.path.isdir(path) else []


def _files(argument: str, place: pathlib.Path, names: Sequence[str]) -> Files:
    paths, counts, left_out = [], [], []

    def is_image(entry: os.DirEntry[str]) -> bool:
        if _is_image(entry):
            return True
        if entry.is_dir() or entry.name.lower().endswith(OTHERS):
            left_out.append(entry.path)
        return False

    for name in names:
        folder = place / name
        images = _names(folder, is_image)
        if not images:
            raise ValueError(
                f"{argument} has the class folder {str(folder)!r} without images; "
                f"allowed: at least one of {', '.join(EXTENSIONS)}"
            )
        paths.extend(os.fsencode(folder / image) for image in images)
        counts.append(len(images))
    if left_out:
        classes.say(
            f"{len(left_out)} folders or pictures within the class folders of {str(place)!r} are left out, "
            f"{min(left_out)!r} the first; read are {', '.join(EXTENSIONS)} directly in a class folder"
        )
    return Files(np.repeat(np.arange(len(names)), counts), np.array(paths))


def _is_image(entry: os.DirEntry[str]) -> bool:
    if not entry.name.lower().endswith(EXTENSIONS):
        return False
    if entry.is_symlink():  # a broken one raises, so that no image is missing without an error
        return stat.S_ISREG(os.stat(entry.path).st_mode)
    return entry.is_file()


def _names(path: PathLike, is_wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_wanted(entry))
    except OSError as error:
        named = os.fspath(error.filename or path)
        raise ValueError(
            f"{named!r} cannot be read ({files.reason(error)}); allowed: folders that can be, and links that lead "
            "to a file"
        ) from error
