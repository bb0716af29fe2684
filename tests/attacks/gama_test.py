"""GAMA-PGD and GAMA-FW against their steps computed by hand, with the authors' schedules, and against closed forms."""

import functools

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tests.helpers.recorded import Recorded, minimal_distance
from tf_nuat import draws, losses
from tf_nuat.attacks.gama import gama_fw, gama_pgd
from tf_nuat.core import threefry

SHAPE = (4, 4, 2)
CLASSES = 5
ATTACKS = {"pgd": gama_pgd, "fw": gama_fw}


def images(size=16):
    return np.random.default_rng(0).uniform(size=(size, *SHAPE)).astype(np.float32)


def margins(logits_fn, x, y):
    return losses.margin(logits_fn(tf.constant(x, tf.float32)), tf.constant(y)).numpy()


def dense(classes, *hidden):
    layers = [keras.layers.Dense(units, activation="tanh") for units in hidden]
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), *layers, keras.layers.Dense(classes)])
    generator = np.random.default_rng(1)
    model.set_weights([0.5 * generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def network():
    return dense(CLASSES, 12)


@pytest.fixture(scope="module")
def labelled(network):
    x = images()
    return x, network(x).numpy().argmax(axis=1)


def constant(x):
    return 0.0 * tf.reduce_sum(x, axis=(1, 2)) + [1.0, 0.0]


# The steps.


def gradient_by_hand(network, at, x, y, weight):
    """Returns the gradient of the margin of probabilities plus the guiding term, of one image, in float64."""
    first, first_bias, second, second_bias = (value.astype(np.float64) for value in network.get_weights())

    def hidden(image):
        return np.tanh(image.ravel() @ first + first_bias)

    p, clean = (scipy.special.softmax(hidden(image) @ second + second_bias) for image in (at, x.astype(np.float64)))
    unit = np.eye(len(p))
    other = np.argmax(np.where(np.arange(len(p)) == y, -1.0, p))
    to_p = unit[other] - unit[y] + 2.0 * weight * (p - clean)
    to_logits = p * (to_p - np.sum(p * to_p))
    return (first @ ((second @ to_logits) * (1 - hidden(at) ** 2))).reshape(at.shape)


def moved_by_hand(name, at, x, gradient, size, epsilon):
    sign = np.sign(gradient)
    to = at + size * sign if name == "pgd" else (1 - size) * at + size * (x + epsilon * sign)
    return np.clip(np.clip(to, x - epsilon, x + epsilon), 0, 1)


def schedule(name, steps, epsilon):
    """Returns the weights and the sizes of an ascent's steps, for 100 those of the authors."""
    weights = [max(50.0 - 50.0 / (steps / 4) * step, 0.0) for step in range(steps)]
    size, drop = (2 * epsilon, 10) if name == "pgd" else (0.5, 5)
    passed = [(step >= 0.6 * steps) + (step >= 0.85 * steps) for step in range(steps)]
    return weights, [size / drop**number for number in passed]


@pytest.mark.parametrize("steps", [100, 20])
@pytest.mark.parametrize("name", ATTACKS)
def test_takes_the_steps_of_the_schedules_until_it_has_an_adversary(name, steps, network, labelled):
    (x, y), epsilon = labelled, 0.05
    recorded = Recorded(network)
    x_adv = ATTACKS[name](recorded, x, y, epsilon=epsilon, steps=steps, seed=2).numpy()
    assert len(recorded.seen) == 1 + steps + 1 and recorded.returned == steps
    on_the_way = recorded.on_the_way(x)
    seen = np.stack(on_the_way, axis=1).astype(np.float64)
    fooled = np.stack([margins(network, batch, y) > 0 for batch in on_the_way], axis=1)
    weights, sizes = schedule(name, steps, epsilon)
    certain = []
    for i in range(len(x)):
        last = int(np.argmax(fooled[i])) if np.any(fooled[i]) else steps
        for step in range(last):
            gradient = gradient_by_hand(network, seen[i, step], x[i], y[i], weights[step])
            sure = np.abs(gradient) > 1e-3 * np.abs(gradient).max()  # of the sign, in spite of rounding
            expected = moved_by_hand(name, seen[i, step], x[i], gradient, sizes[step], epsilon)
            np.testing.assert_allclose(seen[i, step + 1][sure], expected[sure], atol=1e-6, err_msg=f"{i}, {step}")
            certain.append(np.mean(sure))
        np.testing.assert_array_equal(seen[i, last:], np.broadcast_to(seen[i, last], seen[i, last:].shape))
        np.testing.assert_array_equal(x_adv[i], seen[i, last] if np.any(fooled[i]) else x[i])
    assert np.mean(certain) > 0.9 and 2 < np.sum(fooled[:, -1]) < 14


@pytest.mark.parametrize("name, settings", [("pgd", {"step_size": 0.02, "weight": 3.0}), ("fw", {"gamma": 0.3})])
def test_first_steps_have_the_size_and_the_weight_that_are_given(name, settings, network, labelled):
    (x, y), epsilon = labelled, 0.02
    recorded = Recorded(network)
    ATTACKS[name](recorded, x, y, epsilon=epsilon, steps=10, **settings)
    start, after = (batch.astype(np.float64) for batch in recorded.on_the_way(x)[:2])
    going_on = margins(network, start, y) <= 0
    for i in np.flatnonzero(going_on):
        gradient = gradient_by_hand(network, start[i], x[i], y[i], settings.get("weight", 50.0))
        size = settings.get("step_size", settings.get("gamma"))
        sure = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
        expected = moved_by_hand(name, start[i], x[i], gradient, size, epsilon)
        np.testing.assert_allclose(after[i][sure], expected[sure], atol=1e-6)
    assert np.sum(going_on) > 8


# Closed forms.


@pytest.mark.parametrize("name", ATTACKS)
def test_fools_a_linear_network_from_its_smallest_distance_on(name):
    """At 1.001 times that distance every image, at 0.999 times none; pixels at 0 and 1 are in play.

    The guiding term draws either way at first, away from the clean prediction.
    """
    linear, x = dense(2), np.round(images(), 1)
    y = linear(x).numpy().argmax(axis=1)
    slope = (linear.get_weights()[0] @ [-1, 1]).reshape(SHAPE)
    attack = functools.partial(ATTACKS[name], linear)
    for image, label, margin in zip(x, y, margins(linear, x, y)):
        distance = minimal_distance(slope if label == 0 else -slope, -margin.astype(np.float64), image, "linf")
        for factor in (0.999, 1.001):
            x_adv = attack(image[None], label[None], epsilon=factor * distance, steps=50).numpy()
            assert (margins(linear, x_adv, label[None]) > 0) == (factor > 1), (distance, margin)
            if factor < 1:
                np.testing.assert_array_equal(x_adv[0], image)


# Starts, and what is returned.


@pytest.mark.parametrize("name", ATTACKS)
def test_starts_are_signs_of_each_images_draw_times_epsilon(name):
    x, y = images(), np.zeros(16, int)
    recorded = Recorded(constant)
    x_adv = ATTACKS[name](recorded, x, y, epsilon=0.1, steps=2, restarts=3, seed=7)
    np.testing.assert_array_equal(x_adv, x)
    assert len(recorded.seen) == 1 + 3 + 3 + 3 and recorded.returned == 3 + 3 + 2
    keys = threefry.keys((7, 0), np.arange(16))
    for restart, seen in enumerate(recorded.on_the_way(x)[::3]):
        signs = draws.signs(tf.constant(x), threefry.fold_in(keys, restart))
        np.testing.assert_allclose(seen, np.clip(x + 0.1 * signs, 0, 1), atol=1e-6)


@pytest.mark.parametrize("name", ATTACKS)
def test_is_in_the_ball_and_fools_the_network_or_is_clean(name, network, labelled):
    x, y = labelled
    x, recorded = np.round(x, 1), Recorded(network)
    for epsilon in (0.05, 2.0):
        recorded.seen.clear()
        x_adv = ATTACKS[name](recorded, x, y, epsilon=epsilon, steps=10, restarts=2).numpy()
        for seen in [*recorded.seen, x_adv]:
            assert np.max(np.abs(seen - x)) <= epsilon + 1e-6 and seen.min() >= 0.0 and seen.max() <= 1.0
        fooled = margins(network, x_adv, y) > 0
        np.testing.assert_array_equal(x_adv[~fooled], x[~fooled])
        assert np.any(fooled)


@pytest.mark.parametrize("name", ATTACKS)
def test_neighbours_and_the_form_of_labels_make_no_difference(name, network, labelled):
    """Beside neighbours that are done at once, or never, the images have the same result."""
    x, y = labelled
    attack = functools.partial(ATTACKS[name], network, epsilon=0.06, steps=10, restarts=2)
    alone = attack(x, y).numpy()
    np.testing.assert_array_equal(attack(x, np.eye(CLASSES, dtype=np.float32)[y]), alone)
    even = np.arange(16) % 2 == 0
    beside = attack(np.where(even[:, None, None, None], x, x[::-1]), np.where(even, y, (y + 1) % CLASSES))
    np.testing.assert_allclose(beside[::2], alone[::2], atol=1e-6)
    some = attack(x[4:7], y[4:7], index=np.arange(4, 7))
    np.testing.assert_allclose(some, alone[4:7], atol=1e-6)
    assert np.any(alone[::2] != x[::2])


@pytest.mark.parametrize("name", ATTACKS)
def test_a_seed_repeats_itself_and_another_does_not(name, network, labelled):
    attack = functools.partial(ATTACKS[name], network, *labelled, epsilon=0.2, steps=4)
    np.testing.assert_array_equal(attack(seed=1), attack(seed=1))
    assert np.mean(np.abs(attack(seed=1) - attack(seed=2)) > 1e-6) > 0.1


@pytest.mark.parametrize("name", ATTACKS)
def test_more_restarts_fool_the_same_images_and_more(name):
    """Ripples on a slope: where a short ascent of large steps ends depends on its start."""
    directions = np.random.default_rng(5).normal(size=(32, CLASSES - 1)).astype(np.float32)

    def logits_fn(x):
        along = tf.reshape(x - 0.5, (-1, 32)) @ directions
        wrong = along + 0.7 * tf.sin(30.0 * along)
        return tf.concat([tf.fill((tf.shape(x)[0], 1), 4.0), wrong], axis=1)

    x, y = images(64), np.zeros(64, int)
    attack = functools.partial(ATTACKS[name], logits_fn, x, y, epsilon=0.08, steps=5, seed=2)
    once, often = attack(restarts=1).numpy(), attack(restarts=8).numpy()
    fooled = (margins(logits_fn, once, y) > 0) & (margins(logits_fn, x, y) < 0)
    np.testing.assert_allclose(often[fooled], once[fooled], atol=1e-6)
    assert 0 < np.sum(margins(logits_fn, once, y) > 0) < np.sum(margins(logits_fn, often, y) > 0) and np.any(fooled)


# Edges.


@pytest.mark.parametrize("name", ATTACKS)
def test_networks_without_gradients_or_numbers_leave_the_images_clean(name, network, labelled):
    x, y = labelled
    kind = (tf.range(16) % 3)[:, None]

    def logits_fn(x):
        logits = network(x)
        return tf.where(kind == 0, logits, tf.where(kind == 1, tf.round(0.01 * logits), float("nan")))

    settings = {"epsilon": 0.3, "steps": 5, "restarts": 2}
    x_adv = ATTACKS[name](logits_fn, x, y, **settings).numpy()
    without = np.arange(16) % 3 != 0
    np.testing.assert_array_equal(x_adv[without], x[without])
    np.testing.assert_allclose(x_adv[~without], ATTACKS[name](network, x, y, **settings).numpy()[~without], atol=1e-6)
    assert np.any(x_adv != x)


@pytest.mark.parametrize("name", ATTACKS)
def test_other_settings_do_not_compile_again(name, network, labelled):
    traces = []

    def logits_fn(x):
        traces.append(1)
        return network(x)

    attack = functools.partial(ATTACKS[name], logits_fn, *labelled)
    attack(epsilon=0.1, steps=2)
    before = len(traces)
    attack(epsilon=0.2, steps=3, restarts=2, seed=3, weight=10)
    attack(epsilon=0.3, steps=2, **({"gamma": 0.25} if name == "fw" else {"weight": 1.0}))
    assert 0 < before == len(traces)


@pytest.mark.parametrize(
    "name, settings, words",
    [
        ("pgd", {"steps": 0}, "steps is 0"),
        ("pgd", {"weight": -1.0}, "weight is -1.0"),
        ("pgd", {"step_size": 0.0}, "step_size is 0.0"),
        ("pgd", {"norm": "l0"}, "norm is 'l0'; allowed: "),
        ("fw", {"gamma": 0.0}, "gamma is 0.0; allowed: a number above 0 and at most 1"),
        ("fw", {"gamma": 1.5}, "gamma is 1.5"),
        ("fw", {"restarts": 0}, "restarts is 0"),
    ],
)
def test_bad_settings_are_named(name, settings, words, network, labelled):
    with pytest.raises(ValueError, match=words) as raised:
        ATTACKS[name](network, *labelled, **{"epsilon": 0.1, **settings})
    assert "\n" not in str(raised.value)
