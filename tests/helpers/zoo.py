"""The zoo: networks on the digits of which it is known what a judgement has to say, each built in seconds.

Masked ones look robust to an attack that follows their gradients, and are not; robust ones are what they seem; an
honest failure is neither robust nor masked.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from tests.helpers.small import EPOCH, after, before, dense, digits, quantised, saturated, undefended
from tf_nuat import defenses

EPSILON = 0.2
ROBUST_AT = 0.1  # of 8x8 images: at 0.2 none of these trainings leaves half of the images
MASKED, ROBUST, HONEST = "masked", "robust", "honest failure"
REFUSED = "refused"  # in the place of a check: the network is no input for a judgement
TEMPERATURE = 100.0  # of defensive distillation, as in its paper
SINGLE_STEP = 0.4  # epsilon of the single-step training, at which it overfits to its attack
MILD = 0.3  # at which it overfits less: one step still raises the loss by half of what many do


@dataclasses.dataclass(frozen=True)
class Specimen:
    """A network of the zoo.

    Attributes:
        build: function of a seed that returns the trained network.
        kind: `MASKED`, `ROBUST` or `HONEST`.
        meant: names of the checks one of which has to fail on it, or `REFUSED`; none for those that are not masked.
        description: what it is, with its source.
        epsilon: radius that it is judged at.
    """

    build: Callable = dataclasses.field(repr=False)
    kind: str
    meant: tuple
    description: str
    epsilon: float = EPSILON


def convolutional(seed):
    """Returns a network of two convolutions and one hidden dense layer, not trained."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(digits().input_shape)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def trained(network, *, epochs=20, targets=None, loss=None):
    """Returns the network after training on clean images, towards their labels or `targets`."""
    images, labels = digits().arrays("train")
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss, steps_per_execution=EPOCH)
    network.fit(images, labels if targets is None else targets, epochs=epochs, batch_size=32, verbose=0)
    return network


def defended(defense, network, seed, *, epochs=15, epsilon=EPSILON, **options):
    """Returns the network after training with a defense of `tf_nuat.DEFENSES`."""
    trainer = defenses.DEFENSES[defense](network, epsilon=epsilon, seed=seed, **options)
    trainer.compile(keras.optimizers.Adam(3e-3))
    images, labels = digits().arrays("train")
    trainer.fit(images, labels, epochs=epochs, batch_size=64, verbose=0)
    return trainer.network


def robust(defense, seed, **options):
    """Returns a convolutional network after training with a defense."""
    return defended(defense, convolutional(seed), seed, epsilon=ROBUST_AT, **options)


def linear(seed):
    """Returns a linear network, whose worst case has a closed form: `linear_worst_case`."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(digits().input_shape)
    return trained(keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs))))


def linear_worst_case(network, images, labels, epsilon):
    """Returns which images a linear network classifies correctly wherever in the ball (L-infinity) and in [0, 1].

    Towards each wrong class the difference of two logits is linear in the pixels, and each pixel goes to one of its
    ends.
    """
    kernel, bias = (each.astype(np.float64) for each in network.get_weights())
    x = images.reshape(len(images), -1).astype(np.float64)
    low, high = np.maximum(x - epsilon, 0.0), np.minimum(x + epsilon, 1.0)
    slopes = kernel.T[None] - kernel.T[labels][:, None]  # (N, K, D)
    ends = np.where(slopes > 0.0, high[:, None], low[:, None])
    gains = np.sum(slopes * ends, axis=2) + bias[None] - bias[labels][:, None]
    gains[np.arange(len(labels)), labels] = -np.inf
    return gains.max(axis=1) < 0.0


def overfitted(seed):
    """Returns a network that overfitted catastrophically to FGSM (Wong et al., 2020)."""
    return defended("fgsm_at", convolutional(seed), seed, epochs=40, epsilon=SINGLE_STEP)


def barely_overfitted(seed):
    """Returns a network that overfitted to FGSM at an epsilon at which that shows less."""
    return defended("fgsm_at", convolutional(seed), seed, epochs=40, epsilon=MILD)


def normalised(input_shape):
    """Returns a network of convolutions with BatchNormalization and global pooling, not trained."""
    inputs = x = keras.Input(input_shape)
    for filters, strides in ((16, 1), (32, 2)):
        x = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


def undefended_normalised(seed):
    """Returns such a network after training on clean images."""
    keras.utils.set_random_seed(seed)
    return trained(normalised(digits().input_shape), epochs=40)


def distilled(seed):
    """Returns a network distilled at a temperature and used without it (Papernot et al., 2016)."""

    def softened(targets, logits):
        return keras.ops.mean(keras.losses.categorical_crossentropy(targets, logits / TEMPERATURE, from_logits=True))

    images, labels = digits().arrays("train")
    one_hot = np.eye(10, dtype=np.float32)[labels]
    teacher = trained(dense(seed), epochs=60, targets=one_hot, loss=softened)
    soft = keras.ops.convert_to_numpy(keras.ops.softmax(teacher(images) / TEMPERATURE))
    return trained(dense(seed + 1000), epochs=60, targets=soft, loss=softened)


class Noise(keras.layers.Layer):
    """Adds normal noise, at inference too."""

    def __init__(self, stddev, seed, **options):
        super().__init__(**options)
        self.stddev = stddev
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), stddev=self.stddev, seed=self.seeds)


class WinnersTakeAll(keras.layers.Layer):
    """Keeps the largest `share` of a layer's activations and sets the others to 0 (Xiao et al., 2020)."""

    def __init__(self, share, **options):
        super().__init__(**options)
        self.share = share

    def call(self, x):
        kept = max(1, round(self.share * x.shape[-1]))
        lowest = keras.ops.top_k(x, kept)[0][:, -1:]
        return keras.ops.where(x >= lowest, x, 0.0)


