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
    """Refuses images and labels, of training and of validation, that are not those of a classifier `network`.

    Args:
        network: the classifier.
        x, y, **options: what `keras.Model.fit` takes.

    Raises:
        ValueError: the images are no floating point in [0, 1] of the network's shape, a label is no class of it, a
            dataset is not one of batches (images, labels), or weights of images or classes are given.
    """
    for argument in ("sample_weight", "class_weight"):
        if options.get(argument) is not None:
            raise ValueError(f"{argument} is given; allowed: None (a defense weighs all images alike)")
    check_images_and_labels(network, "x", x, "y", y)
    validation_data = options.get("validation_data")
    if isinstance(validation_data, (tuple, list)):
        check_images_and_labels(
            network, "validation_data[0]", validation_data[0], "validation_data[1]", validation_data[1]
        )
    elif validation_data is not None:
        check_images_and_labels(network, "validation_data", validation_data, "validation_data", None)


def check_images_and_labels(
    network: keras.Model, x_argument: str, x: typing.Any, y_argument: str, y: typing.Any
) -> None:
    """Refuses arrays, or a dataset whose first batch is wrong; the error names the arguments as it is told to."""
    if isinstance(x, tf.data.Dataset):
        batch = next(iter(x.take(1)), None)
        if not (isinstance(batch, tuple) and len(batch) == 2):
            validation.refuse(x_argument, x.element_spec, "a dataset of batches (images, labels)")
        x, y = batch
        y_argument = f"labels of {x_argument}"
    if not isinstance(x, (np.ndarray, tf.Tensor)):
        return  # a generator gives its batches once: Keras looks at them as they come
    validation.images(x_argument, x, input_shape=network.input_shape[1:])
    validation.labels(y_argument, y, num_classes=network.output_shape[-1], num_images=len(x))


class BatchError(ValueError):
    """A batch that no network can be trained on, seen as the step is traced."""


def batch(network: keras.Model, data: typing.Any, number: tf.Tensor | int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the images (B, H, W, C), float32, and the labels of a batch as Keras hands it to a step.

    Labels are int64 (B,), of whole numbers of any type, (B,) or (B, 1); or rows of probabilities (B, K). With the step
    it is checked whether pixels are in [0, 1] and labels are classes: generators give their batches once.

    Args:
        network: the classifier.
        data: the batch.
        number: that of a batch of training, from 1; 0 for one of evaluation.

    Raises:
        BatchError: the batch has weights, or images of another shape; see `in_one_line`.
        tf.errors.InvalidArgumentError: when the step runs, where pixels or labels are out of their range.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if sample_weight is not None:
        raise BatchError("sample_weight is given by the data; allowed: batches (images, labels)")
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
    with tf.control_dependencies([each for each in in_range if each is not None]):  # None where it runs eagerly
        return tf.identity(x), tf.identity(y)


def _assert_range(
    name: str, number: tf.Tensor | int, values: tf.Tensor, largest: float, holds: tf.Tensor | bool = True
) -> tf.Operation | None:
    low, high = tf.reduce_min(values), tf.reduce_max(values)
    largest = tf.cast(largest, values.dtype)
    holds &= (low >= 0) & (high <= largest)
    return tf.debugging.Assert(holds, [name, number, low, high, largest])  # NaN is in no range


# The data of `_assert_range`: in brackets where a graph ran, in lines where the step ran eagerly.
_OUT_OF_RANGE = r"(?:failed|data): [\[b']*(x|y)" + 4 * r"['\]\s\[]+([^\s\[\]]+)"


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
        allowed = "[0, 1] (divide pixels of 8 bits by 255)" if argument == "x" else f"whole numbers from 0 to {largest}"
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


def batches(x: typing.Any, y: typing.Any, batch_size: int, *, shuffle: bool) -> tf.data.Dataset:
    """Returns arrays as a dataset of batches, in a new order at each iteration where they are to be shuffled."""
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    indices = tf.data.Dataset.range(len(x))
    if shuffle:
        indices = indices.shuffle(len(x))
    return indices.batch(batch_size).map(lambda rows: (tf.gather(x, rows), tf.gather(y, rows)))


def size_of_first(dataset: tf.data.Dataset) -> int:
    """Returns the number of images in the first batch, 0 where there is none."""
    images = tf.nest.flatten(dataset.element_spec)[0]
    if images.shape.rank and images.shape[0] is not None:
        return images.shape[0]
    return max((len(tf.nest.flatten(batch)[0]) for batch in dataset.take(1)), default=0)
