"""Checks of arguments, each made once, at the edge of the package.

Every function raises `ValueError` (or a subclass) with one line that names the argument, the value that was given and
what is allowed. A check of one module alone stays there, and its error has the same form.
"""

import contextlib
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import files, keras_compat, network_file
from tf_nuat.core.files import PathLike

PROBED = 100  # number of images on which a network has to return logits
ROUNDING = 1e-6  # of pixels in float32
ROUNDING_OF_SUMS = 2e-2  # of probabilities that are rounded to bfloat16


def refuse(argument: str, value: object, allowed: str) -> NoReturn:
    """Raises `ValueError`: "`argument` is `value`; allowed: `allowed`"."""
    raise ValueError(f"{argument} is {value!r}; allowed: {allowed}")


def one_of(argument: str, value: Any, allowed: Collection[Any]) -> Any:
    """Returns `allowed[value]` for a mapping, or `value` for any other container of names."""
    if value not in allowed:
        refuse(argument, value, ", ".join(sorted(map(str, allowed))) or "none")
    return allowed[value] if isinstance(allowed, Mapping) else value


def number(
    argument: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """Returns `value`, a finite real number within the bounds that are given."""
    bounds = [
        (above, "above", lambda bound: value > bound),
        (at_least, "at least", lambda bound: value >= bound),
        (at_most, "at most", lambda bound: value <= bound),
        (below, "below", lambda bound: value < bound),
    ]
    bounds = [(bound, words, holds) for bound, words, holds in bounds if bound is not None]
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and all(holds(bound) for bound, _, holds in bounds)):
        allowed = " and ".join(f"{words} {bound:g}" for bound, words, _ in bounds) or "finite"
        refuse(argument, value, f"a number {allowed}")
    return value


def whole_number(argument: str, value: Any, *, at_least: int, at_most: int | None = None) -> int:
    """Returns `value`, an integer within the bounds that are given."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < at_least or (at_most is not None and value > at_most):
        bound = "" if at_most is None else f" and at most {at_most}"
        refuse(argument, value, f"a whole number, at least {at_least}{bound}")
    return cast(int, value)


def images(argument: str, value: Any, *, input_shape: Sequence[int | None] | None = None) -> np.ndarray:
    """Returns `value`, an array of images (B, H, W, C), floating point, within [0, 1].

    Values that are outside by no more than rounding, as in images that were resized, are clipped.
    """
    value = np.asarray(value)
    if not keras.backend.is_float_dtype(value.dtype.name):  # also bfloat16, which is no kind of NumPy's own
        raise ValueError(f"{argument} has dtype {value.dtype}; allowed: floating point in [0, 1] (divide uint8 by 255)")
    if value.ndim != 4:
        raise ValueError(f"{argument} has shape {value.shape}; allowed: (images, height, width, channels)")
    if value.size == 0:
        what = f"has shape {value.shape}" if len(value) else "is empty"
        raise ValueError(f"{argument} {what}; allowed: at least one image, of one pixel or more")
    if input_shape is not None and not takes(input_shape, value.shape[1:]):
        raise ValueError(f"{argument} has images of shape {value.shape[1:]}; the network takes {tuple(input_shape)}")
    low, high = float(value.min()), float(value.max())
    if not (low >= -ROUNDING and high <= 1.0 + ROUNDING):  # also catches NaN
        divide = " (divide pixels of 8 bits by 255)" if high > 2.0 else ""
        raise ValueError(f"{argument} has values from {low:.7g} to {high:.7g}; allowed: [0, 1]{divide}")
    return value if low >= 0.0 and high <= 1.0 else np.clip(value, 0.0, 1.0)


def takes(input_shape: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Returns whether a network of this input shape (H, W, C), None for any size, takes images of this shape."""
    return all(expected is None or expected == actual for expected, actual in zip(input_shape, shape))


def labels(argument: str, value: Any, *, num_classes: int, num_images: int | None = None) -> np.ndarray:
    """Returns the labels of images: int64 (B,) from 0 below `num_classes`, or rows (B, K) that sum to 1, float32.

    Args:
        value: such rows; or whole numbers of any type, (B,) or a column (B, 1) as in `keras.datasets`.
    """
    value = np.asarray(value)
    if num_images is not None and value.ndim and len(value) != num_images:
        raise ValueError(f"{argument} has {len(value)} entries for {num_images} images; allowed: one label per image")
    if value.ndim == 2 and value.shape[1] == num_classes and num_classes > 1:
        if not (np.all(value >= 0) and np.allclose(value.sum(axis=1), 1.0, atol=1e-4)):
            raise ValueError(
                f"{argument} has rows that do not sum to 1; allowed: one-hot rows of {num_classes} classes"
            )
        return value.astype(np.float32)
    whole = whole_numbers(value)
    if whole is None:
        raise ValueError(
            f"{argument} has shape {value.shape} and dtype {value.dtype}; allowed: integers from 0 to "
            f"{num_classes - 1} of shape (images,), or one-hot rows of shape (images, {num_classes})"
        )
    value = whole
    if value.min() < 0 or value.max() >= num_classes:
        raise ValueError(
            f"{argument} has values from {value.min()} to {value.max()}; allowed: integers from 0 to {num_classes - 1}"
        )
    return value


