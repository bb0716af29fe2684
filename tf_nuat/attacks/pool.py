"""The engine of evaluations: an attack on any number of images, in which finished images make room for others.

A `Pool` holds a batch of images under attack. Every few steps it yields the finished images and fills their places, so
that batches stay full however many steps an image needs. It needs the memory of one batch.

If the attack computes gradients in bfloat16, the pool checks the results in float32. It attacks two kinds of images
again in float32, from the beginning: those whose adversary does not fool the network itself, because their search has
ended with a wrong result; and those left with a small margin, because a less coarse gradient may still fool them.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from tf_nuat import losses
from tf_nuat.attacks.attack import Attack
from tf_nuat.attacks.batch import check_surrogate, num_classes_of
from tf_nuat.attacks.search import Search, choose, run_search
from tf_nuat.core import validation
from tf_nuat.models import precision
from tf_nuat.models.inference import Logits, graph_of
from tf_nuat.models.lifetime import made_once

CHUNK = 25  # largest number of steps before the pool looks for finished images
ENOUGH = 8  # it looks sooner if one in so many images of the batch is done
NEAR = 0.1  # a margin below this share of the range of an image's logits is small
MOST_DOUBTS = 100  # how often an image may go on in float32 because its adversary did not fool the network itself

Done: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows, whether they are fooled, images
Strategy: TypeAlias = tf.distribute.Strategy | None


class Slots(NamedTuple):
    """Images that are being attacked: their row numbers (n,), x, y, and the attack's state, row by row."""

    rows: np.ndarray
    x: tf.Tensor
    y: tf.Tensor
    state: Any


