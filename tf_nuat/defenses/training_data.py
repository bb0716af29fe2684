"""The data that a defense is fitted to: checked before any work starts and in every batch, and replayed."""

import contextlib
import re
import typing
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import validation


def check(network: keras.Model, x: typing.Any, y: typing.Any, **options: typing.Any) -> None:
    """Refuses images, labels and weights, of training and of validation, that a classifier `network` does not take.

    Args:
        network: the classifier.
        x, y, **options: what `keras.Model.fit` takes.

    Raises:
        ValueError: the images are no floating point in [0, 1] of the network's shape, a label is no class of it, a
            weight is negative or not finite, or a dataset is not one of batches (images, labels[, sample_weight]).
    """
    check_images_and_labels(network, "x", x, "y", y)
    check_sample_weight("sample_weight", options.get("sample_weight"), x)
    check_class_weight(options.get("class_weight"), network.output_shape[-1])
    validation_data = options.get("validation_data")
    if isinstance(validation_data, (tuple, list)):
        check_images_and_labels(
            network, "validation_data[0]", validation_data[0], "validation_data[1]", validation_data[1]
        )
        check_sample_weight("validation_data[2]", (*validation_data, None)[2], validation_data[0])
    elif validation_data is not None:
        check_images_and_labels(network, "validation_data", validation_data, "validation_data", None)


def check_images_and_labels(
    network: keras.Model, x_argument: str, x: typing.Any, y_argument: str, y: typing.Any
) -> None:
    """Refuses arrays, or a dataset whose first batch is wrong; the error names the arguments as it is told to."""
    if isinstance(x, tf.data.Dataset):
        batch = next(iter(x.take(1)), None)
        if not (isinstance(batch, tuple) and len(batch) in (2, 3)):
            validation.refuse(x_argument, x.element_spec, "a dataset of batches (images, labels[, sample_weight])")
        x, y, *_ = batch
        y_argument = f"labels of {x_argument}"
    if not isinstance(x, (np.ndarray, tf.Tensor)):
        return  # a generator gives its batches once: Keras looks at them as they come
    validation.images(x_argument, x, input_shape=network.input_shape[1:])
    validation.labels(y_argument, y, num_classes=network.output_shape[-1], num_images=len(x))


def check_sample_weight(argument: str, value: typing.Any, x: typing.Any) -> None:
    """Refuses weights that are not one finite number, at least 0, for each of the images x."""
    if value is None or not isinstance(x, (np.ndarray, tf.Tensor)):  # Keras has its own word for a dataset's
        return
    weights = np.asarray(value)
    if weights.dtype.kind not in "biuf" or weights.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"{argument} has shape {weights.shape} and dtype {weights.dtype}; allowed: one number for each of the "
            f"{len(x)} images"
        )
    low, high = float(weights.min()), float(weights.max())
    if not (low >= 0.0 and high < np.inf):  # also catches NaN
        raise ValueError(f"{argument} has values from {low:g} to {high:g}; allowed: {_ALLOWED['sample_weight']}")


def check_class_weight(value: typing.Any, num_classes: int) -> None:
    """Refuses anything but a dict of classes to finite weights, at least 0; a class that it lacks has weight 1."""
    if value is None:
        return
    if not isinstance(value, dict) or any(each not in range(num_classes) for each in value):
        validation.refuse("class_weight", value, f"a dict of classes, from 0 to {num_classes - 1}, to weights")
    for each, weight in value.items():
        validation.number(f"class_weight[{each}]", weight, at_least=0.0)


class BatchError(ValueError):
    """A batch that no network can be trained on, seen as the step is traced."""


class Batch(typing.NamedTuple):
    """Images (B, H, W, C), float32; labels, int64 (B,) or rows (B, K); weights (B,), float32, or None."""

    x: tf.Tensor
    y: tf.Tensor
    sample_weight: tf.Tensor | None = None


