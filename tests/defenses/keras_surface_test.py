"""What Keras's users rely on around `fit`: compile's arguments, frozen layers, the summary, label smoothing."""

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import linear
from tf_nuat import losses

X, Y = linear.batch(16)


def frozen_first():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input(linear.SHAPE), keras.layers.Conv2D(2, 3), keras.layers.Conv2D(2, 2)])
    inner.trainable = False
    return keras.Sequential([keras.Input(linear.SHAPE), inner, keras.layers.Flatten(), keras.layers.Dense(3)])


def changes(model):
    """Returns which weights of the trained network an epoch changes."""
    before = [weight.copy() for weight in model.trained_network.get_weights()]
    model.fit(X, Y, verbose=0)
    return [bool(np.any(one != other)) for one, other in zip(model.trained_network.get_weights(), before)]


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_layers_that_are_unfrozen_between_two_compiles_train(ema_decay):
    model = tf_nuat.PGDAT(frozen_first(), epsilon=0.1, ema_decay=ema_decay)
    model.compile(keras.optimizers.SGD(0.1))
    assert changes(model) == [False] * 4 + [True] * 2
    inner = model.network.layers[0]
    inner.trainable = True
    inner.layers[0].trainable = False
    model.compile(keras.optimizers.SGD(0.1))
    assert changes(model) == [False] * 2 + [True] * 4
    before = [weight.copy() for weight in model.network.get_weights()]
    model.fit(X, Y, verbose=0)
    assert all(np.any(one != other) for one, other in zip(model.network.get_weights()[2:], before[2:]))


def test_what_is_frozen_in_the_trained_network_alone_stays_so():
    model = tf_nuat.PGDAT(linear.network(), epsilon=0.1, ema_decay=0.5)
    model.trained_network.layers[-1].trainable = False
    model.compile("sgd")
    assert model.trainable_variables == []


def test_the_summary_adds_up():
    network = frozen_first()
    trained = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    for name, copies in {"standard": 1, "nuat_wa": 2, "nuat2_wa": 3}.items():
        model = tf_nuat.DEFENSES[name](frozen_first(), epsilon=0.1)
        lines = []
        model.summary(print_fn=lambda text, line_break=False, lines=lines: lines.append(text))
        found = re.findall(r"params: .*?([\d,]+)", "\n".join(lines))
        total, trainable, not_trainable = (int(each.replace(",", "")) for each in found[:3])
        assert trainable == trained and total == trainable + not_trainable
        assert total == copies * network.count_params() + 1  # the number of the epoch
        assert model.count_params() == total


def test_compile_takes_its_arguments_in_the_order_of_keras():
    names = list(inspect.signature(keras.Model.compile).parameters)
    assert list(inspect.signature(tf_nuat.NuAT.compile).parameters) == names
    model = tf_nuat.NuAT(linear.network(), epsilon=0.1)
    model.compile("adam", None, None, ["accuracy"])
    assert set(model.fit(X, Y, verbose=0).history) == {"loss", "accuracy"}
    with pytest.raises(ValueError, match="loss is 'mse'; allowed: None, because NuAT brings its own"):
        model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"loss_weights is \['accuracy'\]; allowed: None, .* metrics"):
        model.compile("adam", None, ["accuracy"])


@pytest.mark.parametrize("name", tf_nuat.DEFENSES)
def test_the_constructor_shows_epsilon(name):
    assert "epsilon" in inspect.signature(tf_nuat.DEFENSES[name].__init__).parameters
    assert inspect.signature(tf_nuat.DEFENSES[name]).parameters["epsilon"].default is inspect.Parameter.empty


