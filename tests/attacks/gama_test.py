"""GAMA-PGD and GAMA-FW against their steps computed by hand, with the authors' schedules."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tests.helpers import networks
from tests.helpers.images import classes_of, images, margins
from tests.helpers.recorded import Recorded, constant
from tf_nuat import draws
from tf_nuat.attacks.gama import gama_fw, gama_pgd
from tf_nuat.core import threefry

ATTACKS = {"pgd": gama_pgd, "fw": gama_fw}


@pytest.fixture(scope="module")
def network():
    return networks.drawn(scale=0.5)


@pytest.fixture(scope="module")
def labelled(network):
    x = images()
    return x, classes_of(network, x)


# The steps.


def gradient_by_hand(exact, at, x, y, weight):
    """Returns the gradient of the margin of probabilities plus the guiding term, of one image, in float64."""
    p, clean = (scipy.special.softmax(exact.logits(image.ravel().astype(np.float64))) for image in (at, x))
    unit = np.eye(len(p))
    other = np.argmax(np.where(np.arange(len(p)) == y, -1.0, p))
    to_p = unit[other] - unit[y] + 2.0 * weight * (p - clean)
    return exact.gradient(at, p * (to_p - np.sum(p * to_p)))


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
def test_takes_the_steps_of_the_schedules_until_it_has_an_adversary(name, steps, network, recorded, labelled):
    (x, y), epsilon = labelled, 0.05
    x_adv = ATTACKS[name](recorded, x, y, epsilon=epsilon, steps=steps, seed=2).numpy()
    assert len(recorded.seen) == 1 + steps + 1 and recorded.returned == steps
    on_the_way = recorded.on_the_way(x)
    seen = np.stack(on_the_way, axis=1).astype(np.float64)
    fooled = np.stack([margins(network, batch, y) > 0 for batch in on_the_way], axis=1)
    weights, sizes = schedule(name, steps, epsilon)
    exact, certain = networks.Exact(network), []
    for i in range(len(x)):
        last = int(np.argmax(fooled[i])) if np.any(fooled[i]) else steps
        for step in range(last):
            gradient = gradient_by_hand(exact, seen[i, step], x[i], y[i], weights[step])
            sure = np.abs(gradient) > 1e-3 * np.abs(gradient).max()  # of the sign, in spite of rounding
            expected = moved_by_hand(name, seen[i, step], x[i], gradient, sizes[step], epsilon)
            np.testing.assert_allclose(seen[i, step + 1][sure], expected[sure], atol=1e-6, err_msg=f"{i}, {step}")
            certain.append(np.mean(sure))
        np.testing.assert_array_equal(seen[i, last:], np.broadcast_to(seen[i, last], seen[i, last:].shape))
        np.testing.assert_array_equal(x_adv[i], seen[i, last] if np.any(fooled[i]) else x[i])
    assert np.mean(certain) > 0.9 and 2 < np.sum(fooled[:, -1]) < 14


@pytest.mark.parametrize("name, settings", [("pgd", {"step_size": 0.02, "weight": 3.0}), ("fw", {"gamma": 0.3})])
def test_first_steps_have_the_size_and_the_weight_that_are_given(name, settings, network, recorded, labelled):
    (x, y), epsilon, exact = labelled, 0.02, networks.Exact(network)
    ATTACKS[name](recorded, x, y, epsilon=epsilon, steps=10, **settings)
    start, after = (batch.astype(np.float64) for batch in recorded.on_the_way(x)[:2])
    going_on = margins(network, start, y) <= 0
    for i in np.flatnonzero(going_on):
        gradient = gradient_by_hand(exact, start[i], x[i], y[i], settings.get("weight", 50.0))
        size = settings.get("step_size", settings.get("gamma"))
        sure = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
        expected = moved_by_hand(name, start[i], x[i], gradient, size, epsilon)
        np.testing.assert_allclose(after[i][sure], expected[sure], atol=1e-6)
    assert np.sum(going_on) > 8


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


@pytest.mark.parametrize(
    "name, settings, words",
    [
        ("pgd", {"weight": -1.0}, "weight is -1.0"),
        ("fw", {"gamma": 0.0}, "gamma is 0.0; allowed: a number above 0 and at most 1"),
        ("fw", {"gamma": 1.5}, "gamma is 1.5"),
    ],
)
def test_bad_settings_are_named(name, settings, words, network, labelled):
    with pytest.raises(ValueError, match=words) as raised:
        ATTACKS[name](network, *labelled, **{"epsilon": 0.1, **settings})
    assert "\n" not in str(raised.value)
