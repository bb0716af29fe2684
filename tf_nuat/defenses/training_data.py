"""Checks the data of `fit` before any work starts, and replays its batches."""

import typing

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import keras_compat, validation
from tf_nuat.defenses.batch import ALLOWED_PARTS, ALLOWED_WEIGHTS, BatchError, check_form, parts


def check(network: keras.Model, x: typing.Any, y: typing.Any, **options: typing.Any) -> None:
    """Refuses images, labels and weights, of training and of validation, that a classifier `network` does not take.

    Args:
        network: the classifier.
        x, y, **options: what `keras.Model.fit` takes.

    Raises:
        ValueError: the images are not floating point in [0, 1] of the network's shape, a label is none of its classes,
            a weight is negative or not finite, or a dataset has no batches (images, labels[, sample_weight]).
    """
    check_images_and_labels(network, "x", x, "y", y)
    check_sample_weight("sample_weight", options.get("sample_weight"), x)
    check_class_weight(options.get("class_weight"), network.output_shape[-1])
    validation_data = options.get("validation_data")
    if isinstance(validation_data, (tuple, list)):
        if len(validation_data) not in (2, 3):
            raise ValueError(f"validation_data has {len(validation_data)} parts; {ALLOWED_PARTS}")
        check_images_and_labels(
            network, "validation_data[0]", validation_data[0], "validation_data[1]", validation_data[1]
        )
        check_sample_weight("validation_data[2]", (*validation_data, None)[2], validation_data[0])
    elif isinstance(validation_data, (np.ndarray, tf.Tensor)):
        raise ValueError(f"validation_data has images alone; {ALLOWED_PARTS}")
    elif validation_data is not None:
        check_images_and_labels(network, "validation_data", validation_data, "validation_data", None)


def check_images_and_labels(
    network: keras.Model, x_argument: str, x: typing.Any, y_argument: str, y: typing.Any
) -> None:
    """Refuses wrong arrays, or a dataset with a wrong first batch; the error uses the given names of the arguments."""
    spec = None
    _refuse_list(x_argument, x)
    _refuse_list(y_argument, y)
    if x is None:
        raise ValueError(f"{x_argument} is None; allowed: images, or a dataset")
    if isinstance(x, tf.data.Dataset):
        spec, batch = x.element_spec, next(iter(x.take(1)), None)
        if batch is None:
            raise ValueError(f"{x_argument} is empty; allowed: at least one batch")
        if not (isinstance(batch, tuple) and len(batch) in (2, 3)):
            validation.refuse(x_argument, spec, "a dataset of batches (images, labels[, sample_weight])")
        x, y, *_ = batch
        y_argument = f"labels of {x_argument}"
    if not isinstance(x, (np.ndarray, tf.Tensor)):
        return  # a generator gives its batches once: `sources` checks them as they come
    validation.images(x_argument, x, input_shape=network.input_shape[1:])
    validation.labels(y_argument, y, num_classes=network.output_shape[-1], num_images=len(x))
    if spec is not None:
        check_forms(network, *parts(spec), of="" if x_argument == "x" else f"{x_argument}: ")


def check_forms(network: keras.Model, x: typing.Any, y: typing.Any, sample_weight: typing.Any, of: str = "") -> None:
    """Refuses arrays, a dataset or specifications by shape and dtype alone; the error begins with `of`."""
    _refuse_list("x", x)
    try:
        if isinstance(x, tf.data.Dataset):
            x, y, sample_weight = parts(x.element_spec)
        if isinstance(x, (np.ndarray, tf.Tensor, tf.TensorSpec)):
            _, y, _ = parts((x, y))
            check_form(network.input_shape[1:], network.output_shape[-1], x, y, sample_weight)
    except BatchError as error:
        raise ValueError(f"{of}{error}") from None


def _refuse_list(argument: str, value: typing.Any) -> None:
    if isinstance(value, (list, tuple)):  # Keras takes the items of one for several inputs
        raise ValueError(f"{argument} is a {type(value).__name__}; allowed: an array")


def check_sample_weight(argument: str, value: typing.Any, x: typing.Any) -> None:
    """Refuses weights that are not one finite number, at least 0, for each of the images x."""
    if value is None or not isinstance(x, (np.ndarray, tf.Tensor)):  # Keras itself refuses those beside a dataset
        return
    _refuse_list(argument, value)
    weights = np.asarray(value)
    if weights.dtype.kind not in "biuf" or weights.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"{argument} has shape {weights.shape} and dtype {weights.dtype}; allowed: one number for each of the "
            f"{len(x)} images"
        )
    low, high = float(weights.min()), float(weights.max())
    if not (low >= 0.0 and high < np.inf):  # also catches NaN
        raise ValueError(f"{argument} has values from {low:g} to {high:g}; allowed: {ALLOWED_WEIGHTS}")


def check_class_weight(value: typing.Any, num_classes: int) -> None:
    """Refuses anything but a dict of classes to finite weights, at least 0; a class that it lacks has weight 1."""
    if value is None:
        return
    if not isinstance(value, dict) or any(each not in range(num_classes) for each in value):
        validation.refuse("class_weight", value, f"a dict of classes, from 0 to {num_classes - 1}, to weights")
    for each, weight in value.items():
        validation.number(f"class_weight[{each}]", weight, at_least=0.0)


def every_class_weight(value: dict[int, float], num_classes: int) -> dict[int, float]:
    """Returns `class_weight` with the weight 1 for each class that it lacks.

    For a dataset, Keras looks up labels in a table that ends with the last class of the dict.
    """
    return {each: float(value.get(each, 1.0)) for each in range(num_classes)}


def replayed(dataset: tf.data.Dataset, replays: int) -> tf.data.Dataset:
    """Returns `dataset` with each of its elements `replays` times in a row."""
    count = dataset.cardinality()
    repeated = dataset.flat_map(lambda *batch: tf.data.Dataset.from_tensors(batch).repeat(replays))
    if count != tf.data.UNKNOWN_CARDINALITY:  # `flat_map` does not pass it on
        count = count if count == tf.data.INFINITE_CARDINALITY else count * replays
        repeated = repeated.apply(tf.data.experimental.assert_cardinality(count))
    return repeated


def batches(*arrays: typing.Any, batch_size: int, shuffle: bool) -> tf.data.Dataset:
    """Returns arrays as a dataset of batches; with `shuffle`, in a new order at each iteration."""
    tensors = [tf.convert_to_tensor(array) for array in arrays]
    indices = tf.data.Dataset.range(len(tensors[0]))
    if shuffle:
        indices = indices.shuffle(len(tensors[0]))
    rows = indices.batch(batch_size)
    return keras_compat.untuned(rows.map(lambda rows: tuple(tf.gather(tensor, rows) for tensor in tensors)))


def size_of_first(dataset: tf.data.Dataset) -> int:
    """Returns the number of images in the first batch, 0 where there is none."""
    images = tf.nest.flatten(dataset.element_spec)[0]
    if images.shape.rank and images.shape[0] is not None:
        return images.shape[0]
    return max((len(tf.nest.flatten(batch)[0]) for batch in dataset.take(1)), default=0)
