"""The logits of a network as attacks see them: traced once, and the same however they are asked for."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_nuat import attacks, evaluate
from tf_nuat.models.inference import graph_of, inference


@keras.saving.register_keras_serializable()
class Counted(keras.layers.Layer):
    """Counts how often it is called from Python: once for each trace of what it is in."""

    calls = 0

    def call(self, x):
        type(self).calls += 1
        return 3.0 * x


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4, 4, 1)), Counted(), keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential(layers)


@pytest.fixture
def sample(network):
    x = np.random.default_rng(0).uniform(size=(20, 4, 4, 1)).astype(np.float32)
    return x, network.predict(x, verbose=0).argmax(axis=-1)


def test_a_second_attack_does_not_trace_the_network_again(network, sample):
    traces = []
    few = {"steps": 2}
    for attack, settings in (attacks.pgd, few), (attacks.mifgsm, few), (attacks.square, {"queries": 2}):
        before = Counted.calls
        evaluate.correct(network, sample, functools.partial(attack, epsilon=0.1, **settings), precision="float32")
        traces.append(Counted.calls - before)
    assert traces[0] > 0 and traces[1:] == [0, 0]


def test_the_graph_has_the_logits_and_the_gradients_of_the_network(network, sample):
    x = tf.constant(sample[0])
    graph = graph_of(network)

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 1))], autograph=False)
    def through_the_graph(x):
        return graph(x), tf.gradients(tf.reduce_sum(graph(x) ** 2), x)[0]

    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = inference(network)(x)
        loss = tf.reduce_sum(logits**2)
    found, gradient = through_the_graph(x)
    np.testing.assert_allclose(found, logits, rtol=1e-6)
    np.testing.assert_allclose(gradient, tape.gradient(loss, x), rtol=1e-5, atol=1e-6)


def test_batches_of_one_size_keep_it(network):
    """A loop whose images had a size, and lost it after a step, would not be compiled."""
    traced = tf.function(graph_of(network)).get_concrete_function(tf.TensorSpec((7, 4, 4, 1)))
    assert traced.outputs[0].shape == (7, 3)


def test_fab_which_takes_the_gradient_of_each_logit_attacks_a_network_in_float16(sample):
    """As a network that was trained with mixed precision is."""
    keras.utils.set_random_seed(0)
    half = keras.mixed_precision.DTypePolicy("mixed_float16")
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, dtype=half)]
    network, (x, _) = keras.Sequential(layers), sample
    y = network.predict(x, verbose=0).argmax(axis=-1)
    attack = functools.partial(attacks.fab, epsilon=0.3, steps=5)
    assert np.mean(evaluate.correct(network, (x, y), attack)) < 0.5
