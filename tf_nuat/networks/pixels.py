"""Layers in front of a network that takes images in another form: other ranges of pixels, other shapes, bytes."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tf_nuat.core import validation

# The forms with a name; -1..1 is "tf" in `keras.applications`.
FORMS = ("0..1", "0..255", "-1..1", "caffe", "torch")
PixelForm = str | tuple[Sequence[float] | float, Sequence[float] | float]

_CHANNELS = (1, 3)


def layer(argument: str, form: PixelForm, channels: int | None) -> tuple[keras.Layer | None, str]:
    """Returns the layer that converts pixels in [0, 1] to a form, None if none is needed, and the name of the form.

    Args:
        argument: what to call the form in an error.
        form: a name in `FORMS`; or mean and standard deviation of pixels in [0, 1], for each channel or for all, a pair
            or a text "0.5,0.5,0.5/0.2,0.2,0.2".
        channels: number of channels of the images.

    Raises:
        ValueError: there is no such form, or it does not fit the number of channels.

    Source: the modes of `keras.applications.imagenet_utils.preprocess_input`.
    """
    if form == "0..1":
        return None, form
    if form == "0..255":
        return keras.layers.Rescaling(255.0, name="pixels"), form
    if form == "-1..1":
        return keras.layers.Rescaling(2.0, -1.0, name="pixels"), form
    if form in ("caffe", "torch"):
        if channels != 3:
            validation.refuse(argument, form, f"for images of 3 channels; these have {channels}")
        prepare = functools.partial(keras.applications.imagenet_utils.preprocess_input, mode=form)
        return preprocessing(prepare, name="pixels"), str(form)
    mean, deviation = _statistics(argument, form)
    if any(len(each) not in (1, channels) for each in (mean, deviation)):
        validation.refuse(argument, form, f"one number for all, or for each of the {channels} channels")
    scale = np.broadcast_to(1.0 / deviation, (channels or 1,))
    offset = np.broadcast_to(-mean / deviation, (channels or 1,))
    words = "/".join(",".join(f"{number:g}" for number in each) for each in (mean, deviation))
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), name="pixels"), f"mean and deviation {words}"


def _statistics(argument: str, form: PixelForm) -> tuple[np.ndarray, np.ndarray]:
    try:
        parts = [part.split(",") for part in form.split("/")] if isinstance(form, str) else form
        mean, deviation = (np.ravel(np.asarray(part, np.float64)) for part in parts)
    except (TypeError, ValueError):
        validation.refuse(argument, form, f"{', '.join(FORMS)}, or MEAN/DEVIATION as 0.5,0.5,0.5/0.25,0.25,0.25")
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(deviation)) and np.all(deviation > 0)):
        validation.refuse(argument, form, "a mean, and a deviation above 0")
    return mean, deviation


def preprocessing(preprocess_input: Callable[[np.ndarray], np.ndarray], *, name: str = "preprocessing") -> keras.Layer:
    """Returns a layer that does to images (B, H, W, 3) in [0, 1] what `preprocess_input` does to them in [0, 255].

    Every such function of `keras.applications` shifts and scales the three channels of a pixel, and some exchange them.
    So its values for black and for the three pure colours determine it.
    """
    colours = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)])[:, None, None]
    black, *shown = preprocess_input(colours)[:, 0, 0]
    matrix, full = np.array(shown) - black, keras.config.floatx()  # lower precision would round pixels
    scale = np.diag(matrix)
    if np.array_equal(matrix, np.diag(scale)):
        return keras.layers.Rescaling(scale.tolist(), black.tolist(), dtype=full, name=name)
    layer = keras.layers.Conv2D(3, 1, trainable=False, dtype=full, name=name)
    layer.build((None, None, None, 3))
    layer.set_weights([matrix[None, None], black])
    return layer


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """How images (H, W, C) become what a network takes.

    Attributes:
        image: shape of the images.
        layers: layers that rearrange them, in order; none if the network takes them as they are.
        said: what was changed, in words; None for nothing.
    """

    image: tuple[int | None, ...]
    layers: tuple[keras.Layer, ...] = ()
    said: str | None = None


def arrangement(
    argument: str, taken: tuple[int | None, ...], input_shape: Sequence[int | None] | None = None
) -> Arrangement:
    """Returns the `Arrangement` for a network that takes inputs (H, W, C), (H, W), (N,) or (C, H, W).

    Args:
        argument: what to call the network in an error.
        taken: shape of these inputs.
        input_shape: (H, W, C) of the images, if `taken` does not determine it.

    Raises:
        ValueError: it takes no images, or their shape cannot be known.
    """
    image: tuple[int | None, ...]
    if len(taken) == 3:
        if taken[0] in _CHANNELS and taken[2] not in _CHANNELS:
            image = (*taken[1:], taken[0])
            return Arrangement(image, (keras.layers.Permute((3, 1, 2), name="channels_first"),), "channels first")
        return Arrangement(tuple(taken))
    if len(taken) == 2 and None not in taken:
        image = tuple(input_shape) if input_shape is not None else (*taken, 1)
        return _reshaped(argument, taken, image, f"images without an axis of channels, {taken}")
    if len(taken) == 1 and taken[0] is not None:
        image = tuple(input_shape) if input_shape is not None else _square(argument, taken[0])
        return _reshaped(argument, taken, image, f"pixels in a row, {taken}")
    raise ValueError(
        f"{argument} takes inputs of shape {taken}; allowed: images of (height, width, channels), (height, width) or "
        "pixels in a row"
    )


def _square(argument: str, pixels: int) -> tuple[int, int, int]:
    for channels in _CHANNELS:
        side = math.isqrt(pixels // channels)
        if side * side * channels == pixels:
            return side, side, channels
    raise ValueError(
        f"{argument} takes {pixels} pixels in a row, which are no square; allowed: with their shape: keras.Sequential(["
        f"keras.Input((HEIGHT, WIDTH, CHANNELS)), keras.layers.Reshape(({pixels},)), network]).save(...)"
    )


def _reshaped(argument: str, taken: tuple[int | None, ...], image: tuple[int | None, ...], said: str) -> Arrangement:
    if None in image or math.prod(map(int, image)) != math.prod(map(int, taken)):  # type: ignore[arg-type]
        raise ValueError(f"{argument} takes {taken}; allowed: images of as many numbers, not {image}")
    return Arrangement(image, (keras.layers.Reshape(tuple(taken), name="rearranged"),), said)
