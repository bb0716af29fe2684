"""The images of a dataset for a network that a command got: prepared as for its training, and fitting it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from absl import logging

from tf_nuat import card, data
from tf_nuat.card import Card
from tf_nuat.core import json_input, validation
from tf_nuat.data.datasets import MissingSplitError
from tf_nuat.evaluate.inputs import class_names_of

# The remedy if some classes of a network have no image. Where there are training images, every class has some.
_WITHOUT_IMAGES = (
    "--class_names FILE with the names of all outputs, where --dataset is a .csv or .npz file of test images alone"
)


def sample(
    network: keras.Model, beside: Card | None, dataset: str, **options: Any
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Returns images of a dataset for `network`, prepared as for its training: (images, labels, class_names).

    Args:
        network: images from files get its input shape. The card gives the sizes that the network leaves open.
        beside: the card beside it, if there is one.
        dataset, **options: what `tf_nuat.data.sample` takes. `at_most=True` says that `samples` is a default, which
            becomes smaller if so many images do not fit in memory.

    Raises:
        ValueError: as `tf_nuat.data.sample`.
    """
    if options.get("class_names") is None and beside is not None and (names := class_names_of(beside, card.NAME)):
        options["class_names"] = names
    if data.reads_files(dataset):  # images of other datasets stay as they are
        prepared = beside.data_options if beside is not None else {}
        options["input_shape"] = _shape(network.input_shape[1:], prepared.get("input_shape"))
        options.update({name: prepared[name] for name in ("augmentation", "corrupt") if name in prepared})
    return data.sample(dataset, **options)


def _shape(taken: tuple[int | None, ...], trained: Any) -> tuple[int | None, ...]:
    """Returns the shape that a network takes; sizes that it leaves open are those of its training, from the card."""
    if trained is None or None not in taken:
        return taken
    field = json_input.Field("input_shape", card.NAME)
    sizes = json_input.list_of(lambda size, at: size if size is None else json_input.count(size, at))(trained, field)
    if len(sizes) != len(taken):
        field.refuse(trained, "height, width and channels")
    return tuple(size or other for size, other in zip(taken, sizes))


def training_sample(
    network: keras.Model, beside: Card | None, dataset: str, **options: Any
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns training images and labels, as `sample`; None if the dataset has none, such as a file of test images.

    Of images that are read from files, it returns as many as fit in memory. If they cannot be read, it logs a warning
    and returns None: a judgement does not need them.
    """
    try:
        return sample(network, beside, dataset, split="train", at_most=True, **options)[:2]
    except MissingSplitError:
        return None
    except ValueError as error:
        logging.warning("training images are left out: %s", error)
        return None


def fits(
    argument: str, network: keras.Model, images: np.ndarray, class_names: Sequence[str], dataset: str
) -> keras.Model:
    """Returns `network` where it takes the images, has one output for each class, and returns logits.

    Raises:
        ValueError: it does not.
    """
    expected, given = network.input_shape[1:], images.shape[1:]
    if not validation.takes(expected, given):
        raise ValueError(f"{argument} takes images of shape {expected}; those of --dataset {dataset} are {given}")
    outputs, classes = network.output_shape[1], len(class_names)
    # Labels alone do not say how many classes there are: the last ones may have no image here.
    is_open = list(class_names) == list(map(str, range(classes))) and dataset not in data.DATASETS
    if outputs < classes or (outputs > classes and not is_open):
        more = f"; or {_WITHOUT_IMAGES}" if outputs > classes else "; labels begin at 0" if is_open else ""
        raise ValueError(
            f"{argument} has {outputs} outputs; allowed: {classes}, the classes of --dataset {dataset}{more}"
        )
    return validation.logits_on(argument, network, images)