def whole_numbers(value: np.ndarray) -> np.ndarray | None:
    """Returns labels (B,) or (B, 1), whole numbers of any type, as int64 (B,); None for anything else, or if empty."""
    if value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    if value.ndim != 1 or value.size == 0 or value.dtype.kind not in "iuf":
        return None
    with np.errstate(invalid="ignore"):  # values that are not finite change, and fail the comparison below
        whole = value.astype(np.int64)
    return whole if np.array_equal(whole, value) else None


def keras_settings() -> None:
    """Raises a `ValueError` if a setting of Keras, such as keras.json has, would change what is computed here.

    With channels first, layers would take the rows of an image for its channels; float16 ends metrics at 65,504 images.
    """
    where = "which is set by keras.config.set_{name}, or in ~/.keras/keras.json"
    for name, value, allowed in (
        ("image_data_format", keras.config.image_data_format(), ("channels_last",)),
        ("floatx", keras.config.floatx(), ("float32", "float64")),
    ):
        if value not in allowed:
            refuse(name, value, f"{allowed[0]}, {where.format(name=name)}")


def classifier(argument: str, network: Any) -> keras.Model:
    """Returns `network`, a Keras image classifier with one input (B, H, W, C) and one output (B, K) of logits."""
    keras_settings()
    if not isinstance(network, keras.Model):
        raise ValueError(f"{argument} is a {type(network).__name__}; allowed: a keras.Model")
    if not network.built:
        raise ValueError(f"{argument} is not built; call it on a batch, or begin it with keras.Input")
    no_defense(argument, network)
    if not hasattr(network, "input_shape"):
        raise ValueError(
            f"{argument} is a {type(network).__name__}, a subclass of keras.Model; allowed: a functional or sequential "
            "one (keras.Model(inputs, network(inputs)) makes one of it)"
        )
    shapes = (network.input_shape, network.output_shape)
    if not all(isinstance(shape, tuple) and all(d is None or isinstance(d, int) for d in shape) for shape in shapes):
        raise ValueError(
            f"{argument} has several inputs or outputs; allowed: one input of images, one output of logits"
        )
    # A dict of one tensor has the shape of that tensor.
    if any(isinstance(getattr(network, ends, None), dict) for ends in ("input", "output")):
        raise ValueError(f"{argument} takes or returns a dict; allowed: one input of images, one output of logits")
    if not keras.backend.is_float_dtype(network.inputs[0].dtype):
        raise ValueError(
            f"{argument} takes {network.inputs[0].dtype}, through which no gradient flows; allowed: floating point, as "
            "tf_nuat.networks.adapt(network).network takes"
        )
    if len(network.input_shape) != 4:
        raise ValueError(
            f"{argument} takes inputs of shape {network.input_shape[1:]}; allowed: images of (height, width, "
            "channels), as tf_nuat.networks.adapt(network).network, a keras.Model(...), takes"
        )
    if len(network.output_shape) != 2 or (network.output_shape[1] or 0) < 2:
        raise ValueError(
            f"{argument} has outputs of shape {network.output_shape[1:]}; allowed: (classes,) with at least 2"
        )
    if ends_in_softmax(network.outputs[0]):
        raise ValueError(
            f"{argument} ends in softmax; allowed: logits, as gradients through it are masked: "
            "tf_nuat.networks.adapt(network).network takes it off, as network.layers[-1].activation = "
            "keras.activations.linear does of a Dense"
        )
    return network


def no_defense(argument: str, model: keras.Model) -> None:
    """Raises a `ValueError` if `model` is a defense, as `keras.callbacks.ModelCheckpoint` saves it, not its network."""
    if isinstance(getattr(model, "trained_network", None), keras.Model):
        raise ValueError(
            f"{argument} is a {type(model).__name__}, which trains a network; allowed: that network, model.network, "
            "which keras.saving.load_model(FILE).network.save(OTHER) takes out of a file"
        )


def ends_in_softmax(output: keras.KerasTensor) -> bool:
    """Returns whether the operation that made an output is a softmax or sigmoid, or a layer with such an activation.

    It looks into a network within the network. For one with its own `call`, `logits_on` looks at the outputs.
    """
    within = keras_compat.output_within(output)
    if within is not None:
        return ends_in_softmax(within)
    last = keras_compat.operation_of(output)
    if isinstance(last, _ACTIVATED) and keras_compat.computes_as_keras(last):
        return squashing(last.activation) is not None
    return squashing(last) is not None


_ACTIVATED = (keras.layers.Dense, keras.layers.EinsumDense)  # return rows, and do their activation last
_SQUASHING = {"softmax": "softmax", "softmax_v2": "softmax", "sigmoid": "sigmoid"}  # softmax_v2 is `tf.nn.softmax`


