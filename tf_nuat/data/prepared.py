"""Datasets that TensorFlow Datasets prepares under a name, and that fit in memory."""

import os

import numpy as np

from tf_nuat.core import files
from tf_nuat.core.files import PathLike
from tf_nuat.data.arrays import Arrays
from tf_nuat.data.subsets import first_of_each_class


def read(
    name: str, data_dir: PathLike | None, only: str | None, *, validation_per_class: int
) -> tuple[dict[str, Arrays], list[str]]:
    """Returns the splits of a dataset of TensorFlow Datasets and the names of its classes.

    Args:
        name: that of TensorFlow Datasets.
        data_dir: its folder; None for its own default.
        only: the only split that is needed; None for all.
        validation_per_class: number of training images of each class that validate, the first ones.

    Raises:
        ValueError: it is not prepared and cannot be downloaded, or a class has too few training images.
    """
    import tensorflow_datasets as tfds  # slow to import, and the embedded dataset does not need it

    # If only the test images are needed, only they are read: the others take seconds to decode.
    wanted = ["test"] if only == "test" else ["train", "test"]
    try:
        found, info = tfds.load(
            name,
            split=wanted,
            batch_size=-1,
            as_supervised=True,
            with_info=True,
            shuffle_files=False,
            data_dir=data_dir,
        )
    except Exception as error:  # anything from the network, the file system or the packages that prepare datasets
        raise ValueError(
            f"data_dir is {data_dir!r} (TFDS_DATA_DIR is {os.environ.get('TFDS_DATA_DIR')!r}), where {name} is not "
            f"prepared and could not be downloaded ({files.reason(error)})"
        ) from error
    read_splits = {split: Arrays(*(tensor.numpy() for tensor in tensors)) for split, tensors in zip(wanted, found)}
    names = info.features["label"].names
    if "train" not in read_splits:
        return read_splits, names
    train, test = read_splits["train"], read_splits["test"]
    counts = np.bincount(train.labels, minlength=len(names))
    if counts.min() <= validation_per_class:
        raise ValueError(
            f"data_dir is {data_dir!r}, where {name} has {counts.min()} training images of class "
            f"{names[int(counts.argmin())]!r}; allowed: more than {validation_per_class}, the first of which validate"
        )
    mask = first_of_each_class(train.labels, validation_per_class)
    return {"train": train.select(~mask), "validation": train.select(mask), "test": test}, names