class Pool:
    """An attack on rows of images.

    Args:
        attack: a `tf_nuat.attacks.Attack` that does not consist of others.
        network: a `keras.Model`, or any function of images that returns logits.
        images: (N, H, W, C), float32 in [0, 1]: an array, or anything that can be indexed by an array of rows.
        labels: integers (N,).
        rows: numbers of the images to attack, (n,), integers.
        settings: the attack's keywords, numbers and strings.
        index: numbers of all images, (N,), which determine the draws for an image together with the seed; None for
            their rows.
        batch_size: number of images attacked at a time, by all replicas together.
        precision: of the gradients, see `tf_nuat.models.precision.attacked`.
        strategy: a `tf.distribute.Strategy` under which the network was built, whose replicas share the batch; None for
            one device.

    Attributes:
        steps: number of steps so far, summed over images: a dict with the precisions "fast" and "exact".

    Raises:
        ValueError: a setting is out of its range, or belongs to single images.
    """

    def __init__(
        self,
        attack: Attack,
        network: Logits,
        images: Any,
        labels: np.ndarray,
        rows: np.ndarray,
        settings: Mapping[str, Any],
        *,
        index: np.ndarray | None = None,
        batch_size: int = 250,
        precision: str = "auto",
        strategy: Strategy = None,
    ) -> None:
        settings = attack.as_tensors(settings)
        for name, value in settings.items():
            if tf.is_tensor(value) and value.shape.rank:
                raise ValueError(f"{name} has an entry for each image; allowed: one value, for all of them")
        if settings.get("surrogate") is not None:
            check_surrogate(settings["surrogate"], images, num_classes_of(network, images))
        self._numbers = {name: value for name, value in settings.items() if tf.is_tensor(value)}
        others = tuple((name, value) for name, value in settings.items() if not tf.is_tensor(value))
        numbers = tuple((name, value.dtype) for name, value in self._numbers.items())
        kind = _Kind(attack, numbers, others, tuple(images.shape[1:]), strategy)
        self._begin, self._like = made_once(network, (_beginning, kind), lambda: _beginning(network, kind))
        place = kind.shape, strategy
        self._judge = made_once(network, (_judging, *place), lambda: _judging(network, *place))
        # Without a radius, the nearest adversary lies on the boundary, where bfloat16 cannot tell the sides apart.
        fast = _attacked(network, precision if "epsilon" in self._numbers else "float32", strategy)
        self._is_mixed = fast is not network
        self._advance = {
            name: made_once(each, (_advancing, kind), functools.partial(_advancing, each, kind, self._like))
            for name, each in (("fast", fast), ("exact", network))
        }
        self._images, self._labels = images, labels
        self._rows, self._begun = np.asarray(rows, np.int64), 0
        self._batch_size = validation.whole_number("batch_size", batch_size, at_least=1)
        self._slots: dict[str, Slots] = {}  # by precision, where there are any
        self._doubts = np.zeros(len(labels), np.int32)  # by row
        self._numbering = index
        self.steps = {"fast": 0, "exact": 0}

    @property
    def size(self) -> int:
        """Number of images to attack."""
        return len(self._rows)

    @property
    def begun(self) -> np.ndarray:
        """Rows of the images that are done or under attack."""
        return self._rows[: self._begun]

    @property
    def ended(self) -> int:
        """Number of images that are done."""
        return self._begun - self._held("fast") - self._held("exact")

    def __iter__(self) -> Iterator[Done]:
        """Yields arrays (rows, whether they are fooled, x_adv) of images that are done, until all are.

        x_adv is the adversary of an image that is fooled, and the clean image of any other. At times no image is done,
        and the arrays are empty, so that the caller can keep a `snapshot`.
        """
        while True:
            self._fill()
            name = self._next()
            if name is None:
                return
            yield self._go_on(name)

    def _fill(self) -> None:
        """Begins with as many images as there is room for."""
        room = self._batch_size - self._held("fast") - self._held("exact")
        rows = self._rows[self._begun : self._begun + room]
        if len(rows):
            x, y = tf.constant(self._images[rows], tf.float32), tf.constant(self._labels[rows], tf.int64)
            state = self._begin(x, y, self._index(rows), self._numbers)
            self._add("fast", Slots(rows, x, y, state))
            self._begun += len(rows)

    def _index(self, rows: np.ndarray) -> tf.Tensor:
        return tf.constant(rows if self._numbering is None else np.asarray(self._numbering)[rows], tf.int32)

    def _next(self) -> str | None:
        """Returns which slots to go on with: those in float32 once they are many, or the only ones."""
        waiting = self._held("exact")
        if self._held("fast") and waiting < max(1, self._batch_size // 2):
            return "fast"
        return "exact" if waiting else None

    def _go_on(self, name: str) -> Done:
        """Takes steps, and returns the rows that are done, whether they are fooled, and their images."""
        slots, is_fast = self._slots[name], name == "fast" and self._is_mixed
        if not np.all(_done(slots)):
            advance = self._advance[name]
            taken, state = advance(slots.x, slots.y, self._index(slots.rows), self._numbers, slots.state)
            self.steps[name] += int(tf.reduce_sum(taken))
            slots = slots._replace(state=state)
        done = np.flatnonzero(_done(slots))
        if not len(done):
            self._slots[name] = slots
            return slots.rows[:0], np.zeros(0, bool), slots.x[:0].numpy()
        ended = _take(slots, done)
        fooled, is_near = (each.numpy() for each in self._judge(ended.state.x_adv, ended.y))
        doubted = ended.state.fooled.numpy() & ~fooled  # the adversary of the search does not fool the network
        anew = (doubted | is_near) & is_fast
        # On the very boundary, rounding may fool only the search, again and again: hence the limit.
        has_more = ~ended.state.spent.numpy() & (self._doubts[ended.rows] < MOST_DOUBTS)
        goes_on = doubted & ~anew & has_more
        self._doubts[ended.rows[goes_on]] += 1
        kept = np.setdiff1d(np.arange(len(slots.rows)), done)
        if len(kept):
            self._slots[name] = _take(slots, kept)
        else:
            del self._slots[name]
        if np.any(goes_on):
            again = _take(ended, np.flatnonzero(goes_on))
            again = again._replace(state=again.state._replace(fooled=tf.zeros_like(again.state.fooled)))
            self._add("exact", again)
        if np.any(anew):
            rows, x, y, _ = _take(ended, np.flatnonzero(anew))
            self._add("exact", Slots(rows, x, y, self._begin(x, y, self._index(rows), self._numbers)))
        ends = ~goes_on & ~anew
        ended, fooled = _take(ended, np.flatnonzero(ends)), fooled[ends]
        x_adv = choose(tf.constant(fooled), ended.state.x_adv, ended.x).numpy()
        return ended.rows, fooled, x_adv

    def _held(self, name: str) -> int:
        return len(self._slots[name].rows) if name in self._slots else 0

    def _add(self, name: str, slots: Slots) -> None:
        self._slots[name] = _concatenated(self._slots[name], slots) if name in self._slots else slots

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns the pool as a flat dict of arrays, from which `restore` goes on."""
        arrays: dict[str, np.ndarray] = {"begun": np.array(self._begun, np.int64), "doubts": self._doubts.copy()}
        arrays["steps"] = np.array(list(self.steps.values()), np.int64)
        for name, slots in self._slots.items():
            for number, part in enumerate(tf.nest.flatten(tuple(slots))):
                arrays[f"{name}_{number}"] = np.asarray(part)
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes on from a `snapshot` of a pool that was made with the same arguments."""
        self._begun = int(arrays["begun"])
        self.steps = dict(zip(self.steps, map(int, arrays["steps"])))
        self._doubts[:] = arrays.get("doubts", 0)  # older snapshots do not have them
        for name in self.steps:
            if f"{name}_0" in arrays:
                number = sum(key.startswith(f"{name}_") for key in arrays)
                rows, x, y, *state = (arrays[f"{name}_{k}"] for k in range(number))
                state = tf.nest.pack_sequence_as(self._like, [tf.constant(part) for part in state])
                self._slots[name] = Slots(rows, tf.constant(x), tf.constant(y), state)


def _attacked(network: Logits, requested: str, strategy: Strategy) -> Logits:
    if strategy is None:
        return precision.attacked(network, requested)
    with strategy.scope():
        return precision.attacked(network, requested)


def _done(slots: Slots) -> np.ndarray:
    return slots.state.fooled.numpy() | slots.state.spent.numpy()


def _take(slots: Slots, places: np.ndarray) -> Slots:
    rows, *tensors = slots
    places_there = tf.constant(places, tf.int32)
    x, y, state = tf.nest.map_structure(lambda part: tf.gather(part, places_there), tensors)
    return Slots(rows[places], x, y, state)


def _concatenated(one: Slots, other: Slots) -> Slots:
    x, y, state = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), one[1:], other[1:])
    return Slots(np.concatenate([one.rows, other.rows]), x, y, state)


