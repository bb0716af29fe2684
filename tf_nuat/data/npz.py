"""Datasets in one `.npz` file of arrays, which are held in memory."""

import zipfile

import numpy as np

from tf_nuat.core.files import PathLike
from tf_nuat.data.arrays import Arrays, checked
from tf_nuat.data.splits import NAMES

ALLOWED = (
    "images and labels, for testing; or train_images and train_labels, and the same of validation and test where there "
    "are such; class_names where they have some"
)


def read(argument: str, path: PathLike) -> tuple[dict[str, Arrays], list[str]]:
    """Returns the images of a file of arrays and the names of their classes.

    Its arrays are `images` and `labels`, which are a test split, or those of splits: `train_images`, `train_labels`,
    `validation_images` and so on. Images are (N, H, W, C), or (N, H, W) where they are grey, uint8 or floating point in
    [0, 1], all of one size and type; labels are integers from 0, of shape (N,). The array `class_names`, where it is
    there, names the classes; otherwise there are as many as the highest label says, named by their numbers.

    Returns:
        (dict of the splits that are there to `Arrays`, names of the classes).

    Raises:
        ValueError: the file or an array is not of this kind.
    """
    where = f"{argument} is {str(path)!r}"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{where}, which cannot be read ({reason}); allowed: arrays that numpy.savez saved") from error
    prefixes = {"test": ""} if {"images", "labels"} & set(arrays) else {split: f"{split}_" for split in NAMES}
    wanted = {split: (f"{prefix}images", f"{prefix}labels") for split, prefix in prefixes.items()}
    wanted = {split: names for split, names in wanted.items() if set(names) & set(arrays)}
    missing = [name for names in wanted.values() for name in names if name not in arrays]
    if missing or not wanted:
        raise ValueError(
            f"{where}, which lacks {missing[0] if missing else 'images'} "
            f"(it has {', '.join(sorted(arrays)) or 'nothing'}); allowed: {ALLOWED}"
        )
    given = {split: ((images, arrays[images]), (labels, arrays[labels])) for split, (images, labels) in wanted.items()}
    return checked(where, given, arrays.get("class_names"))
