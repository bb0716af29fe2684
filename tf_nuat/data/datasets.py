"""Datasets: `load(name)` returns the training, validation and test splits as deterministic `tf.data` pipelines.

A dataset is a name, or the user's own: the path of a folder of class folders, of a directory that TensorFlow Datasets
prepared, of a list of images, or of a file of arrays, or a function that returns `tf.data` pipelines. The order of an
epoch and its augmentation depend only on (seed, epoch), so a resumed run sees the batches of an uninterrupted one.

Names:

- "digits": the 8x8 grey images that come with scikit-learn, 16 levels above black. Of every ten images of a class the
  first seven are for training, the eighth for validation, the last two for testing.
- "mnist": 50,000 / 10,000 / 10,000 images of 28x28x1; the first 1,000 training images of each class validate.
- "cifar10": 49,000 / 1,000 / 10,000 images of 32x32x3; the first 100 training images of each class validate. Training
  images are padded by 4, cropped to 32x32 at random and flipped left to right half of the time.
- "cifar100": the same with 100 classes; the first 10 training images of each validate.
- "svhn": house numbers, 72,257 / 1,000 / 26,032 images of 32x32x3, of TensorFlow Datasets' `svhn_cropped` without its
  extra images; the first 100 training images of each class validate. Training images stay as they are.
- "imagenet2012": ImageNet at 224x224, from a folder of class folders named by WordNet ids, or prepared by TensorFlow
  Datasets, for which the user downloads it by hand; "imagenet100": 100 of its classes (see `tf_nuat.data.imagenet`),
  5,000 images to test on. ImageNet's validation images are the test split; 50 training images of each class (a tenth,
  where they are few) validate.

"First" is in the order of TensorFlow Datasets, from which MNIST, CIFAR and SVHN are read.

Paths:

- a folder of class folders, in it or in its `train`, `validation` (or `val`, `valid`) and `test` folders:
  `tf_nuat.data.folders`;
- a directory of a dataset that TensorFlow Datasets prepared, with images and class labels: `tf_nuat.data.records`;
- a `.csv` file with the path, the label and, optionally, the split of each image: `tf_nuat.data.image_lists`;
- an `.npz` file of `train_images`, `train_labels` and so on, as MedMNIST has them, or of `x_train`, `y_train` and so
  on, as `keras.datasets` has them: `tf_nuat.data.npz`.

Functions: `module:function`, without arguments, returns a dict of the splits to `tf.data.Dataset`s of single images and
labels: `tf_nuat.data.pipelines`.

If a path or a function has a validation but no test split, the validation split is the test split. Splits that are
still missing are made of training images: a tenth of each class, drawn at random, the same tenth for every seed
(`subsets.divide`).

ImageNet, folders, directories and lists are read and decoded as they are needed; everything else is held in memory.

Class folders, and the labels of a list, are numbered in alphabetical order or, if all are whole numbers, in numerical
order: "2" comes before "10". Keras's `image_dataset_from_directory` numbers "10" before "2"; if that makes a
difference, a warning says so. `class_names` gives any other order.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tf_nuat.core import functions, validation
from tf_nuat.core.files import PathLike
from tf_nuat.data import classes, folders, image_lists, imagenet, npz, pipelines, prepared, records, splits
from tf_nuat.data.arrays import Arrays
from tf_nuat.data.classes import ClassNames
from tf_nuat.data.encoded import MARGIN
from tf_nuat.data.splits import Splits
from tf_nuat.data.subsets import divide, first_of_each_class, rank_in_class, stratified

__all__ = ["DATASETS", "MissingSplitError", "Splits", "check_name", "load", "reads_files", "sample", "stratified"]

MOST_SHOWN = 500  # characters of a name that an error shows


class MissingSplitError(ValueError):
    """A dataset does not have a split; the message is one line that names the splits that it has."""


# The images of each split, `Arrays` or `Encoded`; the names of the classes; the augmentation of training images.
Dataset: TypeAlias = tuple[Mapping[str, Any], Iterable[str], str]


def load(
    name: PathLike,
    *,
    batch_size: int = 64,
    seed: int = 0,
    images_per_class: int | None = None,
    data_dir: PathLike | None = None,
    input_shape: Sequence[int | None] | None = None,
    augmentation: str | None = None,
    corrupt: str = "raise",
    class_names: ClassNames | None = None,
) -> Splits:
    """Returns the splits of a dataset: a name, a path or a function, as the module describes them.

    Args:
        name: "cifar10", "cifar100", "digits", "imagenet100", "imagenet2012", "mnist", "svhn", a path, or
            `module:function`.
        batch_size: images per batch, all replicas together; at most the number of training images.
        seed: whole number, at least 0, from which order and augmentation follow.
        images_per_class: number of training images of each class to keep, the first ones; None keeps all.
        data_dir: folder of TensorFlow Datasets; None is its own default, the environment variable TFDS_DATA_DIR or
            ~/tensorflow_datasets. MNIST, CIFAR and SVHN are downloaded there if they are not prepared there. For
            ImageNet, it may also be the folder of class folders. Digits, paths and functions ignore it.
        input_shape: (height, width, channels) of the images. Images from files are resized to cover it and cropped at
            the centre; images in memory must have this shape. None: (224, 224, 3) for ImageNet; for other files the
            size of the first image, and 3 channels unless `encoded.LOOKED_AT` images are all grey.
        augmentation: of training images, "none", "crop_flip" or "resized_crop", described at `Splits`; the last is
            not for images in memory. None: that of the name; "none" for a path or a function.
        corrupt: what happens at an image that cannot be decoded, "raise" or "skip", described at `Splits`.
        class_names: names of the classes in the order of the network's outputs, or the path of a file of them, see
            `read_class_names`. Class folders, and other classes that have names, get this order; classes that have
            only numbers get these names. None: the names and the order of the dataset.

    Raises:
        ValueError: an argument is out of range, or the dataset cannot be found, read or downloaded.

    Source: the splits and the augmentation of Sriramanan et al., "Towards efficient and effective adversarial
    training", 2021.

    Example:
        >>> import tf_nuat
        >>> splits = tf_nuat.data.load("digits", batch_size=32)
        >>> splits.input_shape, splits.num_classes, splits.steps_per_epoch
        ((8, 8, 1), 10, 39)
    """
    validation.whole_number("batch_size", batch_size, at_least=1)
    validation.whole_number("seed", seed, at_least=0)
    if images_per_class is not None:
        validation.whole_number("images_per_class", images_per_class, at_least=1)
    name = check_name("name", name)
    opened = _open(name, data_dir, input_shape, augmentation, corrupt, class_names)
    train = opened["examples"].get("train")
    if train is None:
        raise ValueError(f"name is {name!r}, which has no images to train on; allowed: a dataset with a training split")
    if images_per_class is not None:
        validation.number("images_per_class", images_per_class, at_most=int(np.bincount(train.labels).min()))
        train = train.select(np.flatnonzero(first_of_each_class(train.labels, images_per_class)))
        opened["examples"]["train"] = train
    validation.number("batch_size", batch_size, at_most=len(train.labels))
    return Splits(name, batch_size=int(batch_size), seed=int(seed), **opened)


def sample(
    name: PathLike,
    *,
    split: str = "test",
    samples: int | None = None,
    at_most: bool = False,
    seed: int = 0,
    input_shape: Sequence[int | None] | None = None,
    data_dir: PathLike | None = None,
    augmentation: str | None = None,
    corrupt: str = "raise",
    class_names: ClassNames | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Returns images of one split of a dataset to judge a network on: (images, labels, class_names).

    Args:
        name: as for `load`; an `.npz` file may also have nothing but `images` and `labels`, which are its test split.
        split: "train", "validation" or "test".
        samples: number of images to draw by `seed`, each class in proportion; None, or more than there are: all.
        at_most: whether to take only as many images as fit in memory, instead of an error.
        seed: whole number, at least 0.
        input_shape: (height, width, channels) that the network takes; a size that is None is that of the images.
        data_dir, augmentation, corrupt, class_names: as for `load`. Only the effect of `augmentation` on evaluation
            images matters.

    Returns:
        images float32 (N, H, W, C) in [0, 1], labels int64 (N,), tuple of the names of the classes.

    Raises:
        MissingSplitError: the dataset has no such split.
        ValueError: as for `load`; or the images do not fit in memory.

    Example:
        >>> import tf_nuat
        >>> images, labels, class_names = tf_nuat.data.sample("digits", samples=20)
        >>> images.shape, class_names[:3]
        ((20, 8, 8, 1), ('0', '1', '2'))
    """
    if samples is not None:
        validation.whole_number("samples", samples, at_least=1)
    validation.whole_number("seed", seed, at_least=0)
    options: dict[str, Any] = {"augmentation": augmentation, "corrupt": corrupt, "class_names": class_names}
    found = one_split(name, split, seed=seed, data_dir=data_dir, input_shape=input_shape, **options)
    count = len(found.labels(split)) if samples is None else min(samples, len(found.labels(split)))
    most = found.most_at_once(split)
    if at_most and most:
        count = min(count, most)
    found.check_fits(split, count, f"--samples {most} (samples= in Python)")
    images, labels = found.take(split, stratified(found.labels(split), count, seed=seed))
    return images, labels, found.class_names


