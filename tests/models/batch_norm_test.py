"""BatchNorm in one kernel: outputs, gradients and statistics are those of Keras, and files stay as they are."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_nuat.defenses import NuAT
from tf_nuat.models import batch_norm, precision, weights


def network_of(options, shape=(6, 5, 3)):
    """Returns a network of one BatchNorm layer, with weights drawn at random."""
    network = keras.Sequential([keras.Input(shape), keras.layers.BatchNormalization(**options)])
    rng = np.random.default_rng(0)
    network.set_weights([rng.uniform(0.5, 2.0, weight.shape) for weight in network.weights])
    return network


def results(network, x, training):
    """Returns outputs, gradients to the images and to the weights, and the statistics after one call."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = tf.cast(network(x, training=training), tf.float32)
        loss = tf.reduce_sum(outputs**3)
    gradients = tape.gradient(loss, [x, *(weight.value for weight in network.trainable_weights)])
    return [outputs, *gradients, *network.get_weights()]


def operations(function, *arguments):
    """Returns the kinds of the operations of the graph of `function`."""
    return {each.type for each in tf.function(function).get_concrete_function(*arguments).graph.get_operations()}


def assert_layers_of_keras(network):
    """The network has BatchNorm layers, and none of them is fused."""
    layers = [each for each in network.layers if isinstance(each, keras.layers.BatchNormalization)]
    assert layers and not any("call" in vars(each) for each in layers)


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("policy, tolerance", (("mixed_float16", 4e-3), ("mixed_bfloat16", 2e-2)))
@pytest.mark.parametrize("options", ({}, {"scale": False}, {"center": False}, {"epsilon": 0.1}), ids=str)
def test_the_results_are_those_of_keras(options, policy, tolerance, training):
    x = tf.constant(np.random.default_rng(1).normal(1.0, 2.0, (8, 6, 5, 3)), tf.float32)
    composed, fused = (network_of({**options, "dtype": policy}) for _ in range(2))
    batch_norm.fuse(fused)
    assert "FusedBatchNormV3" in operations(lambda x: fused(x, training=training), x)
    for found, expected in zip(results(fused, x, training), results(composed, x, training), strict=True):
        expected = np.asarray(expected)
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max(), rtol=0.0)


@pytest.mark.parametrize("momentum", (0.0, 0.9))
def test_the_statistics_are_those_of_keras(momentum):
    """Of three values a channel: the variance is the mean square, not that over one value less."""
    x = tf.constant(np.random.default_rng(1).normal(1.0, 2.0, (3, 1, 1, 3)), tf.bfloat16)
    composed, fused = (network_of({"momentum": momentum, "dtype": "mixed_bfloat16"}, (1, 1, 3)) for _ in range(2))
    before = fused.get_weights()[2:]
    batch_norm.fuse(fused)
    for network in composed, fused:
        network(x, training=True)
    values = np.asarray(tf.cast(x, tf.float32)).reshape(3, 3)
    for found, of_keras, start, now in zip(
        fused.get_weights()[2:], composed.get_weights()[2:], before, (values.mean(0), values.var(0)), strict=True
    ):
        np.testing.assert_allclose(found, of_keras, rtol=1e-4)
        np.testing.assert_allclose(found, momentum * start + (1.0 - momentum) * now, rtol=1e-4)


@pytest.mark.parametrize("training", (True, False))
def test_gradients_of_gradients_are_those_of_keras(training):
    """GradAlign's penalty is one of gradients to the images."""
    x = tf.constant(np.random.default_rng(1).normal(1.0, 2.0, (8, 6, 5, 3)), tf.float32)
    found = []
    for is_fused in (True, False):
        network = network_of({"dtype": "mixed_bfloat16"})
        if is_fused:
            batch_norm.fuse(network)
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(tf.cast(network(x, training=training), tf.float32) ** 3)
            size = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        found.append(outer.gradient(size, [weight.value for weight in network.trainable_weights]))
    for fused, composed in zip(*found, strict=True):
        np.testing.assert_allclose(fused, composed, rtol=0.05, atol=0.05 * np.abs(composed).max())


def test_one_value_a_channel_has_no_variance():
    network = network_of({"dtype": "mixed_bfloat16"}, shape=(1, 1, 3))
    batch_norm.fuse(network)
    before = network.get_weights()[3]
    network(tf.ones((1, 1, 1, 3)), training=True)
    np.testing.assert_allclose(network.get_weights()[3], 0.99 * before, rtol=1e-6)


@pytest.mark.parametrize(
    "options, shape",
    (
        ({"dtype": "mixed_bfloat16", "axis": 1}, (6, 5, 3)),
        ({"dtype": "mixed_bfloat16", "synchronized": True}, (6, 5, 3)),
        ({"dtype": "mixed_bfloat16", "renorm": True}, (6, 5, 3)),
        ({"dtype": "mixed_bfloat16"}, (3,)),
        ({"dtype": "float32"}, (6, 5, 3)),
        ({"dtype": "float64"}, (6, 5, 3)),
    ),
    ids=str,
)
def test_all_else_is_left_to_keras(options, shape):
    x = tf.constant(np.random.default_rng(1).normal(1.0, 2.0, (8, *shape)), tf.float32)
    composed, fused = (network_of(options, shape) for _ in range(2))
    batch_norm.fuse(fused)
    for found, expected in zip(results(fused, x, True), results(composed, x, True), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_frozen_layer_keeps_its_statistics():
    network = network_of({"dtype": "mixed_bfloat16"})
    batch_norm.fuse(network)
    network.layers[0].trainable = False
    before = network.get_weights()
    network(tf.ones((2, 6, 5, 3)), training=True)
    for found, expected in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_layer_of_a_subclass_is_left_alone():
    class Own(keras.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return inputs + 1.0

    network = keras.Sequential([keras.Input((2, 2, 3)), Own(dtype="mixed_bfloat16")])
    batch_norm.fuse(network)
    np.testing.assert_array_equal(network(tf.zeros((1, 2, 2, 3)), training=True), np.ones((1, 2, 2, 3)))


def convolutional():
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU(), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(10)])


@pytest.mark.parametrize("ema_decay", (None, 0.9))
def test_a_defense_trains_with_one_kernel_and_saves_layers_of_keras(tmp_path, ema_decay):
    half = precision.computing_in(convolutional(), "mixed_bfloat16")
    network = weights.clone(half, lambda layer, config: config)
    assert_layers_of_keras(network)
    model = NuAT(network, epsilon=0.1, ema_decay=ema_decay)
    x, y = tf.random.uniform((4, 8, 8, 3)), tf.range(4)
    kinds = operations(lambda x, y: model.objective(x, x, y)[0], x, y)
    assert "FusedBatchNormV3" in kinds
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert_layers_of_keras(loaded)
    np.testing.assert_allclose(loaded(x), network(x), atol=0.02)


def test_the_gradients_of_attacks_in_bfloat16_take_one_kernel():
    network = convolutional()
    attacked = precision.attacked(network, "bfloat16")
    assert "FusedBatchNormV3" in operations(lambda x: attacked(x, training=False), tf.zeros((4, 8, 8, 3)))
    assert "FusedBatchNormV3" not in operations(lambda x: network(x, training=False), tf.zeros((4, 8, 8, 3)))