def test_label_smoothing_is_that_of_keras_and_of_the_objective_alone():
    model = linear.compiled(tf_nuat.PGDAT, label_smoothing=0.3, random_start=False)
    plain = linear.compiled(tf_nuat.PGDAT, random_start=False)
    x, y = tf.constant(X), tf.constant(Y)
    x_adv = plain.perturb(x, y)
    np.testing.assert_array_equal(model.perturb(x, y), x_adv)
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    expected = float(keras_loss(tf.one_hot(Y, 3), plain.network(x_adv)))
    logs = model.train_step((x, y))
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(logs["accuracy"]) == pytest.approx(np.mean(np.argmax(plain.network(x_adv), axis=1) == Y))
    np.testing.assert_allclose(
        losses.smoothed(tf.constant([0, 2]), 3, 0.3), [[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], atol=1e-6
    )


@pytest.mark.parametrize("name", tf_nuat.DEFENSES)
def test_every_defense_trains_with_smoothed_labels_or_refuses_them(name):
    defense = tf_nuat.DEFENSES[name]
    options = {"sources": [linear.network(2)]} if name == "eat" else {}
    if name == "bat":
        with pytest.raises(ValueError, match="label_smoothing is 0.1; allowed: 0, as label 'main' is a smoothed one"):
            linear.compiled(defense, label_smoothing=0.1)
        options = {"label": None}
    weights = []
    for share in 0.0, 0.1:
        model = linear.compiled(defense, label_smoothing=share, **options)
        model.train_step((tf.constant(X), tf.constant(Y)))
        weights.append(model.trained_network.get_weights()[0].copy())
    assert np.max(np.abs(weights[0] - weights[1])) > 1e-5


@pytest.mark.parametrize("value", [-0.1, 1.0, "0.1", float("nan")])
def test_the_range_of_label_smoothing(value):
    with pytest.raises(ValueError, match="label_smoothing is .*; allowed: a number at least 0 and below 1"):
        tf_nuat.NuAT(linear.network(), epsilon=0.1, label_smoothing=value)


def with_other_weights(ema_decay):
    """Returns a NuAT2 whose weights were set after construction, and these. Its learning rate of 0 keeps them."""
    model = tf_nuat.NuAT2(linear.network(), epsilon=0.1, ema_decay=ema_decay, attack_ema_decay=0.99)
    model.compile(keras.optimizers.SGD(0.0))
    expected = linear.network(seed=2).get_weights()
    model.network.set_weights(expected)
    return model, expected


@pytest.mark.parametrize("ema_decay", [None, 0.9998])
def test_weights_that_are_set_after_construction_are_trained_batch_by_batch(ema_decay):
    model, expected = with_other_weights(ema_decay)
    model.train_on_batch(X, Y)
    for network in model.network, model.trained_network, model.attack_network:
        for weight, other in zip(network.get_weights(), expected):
            np.testing.assert_allclose(weight, other, atol=1e-5)


@pytest.mark.parametrize("ema_decay", [None, 0.9998])
def test_the_average_of_the_attack_begins_at_weights_that_were_set(ema_decay):
    """Where `fit` begins after the first epoch, in which it would have no memory, too."""
    model, expected = with_other_weights(ema_decay)
    model.fit(X, Y, initial_epoch=3, epochs=4, verbose=0)
    for weight, other in zip(model.attack_network.get_weights(), expected):
        np.testing.assert_allclose(weight, other, atol=1e-5)


@pytest.mark.parametrize("how, ema_decay", [("loaded", None), ("compiled again", None), ("compiled again", 0.9998)])
def test_the_average_of_the_attack_goes_on_with_a_new_optimizer(how, ema_decay, tmp_path):
    """With a learning rate of 0, a step moves it by a hundredth of the way to what is trained."""

    def made():
        return tf_nuat.NuAT2(linear.network(), epsilon=0.1, ema_decay=ema_decay, attack_ema_decay=0.99)

    model = made()
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(X, Y, batch_size=8, epochs=3, verbose=0)
    average, trained = (each.get_weights()[0].copy() for each in (model.attack_network, model.trained_network))
    assert np.max(np.abs(average - trained)) > 1e-3
    if how == "loaded":
        model.save_weights(tmp_path / "defense.weights.h5")
        model = made()
        model.load_weights(tmp_path / "defense.weights.h5")
    model.compile(keras.optimizers.SGD(0.0))
    model.fit(X, Y, batch_size=16, initial_epoch=3, epochs=4, verbose=0)
    np.testing.assert_allclose(model.attack_network.get_weights()[0], 0.99 * average + 0.01 * trained, atol=1e-6)


def test_the_loss_of_an_evaluation_has_the_penalties_of_the_network():
    """As Keras's own of the same network."""
    regularizer = keras.regularizers.L2(0.5)
    layers = [keras.layers.Flatten(), keras.layers.Dense(linear.CLASSES, kernel_regularizer=regularizer)]
    network = keras.Sequential([keras.Input(linear.SHAPE), *layers])
    model = tf_nuat.PGDAT(network, epsilon=0.1)
    model.compile("sgd")
    found = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert found == pytest.approx(network.evaluate(X, Y, verbose=0), rel=1e-5)
    assert float(network.losses[0]) > 0.01 * found  # else agreement would say nothing


def test_the_penalty_of_activities_in_16_bits_belongs_to_the_loss():
    policy = keras.mixed_precision.DTypePolicy("mixed_bfloat16")
    layers = [keras.layers.Flatten(), keras.layers.Dense(linear.CLASSES, activity_regularizer="l2", dtype=policy)]
    model = tf_nuat.Standard(keras.Sequential([keras.Input(linear.SHAPE), *layers]), epsilon=0.1)
    model.compile(keras.optimizers.SGD(0.0))
    logits = np.asarray(model.network(X)).astype(np.float32)
    [penalty] = model.network.losses
    assert penalty.dtype == tf.bfloat16
    expected = np.mean(losses.cross_entropy(tf.constant(logits), tf.constant(Y))) + float(penalty)
    assert model.evaluate(X, Y, verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-2)
    assert model.fit(X, Y, verbose=0).history["loss"][0] == pytest.approx(expected, rel=1e-2)


def test_a_policy_of_16_bits_does_not_round_the_images_of_a_network_in_float32():
    network = linear.network()
    expected = network.predict(X, verbose=0)
    try:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        model = tf_nuat.Standard(network, epsilon=0.1)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)


def test_the_largest_seed():
    model = tf_nuat.FBF(linear.network(), epsilon=0.1, seed=2**31 - 1)
    np.testing.assert_array_equal(model.draw_seed, [2**31 - 1, 0])
    words = "seed is 2147483648; allowed: a whole number, at least 0 and at most 2147483647"
    with pytest.raises(ValueError, match=words):
        tf_nuat.FBF(linear.network(), epsilon=0.1, seed=2**31)
