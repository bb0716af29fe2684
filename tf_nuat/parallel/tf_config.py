"""`TF_CONFIG`: the workers that it names, and their start, once all of them are there."""

import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from tf_nuat.core import keras_compat, validation
from tf_nuat.parallel.workers import LostError

EXAMPLE = '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, "task": {"type": "worker", "index": 0}}'
PATIENCE = 30  # seconds after which a waiting worker says for whom it waits
WAIT = 1800.0  # seconds after which it gives up, by default
WAIT_HELP = "seconds to wait for the other workers of TF_CONFIG, with --strategy multiworker"
STARTING = 60.0  # seconds that TensorFlow may take to start once all workers are there


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
