"""Images in memory, and checks of arrays that someone else made."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from tf_nuat.core import validation

Named: TypeAlias = tuple[str, np.ndarray]  # what to call an array in an error, and the array

_CHANNELS = (1, 3)
MOST_CLASSES = 2**20  # if only the labels tell how many there are


class Arrays(NamedTuple):
    """Images that are held in memory.

    Attributes:
        images: (N, H, W, C), uint8, or float32 in [0, 1].
        labels: int64 (N,).
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of an image."""
        return self.images.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""
        return self.images.dtype

    def select(self, indices: np.ndarray) -> "Arrays":
        """Returns the images at `indices`, in that order."""
        return Arrays(self.images[indices], self.labels[indices])

    def relabelled(self, number: np.ndarray) -> "Arrays":
        """Returns the images with each label k replaced by `number[k]`; `number` is int64 (K,)."""
        return self._replace(labels=number[self.labels])

    def read(
        self, indices: np.ndarray, key: np.ndarray | None = None, first: int = 0
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Returns the pixels of the images at `indices`, a new array, and no troubles; see `encoded.Encoded.read`."""
        del key, first  # windows are not cut out of these
        return self.images[indices], {}


def checked(
    where: str, given: Mapping[str, tuple[Named, Named]], class_names: Sequence[str] | None = None
) -> tuple[dict[str, Arrays], list[str]]:
    """Returns the images of a dataset and the names of its classes.

    Args:
        where: beginning of an error, "name is 'x.npz'".
        given: dict of splits to ((name, images), (name, labels)), with what to call each in an error. Images are
            (N, H, W, C), or (N, H, W) if they are grey, uint8 or floating point in [0, 1], all of one size and type,
            with some pixel above 1/255; labels are whole numbers from 0, (N,) or (N, 1), or one-hot rows.
        class_names: names of the classes; None: the numbers from 0 to the highest label.

    Returns:
        (dict of the splits to `Arrays`, list of the names of the classes).

    Raises:
        ValueError: an array is not of this kind, or a class has no training image.
    """
    examples = {
        split: Arrays(_images(f"{where}: {images}", pixels), _labels(f"{where}: {labels}", numbers))
        for split, ((images, pixels), (labels, numbers)) in given.items()
    }
    names = _numbered(where, given, examples) if class_names is None else list(class_names)
    for split, (_, (labels, _)) in given.items():
        images, numbers = examples[split]
        validation.labels(f"{where}: {labels}", numbers, num_classes=len(names), num_images=len(images))
    if len({(each.input_shape, each.dtype) for each in examples.values()}) > 1:
        raise ValueError(f"{where}, where the splits have images of different sizes or types; allowed: the same of all")
    if "train" in examples and not (counts := np.bincount(examples["train"].labels, minlength=len(names))).all():
        raise ValueError(
            f"{where}, where class {names[int(counts.argmin())]!r} has no image in {given['train'][1][0]}; "
            "allowed: at least one of every class, numbered from 0 without a gap"
        )
    return examples, names


def _numbered(where: str, given: Mapping[str, tuple[Named, Named]], examples: Mapping[str, Arrays]) -> list[str]:
    """Returns the numbers up to the highest label as names of the classes."""
    for split, (_, (labels, _)) in given.items():
        if (highest := int(examples[split].labels.max())) >= MOST_CLASSES:
            raise ValueError(f"{where}: {labels} has values up to {highest}; allowed: below {MOST_CLASSES:,}")
    return list(map(str, range(max(2, 1 + max(int(each.labels.max()) for each in examples.values())))))


def _images(argument: str, value: np.ndarray) -> np.ndarray:
    value = value[..., None] if value.ndim == 3 else value
    is_bytes = value.dtype == np.uint8
    if is_bytes:
        validation.images(argument, np.broadcast_to(np.float32(0), value.shape))  # only the shape can be wrong
    else:
        value = validation.images(argument, value).astype(np.float32)
    if value.shape[1] in _CHANNELS and min(value.shape[2:]) > max(_CHANNELS):
        raise ValueError(
            f"{argument} has shape {value.shape}, the channels first; allowed: (images, height, width, channels), as "
            "numpy.moveaxis(images, 1, -1)"
        )
    white, brightest = (255, int(value.max())) if is_bytes else (1, float(value.max()))
    if 0 < brightest <= white / 255 * (1 + validation.ROUNDING):  # they were divided twice, or are marks of 0 and 1
        raise ValueError(
            f"{argument} has values up to {brightest:.7g}, which is black; allowed: bytes up to 255, or floating point "
            "up to 1 (numpy.float32(images) of bytes 0 and 1)"
        )
    return value


def _labels(argument: str, value: np.ndarray) -> np.ndarray:
    """Returns labels (N,), (N, 1) or one-hot (N, K), of any type of numbers, as int64 (N,)."""
    is_one_hot = value.ndim == 2 and value.shape[1] > 1 and np.isin(value, (0, 1)).all() and (value.sum(1) == 1).all()
    whole = validation.whole_numbers(value.argmax(axis=1) if is_one_hot else value)
    if whole is None:
        raise ValueError(
            f"{argument} has shape {value.shape} and dtype {value.dtype}; allowed: integers of shape (images,) or "
            "(images, 1), or one-hot rows"
        )
    return whole
