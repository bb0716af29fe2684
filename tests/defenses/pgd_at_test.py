"""PGD-AT against robust logistic regression, whose inner maximum is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import counting
from tf_nuat import attacks, losses, norms
from tf_nuat.defenses.pgd_at import PGDAT

SHAPE = (4, 4, 1)
BATCH = 32
EPSILON = 0.1


def linear(seed=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])


def data(size=BATCH, seed=0):
    """Images from which no step leads out of [0, 1]."""
    generator = np.random.default_rng(seed)
    return generator.uniform(0.3, 0.7, size=(size, *SHAPE)).astype(np.float32), generator.integers(0, 2, size)


def compiled(network, **options):
    model = PGDAT(network, **{"epsilon": EPSILON, **options})
    model.compile(optimizer=tf_nuat.optimizers.CoupledSGD(0.5, weight_decay=0.0), metrics=["accuracy"])
    return model


def worst_case(network, x, y, norm):
    """Returns the images of the inner maximum, and their losses log(1 + exp(-(margin - epsilon * |w|_dual)))."""
    kernel, bias = (weight.astype(np.float64) for weight in network.get_weights())
    sign = np.where(y == 1, 1.0, -1.0)
    w, b = kernel[:, 1] - kernel[:, 0], bias[1] - bias[0]
    margin = sign * (x.reshape(len(x), -1) @ w + b)
    direction, dual = {"linf": (np.sign(w), np.abs(w).sum()), "l2": (w / np.linalg.norm(w), np.linalg.norm(w))}[norm]
    images = x - EPSILON * sign[:, None, None, None] * direction.reshape(1, *SHAPE)
    return images, np.log1p(np.exp(-(margin - EPSILON * dual)))


# Long steps turn a random offset into the best one.
REACHES = [{"random_start": False}, {"steps": 10, "step_size": 10 * EPSILON}]


@pytest.mark.parametrize("norm", PGDAT.NORMS)
@pytest.mark.parametrize("options", REACHES)
def test_reaches_the_inner_maximum_of_a_linear_network(norm, options):
    x, y = data()
    network = linear()
    model = compiled(network, norm=norm, **options)
    x_adv = tf.function(model.perturb)(tf.constant(x), tf.constant(y))
    images, robust_losses = worst_case(network, x, y, norm)
    np.testing.assert_allclose(x_adv, images, atol=1e-5)
    loss, logits = model.objective(tf.constant(x), x_adv, tf.constant(y))
    assert float(loss) == pytest.approx(robust_losses.mean(), rel=1e-5)
    np.testing.assert_allclose(logits, network(x_adv), atol=1e-6)


@pytest.mark.parametrize("norm", PGDAT.NORMS)
def test_a_training_step_is_one_of_robust_logistic_regression(norm):
    x, y = data()
    network = linear()
    kernel, bias = (weight.astype(np.float64) for weight in network.get_weights())
    images, robust_losses = worst_case(network, x, y, norm)
    compiled(network, norm=norm, random_start=False).train_on_batch(x, y)
    # By the envelope theorem: the gradient of log(1 + exp(-m)), at the images of the inner maximum.
    towards_true = (1 - np.exp(-robust_losses))[:, None] * np.where(np.eye(2)[y] == 1, 1.0, -1.0) / len(x)
    expected = kernel + 0.5 * images.reshape(len(x), -1).T @ towards_true, bias + 0.5 * towards_true.sum(axis=0)
    for weight, goal, start in zip(network.get_weights(), expected, (kernel, bias)):
        np.testing.assert_allclose(weight, goal, atol=1e-6)
        assert np.max(np.abs(goal - start)) > 1e-3


@pytest.mark.parametrize("norm", PGDAT.NORMS)
def test_the_default_step_is_a_quarter_of_epsilon(norm):
    x, y = data()
    network = linear()
    x_adv = compiled(network, norm=norm, steps=3, random_start=False).perturb(tf.constant(x), tf.constant(y))
    images, _ = worst_case(network, x, y, norm)
    np.testing.assert_allclose(x_adv, x + 0.75 * (images - x), atol=1e-5)


def test_the_last_point_is_returned_and_not_the_best():
    """The margin is largest halfway, after which the ascent of the cross-entropy goes on."""

    class Band(keras.layers.Layer):
        def call(self, x):
            distance = tf.reduce_mean(x, axis=(1, 2, 3)) - 0.5
            reward = 5.0 * tf.cast(tf.abs(distance - 0.055) < 0.01, tf.float32)
            return tf.stack([tf.zeros_like(distance), 10.0 * distance - 1.5 + reward], axis=1)

    inputs = keras.Input(SHAPE)
    network = keras.Model(inputs, Band()(inputs))
    x, y = tf.fill((4, *SHAPE), 0.5), tf.zeros(4, tf.int64)
    settings = {"epsilon": 0.1, "steps": 8, "step_size": 0.01, "random_start": False}
    last = PGDAT(network, **settings).perturb(x, y)
    np.testing.assert_allclose(last, x + 0.08, atol=1e-6)
    best = attacks.pgd(network, x, y, **settings)
    assert np.all(losses.margin(network(best), y) > losses.margin(network(last), y))


@pytest.mark.parametrize("norm", PGDAT.NORMS)
def test_the_start_is_given_or_drawn_anew_at_each_step(norm):
    x, y = map(tf.constant, data())
    model = compiled(linear(), norm=norm, steps=1, step_size=1e-7)
    first = model.perturb(x, y)
    np.testing.assert_allclose(first, norms.of(norm).random_point(x, EPSILON, model.draw_seed), atol=1e-6)
    np.testing.assert_array_equal(model.perturb(x, y), first)
    model.optimizer.iterations.assign_add(1)
    assert np.mean(np.abs(model.perturb(x, y) - first) > 1e-4) > 0.9
    start = x + 0.01
    np.testing.assert_allclose(model.perturb(x, y, start=start), start, atol=1e-6)


def test_the_norms_of_a_single_pixel_coincide():
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((1, 1, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="tanh", kernel_initializer=keras.initializers.RandomNormal(stddev=4.0)),
            keras.layers.Dense(3),
        ]
    )
    generator = np.random.default_rng(0)
    x = tf.constant(generator.uniform(size=(64, 1, 1, 1)), tf.float32)
    y = tf.constant(generator.integers(0, 3, 64))
    start = tf.clip_by_value(x + tf.constant(generator.uniform(-0.2, 0.2, size=x.shape), tf.float32), 0.0, 1.0)
    one, other = (PGDAT(network, epsilon=0.2, norm=norm).perturb(x, y, start=start) for norm in PGDAT.NORMS)
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.mean(np.abs(one - start)) > 0.05


def test_passes_are_those_of_so_many_steps():
    """Those of the default settings are in `passes_test.py`."""
    models = []

    def make_model(network):
        models.append(compiled(network, steps=3, norm="l2"))
        return models[0]

    measured = counting.passes(make_model, *counting.batch())
    np.testing.assert_allclose(measured, models[0].passes(8), atol=1e-6)
    assert measured.input_gradient == 3


def test_more_steps_are_not_traced_one_by_one():
    counts = []
    for steps in (2, 50):
        graph = tf.function(PGDAT(linear(), epsilon=EPSILON, steps=steps).perturb).get_concrete_function(
            *(tf.TensorSpec((BATCH, *shape), dtype) for shape, dtype in ((SHAPE, tf.float32), ((), tf.int64)))
        )
        counts.append(len(graph.graph.get_operations()))
    assert counts[0] == counts[1]


def test_fit_on_two_devices_is_fit_on_one(two_devices):
    """In L2; tests/parallel/distribute_test.py has the attack in L-infinity."""
    size, weights = 63, []  # the last batch: 31 images, in shares of 16 and 15
    for strategy in (tf.distribute.get_strategy(), two_devices):
        with strategy.scope():
            model = compiled(linear(), norm="l2", steps=3, ema_decay=0.9)
        model.fit(tf.data.Dataset.from_tensor_slices(data(size)).batch(BATCH), epochs=1, verbose=0)
        weights.append(model.trained_network.get_weights() + model.network.get_weights())
    for one, two, start in zip(*weights, linear().get_weights() * 2):
        np.testing.assert_allclose(one, two, atol=1e-5)
        assert np.max(np.abs(one - start)) > 1e-3


@pytest.mark.parametrize(
    "options, words",
    [
        ({"steps": 0}, "steps is 0"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"random_start": "no"}, "random_start is 'no'; allowed: False, True"),
        ({"norm": "l0"}, "norm is 'l0'; allowed: "),
        ({"epsilon": 2.0}, "epsilon is 2.0; allowed: a number above 0 and at most 1"),
        ({"epsilon": -2.0, "norm": "l2"}, "epsilon is -2.0"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError, match=words) as raised:
        PGDAT(linear(), **{"epsilon": EPSILON, **options})
    assert "\n" not in str(raised.value)
