"""Checks of the batch of a step; an error is one line that names the argument and the batch.

Checks of shapes that are known when the step is traced cost nothing. The step itself makes one assertion.
"""

import contextlib
import re
import typing
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from tf_nuat import parallel
from tf_nuat.core import placement, validation


class BatchError(ValueError):
    """A batch is wrong; the message says what was found and, after a semicolon, what is allowed.

    Attributes:
        place: which batch it is, in words; None if unknown.
    """

    place: str | None = None


class Batch(typing.NamedTuple):
    """Images (B, H, W, C), float32; labels, int64 (B,) or rows (B, K); weights (B,), float32, or None."""

    x: tf.Tensor
    y: tf.Tensor
    sample_weight: tf.Tensor | None = None


def read_batch(network: keras.Model, data: typing.Any, number: tf.Tensor | int = 0) -> Batch:
    """Returns the batch that Keras hands to a step.

    Labels may be whole numbers of any type, (B,) or (B, 1), or rows of probabilities (B, K). The step checks that there
    is a label for each image, pixels are in [0, 1], labels are classes and weights are at least 0. It is done there
    because generators give each batch only once.

    Args:
        network: the classifier.
        data: the batch.
        number: number of a training batch, from 1; 0 for a batch of evaluation.

    Raises:
        BatchError: the batch has no labels, or a part of the wrong shape or kind; see `in_one_line`.
        tf.errors.InvalidArgumentError: when the step runs, if sizes, pixels, labels or weights are wrong.
    """
    # The host has the batch, and must know whether it may go on; with several replicas, each has its own share.
    with placement.on_host() if parallel.replicas() == 1 else contextlib.nullcontext():
        batch, checks = _read_and_checks(network, data)
        assertion = _assert(number, checks)
    with tf.control_dependencies([] if assertion is None else [assertion]):  # None in eager mode
        return Batch(*(None if part is None else tf.identity(part) for part in batch))


def _read_and_checks(network: keras.Model, data: typing.Any) -> tuple[Batch, list["_Check"]]:
    """Returns the batch that Keras hands to a step, and the checks of it."""
    x, y, sample_weight = parts(data)
    check_form(network.input_shape[1:], network.output_shape[-1], x, y, sample_weight)
    x, y = tf.cast(x, tf.float32), tf.convert_to_tensor(y)  # a dataset may hold float64, as NumPy does
    checks = _of_images(network, x)
    x = tf.clip_by_value(x, 0.0, 1.0)  # beyond by rounding at most
    if y.shape.rank == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape.rank == 1:
        largest = network.output_shape[-1] - 1
        whole = tf.cast(y, tf.int64)
        given, is_whole = whole, tf.constant(True)
        if y.dtype.is_floating:
            given, is_whole = y, tf.reduce_all(tf.cast(whole, y.dtype) == y)
        low, high = tf.reduce_min(given), tf.reduce_max(given)
        in_range = (low >= 0) & (high <= tf.cast(largest, given.dtype)) & is_whole
        checks += [*_of_size("y", x, y), ("y", in_range, (low, high, largest))]
        y = whole
    else:
        checks += _of_size("y", x, y)
        y, of_width = _with_width(y, network.output_shape[-1])
        checks += [*of_width, *_of_rows(y)]
    if sample_weight is not None:
        sample_weight = tf.cast(sample_weight, tf.float32)
        if sample_weight.shape.rank == 2:
            sample_weight = sample_weight[:, 0]
        low, high = tf.reduce_min(sample_weight), tf.reduce_max(sample_weight)
        is_finite = (low >= 0) & (high <= sample_weight.dtype.max)
        checks += [*_of_size("sample_weight", x, sample_weight), ("sample_weight", is_finite, (low, high))]
    return Batch(x, y, sample_weight), checks


def parts(data: typing.Any) -> tuple[typing.Any, typing.Any, typing.Any]:
    """Returns images, labels and weights of a batch, None for missing weights."""
    if isinstance(data, (tuple, list)) and len(data) > 3:
        raise BatchError(f"x comes in batches of {len(data)} parts; {ALLOWED_PARTS}")
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(x, (dict, tuple, list)):
        raise BatchError(f"x has batches with a {type(x).__name__}; {ALLOWED_PARTS}")
    if x is None:
        raise BatchError("x is None; allowed: images")
    if y is None:
        raise BatchError("y is not given; allowed: a label for each image")
    return x, y, sample_weight


