"""Which devices a computation is spread over: the strategies by name."""

import functools

import tensorflow as tf

from tf_nuat.core import validation
from tf_nuat.parallel import tf_config

STRATEGIES = ("auto", "one", "mirrored", "multiworker")


@functools.cache  # a second strategy over the same devices would clash with the collectives of the first
def _mirrored() -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy()


_over_workers: list[tf.distribute.Strategy] = []  # TensorFlow starts the server of this process once


def _multiworker(wait: float) -> tf.distribute.Strategy:
    if not _over_workers:
        _over_workers.append(tf_config.start(tf_config.cluster(), wait=wait))
    return _over_workers[0]


def strategy(name: str, *, wait: float = tf_config.WAIT) -> tf.distribute.Strategy:
    """Returns a `tf.distribute` strategy: "one" device, "mirrored" over all of this machine, "multiworker", or "auto".

    "multiworker" spans all processes that `TF_CONFIG` names, this one included: see `tf_nuat.parallel.workers`. It has
    to be called before TensorFlow does anything else. "auto" is "multiworker" if `TF_CONFIG` names several processes,
    "mirrored" if there are several GPUs, else "one". Build networks, defense and optimizer under its `scope()`.

    Args:
        name: one of `STRATEGIES`.
        wait: seconds to wait for the other workers, the first time that the strategy over them is asked for.

    Raises:
        ValueError: `name` is none of these, or `TF_CONFIG` is wrong.
        workers.LostError: a worker has not come within `wait` seconds.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.parallel.strategy("one").num_replicas_in_sync
        1
    """
    validation.one_of("strategy", name, STRATEGIES)
    if name == "auto" and tf_config.count_named() > 1:
        name = "multiworker"
    if name == "multiworker":
        return _multiworker(wait)
    several = len(tf.config.list_logical_devices("GPU")) > 1
    if name == "mirrored" or (name == "auto" and several):
        return _mirrored()
    return tf.distribute.get_strategy()
