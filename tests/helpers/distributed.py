"""Training that is spread over devices or processes, on three batches of noise."""

import functools

import keras
import numpy as np
import tensorflow as tf

import tf_nuat

SHAPE = (8, 8, 1)
CLASSES = 10
BATCH = 64
STEPS = 3


@functools.cache
def batches():
    generator = np.random.default_rng(0)
    images = generator.uniform(size=(STEPS * BATCH, *SHAPE)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((images, generator.integers(0, CLASSES, len(images)))).batch(BATCH)


def network():
    """Without BatchNorm, whose statistics are those of a replica's share of the batch."""
    return _network(lambda: [keras.layers.Conv2D(8, 3, activation="relu")])


def with_batch_norm(synchronized=False):
    """With BatchNorm, whose statistics may be those of the whole batch."""
    return _network(lambda: [keras.layers.Conv2D(8, 3), keras.layers.BatchNormalization(synchronized=synchronized)])


def _network(layers):
    keras.utils.set_random_seed(1)  # before the first layer is made, which draws the seed of its weights then
    return keras.Sequential([keras.Input(SHAPE), *layers(), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])


def trained(name, strategy, data=None, network=network, *, run_eagerly=False, **options):
    """Returns the defense after one epoch of `fit` on the three batches, and its history."""
    with strategy.scope():
        if name.startswith("nuat"):
            options["nuclear_weight"] = 2.0
        if name == "eat":
            options["sources"] = [network()]
        model = tf_nuat.DEFENSES[name](network(), epsilon=0.1, **options)
        # Steps small enough that no pixel's gradient is rounded to another sign.
        optimizer = tf_nuat.optimizers.CoupledSGD(0.05)
        model.compile(optimizer=optimizer, metrics=["accuracy"], run_eagerly=run_eagerly)
    history = model.fit(batches() if data is None else data, epochs=1, verbose=0).history
    return model, history
