"""Networks on the digits that were not used to develop the checks: a test set for the suite.

Thresholds were chosen on the other zoos of `benchmarks.zoos`. These networks were written afterwards. Do not change the
checks for them: a network of a new kind that improves a check belongs into `tests.helpers.zoo`.
"""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers, ops

from tests.helpers import zoo
from tests.helpers.small import after, before, digits
from tests.helpers.zoo import HONEST, MASKED, ROBUST, ROBUST_AT, Specimen

SCALE, SHIFT, STEEP = 1000.0, 1000.0, 50.0
SATURATED = 30.0  # factor of the logits at which the softmax of some images has no gradient in float32
VANISHING = 1e-30  # factor of a gradient, which keeps its sign
LEVELS = 4  # steps between grey values
WAVE, WAVES = 0.05, 400.0  # height, and radians for a pixel from 0 to 1
HEIGHT, WIDTH = 20.0, 10.0  # of the paraboloids that replace the logits


class Backwards(layers.Layer):
    """Applies one function to the images, and another to the gradient in the backward pass."""

    def __init__(self, forwards, backwards, **options):
        super().__init__(**options)
        self.forwards, self.backwards = forwards, backwards

    def call(self, x):
        @tf.custom_gradient
        def both(x):
            return self.forwards(x), self.backwards

        return both(x)


class Shifted(layers.Layer):
    """Shifts all images of a batch by a row up or down or not at all, at random, at inference too."""

    def __init__(self, seed, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, x):
        return ops.roll(x, keras.random.randint((), -1, 2, seed=self.seeds), axis=1)


def standardised(seed):
    """Returns an untrained convolutional network that brings each image to mean 0 and deviation 1."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(digits().input_shape)
    x = inputs - ops.mean(inputs, axis=(1, 2, 3), keepdims=True)
    x = x / (ops.std(x, axis=(1, 2, 3), keepdims=True) + 1e-3)
    x = layers.MaxPooling2D()(layers.Conv2D(16, 3, padding="same", activation="relu")(x))
    x = layers.Flatten()(layers.Conv2D(32, 3, padding="same", activation="relu")(x))
    return keras.Model(inputs, layers.Dense(10)(layers.Dense(64, activation="relu")(x)))


def smooth(seed):
    """Returns a dense network with smooth activations and LayerNormalization, not trained."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(digits().input_shape)
    x = layers.LayerNormalization()(layers.Dense(64, activation="tanh")(layers.Flatten()(inputs)))
    return keras.Model(inputs, layers.Dense(10)(layers.Dense(64, activation="gelu")(x)))


def steep(seed):
    """Returns a dense network of one hidden layer, whose activations are nearly steps, trained on clean images."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(digits().input_shape)
    x = ops.tanh(STEEP * layers.Dense(128)(layers.Flatten()(inputs)))
    return zoo.trained(keras.Model(inputs, layers.Dense(10)(x)), epochs=40)


@functools.cache
def undefended_cnn(seed):
    """Returns a convolutional network trained on clean images."""
    return zoo.trained(zoo.convolutional(seed))


@functools.cache
def robust(defense, seed):
    """Returns a convolutional network trained with a defense at `ROBUST_AT`."""
    return zoo.robust(defense, seed)


nuat = functools.partial(robust, "nuat")


def ensemble(seed):
    """Returns the mean logits of two robust networks."""
    inputs = keras.Input(digits().input_shape)
    return keras.Model(inputs, layers.Average()([robust(defense, seed)(inputs) for defense in ("nuat", "pgd_at")]))


def _behind(function: Callable, base: Callable = undefended_cnn) -> Callable:
    return lambda seed: before(base(seed), function)


def _followed_by(function: Callable, base: Callable = nuat) -> Callable:
    return lambda seed: after(base(seed), function)


def _like(x):
    """Returns noise of the size of the gradient `x`, the same noise each time."""
    return ops.mean(ops.abs(x)) * tf.random.stateless_normal(ops.shape(x), (1, 2))


def _rounded(x):
    return ops.round(x * LEVELS) / LEVELS


SPECIMENS = {
    "small logits": Specimen(
        _followed_by(lambda logits: logits / SCALE), ROBUST, (), "NuAT, logits divided by 1,000", ROBUST_AT
    ),
    "shifted logits": Specimen(
        _followed_by(lambda logits: logits + SHIFT), ROBUST, (), "NuAT, 1,000 added to each logit", ROBUST_AT
    ),
    "log-probabilities": Specimen(
        _followed_by(ops.log_softmax), ROBUST, (), "NuAT, logarithms of probabilities as logits", ROBUST_AT
    ),
    "small gradients": Specimen(
        _behind(Backwards(ops.copy, lambda gradient: VANISHING * gradient), nuat),
        ROBUST,
        (),
        "NuAT, gradients multiplied by 1e-30",
        ROBUST_AT,
    ),
    "standardised images": Specimen(
        lambda seed: zoo.defended("pgd_at", standardised(seed), seed, epsilon=ROBUST_AT),
        ROBUST,
        (),
        "PGD-AT, each image brought to mean 0 and deviation 1",
        ROBUST_AT,
    ),
    "smooth activations": Specimen(
        lambda seed: zoo.defended("trades", smooth(seed), seed, epsilon=ROBUST_AT),
        ROBUST,
        (),
        "TRADES with tanh, GELU and LayerNormalization",
        ROBUST_AT,
    ),
    "ensemble": Specimen(ensemble, ROBUST, (), "mean logits of NuAT and PGD-AT", ROBUST_AT),
    "undefended, small logits": Specimen(
        _followed_by(lambda logits: logits / SCALE, undefended_cnn), HONEST, (), "logits divided by 1,000"
    ),
    "undefended, smooth activations": Specimen(
        lambda seed: zoo.trained(smooth(seed)), HONEST, (), "tanh, GELU and LayerNormalization", ROBUST_AT
    ),
    "reversed gradient": Specimen(
        _behind(Backwards(ops.copy, lambda gradient: -gradient)), MASKED, (), "a layer that reverses the gradient"
    ),
    "noise as gradient": Specimen(
        _behind(Backwards(ops.copy, _like)), MASKED, (), "a layer whose gradient is noise, the same each time"
    ),
    "radial logits": Specimen(
        _followed_by(lambda logits: -HEIGHT * ops.square(logits - WIDTH), undefended_cnn),
        MASKED,
        (),
        "steep paraboloids of the logits, whose softmax has no gradient",
    ),
    "steep activations": Specimen(steep, MASKED, (), "activations that are nearly steps", ROBUST_AT),
    "ripple": Specimen(_behind(lambda x: x + WAVE * ops.sin(WAVES * x)), MASKED, (), "a fast wave added to the pixels"),
    "random shift": Specimen(
        lambda seed: before(undefended_cnn(seed), Shifted(seed)), MASKED, (), "images shifted by a row at random"
    ),
    "sign": Specimen(_behind(lambda x: ops.cast(x > 0.5, "float32")), MASKED, (), "pixels set to black or white"),
    "saturated logits": Specimen(
        _followed_by(lambda logits: SATURATED * logits),
        MASKED,
        (),
        "NuAT, logits multiplied by 30: the softmax of some images has no gradient",
        ROBUST_AT,
    ),
    "straight-through rounding": Specimen(
        _behind(Backwards(_rounded, lambda gradient: gradient), nuat),
        MASKED,
        (),
        "NuAT, pixels rounded to 5 values, with a gradient as if they were not",
        ROBUST_AT,
    ),
}
