"""Functions that are attacked in place of a network: they give its answers, but their gradients are useful."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sanity.measure.batches import of_all
from tf_nuat import losses
from tf_nuat.attacks import averaged
from tf_nuat.attacks.ascent import input_gradient
from tf_nuat.models import weights
from tf_nuat.models.inference import inference
from tf_nuat.networks import Differentiable, differentiable

LOOKED_AT = 50  # images
PASSES, FEW_PASSES = 12, 4  # of a random network, for a gradient
FAITHFUL = 0.5  # share of the variance of an operation that its stand-in has to explain
SHATTERED = 0.3  # agreement of gradients below which mean gradients around an image are tried first
NEARBY = 0.125  # share of epsilon: the distance at which a gradient is compared with that at the image
TINY = 1e-3  # lead of the network's answer over logits of unit scale that disagree with it
NETWORK = "the network"  # the name of its surface

Logits = Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Surface:
    """A function whose gradients an attack follows.

    Attributes:
        name: what it is, in words.
        logits: images (B, H, W, C) -> logits (B, K), the largest of which is the network's answer.
        coarse: the same from fewer passes, for a network whose answers are random; None for any other.
    """

    name: str
    logits: Logits = dataclasses.field(repr=False, compare=False)
    coarse: Logits | None = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Signs:
    """Observations about the gradients of a network.

    Attributes:
        random: whether the logits of the same images change from call to call.
        stand_ins: names of the operations that have no useful gradient of their own.
        faithful: whether the stand-ins are close to these operations.
        decided_at: name of the operation after which the logits are only scaled or squashed; None for the last.
        without_gradient: share of the images, in [0, 1], whose margin on the surface has no gradient.
        agreement: mean cosine, at most 1, of the gradients at an image and near it.
    """

    random: bool
    stand_ins: tuple[str, ...]
    faithful: bool
    decided_at: str | None
    without_gradient: float
    agreement: float

    @property
    def explained(self) -> bool:
        """Whether the cause of hidden gradients was found, and the gradients on the surface are sound."""
        found = bool(self.stand_ins) or self.decided_at is not None
        return found and self.faithful and self.without_gradient == 0.0 and self.agreement >= SHATTERED

    def words(self) -> str:
        """Returns the observations as part of a sentence."""
        seen = []
        if self.random:
            seen.append("its answers are random")
        if self.stand_ins:
            seen.append(f"{', '.join(self.stand_ins)} {'has' if len(self.stand_ins) == 1 else 'have'} no gradient")
        if self.decided_at is not None:
            seen.append(f"after {self.decided_at} the logits are only scaled or squashed")
        if self.without_gradient > 0.0:
            seen.append(f"{self.without_gradient:.0%} of the images have no gradient all the same")
        seen.append(f"gradients near an image agree with its own to {self.agreement:.2f} (cosine)")
        return "; ".join(seen)


def of(
    network: keras.Model, images: np.ndarray, labels: np.ndarray, *, epsilon: float, seed: int, is_random: bool
) -> tuple[Surface, Signs]:
    """Returns the `Surface` to attack first, and the `Signs` that were observed.

    Args:
        network: the network that is judged.
        images, labels: (N, H, W, C) and integers (N,), of which the first `LOOKED_AT` are used.
        epsilon: largest change of a pixel.
        seed: whole number that determines all draws.
        is_random: whether the logits of the same images change from call to call.
    """
    images, labels = images[:LOOKED_AT], labels[:LOOKED_AT]
    replaced = _replaced(network, images, epsilon=epsilon, seed=seed)
    stand_ins = () if replaced is None else tuple(each.operation for each in replaced.stand_ins)
    faithful = replaced is None or all(each.scale == 0.0 or each.explained >= FAITHFUL for each in replaced.stand_ins)
    decided_at = None if replaced is None or is_random else replaced.decided_at
    if not stand_ins and decided_at is None:
        replaced = None  # the network itself compiles faster
    name = "the stand-ins of BPDA" if stand_ins else "early logits" if decided_at else NETWORK
    logits_fn = inference(network) if replaced is None else replaced
    if is_random:
        of_unit_scale = _unit_scale(logits_fn, None, images)
        exact, coarse = (
            averaged(of_unit_scale, radius=0.0, points=passes, answers="mean") for passes in (PASSES, FEW_PASSES)
        )
        surface = Surface(f"several passes through {name}", exact, coarse)
    else:
        surface = Surface(name, _unit_scale(logits_fn, replaced, images))
    without, agreement = _gradients(surface.logits, images, labels, radius=NEARBY * epsilon)
    if without > 0.0 and not is_random:
        twin = _in_float64(network, images)
        found = None if twin is None else _gradients(twin, images, labels, radius=NEARBY * epsilon)
        if twin is not None and found is not None and found[0] < without:
            surface = Surface("the network in float64", twin)
            without, agreement = found
    return surface, Signs(is_random, stand_ins, faithful, decided_at, without, agreement)


def _replaced(network: keras.Model, images: np.ndarray, *, epsilon: float, seed: int) -> Differentiable | None:
    """Returns `tf_nuat.networks.differentiable`, or None for a network that cannot be run operation by operation."""
    try:
        return differentiable(network, images, radius=min(epsilon, 1.0), seed=seed)
    except Exception:  # a layer may raise anything if it is called in a way that its author did not expect
        return None


def _unit_scale(logits_fn: Logits, replaced: Differentiable | None, images: np.ndarray) -> Logits:
    """Returns a network's early logits, or its logits if there are none, at unit scale and with its own answers."""
    both = (lambda x: (logits_fn(x),) * 2) if replaced is None else replaced.with_early_logits
    spread = float(np.std(both(tf.constant(images))[1]))
    scale = 1.0 / spread if np.isfinite(spread) and spread > 0.0 else 1.0

    def logits(x: tf.Tensor) -> tf.Tensor:
        answers, early = both(x)
        return answering(scale * tf.cast(early, tf.float32), answers)

    return logits


