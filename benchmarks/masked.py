"""Networks on MNIST that hide their gradients, each with the stand-in that a hand-made attack follows.

Here it is known what hides each gradient, so the right stand-in is, too: the network inside, a straight-through layer,
or the gradient of the detached layer. `benchmarks.way_round` compares it with what `sanity.adaptive` finds by itself.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

WIDTH, DENSE = 16, 128
TEMPERATURE = 100.0  # of defensive distillation, as in its paper
LEVELS = 15  # steps between the 16 grey values that are left
WAVE, WAVES = 0.02, 300.0  # height, and radians for a pixel from 0 to 1: its slope is six times that of the image
QUANTUM = 0.25  # of the coefficients of blocks of 4x4 pixels
NOISE = 0.1
THRESHOLDS = tuple(level / 10 for level in range(10))  # of thermometer coding
SMALLEST = 0.75  # smallest size of an image that is resized at random
VOTERS = 3

# What hides the gradients of each network.
DESCRIPTIONS = {
    "scaled logits": "logits multiplied by 1,000",
    "distillation": "distilled at temperature 100 (Papernot et al., 2016)",
    "rounding to 16 levels": "pixels rounded to 16 values",
    "shattered input": "a fast wave added to the pixels",
    "ties": "logits rounded after a tanh, which tie",
    "detached layer": "a first layer that passes no gradient on",
    "quantised transform": "rounded cosine transforms of blocks, as in JPEG",
    "threshold": "pixels set to black or white",
    "noise": "normal noise on the input, at inference too",
    "random resizing": "images of random size and place (Xie et al., 2018)",
    "thermometer coding": "a channel of 0 and 1 for each of ten thresholds (Buckman et al., 2018)",
    "votes of an ensemble": "how many of three networks say a class",
    "k winners": "activations of which a tenth is kept (Xiao et al., 2020)",
}


@dataclasses.dataclass(frozen=True)
class Masked:
    """A network that hides its gradients.

    Attributes:
        network: the network.
        inside: images -> logits whose gradients an attack follows; None if it follows those of the network.
        passes: number of passes for a gradient if the answers of the network are random; else 1.
        points: number of points around an image whose mean gradient an attack follows, too; 0 for none.
    """

    network: keras.Model
    inside: Callable | None = None
    passes: int = 1
    points: int = 0


def classifier(activation=ops.relu, dense=DENSE, channels=1):
    """Returns a network of two convolutions and one hidden dense layer, not trained."""
    image = keras.Input((28, 28, channels))
    x = layers.MaxPooling2D()(activation(layers.Conv2D(WIDTH, 5, padding="same")(image)))
    x = layers.MaxPooling2D()(activation(layers.Conv2D(2 * WIDTH, 5, padding="same")(x)))
    return keras.Model(image, layers.Dense(10)(activation(layers.Dense(dense)(layers.Flatten()(x)))))


def trained(network, images, labels, *, epochs=3, loss=None):
    """Returns the network after training with Adam; `labels` are what `loss` takes."""
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    network.fit(images, labels, batch_size=128, epochs=epochs, verbose=0)
    return network


def behind(base, function):
    """Returns the network with a function of the images in front."""
    image = keras.Input((28, 28, 1))
    return keras.Model(image, base(function(image)))


def followed_by(base, function):
    """Returns the network with a function of the logits behind it."""
    image = keras.Input(base.input_shape[1:])
    return keras.Model(image, function(base(image)))


def straight_through(network, function):
    """Returns images -> logits behind `function`, whose gradient is that of the identity."""
    return lambda x: network(x + tf.stop_gradient(function(x) - x), training=False)


def rounded(x):
    """Returns images of 16 grey values."""
    return ops.round(x * LEVELS) / LEVELS


def shattered(x):
    """Returns images with a wave in their grey values that is too fast to follow."""
    return x + WAVE * ops.sin(WAVES * x)


def transformed(x):
    """Returns images after rounding the discrete cosine transforms of blocks of 4x4 pixels, as JPEG does."""
    rows = np.arange(4)
    block = np.cos(np.pi * (2 * rows[None] + 1) * rows[:, None] / 8) * np.sqrt(np.where(rows[:, None], 0.5, 0.25))
    matrix = np.kron(np.eye(7), block).astype(np.float32)
    coefficients = ops.einsum("ij,bjkc,lk->bilc", matrix, x, matrix)
    coefficients = ops.round(coefficients / QUANTUM) * QUANTUM
    return ops.einsum("ji,bjkc,kl->bilc", matrix, coefficients, matrix)


def above_half(x):
    """Returns images of two grey values."""
    return ops.cast(x > 0.5, "float32")


def thermometer(x):
    """Returns a channel of 0 and 1 for each threshold: whether a pixel is above it (Buckman et al., 2018)."""
    return ops.cast(x > np.array(THRESHOLDS), "float32")


def soft_thermometer(x):
    """Returns how far each pixel is above each threshold, the stand-in of Athalye et al., 2018."""
    return ops.clip(x - np.array(THRESHOLDS, np.float32), 0.0, 1.0)


def votes(logits):
    """Returns how many of several logits, each (B, K), vote for each class."""
    return ops.sum(ops.one_hot(ops.argmax(ops.stack(logits, axis=1), axis=-1), logits[0].shape[-1]), axis=1)


def winners(x, share=0.1):
    """Returns the largest `share` of the activations of each image, and 0 for the others (Xiao et al., 2020)."""
    size = int(np.prod(x.shape[1:]))
    flat = ops.reshape(x, (-1, size))
    least = ops.top_k(flat, max(1, int(share * size)))[0][:, -1:]
    return ops.reshape(ops.where(flat >= least, flat, ops.zeros_like(flat)), (-1, *x.shape[1:]))


class Detached(keras.layers.Layer):
    """A layer that passes no gradient back."""

    def __init__(self, layer, **options):
        super().__init__(**options)
        self.layer = layer

    def call(self, x):
        return ops.stop_gradient(self.layer(x))


class Noise(keras.layers.Layer):
    """Adds normal noise, at inference too."""

    def __init__(self, stddev, seed, **options):
        super().__init__(**options)
        self.stddev, self.seeds = stddev, keras.random.SeedGenerator(seed)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), stddev=self.stddev, seed=self.seeds)


class Resizing(keras.layers.Layer):
    """Shrinks each image and places it on black, with random size and position (Xie et al., 2018)."""

    def __init__(self, seed, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, x):
        batch, side = ops.shape(x)[0], x.shape[1]
        size = keras.random.uniform((batch, 1), SMALLEST, 1.0, seed=self.seeds)
        offsets = keras.random.uniform((batch, 2), seed=self.seeds) * (1.0 - size) * side
        zero = ops.zeros_like(size)
        rows = [1.0 / size, zero, -offsets[:, :1] / size, zero, 1.0 / size, -offsets[:, 1:] / size, zero, zero]
        return ops.image.affine_transform(x, ops.concatenate(rows, axis=1))


def detached(base):
    """Returns the network with its first convolution detached."""
    return keras.models.clone_model(
        base, clone_function=lambda layer: Detached(layer) if layer is base.layers[1] else layer
    )


def distilled(images, labels):
    """Returns a network distilled at a temperature and used without it (Papernot et al., 2016)."""

    def softened(targets, logits):
        return ops.mean(keras.losses.categorical_crossentropy(targets, logits / TEMPERATURE, from_logits=True))

    teacher = trained(classifier(), images, np.eye(10, dtype=np.float32)[labels], loss=softened)
    soft = ops.convert_to_numpy(ops.softmax(teacher.predict(images, batch_size=500, verbose=0) / TEMPERATURE))
    return trained(classifier(), images, soft, loss=softened)


def networks(images, labels):
    """Returns a dict of each name in `DESCRIPTIONS` to a function that builds a `Masked`.

    `images` and `labels` are the training data.
    """
    base = trained(classifier(), images, labels)

    def inside(x):
        return base(x, training=False)

    def thresholded():
        within = trained(classifier(), ops.convert_to_numpy(above_half(images)), labels)
        return Masked(behind(within, above_half), straight_through(within, above_half))

    def coded():
        within = trained(classifier(channels=len(THRESHOLDS)), ops.convert_to_numpy(thermometer(images)), labels)

        def soft(x):
            near = soft_thermometer(x)
            return within(near + tf.stop_gradient(thermometer(x) - near), training=False)

        return Masked(behind(within, thermometer), soft)

    def voting():
        voters = [base, *(trained(classifier(), images, labels) for _ in range(VOTERS - 1))]
        image = keras.Input((28, 28, 1))
        network = keras.Model(image, votes([voter(image) for voter in voters]))
        return Masked(network, lambda x: sum(ops.softmax(voter(x, training=False)) for voter in voters))

    return {
        "scaled logits": lambda: Masked(followed_by(base, layers.Rescaling(1000.0)), inside),
        "distillation": lambda: Masked(distilled(images, labels)),
        "rounding to 16 levels": lambda: Masked(behind(base, rounded), straight_through(base, rounded)),
        "shattered input": lambda: Masked(behind(base, shattered), straight_through(base, shattered)),
        "ties": lambda: Masked(followed_by(base, lambda x: ops.round(8.0 * ops.tanh(x / 4.0))), inside),
        "detached layer": lambda: Masked(detached(base), inside),
        "quantised transform": lambda: Masked(behind(base, transformed), straight_through(base, transformed)),
        "threshold": thresholded,
        "noise": lambda: Masked(behind(base, Noise(NOISE, 0)), inside, passes=10),
        "random resizing": lambda: Masked(behind(base, Resizing(0)), inside, passes=10),
        "thermometer coding": coded,
        "votes of an ensemble": voting,
        "k winners": lambda: Masked(trained(classifier(winners, 256), images, labels), points=20),
    }
