"""The NuAT family in L2, against an independent computation and against L-infinity."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import images as pictures
from tests.helpers.images import lengths
from tf_nuat.attacks.nuclear import bernoulli_start

SHAPE = (6, 5, 2)
CLASSES = 4
NORMS = ("linf", "l2")
NUAT_FAMILY = ("nuat", "nuat_wa", "nuat2", "nuat2_wa", "nuat_h", "nuat_wa_h")

images = functools.partial(pictures.images, shape=SHAPE)


def network(shape=SHAPE):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), *layers])


def compiled(name, network, **options):
    model = tf_nuat.DEFENSES[name](network, **options)
    model.compile(optimizer=tf_nuat.optimizers.CoupledSGD(0.1), metrics=["accuracy"])
    return model


def step_along(logits_fn, x, x_adv, y, epsilon, weight):
    """One projected step of NuAT in L2, with TensorFlow's own gradient of the singular values."""
    x, x_adv = tf.constant(x, tf.float32), tf.constant(x_adv, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x_adv)
        logits = logits_fn(x_adv)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        singular = tf.linalg.svd(logits - logits_fn(x), compute_uv=False)
        loss += weight * tf.reduce_sum(singular) / len(x)
    gradient = tape.gradient(loss, x_adv).numpy().astype(np.float64)
    offset = x_adv - x + epsilon * gradient / lengths(gradient)[:, None, None, None]
    return np.clip(x + offset * np.minimum(1.0, epsilon / lengths(offset))[:, None, None, None], 0.0, 1.0)


@pytest.mark.parametrize("low, high", [(0.4, 0.6), (0.0, 1.0)])
@pytest.mark.parametrize("name, steps_taken, weights", [("nuat", 0, [0]), ("nuat", 1, [3]), ("nuat2", 0, [3, 0])])
def test_perturbs_as_an_independent_computation_does(name, steps_taken, weights, low, high):
    epsilon, x, y = 0.4, images(low=low, high=high), np.arange(16) % CLASSES
    model = compiled(name, network(), epsilon=epsilon, nuclear_weight=3.0, norm="l2")
    model.optimizer.iterations.assign(steps_taken)
    start = bernoulli_start(tf.constant(x), epsilon / 2, model.draw_seed, norm="l2").numpy()
    expected = start
    for weight in weights:
        expected = step_along(model.network, x, expected, y, epsilon, weight)
    x_adv = model.perturb(tf.constant(x), tf.constant(y)).numpy()
    np.testing.assert_allclose(x_adv, expected, atol=1e-5)
    assert np.all(lengths(x_adv - x) <= epsilon + 1e-5)


@pytest.mark.parametrize("name", ["nuat", "nuat_wa", "nuat_h", "nuat_wa_h"])  # those of a single step
@pytest.mark.parametrize("steps_taken", [0, 1])
def test_the_step_has_length_epsilon_where_the_box_is_not_in_the_way(name, steps_taken):
    x, y = images(low=0.4, high=0.6), np.arange(16) % CLASSES
    model = compiled(name, network(), epsilon=0.3, alpha=0.03, norm="l2")
    model.optimizer.iterations.assign(steps_taken)
    change = lengths(model.perturb(tf.constant(x), tf.constant(y)) - x)
    # The noise can take back as much of the step as it is long.
    assert np.all(change <= 0.3 + 1e-6) and np.all(change >= 0.27 - 1e-6)
    without_noise = compiled(name, network(), epsilon=0.3, alpha=0.0, norm="l2")
    without_noise.optimizer.iterations.assign(steps_taken)
    np.testing.assert_allclose(lengths(without_noise.perturb(tf.constant(x), tf.constant(y)) - x), 0.3, rtol=1e-5)


def test_training_on_single_pixels_does_not_depend_on_the_norm():
    """Of the defense that takes both kinds of steps."""
    x, y = pictures.images(64, shape=(1, 1, 1)), np.arange(64) % CLASSES
    weights = []
    for norm in NORMS:
        model = compiled("nuat2_wa", network(shape=(1, 1, 1)), epsilon=0.2, nuclear_weight=2.0, norm=norm)
        for half in slice(None, 32), slice(32, None):  # two steps: to compile them would take longer
            model.train_step((tf.constant(x[half]), tf.constant(y[half])))
        weights.append(model.trained_network.get_weights())
    initial = network(shape=(1, 1, 1)).get_weights()
    for one, other, start in zip(*weights, initial):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert np.max(np.abs(one - start)) > 1e-3


def test_fit_on_two_devices_is_fit_on_one(two_devices):
    data = tf.data.Dataset.from_tensor_slices((images(96), np.arange(96) % CLASSES)).batch(32)
    weights = []
    for strategy in (tf.distribute.get_strategy(), two_devices):
        with strategy.scope():
            model = compiled("nuat", network(), epsilon=1.0, nuclear_weight=2.0, norm="l2")
        model.fit(data, epochs=1, verbose=0)
        weights.append(model.trained_network.get_weights() + model.network.get_weights())
    for one, two in zip(*weights):
        np.testing.assert_allclose(one, two, atol=1e-5)


# What is refused.


def test_only_the_range_of_l_infinity_ends_at_1():
    assert compiled("nuat", network(), epsilon=3.0, norm="l2").epsilon == 3.0
    with pytest.raises(ValueError, match="epsilon is 3.0; allowed: a number above 0 and at most 1"):
        compiled("nuat", network(), epsilon=3.0)


@pytest.mark.parametrize("name", ["sat_r1", "sat_r2", "sat_r3"])
def test_defenses_of_l_infinity_alone_refuse_l2(name):
    with pytest.raises(ValueError, match="norm is 'l2'; allowed: linf") as raised:
        tf_nuat.DEFENSES[name](network(), epsilon=0.1, norm="l2")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", NUAT_FAMILY)
@pytest.mark.parametrize(
    "options, words",
    [
        ({"norm": "l0"}, "norm is 'l0'; allowed: "),
        ({"norm": None}, "norm is None"),
        ({"norm": "l2", "epsilon": -1.0}, "epsilon is -1.0"),
        ({"norm": "l2", "epsilon": float("inf")}, "epsilon is inf"),
        ({"norm": "l2", "alpha": 2.1}, "alpha is 2.1"),
    ],
)
def test_bad_options_are_named(name, options, words):
    with pytest.raises(ValueError, match=words) as raised:
        tf_nuat.DEFENSES[name](network(), **{"epsilon": 2.0, **options})
    assert "\n" not in str(raised.value)
