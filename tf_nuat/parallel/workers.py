"""Several processes, on one machine or many, that train one network: what they share, and whether all agree.

Each runs the same command with `--strategy multiworker` and its own `TF_CONFIG`. The first worker is the chief: it
alone reads and writes checkpoints and results. It sends the others what they need, so no folder has to be shared.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.core import keras_compat
from tf_nuat.models import weights


class LostError(RuntimeError):
    """A worker does not answer any longer."""


@contextlib.contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """A context that turns the loss of another worker into a `LostError` of one line."""
    try:
        yield
    except keras_compat.LOST as error:
        if count(strategy) == 1:
            raise
        resolver = strategy.cluster_resolver
        own = f"{resolver.task_type} {resolver.task_id}"
        who = keras_compat.lost_task(error, own=own) or _only_other(strategy, own)
        raise LostError(
            f"{who} of TF_CONFIG does not answer any longer: it has ended (its own last lines say why) or its network "
            "has; end all workers and start each again with its command, which goes on from where it was last saved"
        ) from error


def _only_other(strategy: tf.distribute.Strategy, own: str) -> str:
    """Returns the name of the other task if there is only one, else "a worker"."""
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    others = [f"{job} {number}" for job in jobs for number in range(len(jobs[job])) if f"{job} {number}" != own]
    return others[0] if len(others) == 1 else "a worker"


def count(strategy: tf.distribute.Strategy | None) -> int:
    """Returns the number of workers of a strategy, 1 for one that is not over several."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return sum(map(len, strategy.cluster_resolver.cluster_spec().as_dict().values()))


def index(strategy: tf.distribute.Strategy) -> int:
    """Returns which of the workers this process is, 0 for the chief."""
    if count(strategy) == 1:
        return 0
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().as_dict() and resolver.task_type == "worker"
    return resolver.task_id + has_chief


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process reads and writes checkpoints and results; always true if there is one worker."""
    return index(strategy) == 0


def several(strategy: tf.distribute.Strategy) -> tf.distribute.Strategy | None:
    """Returns the strategy if it is over several workers, who share the images of an attack; else None."""
    return strategy if count(strategy) > 1 else None


def gathered(array: Any, strategy: tf.distribute.Strategy) -> np.ndarray:
    """Returns the arrays of all workers, (workers, ...); `array` is int32 and has the same shape on every worker."""
    if count(strategy) == 1:
        return np.asarray(array)[None]
    every = strategy.run(_gather, args=(tf.constant(array, tf.int32),))
    replicas_each = strategy.num_replicas_in_sync // count(strategy)
    return strategy.experimental_local_results(every)[0].numpy()[::replicas_each]


@tf.function(reduce_retracing=True)
def _gather(array: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_gather(array[None], axis=0)


def true_on_all(outcomes: np.ndarray, strategy: tf.distribute.Strategy) -> np.ndarray:
    """Returns where `outcomes`, bool (N,), is true on every worker."""
    return np.all(gathered(outcomes, strategy), axis=0)


def of_all(contents: bytes, strategy: tf.distribute.Strategy) -> list[bytes]:
    """Returns the bytes `contents` of every worker, a list."""
    if count(strategy) == 1:
        return [contents]
    sizes = gathered([len(contents)], strategy)[:, 0]
    rows = gathered(_as_numbers(contents, size=int(sizes.max())), strategy)
    return [row.tobytes()[:size] for row, size in zip(rows, sizes)]


def from_chief(contents: bytes, strategy: tf.distribute.Strategy) -> bytes:
    """Returns the bytes `contents` of the chief; those of the other workers are ignored, and may be empty."""
    if count(strategy) == 1:
        return contents
    contents = contents if is_chief(strategy) else b""
    size = int(gathered([len(contents)], strategy)[0, 0])
    numbers = strategy.run(_of_first, args=(tf.constant(_as_numbers(contents, size=size)),))
    return strategy.experimental_local_results(numbers)[0].numpy().tobytes()[:size]


def _as_numbers(contents: bytes, *, size: int) -> np.ndarray:
    """Returns bytes as int32, four at a time, padded with zeros to at least `size` bytes."""
    return np.frombuffer(contents.ljust(-(-size // 4) * 4, b"\0"), np.int32)


@tf.function(reduce_retracing=True)
def _of_first(numbers: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    # A sum with zeros changes no bit.
    own = tf.where(tf.equal(context.replica_id_in_sync_group, 0), numbers, 0)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, own)


def arrays_from_chief(arrays: Sequence[np.ndarray], strategy: tf.distribute.Strategy) -> Sequence[np.ndarray]:
    """Returns the chief's list of arrays; those of the other workers are ignored, and may be empty."""
    if count(strategy) == 1:
        return arrays
    return _unpacked(from_chief(_packed(arrays), strategy))


def arrays_of_all(arrays: Sequence[np.ndarray], strategy: tf.distribute.Strategy) -> list[list[np.ndarray]]:
    """Returns the list of arrays of every worker, a list of lists."""
    return [_unpacked(contents) for contents in of_all(_packed(arrays), strategy)]


def _packed(arrays: Sequence[np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, *arrays)
    return file.getvalue()


def _unpacked(contents: bytes) -> list[np.ndarray]:
    with np.load(io.BytesIO(contents)) as loaded:
        return [loaded[f"arr_{number}"] for number in range(len(loaded.files))]


def share_weights(network: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Gives the network of every worker the chief's weights."""
    if count(strategy) > 1:
        weights.assign(network, arrays_from_chief(network.get_weights(), strategy))


def agree(facts: Mapping[str, Any], strategy: tf.distribute.Strategy) -> None:
    """Checks that `facts`, a dict of names to JSON values, are the same on every worker.

    Raises:
        ValueError: they differ; the line names the first that does, and the worker. It is raised on every worker.
    """
    first, *others = map(json.loads, of_all(json.dumps(facts).encode(), strategy))
    for number, other in enumerate(others, start=1):
        for name in sorted(set(first) | set(other)):
            if first.get(name) != other.get(name):
                with contextlib.suppress(tf.errors.OpError):  # all leave together: none seems lost to the others
                    gathered([0], strategy)
                raise ValueError(
                    f"{name} is {other.get(name)!r} on worker {number}, and {first.get(name)!r} on the chief; "
                    "allowed: the same on every worker"
                )