def one_split(name: PathLike, split: str, *, seed: int = 0, **options: Any) -> Splits:
    """Returns a dataset of which only `split` is needed: the others may be missing.

    Arguments and errors are those of `sample`, without `samples` and `at_most`.
    """
    validation.one_of("split", split, splits.NAMES)
    name = check_name("name", name)
    opened = _open(name, only=split, **options)
    if split not in opened["examples"]:
        raise MissingSplitError(f"split of {name} is {split!r}; allowed: {', '.join(sorted(opened['examples']))}")
    return Splits(name, batch_size=1, seed=int(seed), **opened)


def check_name(argument: str, name: Any) -> str:
    """Returns `name` as text if it names a dataset, a folder, a `.csv` or `.npz` file, or is `module:function`.

    Raises:
        ValueError: it is none of these, or there is no such function.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.data.check_name("dataset", "mnist")
        'mnist'
    """
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if isinstance(name, str) and name:
        # `os.path` takes any text; `pathlib` raises for names that no file can have.
        if name in DATASETS or os.path.isdir(name) or (_suffix(name) in FILES and os.path.isfile(name)):
            return name
        if functions.is_name(name):
            functions.named(argument, name)
            return name
    allowed = f"{', '.join(sorted(DATASETS))}, or the path of a folder or of a .csv or .npz file, or module:function"
    shown = f"{name[:MOST_SHOWN]}..." if isinstance(name, str) and len(name) > MOST_SHOWN else name
    validation.refuse(argument, shown, allowed)


