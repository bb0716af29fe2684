"""What holds for all attacks: what they refuse, compile and forget; and the single-step attacks."""

import functools
import gc
import importlib
import pkgutil
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import networks
from tf_nuat import attacks, evaluate, losses
from tf_nuat.attacks.batch import num_classes_of
from tf_nuat.attacks.nuclear import bernoulli_start
from tf_nuat.attacks.rfgsm import random_step
from tf_nuat.core import threefry
from tf_nuat.models.inference import inference

EPSILON = 0.1
SHAPE = (6, 5, 2)
ALL = {
    "fgsm": {},
    "rfgsm": {"alpha": 0.02, "seed": 3},
    "ifgsm": {"steps": 10},
    "pgd": {"steps": 10, "step_size": 0.05},
    "nuclear": {"weight": 2.0, "steps": 3, "seed": 3},
}


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(16, *SHAPE)).astype(np.float32)
    x[0, 0], x[1, 0] = 0.0, 1.0  # the border of [0, 1] is in play too
    return x, generator.integers(0, 2, 16)


@pytest.fixture(scope="module")
def linear():
    """Two classes: the loss grows with (w_wrong - w_true) . x, so the sign of that is the best perturbation."""
    network = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])
    network.set_weights(
        [np.random.default_rng(1).normal(size=w.shape).astype(np.float32) for w in network.get_weights()]
    )
    return network


def test_rfgsm_spends_what_the_random_step_leaves_of_epsilon(linear, images):
    x, y = images
    x_adv = attacks.rfgsm(linear, x, y, epsilon=EPSILON, alpha=0.03, seed=3)
    start = random_step(tf.constant(x), 0.03, threefry.keys((3, 0), np.arange(16)))
    kernel = linear.get_weights()[0]
    uphill = np.sign(kernel[:, 1] - kernel[:, 0]).reshape(SHAPE) * np.where(y == 0, 1, -1)[:, None, None, None]
    expected = np.clip(np.clip(start + (EPSILON - 0.03) * uphill, x - EPSILON, x + EPSILON), 0, 1)
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)


def test_half_of_epsilon_is_the_random_step_of_rfgsm_unless_told_otherwise(linear, images):
    attack = functools.partial(attacks.rfgsm, linear, *images, epsilon=EPSILON, seed=3)
    np.testing.assert_array_equal(attack(), attack(alpha=EPSILON / 2))
    assert np.max(np.abs(attack() - attack(alpha=EPSILON / 4))) > 0.01