def batch(network: keras.Model, data: typing.Any, number: tf.Tensor | int = 0) -> Batch:
    """Returns the batch that Keras hands to a step.

    Labels may be whole numbers of any type, (B,) or (B, 1), or rows of probabilities (B, K). With the step it is
    checked whether pixels are in [0, 1], labels are classes and weights at least 0: generators give batches once.

    Args:
        network: the classifier.
        data: the batch.
        number: that of a batch of training, from 1; 0 for one of evaluation.

    Raises:
        BatchError: the batch has no labels, or images or weights of another shape; see `in_one_line`.
        tf.errors.InvalidArgumentError: when the step runs, where pixels, labels or weights are out of their range.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if y is None:
        raise BatchError("y is not given; allowed: a label for each image")
    x, y = tf.cast(x, tf.float32), tf.convert_to_tensor(y)  # a dataset may hold float64, as NumPy does
    shape = x.shape[1:] if x.shape.rank else x.shape
    if not shape.is_compatible_with(network.input_shape[1:]):
        raise BatchError(f"x has images of shape {tuple(shape)}; the network takes {tuple(network.input_shape[1:])}")
    in_range = [_assert_range("x", number, x, 1.0)]
    if y.shape.rank == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape.rank == 1:
        whole = tf.cast(y, tf.int64)
        is_whole = tf.reduce_all(tf.cast(whole, y.dtype) == y)
        given = y if y.dtype.is_floating else whole
        in_range.append(_assert_range("y", number, given, network.output_shape[-1] - 1, is_whole))
        y = whole
    if sample_weight is not None:
        sample_weight = _one_for_each(sample_weight)
        in_range.append(_assert_range("sample_weight", number, sample_weight, sample_weight.dtype.max))
    with tf.control_dependencies([each for each in in_range if each is not None]):  # None where it runs eagerly
        return Batch(tf.identity(x), tf.identity(y), None if sample_weight is None else tf.identity(sample_weight))


def _one_for_each(sample_weight: typing.Any) -> tf.Tensor:
    weights = tf.cast(sample_weight, tf.float32)
    if weights.shape.rank == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if weights.shape.rank != 1:
        raise BatchError(f"sample_weight has shape {tuple(weights.shape)}; allowed: one number for each image")
    return weights


def _assert_range(
    name: str, number: tf.Tensor | int, values: tf.Tensor, largest: float, holds: tf.Tensor | bool = True
) -> tf.Operation | None:
    low, high = tf.reduce_min(values), tf.reduce_max(values)
    largest = tf.cast(largest, values.dtype)
    holds &= (low >= 0) & (high <= largest)
    return tf.debugging.Assert(holds, [name, number, low, high, largest])  # NaN is in no range


# The data of `_assert_range`: in brackets where a graph ran, in lines where the step ran eagerly.
_OUT_OF_RANGE = r"(?:failed|data): [\[b']*(x|y|sample_weight)" + 4 * r"['\]\s\[]+([^\s\[\]]+)"
_ALLOWED = {
    "x": "[0, 1] (divide pixels of 8 bits by 255)",
    "y": "whole numbers from 0 to {largest}",
    "sample_weight": "finite numbers, at least 0",
}


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """A context that raises what `batch` refuses as a `ValueError` of one line, which names the batch."""
    try:
        yield
    except BatchError as error:  # whose words stand behind those of the step's trace
        raise ValueError(str(error).strip().splitlines()[-1].rpartition("BatchError: ")[2]) from None
    except tf.errors.InvalidArgumentError as error:
        found = re.search(_OUT_OF_RANGE, str(error.message))
        if found is None:
            raise
        argument, number, low, high, largest = found.groups()
        allowed = _ALLOWED[argument].format(largest=largest)
        low, high = (f"{float(value):g}" for value in (low, high))
        place = f"batch {number} of training" if number != "0" else "a batch of evaluation"
        raise ValueError(f"{argument} has values from {low} to {high} in {place}; allowed: {allowed}") from None


def replayed(dataset: tf.data.Dataset, replays: int) -> tf.data.Dataset:
    """Returns `dataset` with each of its elements `replays` times in a row."""
    count = dataset.cardinality()
    repeated = dataset.flat_map(lambda *batch: tf.data.Dataset.from_tensors(batch).repeat(replays))
    if count != tf.data.UNKNOWN_CARDINALITY:  # of which `flat_map` knows nothing
        count = count if count == tf.data.INFINITE_CARDINALITY else count * replays
        repeated = repeated.apply(tf.data.experimental.assert_cardinality(count))
    return repeated


def batches(*arrays: typing.Any, batch_size: int, shuffle: bool) -> tf.data.Dataset:
    """Returns arrays as a dataset of batches, in a new order at each iteration where they are to be shuffled."""
    tensors = [tf.convert_to_tensor(array) for array in arrays]
    indices = tf.data.Dataset.range(len(tensors[0]))
    if shuffle:
        indices = indices.shuffle(len(tensors[0]))
    return indices.batch(batch_size).map(lambda rows: tuple(tf.gather(tensor, rows) for tensor in tensors))


def size_of_first(dataset: tf.data.Dataset) -> int:
    """Returns the number of images in the first batch, 0 where there is none."""
    images = tf.nest.flatten(dataset.element_spec)[0]
    if images.shape.rank and images.shape[0] is not None:
        return images.shape[0]
    return max((len(tf.nest.flatten(batch)[0]) for batch in dataset.take(1)), default=0)
