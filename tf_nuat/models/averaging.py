"""Exponential moving averages of ALL weights of a network, BatchNorm statistics included.

`keras.callbacks.SwapEMAWeights` and the optimizers' `use_ema` average trainable weights only, which leaves an averaged
network with the BatchNorm statistics of another.
"""

import keras
import tensorflow as tf

from tf_nuat.models import weights


def copy_of(network: keras.Model) -> keras.Model:
    """Returns a network of the same layers and weights."""
    copy = keras.models.clone_model(network)
    weights.copy(network, to=copy)
    return copy


def decay_at(step: tf.Tensor, decay: float) -> tf.Tensor:
    """Returns the decay after `step` updates: `decay`, or less while the average is young.

    `min(decay, (1 + step) / (10 + step))`, as in `tf.train.ExponentialMovingAverage`: the weights that training began
    with are soon forgotten, and a short run has a useful average too.
    """
    step = tf.cast(step, tf.float32)
    return tf.minimum(tf.cast(decay, tf.float32), (1.0 + step) / (10.0 + step))


def update(average: keras.Model, network: keras.Model, decay: tf.Tensor) -> None:
    """Moves every weight of `average` towards `network`: `average = decay * average + (1 - decay) * weight`.

    Call it in a training step, in every replica; the weights of all replicas are the same.
    """

    def towards(weight: tf.Variable, target: tf.Tensor) -> None:
        if weight.dtype.is_floating:
            weight.assign_sub(tf.cast(1.0 - decay, weight.dtype) * (weight - target))
        else:
            weight.assign(target)

    def update_all(strategy: tf.distribute.Strategy) -> None:
        for weight, target in zip(average.weights, network.weights):
            strategy.extended.update(weight.value, towards, args=(target.value,), group=False)

    tf.distribute.get_replica_context().merge_call(update_all)