def check_form(
    image_shape: Sequence[int | None], num_classes: int, x: typing.Any, y: typing.Any, sample_weight: typing.Any
) -> None:
    """Refuses arrays, tensors or their specifications by shape and dtype, without looking at their values.

    Raises:
        BatchError: one has a shape that the network does not take, or is not numeric, or their sizes differ.
    """
    shape = _shape("x", x)
    if shape is None or len(shape) != 4:
        raise BatchError(f"x has shape {shape or 'unknown'}; allowed: (images, height, width, channels)")
    if not _fits(shape[1:], image_shape):
        raise BatchError(f"x has images of shape {shape[1:]}; the network takes {tuple(image_shape)}")
    allowed = f"allowed: whole numbers from 0 to {num_classes - 1}, or one-hot rows of {num_classes} classes"
    labels = _shape("y", y)
    if labels is None or not (len(labels) == 1 or (len(labels) == 2 and labels[1] in (None, 1, num_classes))):
        raise BatchError(f"y has shape {labels or 'unknown'}; {allowed}")
    sizes = [("y", labels)]
    if sample_weight is not None:
        weights = _shape("sample_weight", sample_weight)
        if weights is None or not (len(weights) == 1 or (len(weights) == 2 and weights[1] == 1)):
            raise BatchError(f"sample_weight has shape {weights or 'unknown'}; allowed: one number for each image")
        sizes.append(("sample_weight", weights))
    images = shape[0]
    if images == 0 and parallel.replicas() == 1:
        raise BatchError(_EMPTY)
    for name, (size, *_) in sizes:
        if None not in (images, size) and size != images:
            raise BatchError(_other_size(name, size, images))


