"""Finds where a network loses the gradient: operations whose output changes with the images, at a gradient of zero."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.networks import stand_ins
from tf_nuat.networks.operations import Place, Step, Walk, tensors_in
from tf_nuat.networks.stand_ins import StandIn

DRAWS = 2  # random directions in which the change of an output is measured
ROUNDS = 16  # passes of the images, each with new noise, on which an imitation is trained
FOLLOWED = 1e-3  # a gradient that predicts at most this share of an output's change is lost
SHATTERED = 2.0  # a gradient that misses more than this share of the squared change is worse than none
RELATED = 0.5  # share of an output's variance that its input must explain for the identity to stand in
ORDERED = 0.995  # share of the images for which an operation must decide the prediction


class Found(NamedTuple):
    """What `look` finds: the steps, by place, and the place that decides the prediction; None if that is the last."""

    steps: dict[Place, Step]
    decided_at: Place | None


def look(network: keras.Model, images: np.ndarray, *, radius: float, seed: int) -> Found:
    """Returns the `Found` of a network, measured on images (N, H, W, C), float32, and within `radius` of them."""
    draws = np.random.default_rng(seed)
    looking = _Look(3 * len(images), draws)
    logits = looking.through(network, _variants(images, radius, draws))
    steps = looking.steps
    if looking.to_imitate:
        walks = [Walk(steps, watched=looking.to_imitate) for _ in range(ROUNDS)]
        for walk in walks:
            walk.through(network, _variants(images, radius, draws))
        for place, identity in looking.to_imitate.items():
            source, output = (
                np.concatenate([each[place].numpy() for each in values]).astype(np.float32)
                for values in ([walk.sources for walk in walks], [walk.seen for walk in walks])
            )
            stand_in = stand_ins.imitation(place[0].name, source, output, seed=seed)
            if identity is not None and identity.explained >= stand_in.explained:
                stand_in = identity
            steps[place] = steps[place]._replace(stand_in=stand_in)
    return Found(steps, _decided_at(looking.scores, np.asarray(logits)))


def _variants(images: np.ndarray, radius: float, draws: np.random.Generator) -> np.ndarray:
    """Returns the images, the same with noise within the radius, and as many of uniform noise, (3 N, H, W, C)."""
    near = np.clip(images + draws.uniform(-radius, radius, size=images.shape), 0.0, 1.0)
    return np.concatenate([images, near, draws.uniform(size=images.shape)]).astype(np.float32)


class _Look(Walk):
    """A run through a network, on `_variants` of images, that measures each operation on its way.

    Attributes:
        steps: what to do after the operations that lose the gradient, so far.
        to_imitate: places where the identity is a bad stand-in; the value is that identity, or None without one.
        scores: outputs (3 N, K) by place, of operations with one such output.
    """

    def __init__(self, rows: int, draws: np.random.Generator) -> None:
        super().__init__({})
        self._rows, self._draws = rows, draws
        self.steps: dict[Place, Step] = {}
        self.to_imitate: dict[Place, StandIn | None] = {}
        self.scores: dict[Place, np.ndarray] = {}

    def _call(self, operation: keras.Operation, use: int, arguments: tuple, options: dict[str, Any]) -> Any:
        inputs = tensors_in((arguments, options))
        floats = [each for each in inputs if each.dtype.is_floating]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(floats)
            outputs = operation(*arguments, **options)
        changing = [number for number, each in enumerate(inputs) if self._changes(each)]
        flat = keras.tree.flatten(outputs)
        for number, output in enumerate(flat):
            if not changing or not self._changes(output):
                continue
            place = (operation, use, number)
            if len(flat) == 1 and output.shape.rank == 2 and output.dtype.is_floating:
                self.scores[place] = output.numpy()
            source = self._source(inputs, changing, output)
            if not output.dtype.is_floating:
                self.steps[place] = Step(source, None)
                self.carry(output, self.carrier(inputs[source]))
                continue
            is_lost, is_shattered = self._look(tape, floats, output)
            if is_lost or is_shattered:
                self._find(place, source, self.carrier(inputs[source]).numpy(), output.numpy(), is_shattered)
        return outputs

    def _source(self, inputs: list[tf.Tensor], changing: list[int], output: tf.Tensor) -> int:
        """Returns the index of the input that gets the gradient: one with the output's shape, else the first."""
        alike = (each for each in changing if self.carrier(inputs[each]).shape == output.shape)
        return next(alike, changing[0])

    def _look(self, tape: tf.GradientTape, inputs: list[tf.Tensor], output: tf.Tensor) -> tuple[bool, bool]:
        """Returns whether the gradient of an output predicts nothing of its change, and whether far too much."""
        count = self._rows // 3
        moved = [each for each in inputs if self._changes(each)]
        changed, followed, is_zero = [], [], True
        for _ in range(DRAWS):
            way = np.zeros(output.shape, np.float32)
            way[:count] = self._draws.normal(size=way[:count].shape)
            try:
                found = tape.gradient(output, moved, tf.cast(way, output.dtype), unconnected_gradients="zero")
            except LookupError:  # TensorFlow has none for the operation
                found = [tf.zeros_like(each) for each in moved]
            gradients = [np.nan_to_num(tf.cast(each, tf.float32)) for each in found]
            is_zero = is_zero and not any(np.any(each) for each in gradients)
            changed.append(_along(way, output, count))
            followed.append(sum((_along(*pair, count) for pair in zip(gradients, moved)), np.zeros(count)))
        change, follows = np.concatenate(changed), np.concatenate(followed)
        size, missed = np.sum(change**2), np.sum((change - follows) ** 2)
        if size == 0.0:  # within the radius nothing changes; beyond it something does
            return is_zero, False
        return bool(np.sum(follows**2) <= FOLLOWED**2 * size), bool(missed > SHATTERED * size)

    def _find(self, place: Place, source: int, taken: np.ndarray, returned: np.ndarray, is_shattered: bool) -> None:
        """Keeps the stand-in of an operation, or that one must be trained."""
        name, identity = place[0].name, None
        if taken.shape == returned.shape and is_shattered:
            # A fast wave moves the output only little, however large its gradient: the rest follows the input.
            changes = (_change(each, self._rows // 3) for each in (taken, returned))
            scale, explained = stand_ins.slope(*changes)
            identity = stand_ins.scaled_identity(name, *((scale, explained) if explained >= RELATED else (0.0, 0.0)))
        elif taken.shape == returned.shape:
            near = 2 * self._rows // 3
            identity = stand_ins.of_largest(name, taken, returned)
            identity = identity or stand_ins.scaled_identity(name, *stand_ins.slope(taken[:near], returned[:near]))
        if identity is None or (not is_shattered and identity.explained < RELATED):
            self.to_imitate[place] = identity
            identity = None
        self.steps[place] = Step(source, identity)

    def _changes(self, tensor: tf.Tensor) -> bool:
        """Returns whether a tensor (3 N, ...) depends on the images."""
        if tensor.shape.rank == 0 or tensor.shape[0] != self._rows:
            return False
        one, *others = np.split(tensor.numpy(), 3)
        return any(not np.array_equal(one, each) for each in others)


def _change(values: np.ndarray, count: int) -> np.ndarray:
    return values[count : 2 * count].astype(np.float64) - values[:count]


def _along(way: np.ndarray, tensor: tf.Tensor, count: int) -> np.ndarray:
    """Returns the change of a tensor from each image to its noisy variant, projected on `way`, (N,)."""
    change = _change(np.asarray(tf.cast(tensor, tf.float32)), count)
    return np.sum((way[:count] * change).reshape(count, -1), axis=1)


def _decided_at(scores: dict[Place, np.ndarray], logits: np.ndarray) -> Place | None:
    """Returns the first place whose largest score is one of the largest logits, for nearly all images."""
    for place, values in scores.items():
        if values.shape == logits.shape:
            chosen = np.take_along_axis(logits, values.argmax(axis=1)[:, None], axis=1)[:, 0]
            if np.mean(chosen == logits.max(axis=1)) >= ORDERED:
                return None if np.array_equal(values, logits) else place
    return None
