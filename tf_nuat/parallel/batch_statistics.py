"""Statistics of the global batch under `tf.distribute`.

Inside a replica, a batch is a share of the global batch. Every statistic of the whole batch (a mean, the nuclear norm,
the draw of the starting noise) goes through this module, so that two devices with 32 images each do what one device
with 64 does. There is one exception: FGSM-AT, R-FGSM-AT and EAT count the images to attack within each share. They
attack the same images if a share is a multiple of their `every`. On one replica nothing is communicated.

Convention for losses: each replica computes its share, and the shares of all replicas add up to the loss of the
global batch. Keras's optimizers add up the gradients of the replicas, which then equal those of one device.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_nuat.models import weights

Gradients = Sequence[tf.Tensor | None]  # of a replica's share of the loss, one per trainable variable


def replicas() -> int:
    """Returns the number of replicas that work on the current global batch (1 outside of `strategy.run`).

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.replicas()
        1
    """
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context is not None else 1


def gather(rows: tf.Tensor) -> tf.Tensor:
    """Returns the rows (B, ...) of every replica, in the order of the replicas: (global B, ...). Differentiable.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.gather(tf.constant([[1.0], [2.0]])).shape
        TensorShape([2, 1])
    """
    if replicas() == 1:
        return rows
    return tf.distribute.get_replica_context().all_gather(rows, axis=0)


def total(value: tf.Tensor) -> tf.Tensor:
    """Returns the sum of `value` over the replicas.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.total(tf.constant(3)).numpy()
        np.int32(3)
    """
    if replicas() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


class Weights:
    """The weights (B,) of the examples of a batch, and whether `share_of_mean` has used them."""

    def __init__(self, values: tf.Tensor | None) -> None:
        self.values = values
        self.used = False


# Those of the current batch. Each replica is traced in its own thread, and a context variable belongs to a thread.
_weights: contextvars.ContextVar[Weights | None] = contextvars.ContextVar("weights", default=None)


@contextlib.contextmanager
def weighing(sample_weight: tf.Tensor | None) -> Iterator[Weights]:
    """A context in which `share_of_mean` multiplies each example by its weight (B,); None weighs all alike.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> with parallel.weighing(tf.constant([1.0, 0.0])):
        ...     print(parallel.share_of_mean(tf.constant([1.0, 3.0])).numpy())
        ...
        0.5
    """
    weights = Weights(sample_weight)
    token = _weights.set(weights)
    try:
        yield weights
    finally:
        _weights.reset(token)


def share_of_mean(per_example: tf.Tensor, counted: tf.Tensor | None = None) -> tf.Tensor:
    """Returns this replica's share of the mean of `per_example` (B,) over the global batch.

    If `fit` has sample weights, it is the sum of weight times value over the number of examples, as in Keras: the
    weights do not change the divisor. `per_example` may only have the last examples of the batch.

    Args:
        per_example: a value of each example, (B,).
        counted: bool (B,), the examples whose mean to take, which is 0 if there are none; None for all.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.share_of_mean(tf.constant([1.0, 3.0])).numpy()
        np.float32(2.0)
    """
    size = tf.shape(per_example)[0]
    weights = _weights.get()
    if weights is not None and weights.values is not None:
        weights.used = True
        own = weights.values[tf.shape(weights.values)[0] - size :]
        per_example *= tf.cast(own, per_example.dtype)
    if counted is None:
        return tf.reduce_sum(per_example) / tf.cast(total(size), per_example.dtype)
    count = tf.maximum(total(tf.math.count_nonzero(counted, dtype=tf.int32)), 1)
    return tf.reduce_sum(tf.where(counted, per_example, 0.0)) / tf.cast(count, per_example.dtype)


def share_of_batch_statistic(value: tf.Tensor) -> tf.Tensor:
    """Returns this replica's share of `value`, a statistic of the global batch that every replica has computed.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.share_of_batch_statistic(tf.constant(5.0)).numpy()
        np.float32(5.0)
    """
    return value / replicas()


def own_rows(draw: Callable[[tf.Tensor], tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
    """Returns this replica's rows of `draw(shape)`, a random draw for the whole global batch.

    Args:
        draw: function of a shape (global B, ...), the same on every replica.
        rows: tensor (B, ...), this replica's share of the batch, of which only the shape matters.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.own_rows(tf.zeros, tf.ones((4, 2))).shape
        TensorShape([4, 2])
    """
    shape = tf.shape(rows)
    if replicas() == 1:
        return tf.reshape(draw(shape), shape)
    context = tf.distribute.get_replica_context()
    sizes = context.all_gather(shape[:1], axis=0)
    first = tf.reduce_sum(sizes[: context.replica_id_in_sync_group])
    whole = draw(tf.concat([tf.reduce_sum(sizes)[None], shape[1:]], axis=0))
    return tf.reshape(whole[first : first + shape[0]], shape)


def own_of_last(count: int, rows: tf.Tensor) -> int | tf.Tensor:
    """Returns how many of the last `count` rows of the global batch are among `rows` (B, ...), this replica's share.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.own_of_last(1, tf.ones((4, 2)))
        1
    """
    if replicas() == 1 and rows.shape[0] is not None:
        return min(count, rows.shape[0])
    size, after = tf.shape(rows)[0], 0
    if replicas() > 1:
        context = tf.distribute.get_replica_context()
        sizes = context.all_gather(size[None], axis=0)
        after = tf.reduce_sum(sizes[context.replica_id_in_sync_group + 1 :])
    return tf.clip_by_value(count - after, 0, size)


def average_statistics(network: keras.Model, rows: tf.Tensor | None = None) -> None:
    """Averages over the replicas the weights that training moves without the optimizer: BatchNorm's statistics.

    Each replica has updated its own with its share of the batch. Call this in a training step, in every replica.
    Afterwards all are equal, so attacks, evaluation and checkpoints do not depend on the replica that they use.

    Args:
        network: the network.
        rows: this replica's share of the batch, (B, ...). A replica without rows does not count: its statistics are
            NaN. None counts every replica.

    Example:
        >>> import keras
        >>> import tf_nuat
        >>> network = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
        >>> tf_nuat.parallel.average_statistics(network)  # of one replica they stay as they are
    """
    if replicas() == 1:
        return
    statistics = moving_statistics(network)
    if statistics:
        context = tf.distribute.get_replica_context()
        has_rows = tf.constant(True) if rows is None else tf.shape(rows)[0] > 0
        count = total(tf.cast(has_rows, tf.float32))
        # A variable's own value has no device, without which several workers cannot reduce it.
        own = [tf.where(has_rows, tf.identity(each), 0.0) for each in statistics]
        for weight, whole in zip(statistics, context.all_reduce(tf.distribute.ReduceOp.SUM, own)):
            weight.assign(whole / tf.cast(count, whole.dtype))


def own_gradients(gradients: Gradients, rows: tf.Tensor) -> Gradients:
    """Returns this replica's gradients, 0 if it has no rows (B, ...): those of BatchNorm would be NaN.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.own_gradients([tf.constant(3.0), None], tf.ones((4, 2)))[0].numpy()
        np.float32(3.0)
    """
    if replicas() == 1:
        return gradients
    has_rows = tf.shape(rows)[0] > 0
    return [each if each is None else tf.where(has_rows, each, 0.0) for each in gradients]


def finite_on_all(gradients: Gradients) -> Gradients:
    """Returns this replica's gradients, all NaN if some gradient of any replica is not finite.

    A `LossScaleOptimizer` skips such a step. It looks at the gradients of the first replica alone.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.finite_on_all([tf.constant(3.0), None])[0].numpy()
        np.float32(3.0)
    """
    if replicas() == 1:
        return gradients
    own = [tf.reduce_all(tf.math.is_finite(each)) for each in gradients if each is not None]
    is_finite = tf.equal(total(tf.cast(tf.reduce_all(own), tf.int32)), replicas())
    return [each if each is None else tf.where(is_finite, each, float("nan")) for each in gradients]


def moving_statistics(network: keras.Model) -> list[keras.Variable]:
    """Returns the weights that training moves without the optimizer; those of frozen layers stay as they are.

    Example:
        >>> import keras
        >>> import tf_nuat
        >>> network = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
        >>> len(tf_nuat.parallel.moving_statistics(network))
        2
    """
    beside = (layer.non_trainable_weights for layer in weights.layers_of(network) if layer.trainable)
    return [weight for each in beside for weight in each if weight.value.dtype.is_floating]


def synchronized(network: keras.Model) -> keras.Model:
    """Returns a copy of the network whose BatchNorm layers normalize with the statistics of the global batch.

    Without it, each replica normalizes its own images. If these are few, that is another, noisier training.

    Raises:
        ValueError: the network cannot be cloned.

    Example:
        >>> import keras
        >>> import tf_nuat
        >>> network = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
        >>> tf_nuat.parallel.synchronized(network).output_shape
        (None, 4)
    """

    def changed(layer: keras.Layer, config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "synchronized": True} if isinstance(layer, keras.layers.BatchNormalization) else config

    copy = weights.clone(network, changed)
    weights.copy(network, to=copy)
    return copy


def scalar(variable: keras.Variable | tf.Tensor) -> Any:
    """Returns the value of a scalar Keras variable, mirrored or not, as a Python number; outside of `strategy.run`.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import parallel
        >>> parallel.scalar(tf.constant(3))
        3
    """
    return tf.convert_to_tensor(getattr(variable, "value", variable)).numpy().item()
