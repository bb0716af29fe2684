"""Several processes, on one machine or many, that train one network: who they are, and whether all agree and respond.

Each runs the same command with `--strategy multiworker` and its own `TF_CONFIG`. The first worker is the chief: it
alone reads and writes checkpoints and results. It sends the others what they need, so no folder has to be shared.
"""

import contextlib
import io
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_nuat.core import keras_compat, validation
from tf_nuat.models import weights

EXAMPLE = '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, "task": {"type": "worker", "index": 0}}'
PATIENCE = 30  # seconds after which a waiting worker says for whom it waits
WAIT = 1800.0  # seconds after which it gives up, by default
WAIT_HELP = "seconds to wait for the other workers of TF_CONFIG, with --strategy multiworker"
STARTING = 60.0  # seconds that TensorFlow may take to start once all workers are there


class LostError(RuntimeError):
    """A worker does not answer any longer."""


class Cluster(NamedTuple):
    """The workers of `TF_CONFIG`.

    Attributes:
        addresses: "host:port" of each, the chief's first.
        number: which of them this process is.
    """

    addresses: tuple[str, ...]
    number: int


def count_named() -> int:
    """Returns the number of workers that `TF_CONFIG` names, 1 where it is not set.

    Raises:
        ValueError: as `cluster`.
    """
    return len(cluster().addresses) if os.environ.get("TF_CONFIG") else 1


def cluster(text: str | None = None) -> Cluster:
    """Returns the `Cluster` that `text`, JSON as TensorFlow documents it for `TF_CONFIG`, describes.

    Args:
        text: None for that of the environment.

    Raises:
        ValueError: it is not given, or describes no cluster of workers.
    """
    text = os.environ.get("TF_CONFIG") if text is None else text
    if not text:
        raise ValueError(f"TF_CONFIG is not set; allowed: {EXAMPLE}")

    def wrong(what: str) -> ValueError:
        return ValueError(f"TF_CONFIG {what}; allowed: {EXAMPLE}")

    try:
        given = json.loads(text)
        jobs, task = given["cluster"], given["task"]
        kind, index = task["type"], task["index"]
        lists = {job: list(addresses) for job, addresses in jobs.items()}
    except ValueError as error:
        raise wrong(f"is no JSON ({error})") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise wrong("has not the entries cluster and task, with type and index") from error
    if others := sorted(set(lists) - {"chief", "worker"}):
        raise wrong(f"has the job {others[0]!r}, and jobs other than chief and worker have no part in this training")
    chief, others = lists.get("chief", []), lists.get("worker", [])
    addresses = (*chief, *others)
    if len(chief) > 1:
        raise wrong(f"has {len(chief)} chiefs")
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}", address):
            raise wrong(f"has the address {address!r}, which is not host:port")
    if len(set(addresses)) < len(addresses):
        raise wrong("has the same address twice")
    if kind not in lists or not isinstance(index, int) or not 0 <= index < len(lists[kind]):
        raise wrong(f"says that this is {kind} {index}, which the cluster has not")
    return Cluster(addresses, index + (len(chief) if kind == "worker" else 0))


def start(cluster: Cluster, *, wait: float = WAIT) -> tf.distribute.Strategy:
    """Returns the strategy over all workers; waits for all of them first.

    Args:
        cluster: the workers.
        wait: seconds to wait for the others, at least 0.

    Raises:
        ValueError: the port of this worker is in use, or TensorFlow was used before.
        LostError: a worker has not come within `wait` seconds.
    """
    validation.number("wait", wait, at_least=0.0)
    _meet(cluster, wait)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with _ended_after(max(wait, STARTING)):
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        if not keras_compat.is_late_start(error):
            raise
        raise ValueError(
            "strategy is 'multiworker' after TensorFlow was used; allowed: in a process that begins with it"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # TensorFlow's own handler only notes the signal
    return strategy


def _meet(cluster: Cluster, wait: float) -> None:
    """Waits until every worker has been seen at its address, and says for whom it waits.

    TensorFlow would also wait, but for ever, without a word, and without a reaction to signals.

    Raises:
        LostError: `wait` seconds have passed.
    """
    own = cluster.addresses[cluster.number]
    missing = {address for address in cluster.addresses if address != own}
    logging.info("worker %d of %d, %s", cluster.number, len(cluster.addresses), own)
    with listening(own):
        begun = said = time.monotonic()
        while missing:
            missing -= {address for address in missing if _answers(address)}
            names = ", ".join(sorted(missing))
            if missing and time.monotonic() - begun > wait:
                raise LostError(
                    f"no worker answers at {names} after {wait:g} seconds (--wait); start each worker of TF_CONFIG "
                    "with its command, within that time"
                )
            if missing and time.monotonic() - said > PATIENCE:
                said = time.monotonic()
                logging.warning("waiting for %s, which no worker answers at", names)
            time.sleep(0.1 if missing else 0.5)  # the last wait lets the others see this worker


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """A context that ends the process, with a line, if it takes longer.

    TensorFlow waits for a worker that was seen and has ended since, and no exception reaches it while it waits.
    """

    def end() -> None:
        print(
            f"error: a worker of TF_CONFIG was there and does not answer after {seconds:g} seconds (--wait); end all "
            "workers and start each again",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def listening(address: str) -> Iterator[None]:
    """A context in which the port of an address of this machine answers.

    Raises:
        ValueError: it is in use.
    """
    port = int(address.rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an ended run do not count
        try:
            listener.bind(("", port))
            listener.listen(128)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "ports end at 65535"
            raise ValueError(
                f"TF_CONFIG gives this worker {address}, whose port cannot be opened ({reason}); allowed: a free port"
            ) from error
        yield


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2) as found:
            # If nobody listens, a connection within one machine may get that port as its own, and connect to itself.
            return found.getsockname() != found.getpeername()
    except OSError:
        return False


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