def test_rfgsm_does_not_step_down_the_loss_where_the_random_step_is_longer_than_epsilon(linear, images):
    x, y = images
    start = random_step(tf.constant(x), 0.3, threefry.keys((3, 0), np.arange(16)))
    expected = np.clip(start, x - EPSILON, x + EPSILON)
    np.testing.assert_allclose(attacks.rfgsm(linear, x, y, epsilon=EPSILON, alpha=0.3, seed=3), expected, atol=1e-6)
    np.testing.assert_allclose(attacks.rfgsm(linear, x, y, epsilon=EPSILON, alpha=0.3, start=x), x, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nuclear_attack_starts_at_noise_of_half_of_epsilon(norm, linear, images):
    x, y = images
    nuclear = functools.partial(attacks.nuclear, linear, x, y, epsilon=0.5, norm=norm)
    noise = functools.partial(bernoulli_start, tf.constant(x), 0.25, threefry.keys((4, 0), np.arange(16)))
    np.testing.assert_allclose(nuclear(seed=4), nuclear(start=noise(norm)), atol=1e-6)
    assert np.max(np.abs(nuclear(seed=4) - nuclear(start=noise("l2" if norm == "linf" else "linf")))) > 1e-3


def test_pgd_never_loses_an_adversary_it_has_met(images):
    """The logits reward exactly one distance from x, which the ascent walks past."""
    x, y = images[0][:4] * 0.0 + 0.5, np.zeros(4, int)
    steps, step_size = 10, 0.01

    def logits_fn(images):
        distance = tf.reduce_mean(images, axis=(1, 2, 3)) - 0.5
        in_the_band = tf.cast(tf.abs(distance - 0.055) < 0.01, tf.float32)
        return tf.stack([tf.zeros_like(distance), 10.0 * distance - 1.5 + 5.0 * in_the_band], axis=1)

    pgd = functools.partial(
        attacks.pgd, logits_fn, x, y, epsilon=0.1, steps=steps, step_size=step_size, random_start=False
    )
    margin = losses.margin(logits_fn(pgd()), tf.constant(y)).numpy()
    assert np.all(margin > 0)
    last = attacks.ifgsm(logits_fn, x, y, epsilon=0.1, steps=steps, step_size=step_size)
    assert np.all(losses.margin(logits_fn(last), tf.constant(y)).numpy() < 0)


def test_a_zero_gradient_keeps_the_start(images):
    x, y = images
    start = np.clip(x + 0.05, 0, 1)
    x_adv = attacks.nuclear(
        lambda x: tf.round(tf.reduce_sum(x, axis=(1, 2)) * 0.01), x, y, epsilon=EPSILON, weight=0.0, start=start
    )
    np.testing.assert_allclose(x_adv, start, atol=1e-6)


def test_networks_attacked_earlier_are_forgotten(images):
    """What is compiled for a network holds it and its weights, and is gone with it."""

    images, labels = images

    def use():
        network = keras.Sequential([keras.Input(images.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(3)])
        attacks.fgsm(network, images, labels, epsilon=0.1)
        evaluate.accuracy(network, (images, labels))
        return weakref.ref(network)

    used = use()
    gc.collect()
    assert used() is None


def test_a_pair_is_a_seed_too(linear, images):
    """After a single number as well: TensorFlow would generalize over both."""
    x, y = images
    attack = functools.partial(attacks.rfgsm, linear, x, y, epsilon=EPSILON, alpha=EPSILON)  # only the random step
    for seed, of_draws in ((3, threefry.keys((3, 0), np.arange(16))), ((3, 4), (3, 4))):
        np.testing.assert_allclose(attack(seed=seed), random_step(tf.constant(x), EPSILON, of_draws), atol=1e-6)


def test_images_of_any_type_are_a_start(linear, images):
    x, y = images
    start = np.ones(x.shape, np.uint8)
    x_adv = attacks.rfgsm(linear, x, y, epsilon=EPSILON, alpha=EPSILON, start=start)
    np.testing.assert_allclose(x_adv, np.clip(start, x - EPSILON, x + EPSILON), atol=1e-6)


def test_nuclear_weight_zero_forwards_no_clean_images(images):
    """The clean images are forwarded where the weight is above 0, and only there."""
    x, y = images
    x, y = tf.constant(x), tf.constant(y)
    seen = tf.Variable(0)

    def logits_fn(images):
        seen.assign_add(1)
        return tf.reduce_sum(images, axis=(1, 2))

    @tf.function
    def step(weight):
        return attacks.nuclear(logits_fn, x, y, epsilon=EPSILON, weight=weight)

    step(tf.constant(0.0))
    assert seen.numpy() == 1
    step(tf.constant(1.0))
    assert seen.numpy() == 3


def test_inference_mode_leaves_batch_norm_alone(images):
    network = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.BatchNormalization(), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    before = network.get_weights()
    for name, settings in ALL.items():
        attacks.ATTACKS[name](network, *images, epsilon=EPSILON, **settings)
    for weight, old in zip(network.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


BAD = [
    ({"epsilon": -0.1}, "epsilon"),
    ({"epsilon": float("nan")}, "epsilon"),
    ({"epsilon": "0.3"}, "epsilon"),
    ({"steps": 0}, "steps"),
    ({"steps": 2.5}, "steps"),
    ({"step_size": 0}, "step_size"),
    ({"restarts": 0}, "restarts"),
    ({"seed": -1}, "seed"),
    ({"norm": "l0"}, "norm is 'l0'; allowed: "),
    ({"norm": None}, "norm is None"),
    ({"epsilon": None}, "epsilon is None"),
    ({"steps": None}, "steps is None"),
    ({"iterations": 3}, "iterations"),
    ({"random_start": "False"}, "random_start is .False.; allowed: False, True"),
    ({"random_start": 0}, "random_start is 0; allowed: False, True"),
    ({"seed": 2**31}, "seed is 2147483648; allowed: a whole number, at least 0 and at most 2147483647"),
    ({"seed": (3, -1)}, "seed is -1"),
    ({"epsilon": tf.constant(-0.1)}, "epsilon is "),
    ({"epsilon": tf.constant([0.1, 0.2])}, r"epsilon is array\("),  # of pixels in L-infinity, and not of images
    ({"index": [1]}, r"index has shape \(1,\) and dtype int64; allowed: whole numbers of shape \(16,\)"),
    ({"index": np.arange(16) + 0.5}, r"index has shape \(16,\) and dtype float64"),
    ({"start": np.zeros((2, *SHAPE))}, r"start has shape \(2, 6, 5, 2\); allowed: that of x, \(16, 6, 5, 2\)"),
    ({"start": np.full((16, *SHAPE), np.nan)}, "start has values that are not finite; allowed"),
]


@pytest.mark.parametrize("settings, argument", BAD)
def test_bad_settings_are_named(settings, argument, linear, images):
    with pytest.raises(ValueError, match=argument) as raised:
        attacks.pgd(linear, *images, **{"epsilon": EPSILON, **settings})
    assert "\n" not in str(raised.value) and "allowed" in str(raised.value)


@pytest.mark.parametrize(
    "x, y, words",
    [
        (np.zeros((2, *SHAPE), np.uint8), [0, 1], "uint8"),
        (np.full((2, *SHAPE), 2.0), [0, 1], "values from 2 to 2"),
        (np.full((2, *SHAPE), np.nan), [0, 1], "nan"),
        (np.zeros((2, 3, 3, 1)), [0, 1], "takes"),
        (np.zeros((2, *SHAPE)), [0, 2], "from 0 to 1"),
        (np.zeros((2, *SHAPE)), [0, -1], "from 0 to 1"),
        (np.zeros((2, *SHAPE)), [0.0, 0.5], "float64"),
        (np.zeros((2, *SHAPE)), [0, 1, 1], "3 entries for 2"),
    ],
)
def test_bad_images_and_labels_are_named(x, y, words, linear):
    with pytest.raises(ValueError, match=words) as raised:
        attacks.fgsm(linear, x, np.array(y), epsilon=EPSILON)
    assert "\n" not in str(raised.value)


def test_the_table_of_attacks_is_complete():
    """Every function of the package that is an attack is in it, under its own name."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.iter_modules(attacks.__path__, f"{attacks.__name__}.")
    ]
    made = {name for module in modules for name, value in vars(module).items() if isinstance(value, attacks.Attack)}
    assert {"fgsm", "pgd", "apgd_t"} <= made <= set(tf_nuat.ATTACKS)
    assert all(attack.name == name for name, attack in tf_nuat.ATTACKS.items())


# What the papers, or the code of their authors, take.
_FAB = {"steps": 100, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
PUBLISHED = {
    "ifgsm": {"steps": 7},
    "mifgsm": {"decay": 1.0},
    "transfer": {"decay": 1.0},
    "gama_pgd": {"steps": 100, "weight": 50.0},
    "gama_fw": {"steps": 100, "weight": 50.0, "gamma": 0.5},
    "apgd_ce": {"steps": 100},
    "apgd_dlr": {"steps": 100},
    "apgd_t": {"steps": 100, "targets": 9},
    "fab": _FAB,
    "fab_t": {**_FAB, "targets": 9},
    "square": {"queries": 5000, "p_init": 0.8},
    "spsa": {"delta": 0.01, "step_size": 0.01},
    "deepfool": {"classes": 10},
    "cw": {"searches": 9, "step_size": 0.01, "initial_weight": 1e-3, "confidence": 0.0},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_defaults_are_the_published_settings(name):
    keywords = tf_nuat.ATTACKS[name].keywords
    assert {key: keywords[key] for key in PUBLISHED[name]} == PUBLISHED[name]


def test_a_function_that_is_no_network_is_called_as_it_is():
    assert inference(len) is len


@pytest.mark.parametrize("name", ["fgsm", "autoattack"])
def test_a_network_that_ends_in_softmax_is_refused(name, images):
    inputs = keras.Input(SHAPE)
    network = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="logits_fn ends in softmax; allowed: logits"):
        attacks.ATTACKS[name](network, *images, epsilon=EPSILON)


def test_autoattack_looks_at_its_network_and_its_images_before_it_runs(linear, images):
    x, y = images
    with pytest.raises(ValueError, match="x has images of shape .*; the network takes"):
        attacks.autoattack(linear, x[:, :3], y, epsilon=EPSILON)
    with pytest.raises(ValueError, match="logits_fn is not built; call it on a batch"):
        attacks.autoattack(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)]), x, y, epsilon=EPSILON)
    with pytest.raises(ValueError, match="epsilon is not given; allowed: a number, at least 0"):
        attacks.autoattack(linear, x, y)
    with pytest.raises(ValueError, match=r"index has shape \(3,\)"):
        attacks.autoattack(linear, x, y, epsilon=EPSILON, index=[1, 2, 3])


def test_labels_of_a_function_are_those_of_a_network(linear, images):
    """A column, as `keras.datasets` has them, is no row of probabilities."""
    (x, y), settings = images, {"epsilon": 0.5, "steps": 3}
    attack = functools.partial(attacks.pgd, lambda x: linear(x), x, **settings)
    expected = attack(y)
    assert np.any(expected != x)
    np.testing.assert_array_equal(attack(y.astype(np.uint8)[:, None]), expected)
    for wrong, words in (
        (y + 1, "y has values from 1 to 2; allowed: integers from 0 to 1"),
        (y[:3], "y has 3 entries for 16 images; allowed: one label per image"),
        (y + 0.5, r"y has shape \(16,\) and dtype float64; allowed: integers from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=words):
            attack(wrong)
    with pytest.raises(ValueError, match="target has values from 2 to 2; allowed: integers from 0 to 1"):
        attack(y, target=np.full(16, 2))


def test_the_classes_of_a_function_are_counted_where_its_trace_does_not_say_them(images):
    def unknown(x):
        return tf.numpy_function(lambda values: values.reshape(len(values), -1)[:, :7], [x], tf.float32)

    assert num_classes_of(unknown, images[0]) == 7


@pytest.mark.parametrize(
    "logits_fn, words",
    [
        (lambda x: tf.reduce_sum(x, axis=(1, 2, 3)), r"returns shape \(16,\) .*; allowed: logits \(B, K\)"),
        (lambda x: tf.reduce_sum(x, axis=(1, 2, 3))[:, None], r"returns shape \(16, 1\) .* of at least 2 classes"),
        (lambda x: x[..., 0], r"returns shape \(16, 6, 5\)"),
        (lambda x: {"logits": x[:, 0, :, 0]}, "returns a dict; allowed: a tensor of logits"),
        ("network.keras", "is a str; allowed: a keras.Model or a function of images"),
    ],
)
def test_what_returns_no_logits_of_classes_is_named(logits_fn, words, images):
    with pytest.raises(ValueError, match="logits_fn " + words) as raised:
        attacks.fgsm(logits_fn, images[0], np.zeros(16, int), epsilon=EPSILON)
    assert "\n" not in str(raised.value)


def test_a_network_is_not_traced_for_its_classes(linear, images, monkeypatch):
    """Not by a defense either, which makes a new function of it at each step."""
    monkeypatch.setattr(tf, "function", None)
    assert num_classes_of(linear, images[0]) == num_classes_of(inference(linear), images[0]) == 2


def test_keywords_come_and_go_in_any_order(linear, images):
    """Each combination of given and omitted keywords, one after the other, in one process."""
    x, y = images
    calls = [{}, {"steps": 3, "seed": 0}, {"step_size": 0.02}, {"restarts": 2, "steps": 2}, {"start": x}, {}]
    for settings in calls:
        assert attacks.pgd(linear, x, y, epsilon=EPSILON, **settings).shape == x.shape
    for settings in [{}, {"alpha": 0.05}, {"weight": 0.0, "start": x}, {"steps": 2}, {}]:
        assert attacks.nuclear(linear, x, y, epsilon=EPSILON, **settings).shape == x.shape
    with pytest.raises(ValueError, match="epsilon is not given"):
        attacks.pgd(linear, x, y)


@pytest.mark.parametrize("name", [*ALL, "fab", "fab_t", "deepfool"])
def test_a_gradient_that_is_not_finite_moves_nothing(name, linear, images):
    """The root has an infinite slope at 0: half of the pixels' gradients are not finite."""
    x, y = images
    x = np.where(np.arange(x.shape[1])[None, :, None, None] < 3, 0.0, x).astype(np.float32)
    settings = {"epsilon": 2.0 if name == "deepfool" else EPSILON}
    settings |= {"random_start": False} if name == "pgd" else {}
    settings |= {"start": x} if name in ("rfgsm", "nuclear") else {}
    x_adv = attacks.ATTACKS[name](lambda x: linear(1e-20 * tf.sqrt(x) + x), x, y, **settings).numpy()
    assert np.all(np.isfinite(x_adv)) and np.all(x_adv[:, :3] == 0.0) and np.any(x_adv[:, 3:] != x[:, 3:])


@pytest.mark.parametrize("name", ["pgd", "apgd_ce", "mifgsm", "square", "random_search", "spsa", "fab", "deepfool"])
def test_fooled_is_what_predict_answers_wrongly_where_logits_tie(name):
    """The margin is never above 0: where it is 0 the first of both classes is the answer, and that is the wrong one."""
    network = networks.with_ties()
    x, y = np.linspace(0.52, 0.68, 8, dtype=np.float32).reshape(-1, 1, 1, 1), np.ones(8, int)
    attack = functools.partial(attacks.ATTACKS[name], epsilon=0.1)
    x_adv = attack(network, x, y)
    reached = x.ravel() < 0.6
    fooled = network.predict(x_adv, verbose=0).argmax(axis=1) != y
    np.testing.assert_array_equal(fooled, reached)
    np.testing.assert_array_equal(evaluate.correct(network, (x, y), attack), ~reached)
    assert losses.margin(network(x_adv), tf.constant(y)).numpy().max() == 0.0
