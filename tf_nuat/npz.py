"""Datasets in one `.npz` file of arrays, which are held in memory."""

import zipfile

import numpy as np

from tf_nuat import validation
from tf_nuat.splits import NAMES, Arrays

ALLOWED = (
    "images and labels, for testing; or train_images and train_labels, and the same of validation and test where there "
    "are such; class_names where they have some"
)


def read(argument, path):
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
    given = {
        split: Arrays(_images(f"{where}: {images}", arrays[images]), _labels(f"{where}: {labels}", arrays[labels]))
        for split, (images, labels) in wanted.items()
    }
    names = arrays.get("class_names", np.arange(max(2, 1 + max(int(each.labels.max()) for each in given.values()))))
    names = list(map(str, names.ravel().tolist()))
    for split, (_, labels) in wanted.items():
        images, values = given[split]
        validation.labels(f"{where}: {labels}", values, num_classes=len(names), num_images=len(images))
    if len({(each.input_shape, each.dtype) for each in given.values()}) > 1:
        raise ValueError(f"{where}, where the splits have images of different sizes or types; allowed: the same of all")
    if "train" in given and not (counts := np.bincount(given["train"].labels, minlength=len(names))).all():
        raise ValueError(
            f"{where}, where class {names[int(counts.argmin())]!r} has no image in train_labels; "
            "allowed: at least one of every class"
        )
    return given, names


def _images(argument, value):
    value = value[..., None] if value.ndim == 3 else value
    if value.dtype != np.uint8:
        return validation.images(argument, value).astype(np.float32)
    validation.images(argument, np.broadcast_to(np.float32(0), value.shape))  # the shape is what can be wrong
    return value


def _labels(argument, value):
    if value.ndim != 1 or value.size == 0 or not np.issubdtype(value.dtype, np.integer):
        raise ValueError(
            f"{argument} has shape {value.shape} and dtype {value.dtype}; allowed: integers of shape (images,)"
        )
    return value.astype(np.int64)