def reads_files(name: str) -> bool:
    """Returns whether the images of the dataset at this path are read from files, so that any size can be made.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.data.reads_files("images.csv"), tf_nuat.data.reads_files("mnist")
        (True, False)
    """
    return name not in DATASETS and (os.path.isdir(name) or _suffix(name) == ".csv")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _open(
    name: str,
    data_dir: PathLike | None = None,
    input_shape: Sequence[int | None] | None = None,
    augmentation: str | None = None,
    corrupt: str = "raise",
    class_names: ClassNames | None = None,
    only: str | None = None,
) -> dict[str, Any]:
    """Returns what `Splits` takes of a dataset, a dict of "examples", "class_names", "augmentation", "corrupt".

    Where `only` names a split, others may be missing.
    """
    if augmentation is not None:
        validation.one_of("augmentation", augmentation, splits.AUGMENTATIONS)
    validation.one_of("corrupt", corrupt, splits.CORRUPT)
    wanted = (None, None, None) if input_shape is None else _checked_shape(input_shape)
    names = None if class_names is None else classes.read_names("class_names", class_names)
    given, own, default = _read(name, data_dir, only)
    to_train = "train" in given or name in DATASETS  # whether they are read or not
    given, names = classes.numbered(name, given, tuple(own), names, to_train=to_train)
    augmentation = augmentation or default
    first = next(iter(given.values()))
    if isinstance(first, Arrays):
        if augmentation == "resized_crop":
            validation.refuse("augmentation", augmentation, f"none, crop_flip for {name}, which is in memory")
        if not validation.takes(wanted, first.input_shape):
            validation.refuse("input_shape", tuple(wanted), f"{first.input_shape}, that of the images of {name}")
    else:
        if None in wanted:
            known = first.input_shape or first.first_shape(skip=corrupt == "skip")
            wanted = tuple(size or actual for size, actual in zip(wanted, known))
        margin = MARGIN if augmentation == "resized_crop" else 1.0
        given = {
            split: dataclasses.replace(images, input_shape=wanted, margin=margin) for split, images in given.items()
        }
    return {
        "examples": divide(given, names),
        "class_names": names,
        "augmentation": augmentation,
        "corrupt": corrupt,
    }


