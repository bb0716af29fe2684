"""`adapt`: converts any classifier of images into a network in the form of this package.

That form is a functional Keras model, images (B, H, W, C) in [0, 1] -> logits (B, K), K at least 2.
"""

import inspect
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_nuat.core import keras_compat, network_file, validation
from tf_nuat.core.files import PathLike
from tf_nuat.models import weights
from tf_nuat.networks import outputs as network_outputs
from tf_nuat.networks import pixels as network_pixels
from tf_nuat.networks import saved
from tf_nuat.networks.outputs import AUTO
from tf_nuat.networks.pixels import PixelForm


class Adapted(NamedTuple):
    """A network, images (B, H, W, C) in [0, 1] -> logits (B, K), and what was changed to make it one, in words.

    Example:
        >>> import tf_nuat
        >>> network, changes = tf_nuat.networks.adapt(tf_nuat.networks.two_conv((8, 8, 1), 10))
        >>> changes
        []
    """

    network: keras.Model
    changes: list[str]


def adapt(
    model_or_path: keras.Model | PathLike,
    *,
    pixels: PixelForm = "0..1",
    outputs: str = AUTO,
    architecture: keras.Model | None = None,
    input_shape: Sequence[int | None] | None = None,
    modules: Sequence[str] = (),
    trust: bool = False,
    argument: str = "model_or_path",
) -> Adapted:
    """Returns a classifier as a network of images in [0, 1] that returns logits, and what was changed.

    A model that needs no change is returned itself. Otherwise the network shares the layers of the model, except a last
    layer whose activation was removed.

    Args:
        model_or_path: a built `keras.Model`; a file that Keras 1, 2 or 3 saved (`.keras`, `.h5`); the folder of a
            SavedModel; or, with `architecture`, a file of weights.
        pixels: pixels that the model takes: "0..1", "0..255", "-1..1", "caffe" or "torch" (as `preprocess_input` of
            `keras.applications` makes them), or mean and standard deviation, of pixels in [0, 1], a pair or a text
            "MEAN/DEVIATION". For a model that takes bytes (uint8), "0..1" means "0..255".
        outputs: name of the output for the classes, if there are several; "auto" if there is one. A softmax or sigmoid
            at its end is removed. If that is inside a function or a graph, the logarithm or the logit of the output is
            computed. A single sigmoid, or a single logit z, becomes the logits of two classes, 0 and z.
        architecture: a model of the same layers, for a file of weights.
        input_shape: (height, width, channels) of the images, if the model takes pixels in a row or does not tell its
            input shape.
        modules: names of modules to import, which define custom layers.
        trust: whether code of the file may be run: Lambda layers.
        argument: what to call the model in an error.

    Raises:
        ValueError: it is no classifier of images, cannot be read, or has code that is not trusted.

    Example:
        >>> import keras
        >>> import tf_nuat
        >>> layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
        >>> adapted = tf_nuat.networks.adapt(keras.Sequential(layers), pixels="0..255")
        >>> adapted.changes
        ['its last softmax was taken off: it returns logits', 'pixels in [0, 1] become 0..255']
    """
    validation.keras_settings()  # before layers of a file take another default
    reading: dict[str, Any] = {"architecture": architecture, "modules": modules, "trust": trust}
    given, loss, name, changes = _read(argument, model_or_path, reading)
    validation.no_defense(name, given)
    known = len(given.weights)
    model, said = _functional(name, given, input_shape)
    if given is not model_or_path and len(given.weights) > known:  # Keras could not build these layers, and read none
        saved.with_weights(argument, model_or_path, given)
    changes += said
    of_bytes = not keras.backend.is_float_dtype(model.inputs[0].dtype)
    if of_bytes:
        if not keras.backend.is_int_dtype(model.inputs[0].dtype):
            raise ValueError(f"{name} takes {model.inputs[0].dtype}; allowed: floating point, or bytes (uint8)")
        model, pixels = _of_floats(name, model), "0..255" if pixels == "0..1" else pixels
        changes.append("it takes bytes: pixels reach it as floating point, through which gradients flow")
    output, said = network_outputs.chosen(name, model, outputs)
    changes += said
    _refuse_regression(name, output, loss)
    network, said = network_outputs.logits(name, model, output)
    changes += said
    if of_bytes and not _passes_gradients(network):
        raise ValueError(
            f"{name} takes {given.inputs[0].dtype} and computes with whole numbers, through which no gradient flows "
            "(an Embedding, or a layer with dtype='uint8'); allowed: floating point from its first layer on"
        )
    network, said = _with_front(name, network, pixels, input_shape)
    return Adapted(validation.classifier(name, network), changes + said)


def _read(
    argument: str, model_or_path: keras.Model | PathLike, reading: dict[str, Any]
) -> tuple[keras.Model, Any, str, list[str]]:
    """Returns the model, its loss where it is known, what to call it in an error, and what was changed.

    `reading`: the keywords of `saved.read`, for a path.
    """
    if isinstance(model_or_path, keras.Model):
        loss = model_or_path.loss if getattr(model_or_path, "compiled", False) else None
        return model_or_path, loss, argument, []
    if not isinstance(model_or_path, (str, os.PathLike)):
        raise ValueError(f"{argument} is a {type(model_or_path).__name__}; allowed: a keras.Model, or the path of one")
    model, changes = saved.read(argument, model_or_path, **reading)
    return model, _loss_in(pathlib.Path(model_or_path)), f"{argument} {os.fspath(model_or_path)}", changes


