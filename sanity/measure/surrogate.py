"""A small network of another architecture, trained on the spot as a source of transfer attacks."""

import math
import time

import keras
import numpy as np
import tensorflow as tf

MOST_IMAGES = 10_000
STEPS = 400  # enough for above 95 % on digits and MNIST
BATCH_SIZE = 64


def train(
    images: np.ndarray, labels: np.ndarray, *, num_classes: int, seed: int = 0, seconds: float = math.inf
) -> keras.Model:
    """Trains a small convolutional network on clean images with Adam; the same seed gives the same network.

    Training uses at most `MOST_IMAGES` of the images. It takes `STEPS` optimizer steps, or fewer if the time is over;
    then the seed does not determine the network. On MNIST it takes ten seconds on two cores.

    Args:
        images: (N, H, W, C), float32 in [0, 1].
        labels: integers (N,) below `num_classes`.
        num_classes: number K of logits.
        seed: whole number, at least 0, that determines the initial weights and the order of the images.
        seconds: time limit; a step that has begun is finished.

    Returns:
        A compiled `keras.Model`, images (B, H, W, C) -> logits (B, K).
    """
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(images))[:MOST_IMAGES]
    epochs = -(-STEPS * BATCH_SIZE // len(chosen))
    order = np.concatenate([generator.permutation(chosen) for _ in range(epochs)])[: STEPS * BATCH_SIZE]
    images, labels = tf.constant(images), tf.constant(labels)
    batches = (
        tf.data.Dataset.from_tensor_slices(order)
        .batch(BATCH_SIZE)
        .map(lambda rows: (tf.gather(images, rows), tf.gather(labels, rows)))
        .prefetch(1)
    )
    network = build(images.shape[1:], num_classes, seed=seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    # The batches are already shuffled.
    network.fit(batches, shuffle=False, verbose=0, callbacks=[_UntilOver(seconds)])
    return network


class _UntilOver(keras.callbacks.Callback):
    """Stops the training after some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._until = time.monotonic() + seconds

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if time.monotonic() > self._until:
            self.model.stop_training = True


def build(input_shape: tuple[int, ...], num_classes: int, *, seed: int = 0) -> keras.Model:
    """Returns the surrogate, not trained: three 3x3 convolutions, two of them with stride 2, and two dense layers."""
    seeds = iter(np.random.SeedSequence(seed).generate_state(5))

    def initializer():
        return keras.initializers.HeNormal(seed=int(next(seeds)))

    def convolution(x, filters, strides):
        layer = keras.layers.Conv2D(
            filters, 3, strides=strides, padding="same", activation="relu", kernel_initializer=initializer()
        )
        return layer(x)

    inputs = keras.Input(tuple(input_shape))
    x = convolution(inputs, 16, 1)
    x = convolution(x, 32, 2)
    x = convolution(x, 64, 2)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(64, activation="relu", kernel_initializer=initializer())(x)
    outputs = keras.layers.Dense(num_classes, kernel_initializer=initializer())(x)
    return keras.Model(inputs, outputs, name="surrogate")