def _shape(argument: str, value: typing.Any) -> tuple[int | None, ...] | None:
    """Returns the shape of a numeric array, None if its rank is unknown."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise BatchError(f"{argument} is a {type(value).__name__}; allowed: an array")
    name = str(getattr(value.dtype, "name", value.dtype)).rpartition(".")[2]
    if not name.startswith(("bool", "int", "uint", "float", "bfloat")):
        raise BatchError(f"{argument} has dtype {name}; allowed: numbers")
    return None if isinstance(value.shape, tf.TensorShape) and value.shape.rank is None else tuple(value.shape)


def _fits(shape: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    return all(size is None or other is None or size == other for size, other in zip(shape, expected))


ALLOWED_PARTS = "allowed: (images, labels[, sample_weight])"
ALLOWED_WEIGHTS = "finite numbers, at least 0"
_EMPTY = "x is empty; allowed: at least one image"
# The name of a check, whether it holds, and the numbers for the message of `_words`.
_Check = tuple[str, tf.Tensor, Sequence[typing.Any]]


def _other_size(name: str, size: typing.Any, images: typing.Any) -> str:
    what = "label" if name == "y" else "number"
    return f"{name} has {size} entries for {images} images; allowed: one {what} for each image"


def _of_images(network: keras.Model, x: tf.Tensor) -> list[_Check]:
    checks: list[_Check] = []
    sizes, expected = tf.unstack(tf.shape(x), num=4), network.input_shape
    unknown = [axis for axis in (1, 2, 3) if x.shape[axis] is None and expected[axis] is not None]
    if unknown:
        fits = tf.reduce_all([sizes[axis] == expected[axis] for axis in unknown])
        checks.append(("shape", fits, [*sizes[1:], *(size or -1 for size in expected[1:])]))
        x.set_shape((None, *expected[1:]))
    if parallel.replicas() == 1 and x.shape[0] is None:  # one of several replicas may have no image of a small batch
        checks.append(("empty", sizes[0] > 0, []))
    low, high = tf.reduce_min(x), tf.reduce_max(x)
    within = (low >= -validation.ROUNDING) & (high <= 1 + validation.ROUNDING)
    return [*checks, ("x", within, (low, high))]


def _of_size(name: str, x: tf.Tensor, value: tf.Tensor) -> list[_Check]:
    if x.shape[0] is not None and value.shape[0] is not None:
        return []  # checked in `check_form`
    images, size = tf.shape(x)[0], tf.shape(value)[0]
    return [(f"size_of_{name}", images == size, (size, images))]


def _with_width(y: tf.Tensor, num_classes: int) -> tuple[tf.Tensor, list[_Check]]:
    """Returns labels of unknown width, a column or rows, as rows (B, K), and the check of the width.

    It does without a branch: XLA needs the same shape from both sides of one.
    """
    if y.shape[1] is not None:
        return y, []
    width, classes = tf.shape(y)[1], tf.range(num_classes)
    holds = (width == num_classes) | (width == 1)
    rows = tf.gather(y, tf.minimum(classes, width - 1), axis=1)  # repeats a single column K times
    one_hot = tf.cast(tf.equal(rows, tf.cast(classes, y.dtype)), y.dtype)
    return tf.where(width == 1, one_hot, rows), [("width", holds, (width, num_classes))]


def _of_rows(y: tf.Tensor) -> list[_Check]:
    rows = tf.cast(y, tf.float32)
    sums = tf.reduce_sum(rows, axis=1)
    low, least, most = tf.reduce_min(rows), tf.reduce_min(sums), tf.reduce_max(sums)
    tolerance = 1e-4 if y.dtype.size > 2 else 1e-2  # numbers of 16 bits are rounded
    holds = (low >= 0) & (least >= 1 - tolerance) & (most <= 1 + tolerance)
    return [("rows", holds, (low, least, most))]


_MARK = "check:"


def _assert(number: tf.Tensor | int, checks: Sequence[_Check]) -> tf.Operation | None:
    data = [value for name, holds, values in checks for value in (_MARK + name, holds, *values)]
    holds = tf.reduce_all(tf.stack([holds for _, holds, _ in checks]))
    return tf.debugging.Assert(holds, [_MARK, number, *data])  # NaN fails every range check


def _found(message: str) -> tuple[int, str] | None:
    """Returns the number of the batch and what is wrong with it, from the message of the assertion; else None.

    A graph prints the data in brackets, one after the other; an eager step prints each on its own line.
    """
    _, mark, text = message.partition(_MARK)
    if not mark:
        return None
    number, *found = re.sub(r"\bb'|['\[\]]", " ", text).split(_MARK)
    for each in found:
        name, holds, *values = each.split()
        if holds in ("0", "False"):
            return int(number.split()[0]), _words(name, values)
    return None


def _words(name: str, values: Sequence[str]) -> str:
    if name == "empty":
        return _EMPTY
    if name == "shape":
        shape, expected = (
            tuple(None if int(each) < 0 else int(each) for each in some) for some in (values[:3], values[3:6])
        )
        return f"x has images of shape {shape}; the network takes {expected}"
    if name == "width":
        return f"y has rows of {values[0]} entries; allowed: one-hot rows of {values[1]} classes"
    if name.startswith("size_of_"):
        return _other_size(name.removeprefix("size_of_"), *values[:2])
    low, high = (f"{float(value):.7g}" for value in values[:2])
    if name == "rows":
        return (
            f"y has rows with entries from {low} and sums from {high} to {float(values[2]):g}; allowed: rows that sum "
            "to 1, with entries of at least 0"
        )
    allowed = {
        "x": "[0, 1] (divide pixels of 8 bits by 255)",
        "y": f"whole numbers from 0 to {values[2]}" if name == "y" else "",
        "sample_weight": ALLOWED_WEIGHTS,
    }
    return f"{name} has values from {low} to {high}; allowed: {allowed[name]}"


# The error of a generator, as text within TensorFlow's message; and what Keras or TensorFlow says about a shape.
_OF_SOURCE = re.compile(r"BatchError: (.*)")
_OTHER_SHAPE = re.compile(r"enerator`? yielded an element of shape (\(.*?\)) where an element of shape (\(.*?\)) was")


@contextlib.contextmanager
def in_one_line(place: Callable[[int], str]) -> Iterator[None]:
    """A context that turns the error of a wrong batch into a one-line `ValueError` that names the batch.

    Args:
        place: function of the number of a batch, 0 for the current one, that returns which batch it is, in words.
    """
    try:
        yield
    except BatchError as error:  # the last line has its message, after those of the step's trace
        words = str(error).strip().splitlines()[-1].rpartition("BatchError: ")[2]
        raise ValueError(_with_place(words, error.place or place(0))) from None
    except tf.errors.OpError as error:
        message = str(error.message)
        if found := _found(message):
            number, words = found
            raise ValueError(_with_place(words, place(number))) from None
        if said := _OF_SOURCE.search(message):
            raise ValueError(_with_place(said.group(1), place(0))) from None
        if shapes := _OTHER_SHAPE.search(message):
            words = (
                f"x has shape {shapes.group(1)}; the first two have {shapes.group(2)}, which Keras holds all others to"
            )
            raise ValueError(_with_place(words, place(0))) from None
        raise


def _with_place(words: str, place: str) -> str:
    found, _, allowed = words.partition("; ")
    return f"{found} in {place}; {allowed}"
