"""The data that a defense is fitted to: checked before any work starts, and replayed."""

import typing

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
