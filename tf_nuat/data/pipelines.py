"""Datasets of a function of the user's own that returns `tf.data` pipelines, which are read into memory."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_nuat.core import files, functions, keras_compat
from tf_nuat.data import classes
from tf_nuat.data.arrays import Arrays, checked
from tf_nuat.data.splits import NAMES

MOST_BYTES = 2**32  # of pixels that are held in memory
READ = 256  # images that are read at a time
ALLOWED = (
    f"a dict of {', '.join(NAMES)}, or some of these, to tf.data.Dataset of pairs (image, label) that are not batched; "
    "class_names where they have some"
)


def read(argument: str, name: str) -> tuple[dict[str, Arrays], list[str]]:
    """Returns the images that the function `name`, `module:function`, gives, and the names of their classes.

    The function takes no arguments. It returns a dict of "train", "validation" and "test", or some of these, to finite
    `tf.data.Dataset`s of pairs (image, label): images (H, W, C), or (H, W) where they are grey, uint8 or floating point
    in [0, 1], all of one size; labels integers from 0. An optional "class_names" in the dict names the classes; without
    it, they are the numbers from 0 to the highest label.

    The images are read once, into memory, so that the order of an epoch depends only on its number, as for every other
    dataset. A run can be continued if the function gives its images in the same order each time.

    Returns:
        (dict of the splits that are there to `Arrays`, names of the classes).

    Raises:
        ValueError: the function or what it returns is not of this kind, or does not fit in memory.
    """
    where = f"{argument} is {name!r}"
    returned = functions.named(argument, name)()
    if not isinstance(returned, dict):
        raise ValueError(f"{where}, which returns a {type(returned).__name__}; allowed: {ALLOWED}")
    datasets = dict(returned)
    class_names = datasets.pop("class_names", None)
    if unknown := set(datasets) - set(NAMES):
        raise ValueError(f"{where}, which returns a split {sorted(map(str, unknown))[0]!r}; allowed: {ALLOWED}")
    if not datasets:
        raise ValueError(f"{where}, which returns no split; allowed: {ALLOWED}")
    most, given = MOST_BYTES, {}
    for split in (split for split in NAMES if split in datasets):
        images, labels = _arrays(f"{where}: {split}", datasets[split], most)
        most -= images.nbytes
        given[split] = ((f"images of {split}", images), (f"labels of {split}", labels))
    return checked(where, given, classes.of_array(f"{where}: class_names", class_names))


def _arrays(where: str, dataset: Any, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels of a dataset as arrays; raises if they take more than `most` bytes."""
    spec = getattr(dataset, "element_spec", None)
    if (
        not isinstance(spec, tuple)
        or len(spec) != 2
        or not all(isinstance(each, tf.TensorSpec) for each in spec)
        or spec[0].shape.rank not in (None, 2, 3)
        or spec[1].shape.rank not in (None, 0)
    ):
        given = type(dataset).__name__ if spec is None else f"a dataset of {spec}"
        raise ValueError(f"{where} is {given}; allowed: a tf.data.Dataset of pairs (image, label), not batched")
    refusal = (
        f"{where} has more than {MOST_BYTES:,} bytes of images, or does not end; allowed: what fits in memory (a "
        "folder of class folders, and one that TensorFlow Datasets prepared, are read as they are needed)"
    )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(refusal)
    read = []
    try:
        for images, labels in dataset.batch(READ).as_numpy_iterator():
            if read and images.shape[1:] != read[0][0].shape[1:]:
                raise ValueError(f"{where} has images of different sizes; allowed: one size")
            read.append((images, labels))
            most -= images.nbytes
            if most < 0:
                raise ValueError(refusal)
    except tf.errors.OpError as error:  # images of different sizes, or what the user's own functions raise
        reason = files.in_one_line(keras_compat.raised_in_pipeline(error) or error.message)
        raise ValueError(f"{where} cannot be read ({reason}); allowed: images of one size") from error
    if not read:
        raise ValueError(f"{where} is empty; allowed: at least one image")
    images, labels = (np.concatenate(column) for column in zip(*read))
    return images, labels