class _Kind(NamedTuple):
    """What the compiled functions of an attack depend on, besides the network.

    Attributes:
        numbers: names and types of the settings that are numbers.
        others: names and values of those that are not.
        shape: of an image.
        strategy: whose replicas share the batch, or None.
    """

    attack: Attack
    numbers: tuple[tuple[str, tf.DType], ...]
    others: tuple[tuple[str, Any], ...]
    shape: tuple[int, ...]
    strategy: Strategy

    def search(self, network: Logits, x: tf.Tensor, y: tf.Tensor, index: tf.Tensor, given: dict) -> Search:
        return self.attack.search(network, x, y, {**dict(self.others), **given}, index)

    @property
    def specs(self) -> tuple[Any, ...]:
        """The tensor specs of x, y, the numbers of the images, and the settings that are numbers."""
        x, y = tf.TensorSpec((None, *self.shape), tf.float32), tf.TensorSpec((None,), tf.int64)
        return x, y, tf.TensorSpec((None,), tf.int32), {name: tf.TensorSpec((), dtype) for name, dtype in self.numbers}


def _beginning(network: Logits, kind: _Kind) -> tuple[Callable[..., Any], Any]:
    """Returns the function that begins an attack, and the tensor specs of the state that it returns."""

    def begin(x: tf.Tensor, y: tf.Tensor, index: tf.Tensor, given: dict[str, tf.Tensor]) -> Any:
        return kind.search(network, x, y, index, given).first()

    compiled = _compiled(begin, *kind.specs)
    like = tf.nest.map_structure(
        lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype),
        compiled.get_concrete_function().structured_outputs,
    )
    return _shared(compiled, kind.strategy), like


