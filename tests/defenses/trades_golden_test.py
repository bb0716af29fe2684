"""TRADES, MART and bilateral training agree with the golden vectors; the attacks of the first two in closed form."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import counting, golden
from tf_nuat.defenses.bat import BAT, adversarial_label, most_confusing_class
from tf_nuat.defenses.mart import MART
from tf_nuat.defenses.trades import TRADES
from tf_nuat.optimizers import CoupledSGD

PAIRS = {"trades": TRADES, "mart": MART}


def objective_at_the_golden_adversary(vectors, name):
    """Returns the defense, its loss and its gradients."""
    model = PAIRS[name](golden.network(vectors), epsilon=float(vectors["epsilon"]), beta=float(vectors[f"{name}/beta"]))
    x, x_adv = (tf.constant(vectors[key], tf.float32) for key in ("x", "nuat_ce_batch/x_adv"))
    with tf.GradientTape() as tape:
        loss, _ = model.objective(x, x_adv, tf.constant(vectors["y"]))
    return model, loss, tape.gradient(loss, model.network.trainable_variables)


@pytest.mark.parametrize("shape", golden.SHAPES)
@pytest.mark.parametrize("name", PAIRS)
def test_objective_and_gradients(shape, name):
    vectors = golden.load(shape)
    _, loss, gradients = objective_at_the_golden_adversary(vectors, name)
    np.testing.assert_allclose(loss, vectors[f"{name}/loss"], rtol=1e-6)  # 1.0001 is seen: without it 2e-5
    golden.assert_same_gradients(gradients, vectors, name)


@pytest.mark.parametrize("shape", golden.SHAPES)
@pytest.mark.parametrize("name", PAIRS)
def test_batch_statistics_are_those_of_the_adversarial_then_the_clean_batch(shape, name):
    """NuAT's vectors say what these two forwards, in this order, leave behind."""
    vectors = golden.load(shape)
    model, _, _ = objective_at_the_golden_adversary(vectors, name)
    for statistic in ("bn1.running_mean", "bn2.running_mean"):
        np.testing.assert_allclose(
            golden.value(model.network, statistic), vectors[f"nuat_ce_batch/after/{statistic}"], rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("shape", golden.SHAPES)
def test_bilateral_image(shape):
    vectors = golden.load(shape)
    model = BAT(golden.network(vectors), epsilon=float(vectors["epsilon"]))
    x = tf.constant(vectors["x"], tf.float32)
    start = tf.clip_by_value(x + tf.constant(vectors["bat/start_offset"], tf.float32), 0.0, 1.0)
    x_adv = tf.function(model.perturb)(x, tf.constant(vectors["y"]), start=start).numpy()
    golden.assert_same_images(x_adv, vectors["bat/x_adv"])


@pytest.mark.parametrize("shape", golden.SHAPES)
def test_bilateral_label(shape):
    vectors = golden.load(shape)
    network = golden.network(vectors)
    beta, gamma = float(vectors["bat/beta"]), float(vectors["bat/gamma"])
    logits = network(vectors["x"].astype(np.float32), training=False)
    y = tf.constant(vectors["y"])
    np.testing.assert_array_equal(most_confusing_class(logits, y), vectors["bat/most_confusing_class"])
    label = adversarial_label(logits, y, beta=beta, gamma=gamma)
    np.testing.assert_allclose(label, vectors["bat/y_adv"], atol=1e-6, rtol=1e-4)

    x_adv = vectors["bat/x_adv"].astype(np.float32)
    log_softmax = tf.nn.log_softmax(network(x_adv, training=True)).numpy()
    model = BAT(golden.network(vectors), epsilon=float(vectors["epsilon"]), beta=beta, gamma=gamma)
    loss, _ = model.objective(tf.constant(vectors["x"], tf.float32), tf.constant(x_adv), y)
    np.testing.assert_allclose(loss, -np.mean(np.sum(vectors["bat/y_adv"] * log_softmax, axis=1)), rtol=1e-5)


def linear(kernel):
    """Returns the network (4, 4, 1) -> 2 logits with the given kernel (16, 2)."""
    inputs = keras.Input((4, 4, 1))
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    network.set_weights([kernel, np.zeros(2)])
    return network


@pytest.mark.parametrize("name", PAIRS)
def test_attack_on_a_linear_network_ends_in_the_corner_of_the_ball(name):
    """With two classes, each pixel moves along the sign of the kernel's difference: MART's away from the true class.

    TRADES has no labels: where the noise of its start has moved the logits, there the divergence grows.
    """
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(16, 2)).astype(np.float32)
    x = generator.uniform(0.3, 0.7, size=(8, 4, 4, 1)).astype(np.float32)
    y = np.arange(8) % 2
    noise = 0.01 * generator.normal(size=x.shape).astype(np.float32)
    towards_one = kernel[:, 1] - kernel[:, 0]
    side = np.sign(noise.reshape(8, 16) @ towards_one) if name == "trades" else 1.0 - 2.0 * y
    assert set(side) == {-1.0, 1.0}
    expected = x + 0.1 * (side[:, None] * np.sign(towards_one)).reshape(x.shape)
    model = PAIRS[name](linear(kernel), epsilon=0.1)
    x_adv = tf.function(model.perturb)(tf.constant(x), tf.constant(y), start=tf.constant(x + noise))
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_attack_begins_with_a_little_normal_noise(name):
    """After one tiny step only the draw is left, whose deviation is 0.001."""
    x = np.full((64, 4, 4, 1), 0.5, np.float32)
    kernel = np.random.default_rng(0).normal(size=(16, 2))
    model = PAIRS[name](linear(kernel), epsilon=0.1, steps=1, step_size=1e-7)
    change = model.perturb(tf.constant(x), tf.zeros(64, tf.int32)).numpy() - x
    assert np.std(change) == pytest.approx(0.001, rel=0.1)
    assert np.mean(change) == pytest.approx(0.0, abs=1e-4)


def test_mart_weighs_the_divergence_by_how_wrong_the_clean_prediction_is():
    """A clean image that is certainly right has no divergence term, one that is certainly wrong the whole of it."""
    kernel = np.zeros((16, 2), np.float32)
    kernel[0, 0] = 100.0
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 0, 0, 0] = 1.0
    x_adv = x / 100  # logits 1 and 0, where x has 100 and 0
    log_q = -np.log1p(np.exp([-1.0, 1.0]))
    for label, weight in (0, 0.0), (1, 1.0):
        model = MART(linear(kernel), epsilon=0.1, beta=6.0)
        loss, _ = model.objective(tf.constant(x), tf.constant(x_adv), tf.constant([label]))
        boosted = -log_q[label] - np.log(1.0001 - np.exp(log_q[1 - label]))
        assert float(loss) == pytest.approx(boosted + 6.0 * weight * -log_q[0], rel=1e-5)


def test_passes_are_those_of_so_many_steps():
    """Those of the default settings are in `passes_test.py`."""
    models = []

    def make_model(network):
        models.append(TRADES(network, epsilon=0.1, steps=3))
        models[0].compile(CoupledSGD(0.01), metrics=["accuracy"])
        return models[0]

    np.testing.assert_allclose(counting.passes(make_model, *counting.batch()), models[0].passes(8), atol=1e-6)


@pytest.mark.parametrize("defense", [TRADES, MART])
def test_wrong_options_are_named(defense):
    for option, value in ("beta", -1), ("steps", 0), ("step_size", 0.0):
        with pytest.raises(ValueError, match=f"{option} is {value}; allowed"):
            defense(linear(np.zeros((16, 2))), epsilon=0.1, **{option: value})
