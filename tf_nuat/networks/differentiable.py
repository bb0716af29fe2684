"""`differentiable`: a network with the same outputs, and with stand-ins for operations that have no gradient.

An attack on it is BPDA, the backward pass differentiable approximation (Athalye et al., "Obfuscated gradients give a
false sense of security", 2018). Measurements find the operations to replace.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import keras_compat, validation
from tf_nuat.networks import lost_gradients
from tf_nuat.networks.operations import Walk
from tf_nuat.networks.stand_ins import StandIn

MOST_IMAGES = 32  # on which operations are measured
MOST_NUMBERS = MOST_IMAGES * 32 * 32 * 3  # in these images: the outputs of operations are held in memory


class Differentiable:
    """A network with stand-ins in its backward pass only: images (B, H, W, C) -> logits (B, K).

    Attributes:
        network: the network, whose layers it calls; nothing in it is changed.
        stand_ins: tuple of `StandIn`, in the order of the network; empty where every operation has a gradient.
        decided_at: name of the first operation whose outputs (B, K) have the order of the logits; later operations only
            scale or squash them, for instance. None if it is the last operation.

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
        """Returns the logits (B, K), and the outputs (B, K) of the operation `decided_at`: the logits if it is None.

        Both are float32. If the operations after `decided_at` round a gradient to 0, the early logits still have it.
        """
        decided_at = self._found.decided_at
        walk = Walk(self._found.steps, watched=() if decided_at is None else (decided_at,))
        logits = tf.cast(walk.through(self.network, x), tf.float32)
        return logits, logits if decided_at is None else tf.cast(walk.seen[decided_at], tf.float32)


def differentiable(network: keras.Model, images: Any = None, *, radius: float = 0.1, seed: int = 0) -> Differentiable:
    """Returns a function with exactly the outputs of `network`, and with a gradient where the network has none.

    For each operation, also in nested networks, it measures how much the output changes with the images, and how much
    of that change the gradient predicts. The gradients of rounding, thresholds, casts, arg max, quantised transforms
    and detached layers predict none of it. The gradient of a fast wave that is added to the images predicts far too
    much. Both kinds of operations get a stand-in; several in a row that pass on integers or booleans share one. The
    stand-in is a multiple of the identity if the shapes agree, softmax if the operation marks the largest entry, else
    a small network that is trained to imitate the operation.

    Args:
        network: a functional or sequential `keras.Model`, images (B, H, W, C) -> logits (B, K). It is not changed.
        images: (N, H, W, C) in [0, 1], of the kind that the network is made for; at most the first 32 are used. None
            for uniform noise.
        radius: largest change of a pixel in the measurements, above 0 and at most 1: the epsilon of the attack.
        seed: whole number, at least 0, from which all draws follow.

    Returns:
        A `Differentiable`. Attacks take it in the place of a network.

    Raises:
        ValueError: an argument is out of its range, or the operations of the network are unknown: it is a subclass of
            `keras.Model` with a `call` of its own. (A custom layer counts as one operation.)

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