def winners_take_all(seed):
    """Returns a network of k-winners-take-all layers (Xiao et al., 2020)."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(digits().input_shape)
    x = keras.layers.Flatten()(inputs)
    for units in (512, 512):
        x = WinnersTakeAll(0.05)(keras.layers.Dense(units)(x))
    return trained(keras.Model(inputs, keras.layers.Dense(10)(x)))


ZOO = {
    "overfitted FGSM-AT": Specimen(
        overfitted,
        MASKED,
        ("white_box_beats_black_box", "loss_rises_with_epsilon"),
        "single-step training that overfitted catastrophically (Wong et al., 2020)",
        SINGLE_STEP,
    ),
    "mildly overfitted FGSM-AT": Specimen(
        barely_overfitted,
        MASKED,
        ("white_box_beats_black_box", "loss_rises_with_epsilon"),
        "single-step training that overfitted less",
        MILD,
    ),
    "scaled logits": Specimen(
        lambda seed: saturated(undefended(seed)),
        MASKED,
        ("gradients_are_available",),
        "logits multiplied by 10,000: the softmax has no gradient",
    ),
    "defensive distillation": Specimen(
        distilled, MASKED, ("gradients_are_available",), "distilled at temperature 100 (Papernot et al., 2016)"
    ),
    "saturating logits": Specimen(
        lambda seed: after(undefended(seed), lambda logits: 10.0 * keras.ops.tanh(10.0 * logits)),
        MASKED,
        ("gradients_are_available",),
        "logits through a steep tanh",
    ),
    "tying logits": Specimen(
        lambda seed: after(undefended(seed), lambda logits: keras.ops.clip(logits, -1.0, 1.0)),
        MASKED,
        ("gradients_are_available",),
        "logits cut at -1 and 1, where classes tie",
    ),
    "softmax outputs": Specimen(
        lambda seed: after(undefended(seed), keras.layers.Softmax()),
        MASKED,
        (REFUSED,),
        "probabilities in the place of logits",
    ),
    "quantised input": Specimen(
        lambda seed: quantised(undefended(seed), levels=8),
        MASKED,
        ("gradients_are_available",),
        "pixels rounded to 9 values, which has no gradient",
    ),
    "detached layer": Specimen(
        lambda seed: before(undefended(seed), keras.ops.stop_gradient),
        MASKED,
        ("gradients_are_available",),
        "a layer that passes no gradient on",
    ),
    "noise at inference": Specimen(
        lambda seed: before(undefended(seed), Noise(0.1, seed)),
        MASKED,
        ("network_is_deterministic",),
        "normal noise on the input",
    ),
    "winners take all": Specimen(
        winners_take_all,
        MASKED,
        ("white_box_beats_black_box", "random_search_is_not_stronger"),
        "k-winners-take-all activations (Xiao et al., 2020)",
    ),
    "PGD-AT": Specimen(
        lambda seed: robust("pgd_at", seed, steps=7), ROBUST, (), "adversarial training with PGD-7", ROBUST_AT
    ),
    "TRADES": Specimen(lambda seed: robust("trades", seed, steps=7), ROBUST, (), "TRADES with 7 steps", ROBUST_AT),
    "NuAT": Specimen(lambda seed: robust("nuat", seed), ROBUST, (), "nuclear-norm training", ROBUST_AT),
    "dense PGD-AT": Specimen(
        lambda seed: defended("pgd_at", dense(seed), seed, steps=7),
        ROBUST,
        (),
        "a dense network of PGD-7 at epsilon 0.2, of which targeted attacks leave far less than PGD does",
    ),
    "linear": Specimen(linear, ROBUST, (), "a linear network, whose worst case has a closed form", 0.03),
    "undefended": Specimen(undefended, HONEST, (), "a network trained on clean images"),
    "undefended CNN": Specimen(
        lambda seed: trained(convolutional(seed)), HONEST, (), "a convolutional network trained on clean images"
    ),
    "undefended with BatchNormalization": Specimen(
        undefended_normalised, HONEST, (), "BatchNormalization and global pooling, trained on clean images", 0.05
    ),
}
