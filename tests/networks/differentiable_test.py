"""A network with stand-ins answers as it is, to the bit, and its gradients are those of what is inside."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import linear
from tests.helpers.small import Remainder
from tf_nuat import attacks, networks
from tf_nuat.networks import differentiable

IMAGES, LABELS = linear.batch(40)
INSIDE = linear.network()
KERNEL = INSIDE.get_weights()[0]


class Rounded(keras.layers.Layer):
    """A layer of one's own, which is one operation."""

    def call(self, x):
        return keras.ops.floor(15.0 * x + 0.5) / 15.0


class Detached(keras.layers.Layer):
    """A dense layer of which no gradient comes back."""

    def __init__(self, kernel, **options):
        super().__init__(**options)
        self.kernel = tf.constant(kernel)

    def call(self, x):
        return keras.ops.stop_gradient(keras.ops.reshape(x, (-1, 16)) @ self.kernel)


def before(function, inside=INSIDE):
    inputs = keras.Input(linear.SHAPE)
    return keras.Model(inputs, inside(function(inputs)))


def gradient(logits_fn, x=IMAGES):
    """Returns the gradient (B, 4, 4, 1) of the first logit minus the second."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = logits_fn(x)
        difference = logits[:, 0] - logits[:, 1]
    return tape.gradient(difference, x, unconnected_gradients="zero").numpy()


def cosine(one, other):
    return np.sum(one * other) / np.sqrt(np.sum(one**2) * np.sum(other**2))


SLOPE = np.broadcast_to((KERNEL[:, 0] - KERNEL[:, 1]).reshape(linear.SHAPE), IMAGES.shape)

HIDDEN = {
    "rounding": lambda: before(lambda x: keras.ops.round(x * 15.0) / 15.0),
    "a layer of one's own": lambda: before(Rounded()),
    "whole numbers": lambda: before(lambda x: keras.ops.cast(keras.ops.cast(x * 100.0, "uint8"), "float32") / 100.0),
    "a threshold": lambda: before(lambda x: keras.ops.cast(x > 0.5, "float32")),
    "a choice": lambda: before(lambda x: keras.ops.where(x > 0.5, 1.0, 0.0)),
    "a detached layer": lambda: before(keras.ops.stop_gradient),
    "a network within": lambda: before(lambda x: x, before(keras.ops.round, before(keras.ops.stop_gradient))),
    "a sequence": lambda: keras.Sequential([keras.Input(linear.SHAPE), Rounded(), *INSIDE.layers]),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_the_gradient_is_that_of_the_network_inside(name):
    network = HIDDEN[name]()
    assert not np.any(gradient(lambda x: network(x, training=False)))
    surface = differentiable(network, IMAGES)
    np.testing.assert_array_equal(surface(tf.constant(IMAGES)), network(IMAGES, training=False))
    assert all(each.kind == "identity" for each in surface.stand_ins) and surface.stand_ins
    found = gradient(surface)
    assert cosine(found, SLOPE) > 1.0 - 1e-5  # the identity, times a number
    assert np.mean(found / SLOPE) == pytest.approx(1.0, abs=0.4)  # of the line through a step: 1.3


def test_an_operation_of_which_tensorflow_knows_no_gradient_gets_a_stand_in():
    network = before(Remainder())
    with pytest.raises(LookupError):
        gradient(network)
    assert cosine(gradient(differentiable(network, IMAGES)), SLOPE) > 1.0 - 1e-5


def test_it_answers_to_the_bit_in_a_graph_too():
    network = HIDDEN["rounding"]()
    surface = differentiable(network, IMAGES)
    one, other = (tf.function(each, autograph=False)(tf.constant(IMAGES)) for each in (surface, network))
    np.testing.assert_array_equal(one, other)


def test_an_attack_finds_what_it_finds_inside():
    """The rounding is finer than epsilon: what fools the network inside by a margin fools it, too."""
    network = before(lambda x: keras.ops.round(x * 1000.0) / 1000.0)
    labels = np.argmax(network(IMAGES), axis=1)
    settings = {"epsilon": 0.1, "steps": 10, "loss": "margin", "random_start": False}
    outcomes = []
    for surface in (network, differentiable(network, IMAGES), INSIDE):
        x_adv = attacks.pgd(surface, IMAGES, labels, **settings)
        outcomes.append(np.argmax(network(x_adv), axis=1) != labels)
    assert not np.any(outcomes[0]) and np.sum(outcomes[1]) >= 5
    assert np.sum(outcomes[1] != outcomes[2]) <= 1


def test_what_has_a_gradient_is_left_as_it_is():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(16, activation="tanh")(keras.layers.Dropout(0.5)(keras.layers.Flatten()(x)))
    network = keras.Model(inputs, keras.layers.Dense(4)(keras.ops.exp(keras.layers.LayerNormalization()(x))))
    surface = differentiable(network)
    assert surface.stand_ins == () and surface.decided_at is None
    images = np.random.default_rng(0).uniform(size=(4, 8, 8, 3)).astype(np.float32)
    logits = surface(tf.constant(images))
    np.testing.assert_array_equal(logits, network(images, training=False))
    with tf.GradientTape() as tape:
        x = tf.Variable(images)
        expected = tape.gradient(network(x, training=False), x)
    with tf.GradientTape() as tape:
        x = tf.Variable(images)
        np.testing.assert_array_equal(tape.gradient(surface(x), x), expected)


def test_a_wave_that_is_too_fast_to_follow_is_left_out():
    network = before(lambda x: x + 0.02 * keras.ops.sin(300.0 * x))
    assert cosine(gradient(network), SLOPE) < 0.7
    surface = differentiable(network, IMAGES)
    (stand_in,) = surface.stand_ins
    assert stand_in.scale == 0.0
    np.testing.assert_allclose(gradient(surface), SLOPE, rtol=1e-5)


def test_a_layer_that_changes_the_shape_is_imitated():
    network = keras.Sequential([keras.Input(linear.SHAPE), Detached(KERNEL)])
    surface = differentiable(network, IMAGES, radius=0.3)
    (stand_in,) = surface.stand_ins
    assert stand_in.kind == "imitation" and stand_in.explained > 0.9
    np.testing.assert_array_equal(surface(tf.constant(IMAGES)), network(IMAGES))
    assert cosine(gradient(surface), SLOPE) > 0.9


def test_what_names_the_largest_has_softmax_in_its_place():
    """Two networks vote; what is followed is the sum of their probabilities."""
    inputs = keras.Input(linear.SHAPE)
    scores = [INSIDE(inputs), -0.5 * INSIDE(inputs)]
    stacked = keras.ops.stack(scores, axis=1)
    votes = keras.ops.sum(keras.ops.one_hot(keras.ops.argmax(stacked, axis=-1), linear.CLASSES), axis=1)
    surface = differentiable(keras.Model(inputs, votes), IMAGES, radius=0.3)
    (stand_in,) = surface.stand_ins
    assert stand_in.kind == "softmax" and 0.0 < stand_in.explained <= 1.0

    def probabilities(x):
        logits = INSIDE(x)
        return tf.nn.softmax(logits) + tf.nn.softmax(-0.5 * logits)

    np.testing.assert_allclose(gradient(surface), gradient(probabilities), rtol=1e-4, atol=1e-6)


def test_what_only_scales_or_squashes_the_logits_is_known():
    inputs = keras.Input(linear.SHAPE)
    scores = keras.layers.Dense(3, name="scores")(keras.layers.Flatten()(inputs))
    network = keras.Model(inputs, 1e4 * keras.ops.tanh(100.0 * scores) + 1e6)
    network.set_weights(INSIDE.get_weights())
    surface = differentiable(network, IMAGES)
    assert surface.decided_at == "scores"
    logits, early = surface.with_early_logits(tf.constant(IMAGES))
    np.testing.assert_array_equal(logits, network(IMAGES))
    np.testing.assert_allclose(early, INSIDE(IMAGES), rtol=1e-5)
    np.testing.assert_allclose(gradient(lambda x: surface.with_early_logits(x)[1]), SLOPE, rtol=1e-5)
    negative = differentiable(keras.Model(inputs, -1.0 * scores), IMAGES)  # which is another order
    assert negative.decided_at is None


def test_the_network_is_not_changed():
    network = HIDDEN["a network within"]()
    config, weights = network.get_config(), network.get_weights()
    uses = [len(layer._inbound_nodes) for layer in network.layers]
    gradient(differentiable(network, IMAGES))
    assert network.get_config() == config and uses == [len(layer._inbound_nodes) for layer in network.layers]
    for one, other in zip(network.get_weights(), weights):
        np.testing.assert_array_equal(one, other)
    assert all("call" not in vars(layer) for layer in network.layers)


class OfOnesOwn(keras.Model):
    """A functional network whose call does something else."""

    def call(self, x, training=False):
        return keras.ops.round(super().call(x, training=training))


def test_what_cannot_be_looked_into_is_refused_and_within_a_network_is_one_operation():
    inputs = keras.Input(linear.SHAPE)
    own = OfOnesOwn(inputs, INSIDE(inputs))
    with pytest.raises(ValueError, match="network is a OfOnesOwn with a call of its own; allowed: a functional or seq"):
        networks.differentiable(own, IMAGES)
    surface = differentiable(keras.Model(inputs, own(inputs)), IMAGES)
    assert len(surface.stand_ins) == 1 and surface.stand_ins[0].kind == "imitation"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"radius": 0.0}, "radius is 0.0; allowed: a number above 0 and at most 1"),
        ({"seed": -1}, "seed is -1; allowed: a whole number, at least 0"),
        ({"images": np.zeros((2, 5, 4, 1))}, "images has images of shape"),
        ({"network": lambda x: x}, "network is a function; allowed: a keras.Model"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        networks.differentiable(**{"network": INSIDE, "images": IMAGES, **wrong})
