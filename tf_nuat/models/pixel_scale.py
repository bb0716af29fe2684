"""The scale of the pixels that a network is made for, as its first layers tell it."""

import itertools

import keras
import numpy as np

from tf_nuat.models import weights

# Of pixels in [0, 1]. A Rescaling for pixels in 0..255 has 1/255 or 1/127.5; a Normalization about 1/70.
LEAST = 1 / 16


def of_first_layers(network: keras.Model) -> float:
    """Returns what the layers `Rescaling` and `Normalization` at the beginning of a network multiply its pixels by."""
    scale = 1.0
    for layer in itertools.takewhile(_keeps_pixels, weights.layers_of(network)):
        if isinstance(layer, keras.layers.Rescaling):
            scale *= float(np.max(np.abs(layer.scale)))
        elif isinstance(layer, keras.layers.Normalization) and not layer.invert:
            variance = keras.ops.convert_to_numpy(layer.variance)
            scale /= max(float(np.sqrt(np.min(variance))), keras.config.epsilon())
    return scale


def _keeps_pixels(layer: keras.Layer) -> bool:
    return not layer.weights or isinstance(layer, keras.layers.Normalization)
