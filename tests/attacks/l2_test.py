"""The L2 threat model: its geometry, its attacks and the NuAT family against closed forms and against L-infinity."""

import functools

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tf_nuat
from tests.helpers.recorded import Recorded, reluctant
from tf_nuat import attacks, norms
from tf_nuat.attacks.nuclear import bernoulli_start
from tf_nuat.core import threefry

SHAPE = (6, 5, 2)
PIXELS = 60
CLASSES = 4
NUAT_FAMILY = ("nuat", "nuat_wa", "nuat2", "nuat2_wa", "nuat_h", "nuat_wa_h")


def lengths(difference):
    return np.linalg.norm(np.reshape(difference, (len(difference), -1)), axis=1)


def images(size=16, low=0.0, high=1.0, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).uniform(low, high, size=(size, *shape)).astype(np.float32)


def network(shape=SHAPE, classes=CLASSES, hidden=8, seed=1):
    """Linear where `hidden` is 0."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(hidden, activation="tanh")] if hidden else []
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), *layers, keras.layers.Dense(classes)])


@pytest.fixture(scope="module")
def linear():
    """Two classes: the loss grows with (w_wrong - w_true) . x alone, along which the best perturbation points."""
    return network(classes=2, hidden=0)


def steepest(linear, y):
    """Returns the directions (B, H, W, C) of length 1 along which the loss of a linear network grows fastest."""
    kernel = linear.get_weights()[0]
    towards = (kernel[:, 1] - kernel[:, 0]) / np.linalg.norm(kernel[:, 1] - kernel[:, 0])
    return (towards[None] * np.where(y == 0, 1, -1)[:, None]).reshape(-1, *SHAPE)


# The geometry.


@pytest.mark.parametrize("norm", norms.NORMS)
@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 2.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_projections_are_within_ball_and_box_and_stay_there(norm, epsilon, seed):
    generator = np.random.default_rng(seed)
    x = np.round(images(seed=seed), 1)  # on the border of the box, too
    away = x + generator.normal(size=x.shape).astype(np.float32) * 10.0 ** generator.integers(-4, 2, (len(x), 1, 1, 1))
    project = norms.of(norm).projection(tf.constant(x), epsilon)
    once = project(tf.constant(away, tf.float32)).numpy()
    distance = lengths(once - x) if norm == "l2" else np.abs(once - x).max(axis=(1, 2, 3))
    assert np.all(distance <= epsilon * (1 + 1e-5) + 1e-7)
    assert once.min() >= 0.0 and once.max() <= 1.0
    np.testing.assert_allclose(project(once), once, atol=1e-6)
    inside = np.clip(x + (away - x) * (0.5 * epsilon / lengths(away - x))[:, None, None, None], 0, 1)
    np.testing.assert_allclose(project(tf.constant(inside, tf.float32)), inside, atol=1e-6)


def test_l2_projection_reaches_the_sphere_where_the_box_is_not_in_the_way():
    x, offset = images(low=0.4, high=0.6), np.random.default_rng(1).normal(size=(16, *SHAPE))
    projected = norms.of("l2").projection(tf.constant(x), 0.2)(tf.constant(x + offset, tf.float32))
    np.testing.assert_allclose(projected - x, 0.2 * offset / lengths(offset)[:, None, None, None], atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e22, 1e37])
def test_l2_direction_is_that_of_the_gradient_at_any_scale(scale):
    gradient = np.random.default_rng(2).uniform(-1, 1, size=(4, *SHAPE))
    gradient[1] = 0.0
    gradient[2, 1:] = 0.0
    expected = gradient / np.maximum(lengths(gradient), 1e-9)[:, None, None, None]
    found = norms.of("l2").steepest(tf.constant(scale * gradient, tf.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found[1], 0.0)


def test_l2_random_point_is_uniform_in_the_ball():
    """(radius / epsilon)^D is uniform in [0, 1], and so is the half of the ball that each coordinate lies in."""
    epsilon, shape = 0.3, (2, 3, 1)
    x = tf.fill((4000, *shape), 0.5)
    offset = (norms.of("l2").random_point(x, epsilon, 7) - x).numpy().reshape(4000, 6) / epsilon
    assert scipy.stats.kstest(np.linalg.norm(offset, axis=1) ** 6, "uniform").pvalue > 0.01
    # The covariance of a uniform draw from the ball of radius 1 is 1 / (D + 2) times the identity.
    np.testing.assert_allclose(offset.T @ offset / 4000, np.eye(6) / 8, atol=0.01)
    np.testing.assert_allclose(offset.mean(axis=0), 0.0, atol=0.025)
    other = (norms.of("l2").random_point(x, epsilon, 8) - x).numpy().reshape(4000, 6) / epsilon
    for statistic in (lambda offset: np.linalg.norm(offset, axis=1), lambda offset: offset[:, 0]):
        assert abs(np.corrcoef(statistic(offset), statistic(other))[0, 1]) < 0.06


@pytest.mark.parametrize("draw", [norms.of("l2").random_point, functools.partial(bernoulli_start, norm="l2")])
def test_l2_noise_is_cut_to_the_range_of_pixels_and_within_the_ball(draw):
    x = tf.constant(np.round(images()))
    drawn = draw(x, 2.0, 3)
    assert np.min(drawn) == 0.0 and np.max(drawn) == 1.0
    assert np.all(lengths(drawn - x) <= 2.0 + 1e-5)


def test_l2_start_has_random_signs_and_length_alpha():
    x = tf.constant(images(low=0.4, high=0.6))
    offset = (bernoulli_start(x, 0.3, 5, norm="l2") - x).numpy()
    np.testing.assert_allclose(lengths(offset), 0.3, rtol=1e-5)
    np.testing.assert_allclose(np.abs(offset), 0.3 / np.sqrt(PIXELS), rtol=1e-4)
    np.testing.assert_array_equal(np.sign(offset), np.sign(bernoulli_start(x, 0.3, 5) - x))


def test_l2_noise_is_drawn_for_the_global_batch(two_devices):
    whole = norms.of("l2").random_point(tf.fill((8, 2, 2, 1), 0.5), 0.1, 5).numpy()
    draw = tf.function(lambda: norms.of("l2").random_point(tf.fill((4, 2, 2, 1), 0.5), 0.1, 5))
    parts = two_devices.experimental_local_results(two_devices.run(draw))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-7)
    assert np.any(parts[0] != parts[1])


# Attacks.

LOOK_AT_CLEAN = ("nuclear", "gama_pgd", "gama_fw")  # beside their first step, in an order that is not fixed

# Settings with which each reaches the optimum of a linear network. Long steps turn a random offset into the right one.
# That PGD does is in tests/attacks/pgd_test.py.
REACHES = {
    "fgsm": ("fgsm", {}),
    "ifgsm": ("ifgsm", {"steps": 5}),
    "mifgsm": ("mifgsm", {"steps": 5}),
    "nuclear": ("nuclear", {"weight": 0.0, "alpha": 0.0}),
    "nuclear from noise": ("nuclear", {"weight": 0.0, "steps": 10, "step_size": 10.0}),
}


@pytest.mark.parametrize("case", REACHES)
def test_reaches_the_optimum_of_a_linear_network(case, linear):
    name, settings = REACHES[case]
    x, y, epsilon = images(low=0.4, high=0.6), np.arange(16) % 2, 0.35
    x_adv = attacks.ATTACKS[name](linear, x, y, epsilon=epsilon, norm="l2", **settings)
    np.testing.assert_allclose(x_adv, x + epsilon * steepest(linear, y), atol=2e-5)


def test_the_nuclear_attack_starts_at_noise_of_half_of_epsilon_in_l2():
    x, y = images(), np.arange(16) % CLASSES
    nuclear = functools.partial(attacks.nuclear, network(), x, y, epsilon=0.5, norm="l2")
    keys = threefry.keys((4, 0), np.arange(16))
    np.testing.assert_allclose(
        nuclear(seed=4), nuclear(start=bernoulli_start(tf.constant(x), 0.25, keys, "l2")), atol=1e-6
    )
    assert np.max(np.abs(nuclear(seed=4) - nuclear(start=bernoulli_start(tf.constant(x), 0.25, keys)))) > 1e-2


def test_the_default_step_size_of_pgd_is_two_and_a_half_of_its_share_of_epsilon():
    x, y = images(low=0.4, high=0.6), np.arange(16) % 2
    recorded = Recorded(reluctant(network(classes=2, hidden=0), y, confidence=5.0))
    attacks.pgd(recorded, x, y, epsilon=0.1, steps=5, random_start=False, norm="l2")
    for seen, expected in zip(recorded.seen, [0.0, 0.05, 0.1, 0.1, 0.1, 0.1], strict=True):
        np.testing.assert_allclose(lengths(seen - x), expected, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.2, 5.0])
def test_the_nuclear_attack_stays_in_the_ball_and_in_the_range_of_pixels(epsilon, linear):
    """As PGD does in tests/attacks/pgd_test.py."""
    x, y = np.round(images(), 1), np.arange(16) % 2
    x_adv = attacks.nuclear(linear, x, y, norm="l2", epsilon=epsilon, steps=3).numpy()
    assert np.all(lengths(x_adv - x) <= epsilon + 1e-5)
    assert x_adv.min() >= 0.0 and x_adv.max() <= 1.0 and np.all(lengths(x_adv - x) > 0.05)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("pgd", {"steps": 4, "random_start": False}),
        ("pgd", {"steps": 4, "step_size": 0.07, "start": images(shape=(1, 1, 1), seed=3)}),
        ("fgsm", {}),
        ("ifgsm", {"steps": 3}),
        ("mifgsm", {"steps": 3, "step_size": 0.07}),
        ("gama_pgd", {"steps": 10, "step_size": 0.07}),
        ("gama_fw", {"steps": 10}),
        ("nuclear", {"weight": 2.0, "seed": 1}),
        ("nuclear", {"weight": 2.0, "steps": 3, "alpha": 0.05, "step_size": 0.07}),
    ],
)
def test_the_norms_of_a_single_pixel_coincide(name, settings):
    x, y = images(64, shape=(1, 1, 1)), np.arange(64) % CLASSES
    settings = {key: np.resize(value, x.shape) if key == "start" else value for key, value in settings.items()}
    recorded = Recorded(network(shape=(1, 1, 1)))
    attack = functools.partial(attacks.ATTACKS[name], recorded, x, y, epsilon=0.2, **settings)
    seen, returned = {}, {}
    for norm in norms.NORMS:
        returned[norm] = attack(norm=norm).numpy()
        seen[norm] = recorded.on_the_way(x) if name in LOOK_AT_CLEAN else recorded.seen.copy()
        recorded.seen.clear()
    np.testing.assert_allclose(seen["l2"], seen["linf"], atol=1e-6)
    np.testing.assert_allclose(returned["l2"], returned["linf"], atol=1e-6)
    assert np.mean(np.abs((seen["l2"][-1] if name == "pgd" else returned["l2"]) - x)) > 0.03


@pytest.mark.parametrize("name", ["pgd", "nuclear"])
def test_a_zero_gradient_of_some_images_moves_them_nowhere(name):
    """One image's logits are rounded to a constant: beside it, the others take their steps."""
    x, y = images(low=0.4, high=0.6), np.arange(16) % 2
    first, linear = (tf.range(16) == 0)[:, None], reluctant(network(classes=2, hidden=0), y, confidence=5.0)
    recorded = Recorded(lambda x: tf.where(first, tf.round(linear(x)), linear(x)))
    settings = {"random_start": False} if name == "pgd" else {"start": x, "weight": 0.0}
    x_adv = attacks.ATTACKS[name](recorded, x, y, epsilon=0.1, norm="l2", **settings)
    last = recorded.seen[-1] if name == "pgd" else x_adv
    np.testing.assert_allclose(lengths(last - x), np.where(np.arange(16) == 0, 0.0, 0.1), atol=1e-6)