def _read(name: str, data_dir: PathLike | None, only: str | None) -> Dataset:
    """Returns the splits that a dataset has, or only the split `only` if that saves time."""
    if name in DATASETS:
        return DATASETS[name](data_dir, only)
    if functions.is_name(name) and not os.path.isdir(name):
        return *pipelines.read("name", name), "none"
    if os.path.isfile(name):
        return *FILES[_suffix(name)]("name", name), "none"
    if (folder := records.builder_folder(name)) is not None:
        return *records.read_folder("name", folder), "none"
    return *folders.read("name", name), "none"


def _checked_shape(value: Any) -> tuple[int | None, ...]:
    is_shape = isinstance(value, (tuple, list)) and len(value) == 3
    if not is_shape or not all(size is None or (isinstance(size, int) and size >= 1) for size in value):
        validation.refuse("input_shape", value, "(height, width, channels), whole numbers above 0")
    if value[2] not in (None, 1, 3):
        validation.refuse("input_shape", tuple(value), "1 or 3 channels")
    return tuple(value)


def _read_digits(data_dir: PathLike | None, only: str | None) -> Dataset:
    from sklearn.datasets import load_digits  # slow to import, and no other dataset needs it

    del data_dir, only  # the images come with scikit-learn
    digits = load_digits()
    whole = Arrays((digits.images[..., None] / 16).astype(np.float32), digits.target.astype(np.int64))
    place = rank_in_class(whole.labels) % 10
    masks = {"train": place < 7, "validation": place == 7, "test": place > 7}
    return {split: whole.select(mask) for split, mask in masks.items()}, map(str, digits.target_names), "none"


def _read_prepared(
    data_dir: PathLike | None, only: str | None, *, name: str, validation_per_class: int, augmentation: str
) -> Dataset:
    return *prepared.read(name, data_dir, only, validation_per_class=validation_per_class), augmentation


def _read_imagenet(data_dir: PathLike | None, only: str | None, *, name: str) -> Dataset:
    del only  # files are read when they are needed
    return *imagenet.read(name, data_dir), "resized_crop"


# By suffix of a file: functions of the argument's name and the path that return examples and names of the classes.
FILES: dict[str, Callable[[str, PathLike], tuple[dict[str, Any], list[str]]]] = {
    ".csv": image_lists.read,
    ".npz": npz.read,
}

# Functions of data_dir and of the only split that is needed (or None) that return examples, names of the classes and
# augmentation.
DATASETS: dict[str, Callable[[PathLike | None, str | None], Dataset]] = {
    "cifar10": functools.partial(_read_prepared, name="cifar10", validation_per_class=100, augmentation="crop_flip"),
    "cifar100": functools.partial(_read_prepared, name="cifar100", validation_per_class=10, augmentation="crop_flip"),
    "digits": _read_digits,
    "imagenet100": functools.partial(_read_imagenet, name="imagenet100"),
    "imagenet2012": functools.partial(_read_imagenet, name="imagenet2012"),
    "mnist": functools.partial(_read_prepared, name="mnist", validation_per_class=1000, augmentation="none"),
    "svhn": functools.partial(_read_prepared, name="svhn_cropped", validation_per_class=100, augmentation="none"),
}
