"""`differentiable`: a network that answers as it is, and has a stand-in for whatever in it has no gradient.

The attack on such a network is BPDA, the backward pass differentiable approximation (Athalye et al., "Obfuscated
gradients give a false sense of security", 2018), for which the operations to replace are found by measurement.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import keras_compat, validation
from tf_nuat.networks import lost_gradients
from tf_nuat.networks.operations import Walk
from tf_nuat.networks.stand_ins import StandIn

MOST_IMAGES = 32  # on which operations are looked at
MOST_NUMBERS = MOST_IMAGES * 32 * 32 * 3  # in these: what an operation makes of them is held in memory


class Differentiable:
    """A network that forwards as it is and has stand-ins backwards: images (B, H, W, C) -> logits (B, K).

    Attributes:
        network: the network, whose layers it calls; nothing in it is changed.
        stand_ins: tuple of `StandIn`, in the order of the network; empty where every operation has a gradient.
        decided_at: name of the first operation whose outputs (B, K) are ordered as the logits are, where others follow,
            which scale or squash them, for instance; None where that is the last.

    Example:
        >>> import keras
        >>> import tf_nuat
        >>> inputs = keras.Input((8, 8, 1))
        >>> logits = keras.layers.Dense(10, name="scores")(keras.layers.Flatten()(inputs))
        >>> surface = tf_nuat.networks.differentiable(keras.Model(inputs, 1e4 * logits))
        >>> surface.stand_ins, surface.decided_at
        ((), 'scores')
    """

    def __init__(self, network: keras.Model, found: lost_gradients.Found) -> None:
        self.network = network
        self.stand_ins: tuple[StandIn, ...] = tuple(
            step.stand_in for step in found.steps.values() if step.stand_in is not None
        )
        self.decided_at = None if found.decided_at is None else found.decided_at[0].name
        self._found = found

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the logits (B, K) of the network for images x (B, H, W, C), in inference mode."""
        return self.with_early_logits(x)[0]

    def with_early_logits(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the logits (B, K), and the outputs (B, K) of the operation `decided_at`: the logits where it is None.

        Both are float32. Where what follows `decided_at` rounds a gradient to 0, the early logits have it still.
        """
        decided_at = self._found.decided_at
        walk = Walk(self._found.steps, watched=() if decided_at is None else (decided_at,))
        logits = tf.cast(walk.through(self.network, x), tf.float32)
        return logits, logits if decided_at is None else tf.cast(walk.seen[decided_at], tf.float32)


def differentiable(network: keras.Model, images: Any = None, *, radius: float = 0.1, seed: int = 0) -> Differentiable:
    """Returns a function that answers exactly as `network` and has a gradient where the network has none.

    Each operation of the network, in networks within it too, is looked at: how much its output changes with the images,
    and how much of this its gradient accounts for. Rounding, thresholds, casts, arg max, quantised transforms and
    detached layers account for nothing. A fast wave that is added to the images accounts for far more than there is.
    Both get a stand-in; several in a row that pass on whole numbers or truth values get one together. A stand-in is the
    identity times a number where shapes agree, softmax where the operation says which is the largest, else a small
    network that is trained to imitate the operation.

    Args:
        network: a functional or sequential `keras.Model`, images (B, H, W, C) -> logits (B, K). It is not changed.
        images: (N, H, W, C) in [0, 1], of the kind that the network is made for, of which the first 32 at most
            are looked at; None for uniform noise.
        radius: largest change of a pixel, above 0 and at most 1, at which operations are looked at: the epsilon of the
            attack.
        seed: whole number, at least 0, from which all draws follow.

    Returns:
        A `Differentiable`. Attacks take it in the place of a network.

    Raises:
        ValueError: an argument is out of its range, or the network is of a kind whose operations are not known: a
            subclass of `keras.Model` with a `call` of its own. (A layer of one's own is one operation.)

    Example:
        >>> import keras
        >>> import tf_nuat
        >>> inputs = keras.Input((8, 8, 1))
        >>> rounded = keras.ops.round(8.0 * inputs) / 8.0
        >>> network = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(rounded)))
        >>> surface = tf_nuat.networks.differentiable(network)
        >>> [each.kind for each in surface.stand_ins]
        ['identity']
        >>> images, labels, _ = tf_nuat.data.sample("digits", samples=4)
        >>> tf_nuat.attacks.pgd(surface, images, labels, epsilon=0.1, steps=2, loss="margin").shape
        TensorShape([4, 8, 8, 1])
    """
    validation.classifier("network", network)
    validation.number("radius", radius, above=0.0, at_most=1.0)
    validation.whole_number("seed", seed, at_least=0)
    if not keras_compat.is_graph(network):
        raise ValueError(
            f"network is a {type(network).__name__} with a call of its own; allowed: a functional or sequential "
            "keras.Model, whose operations are known"
        )
    if images is None:
        shape = [size or 32 for size in network.input_shape[1:]]
        images = np.random.default_rng(seed).uniform(size=(MOST_IMAGES, *shape))
    images = validation.images("images", images, input_shape=network.input_shape[1:])
    count = max(4, min(MOST_IMAGES, MOST_NUMBERS // images[0].size))
    return Differentiable(
        network, lost_gradients.look(network, images[:count].astype(np.float32), radius=radius, seed=seed)
    )