def _advancing(network: Logits, kind: _Kind, like: Any) -> Callable[..., Any]:
    """Returns the function that continues an attack from a state with the tensor specs `like`."""

    def advance(
        x: tf.Tensor, y: tf.Tensor, index: tf.Tensor, given: dict[str, tf.Tensor], state: Any
    ) -> tuple[tf.Tensor, Any]:
        enough = (tf.shape(x)[0] + ENOUGH - 1) // ENOUGH
        search = kind.search(network, x, y, index, given)
        taken, state = run_search(search, state, steps=CHUNK, until_done=enough)
        return tf.fill(tf.shape(index), taken), state

    return _shared(_compiled(advance, *kind.specs, like), kind.strategy)


def _judging(network: Logits, shape: tuple[int, ...], strategy: Strategy) -> Callable[..., Any]:
    """Returns the function of (x, y) that says which images are fooled, and which of the others have a small margin.

    It is the same for every attack. Images whose logits are not finite count as fooled.
    """
    logits_fn = graph_of(network)

    def judge(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        answered = logits_fn(x)  # logits of float64 that differ may tie in float32
        logits = tf.cast(answered, tf.float32)
        spread = tf.reduce_max(logits, axis=1) - tf.reduce_min(logits, axis=1)
        fooled = losses.fooled(answered, y) | ~tf.reduce_all(tf.math.is_finite(logits), axis=1)
        return fooled, ~fooled & (losses.margin(logits, y) > -NEAR * spread)

    specs = tf.TensorSpec((None, *shape), tf.float32), tf.TensorSpec((None,), tf.int64)
    return _shared(_compiled(judge, *specs), strategy)


def _compiled(function: Callable[..., Any], *specs: Any) -> Any:
    """Returns a function of tensors like `specs`, traced at its first call: many are never called."""
    return tf.function(function, input_signature=specs, autograph=False)


def _shared(compiled: Any, strategy: Strategy) -> Callable[..., Any]:
    """Turns a compiled function into one that takes batches of any size and shares them among the replicas."""
    if strategy is None or strategy.num_replicas_in_sync == 1:
        graph = functools.cache(compiled.get_concrete_function)  # TensorFlow would count calls as retracing
        return lambda *arguments: graph()(*arguments)
    replicas = strategy.num_replicas_in_sync
    one = tf.autograph.experimental.do_not_convert(lambda *arguments: compiled(*arguments))
    on_all = tf.function(lambda *arguments: strategy.run(one, arguments), autograph=False, reduce_retracing=True)

    def shared(x: tf.Tensor, *others: Any) -> Any:
        # If there are fewer images than replicas, some are attacked more than once.
        places = np.array_split(np.arange(max(len(x), replicas)) % len(x), replicas)

        def share(value: tf.Tensor) -> Any:
            if value.shape.rank == 0:
                return value
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.gather(value, places[context.replica_id_in_sync_group])
            )

        def joined(value: Any) -> tf.Tensor:
            return tf.concat(strategy.experimental_local_results(value), axis=0)[: len(x)]

        return tf.nest.map_structure(joined, on_all(*tf.nest.map_structure(share, (x, *others))))

    return shared