def _functional(
    argument: str, model: keras.Model, input_shape: Sequence[int | None] | None
) -> tuple[keras.Model, list[str]]:
    """Returns a model with one symbolic input, and what was changed."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
        shape = (None, *input_shape) if shape is None and input_shape is not None else shape
        if not isinstance(shape, (tuple, list)) or not all(size is None or isinstance(size, int) for size in shape):
            is_built = "" if model.built else "is not built and "
            raise ValueError(
                f"{argument} {is_built}does not tell what it takes; allowed: inputs = keras.Input((HEIGHT, WIDTH, "
                "CHANNELS)), then keras.Model(inputs, model(inputs))"
            )
        return _wrapped(argument, model, keras.Input(tuple(shape[1:])))
    if len(inputs) != 1:
        shapes = ", ".join(f"{tensor.name} {tensor.shape[1:]}" for tensor in inputs)
        raise ValueError(
            f"{argument} has several inputs: {shapes}; allowed: one of images, as keras.Model(image, model([image, "
            "OTHERS])), where the others are fixed"
        )
    if not keras_compat.is_graph(model):  # its graph does not show its own `call`
        return _wrapped(argument, model, keras.Input(tuple(inputs[0].shape[1:]), dtype=inputs[0].dtype))
    if isinstance(model, keras.Sequential) or isinstance(model.input, keras.KerasTensor):
        return model, []
    changes = ["its input was taken out of a dict"] if isinstance(model.input, dict) else []
    return keras.Model(inputs[0], model.output, name=model.name), changes  # Keras would warn of a list at every call


def _wrapped(argument: str, model: keras.Model, image: keras.KerasTensor) -> tuple[keras.Model, list[str]]:
    """Returns a functional model with a model of a custom class as its layer, and what was changed."""
    kind = type(model).__name__
    taken = getattr(model, "input", None)  # a class without a graph has none
    given = dict.fromkeys(taken, image) if isinstance(taken, dict) else image
    mode = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    try:
        functional = keras.Model(image, model(given, **mode))
    except Exception as error:  # whatever the `call` of the user's own raises
        raise ValueError(
            f"{argument} is a {kind}, which cannot be put into a functional model ({keras_compat.reason_of(error)}); "
            "allowed: a class whose call takes the images and computes with Keras or TensorFlow alone"
        ) from error
    return functional, [f"the class {kind} was put into a functional model"]


def _of_floats(argument: str, model: keras.Model) -> keras.Model:
    """Returns the model with floating-point inputs, also of networks in it: the cast of an integer has no gradient."""

    def float_of(tensor: keras.KerasTensor) -> keras.KerasTensor:
        is_float = keras.backend.is_float_dtype(tensor.dtype)
        return keras.Input(tuple(tensor.shape[1:]), dtype=tensor.dtype if is_float else "float32")

    def clone_of(layer: keras.Layer) -> keras.Layer:
        if keras_compat.is_graph(layer):
            return _of_floats(argument, layer)
        return type(layer).from_config(layer.get_config())

    taken = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    floats = keras.tree.map_structure(float_of, taken)
    try:
        changed = keras.models.clone_model(model, input_tensors=floats, clone_function=clone_of)
    except Exception as error:  # whatever a layer of the user's own raises
        raise ValueError(
            f"{argument} takes {model.inputs[0].dtype}, and cannot be copied to take floating point "
            f"({keras_compat.reason_of(error)}); allowed: keras.Input(SHAPE, dtype='float32') where it begins"
        ) from error
    weights.copy(model, to=changed)
    return changed


def _passes_gradients(network: keras.Model) -> bool:
    """Returns whether the outputs of a network have a gradient with respect to its inputs, without computing any."""

    @tf.function(autograph=False)
    def gradient(x: tf.Tensor) -> tf.Tensor | None:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = network(x, training=False)
        return tape.gradient(outputs, x)

    taken = network.inputs[0]
    try:
        traced = gradient.get_concrete_function(tf.TensorSpec(taken.shape, taken.dtype))
    except LookupError:  # an operation of which TensorFlow knows none: whoever needs it says so
        return True
    return traced.structured_outputs is not None


def _with_front(
    argument: str, network: keras.Model, form: PixelForm, input_shape: Sequence[int | None] | None
) -> tuple[keras.Model, list[str]]:
    """Returns the network behind layers that convert images in [0, 1] to its input, and what these change."""
    arranged = network_pixels.arrangement(argument, tuple(network.inputs[0].shape[1:]), input_shape)
    layer, name = network_pixels.layer("--pixels (pixels)", form, arranged.image[2])
    layers = [*([] if layer is None else [layer]), *arranged.layers]
    if not layers:
        return network, []
    image = x = keras.Input(arranged.image)
    for each in layers:
        x = each(x)
    said = [] if layer is None else [f"pixels in [0, 1] become {name}"]
    said += [] if arranged.said is None else [f"images {arranged.image} become what it takes: {arranged.said}"]
    return keras.Model(image, network(x), name="adapted"), said


_REGRESSIONS = ("meansquared", "meanabsolute", "huber", "logcosh", "mse", "mae", "msle", "mape")


def _refuse_regression(argument: str, output: keras.KerasTensor, loss: object) -> None:
    """Raises a `ValueError` if a model with one output was trained with the loss of a regression."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    if output.shape[-1] == 1 and name.lower().replace("_", "").startswith(_REGRESSIONS):
        raise ValueError(
            f"{argument} has one output and was trained with the loss {name}, a regression; allowed: a classifier (if "
            "it is one: network.compile(loss='binary_crossentropy') before network.save)"
        )


def _loss_in(path: pathlib.Path) -> str | None:
    """Returns the name of the loss that a file's model was compiled with; None if unknown."""
    if path.is_dir():
        return None
    loss = network_file.compiled_with(path).get("loss")
    loss = loss.get("config", loss) if isinstance(loss, dict) else loss
    name = loss.get("name", "") if isinstance(loss, dict) else loss
    return name if isinstance(name, str) else None
