"""Datasets that are held in memory, of arrays that somebody else made: whether they are what they have to be."""

import numpy as np

from tf_nuat.core import validation
from tf_nuat.data.splits import Arrays


def checked(where, given, class_names=None):
    """Returns the images of a dataset and the names of its classes.

    Args:
        where: beginning of an error, "name is 'x.npz'".
        given: dict of splits to pairs of what to call the images and the labels in an error, and both: ((name, images),
            (name, labels)). Images are (N, H, W, C), or (N, H, W) where they are grey, uint8 or floating point in
            [0, 1], all of one size and type; labels are integers from 0, of shape (N,).
        class_names: names of the classes; None: as many as the highest label says, named by their numbers.

    Returns:
        (dict of the splits to `Arrays`, list of the names of the classes).

    Raises:
        ValueError: an array is not of this kind, or a class has no training image.
    """
    examples = {
        split: Arrays(_images(f"{where}: {images}", pixels), _labels(f"{where}: {labels}", numbers))
        for split, ((images, pixels), (labels, numbers)) in given.items()
    }
    if class_names is None:
        class_names = np.arange(max(2, 1 + max(int(each.labels.max()) for each in examples.values())))
    names = list(map(str, np.ravel(class_names).tolist()))
    for split, (_, (labels, _)) in given.items():
        images, numbers = examples[split]
        validation.labels(f"{where}: {labels}", numbers, num_classes=len(names), num_images=len(images))
    if len({(each.input_shape, each.dtype) for each in examples.values()}) > 1:
        raise ValueError(f"{where}, where the splits have images of different sizes or types; allowed: the same of all")
    if "train" in examples and not (counts := np.bincount(examples["train"].labels, minlength=len(names))).all():
        raise ValueError(
            f"{where}, where class {names[int(counts.argmin())]!r} has no image in {given['train'][1][0]}; "
            "allowed: at least one of every class"
        )
    return examples, names


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
