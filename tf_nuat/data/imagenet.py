"""ImageNet (ILSVRC 2012), and the 100 of its classes that are called ImageNet-100."""

import dataclasses
import importlib.resources
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from tf_nuat.core.files import PathLike
from tf_nuat.data import folders, records
from tf_nuat.data.encoded import Encoded
from tf_nuat.data.subsets import divide

INPUT_SHAPE = (224, 224, 3)
VALIDATION_PER_CLASS = 50  # training images that validate: as many as there are to test on


def wnids() -> list[str]:
    """Returns the WordNet ids of the 100 classes of ImageNet-100, sorted.

    Source: Sriramanan et al., "Guided adversarial attack for evaluating and enhancing adversarial defenses", 2020.
    """
    text = importlib.resources.files("tf_nuat.data").joinpath("imagenet100_wnids.txt").read_text(encoding="utf-8")
    return sorted(text.split())


def read(name: str, data_dir: PathLike | None) -> tuple[dict[str, Encoded], list[str]]:
    """Returns the images of "imagenet100" or "imagenet2012".

    Args:
        name: one of the two.
        data_dir: a folder of class folders named by WordNet ids, with train and val (or validation, test) folders
            or without; or the folder of TensorFlow Datasets, where imagenet2012 is prepared (None: its default).

    Returns:
        (dict of the three splits to encoded images of `INPUT_SHAPE`, names of the classes).

    Raises:
        ValueError: the images are not there, or a class is missing.
    """
    given: Mapping[str, Encoded]
    if data_dir is not None and _is_folder_of_wnids(data_dir):
        given, class_names = folders.read("data_dir", data_dir)
    elif builder := records.prepared("imagenet2012", data_dir):
        found, class_names = records.read("data_dir", builder)
        given = {split: images for split, images in found.items() if split != "test"}  # the test labels are not public
    else:
        raise ValueError(
            f"data_dir is {data_dir!r} (TFDS_DATA_DIR is {os.environ.get('TFDS_DATA_DIR')!r}), where ImageNet is not; "
            "allowed: a folder of class folders named by WordNet ids (n01440764), within train and val or not; or one "
            "of TensorFlow Datasets, after `tfds build imagenet2012` with the archives in downloads/manual in it"
        )
    if name == "imagenet100":
        given, class_names = only(wnids(), given, class_names)
    given = {split: dataclasses.replace(images, input_shape=INPUT_SHAPE) for split, images in given.items()}
    return divide(given, class_names, at_most=VALIDATION_PER_CLASS), class_names


def only(
    kept: Sequence[str], given: Mapping[str, Encoded], class_names: Sequence[str]
) -> tuple[dict[str, Encoded], list[str]]:
    """Returns `given`, dict of splits to images, and the names of the classes, with only the classes `kept`."""
    if missing := sorted(set(kept) - set(class_names)):
        raise ValueError(
            f"data_dir lacks {len(missing)} of {len(kept)} classes, {missing[0]} among them; allowed: all of them"
        )
    number = np.full(len(class_names), -1)
    number[[class_names.index(name) for name in kept]] = np.arange(len(kept))
    given = {
        split: dataclasses.replace(images, labels=number[images.labels]).select(
            np.flatnonzero(number[images.labels] >= 0)
        )
        for split, images in given.items()
    }
    return given, list(kept)


def _is_folder_of_wnids(path: PathLike) -> bool:
    names = [name for folder in (path, *folders.split_folders(path)) for name in folders.folders_in(folder)]
    return any(re.fullmatch(r"n\d{8}", name) for name in names)