@pytest.mark.parametrize("name", ["rfgsm"])
def test_attacks_of_l_infinity_alone_take_no_norm(name, linear):
    with pytest.raises(ValueError, match=f"argument of {name} is 'norm'; allowed:"):
        attacks.ATTACKS[name](linear, images(), np.arange(16) % 2, epsilon=0.1, norm="l2")


def test_an_unknown_norm_is_named_inside_a_compiled_function_too(linear):
    x, y = images(), np.arange(16) % 2
    for name in ("pgd", "nuclear"):
        with pytest.raises(ValueError, match="norm is 'l0'; allowed: "):
            tf.function(functools.partial(attacks.ATTACKS[name], epsilon=0.1, norm="l0"), autograph=False)(
                linear, tf.constant(x), tf.constant(y)
            )


# The NuAT family.


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
    x_adv = tf.function(model.perturb)(tf.constant(x), tf.constant(y)).numpy()
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


@pytest.mark.parametrize("name", ["nuat", "nuat2_wa", "nuat_h"])
def test_training_on_single_pixels_does_not_depend_on_the_norm(name):
    x, y = images(64, shape=(1, 1, 1)), np.arange(64) % CLASSES
    weights = []
    for norm in norms.NORMS:
        model = compiled(name, network(shape=(1, 1, 1)), epsilon=0.2, nuclear_weight=2.0, norm=norm)
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        weights.append(model.trained_network.get_weights())
    initial = network(shape=(1, 1, 1)).get_weights()
    for one, other, start in zip(*weights, initial):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert np.max(np.abs(one - start)) > 1e-3


@pytest.mark.parametrize("name", ["nuat", "nuat2_wa"])
def test_fit_on_two_devices_is_fit_on_one(name, two_devices):
    data = tf.data.Dataset.from_tensor_slices((images(96), np.arange(96) % CLASSES)).batch(32)
    weights = []
    for strategy in (tf.distribute.get_strategy(), two_devices):
        with strategy.scope():
            model = compiled(name, network(), epsilon=1.0, nuclear_weight=2.0, norm="l2")
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