def _in_float64(network: keras.Model, images: np.ndarray) -> Logits | None:
    """Returns the network in float64, at unit scale, with the answers of the original; None if it cannot be copied."""
    try:
        twin = weights.clone(network, lambda layer, config: {**config, "dtype": "float64"})
        weights.copy(network, to=twin)
        spread = float(np.std(twin(images, training=False)))
    except Exception:
        return None
    scale = 1.0 / spread if np.isfinite(spread) and spread > 0.0 else 1.0

    @tf.custom_gradient
    def exact(x: tf.Tensor) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = scale * twin(x, training=False)

        def backward(upstream: tf.Tensor, variables: Any = ()) -> Any:
            gradient = tape.gradient(logits, x, tf.cast(upstream, logits.dtype), unconnected_gradients="zero")
            # A gradient that float32 would round to 0 still has a direction.
            largest = tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3), keepdims=True)
            return tf.cast(tf.math.divide_no_nan(gradient, largest), tf.float32), [None for _ in variables]

        return tf.cast(logits, tf.float32), backward

    return lambda x: answering(exact(x), inference(network)(x))


def answering(scores: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns scores (B, K) of unit scale, changed so that the largest one is at the answer of `logits` (B, K).

    Where the scores disagree with the answer, its score is raised; gradients are those of the scores.
    """
    answer = tf.one_hot(tf.argmax(logits, axis=1), scores.shape[1], on_value=True, off_value=False, dtype=tf.bool)
    others = tf.reduce_max(tf.where(answer, -tf.float32.max, scores), axis=1, keepdims=True)
    missing = tf.stop_gradient(tf.nn.relu(others + TINY - scores))
    return scores + tf.where(answer, missing, 0.0)


def _gradients(logits_fn: Logits, images: np.ndarray, labels: np.ndarray, *, radius: float) -> tuple[float, float]:
    """Returns the share of images whose margin has no gradient, and the mean cosine of gradients with those nearby."""

    def compared(x: tf.Tensor, y: tf.Tensor, index: tf.Tensor) -> list[tf.Tensor]:
        near = x + tf.random.stateless_uniform(tf.shape(x), (0, 0), -radius, radius)
        found = []
        for each in (x, near):
            gradient, _ = input_gradient(lambda x: (losses.margin(logits_fn(x), y),) * 2, each)
            found.append(tf.reshape(gradient, (tf.shape(x)[0], -1)))
        zero = tf.reduce_all(tf.equal(found[0], 0.0), axis=1)
        one, other = (tf.math.l2_normalize(tf.cast(each, tf.float64), axis=1, epsilon=1e-60) for each in found)
        return [zero, tf.reduce_sum(one * other, axis=1)]

    zero, cosine = of_all(compared, images, labels, batch_size=len(images))
    return float(np.mean(zero)), float(np.mean(cosine))