def squashing(function: Any) -> str | None:
    """Returns "softmax" or "sigmoid" if a function, a layer or an operation is one; None for any other."""
    if isinstance(function, keras.layers.Activation):
        return squashing(function.activation)
    name = type(function).__name__ if isinstance(function, keras.Operation) else getattr(function, "__name__", "")
    return _SQUASHING.get(name.lower())


def logits_on(argument: str, network: keras.Model, images: np.ndarray) -> keras.Model:
    """Returns `network` if its outputs for some of `images` are finite logits, no probabilities, and have a gradient.

    Raises:
        ValueError: they are not; or it cannot compute them, as with a convolution of channels first on a CPU.
    """
    outputs = computed(argument, network, images[:PROBED])
    if not np.all(np.isfinite(outputs)):
        raise ValueError(f"{argument} returns values that are not finite for the sample; allowed: finite logits")
    if are_probabilities(outputs):
        raise ValueError(
            f"{argument} returns probabilities (rows in [0, 1] that sum to 1); allowed: logits, without a softmax"
        )
    with gradients(argument):
        try:
            with tf.GradientTape() as tape:
                tape.watch(x := tf.convert_to_tensor(images[:2]))  # some networks squeeze a batch of one
                logits = network(x, training=False)
            tape.gradient(logits, x)
        except _OF_COMPUTING as error:
            raise ValueError(
                f"{argument} cannot compute its gradient for the sample ({keras_compat.reason_of(error)}); allowed: a "
                "network that TensorFlow can train"
            ) from error
    return network


@contextlib.contextmanager
def gradients(argument: str) -> Iterator[None]:
    """A context that takes gradients of a network: an operation for which TensorFlow has none is named.

    Raises:
        ValueError: there is such an operation on the way.
    """
    try:
        yield
    except LookupError as error:
        found = re.search(r"no entry for: (\w+)|op type: (\w+)", str(error))  # from a tape, and from a graph
        if found is None:
            raise
        raise ValueError(
            f"{argument} uses {found[1] or found[2]}, for which TensorFlow has no gradient; allowed: other operations, "
            "as interpolation='bilinear' for 'area', or tf.stop_gradient of its input, by which the gradient is 0"
        ) from error


_OF_COMPUTING = (ValueError, TypeError, tf.errors.UnimplementedError, tf.errors.InvalidArgumentError)


def computed(argument: str, network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the outputs of a network for images, in inference mode.

    Raises:
        ValueError: it cannot compute them.
    """
    try:
        return keras.ops.convert_to_numpy(network(images, training=False))
    except _OF_COMPUTING as error:
        raise ValueError(
            f"{argument} cannot compute its outputs for the sample ({keras_compat.reason_of(error)}); allowed: a "
            "network whose predict does"
        ) from error


def are_probabilities(outputs: np.ndarray) -> bool:
    """Returns whether rows (N, K) are within [0, 1] and sum to 1, up to rounding to bfloat16."""
    outputs = np.asarray(outputs, np.float64)  # sums in less precision would be wrong themselves
    sums = outputs.sum(axis=-1)
    return bool(np.all((outputs >= 0.0) & (outputs <= 1.0)) and np.allclose(sums, 1.0, atol=ROUNDING_OF_SUMS))


def load_network(argument: str, path: PathLike) -> keras.Model:
    """Returns the network saved at `path` (a `.keras` file), not compiled."""
    path = pathlib.Path(path)
    if not os.path.isfile(path):  # of pathlib, it raises for a name that is too long
        raise ValueError(
            f"{argument} is {str(path)!r}, which is not a file; allowed: a network saved by Keras (.keras)"
        )
    try:
        network_file.check(path)
        network = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever zipfile, json or h5py raised
        raise not_read(argument, path, error) from error
    return network


def not_read(
    argument: str, path: PathLike, error: Exception, what: str = "which Keras cannot read", *, allowed: str = ""
) -> ValueError:
    """Returns the error to raise after Keras raised one about the network at `path`, with the line that matters.

    Raises:
        tf.errors.OpError: another worker was lost meanwhile, which says nothing about the file.
    """
    if (lost := keras_compat.lost_worker_in(error)) is not None:
        raise lost
    reason = keras_compat.reason_of(error)
    if keras_compat.is_own_object(reason):
        allowed = "with --import MODULE (modules=), where that is"
    return ValueError(
        f"{argument} is {os.fspath(path)!r}, {what} ({reason}){'; allowed: ' if allowed else ''}{allowed}"
    )


def output_folder(argument: str, path: PathLike) -> pathlib.Path:
    """Returns `path` as an existing folder that can be written, making it (and its parents) where it is missing."""
    if not os.fspath(path):  # as of a variable that a script has not set; `pathlib` takes it for the current folder
        refuse(argument, path, "a folder")
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"{argument} is {str(path)!r}, which cannot be written ({files.reason(error)})") from error
    return path
