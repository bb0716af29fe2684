"""Random search against the distribution that it draws from, and probabilities known in closed form."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import linear
from tests.helpers.images import classes_of, lengths, margins
from tests.helpers.recorded import Recorded, constant
from tf_nuat.attacks.random_search import random_search

SHAPE = linear.SHAPE
NORMS = ("linf", "l2", "l1")


@pytest.fixture(scope="module")
def network():
    return linear.network()


@pytest.fixture(scope="module")
def labelled(network):
    """Images, some of whose pixels are 0 or 1, and the classes that the network gives them."""
    x, _ = linear.batch(64)
    return x, classes_of(network, x)


@pytest.fixture(scope="module")
def recorder():
    return Recorded(constant)


@pytest.fixture(scope="module")
def points(recorder):
    """A function that returns the points (images, queries, H, W, C) of a search that finds nothing."""

    def points(x, **settings):
        recorder.forget()
        random_search(recorder, x, np.zeros(len(x), int), **settings)
        return np.stack(recorder.seen[: settings["queries"]], axis=1)

    return points


def test_points_are_uniform_and_corners_in_turn(points):
    x = np.full((64, *SHAPE), 0.5, np.float32)
    offsets = (points(x, epsilon=0.1, queries=40) - 0.5) / 0.1
    uniform, corners = offsets[:, ::2].ravel(), offsets[:, 1::2].ravel()
    deciles = np.histogram(uniform, bins=10, range=(-1, 1))[0] / uniform.size
    np.testing.assert_allclose(deciles, 0.1, rtol=0.05)
    np.testing.assert_allclose(np.abs(corners), 1.0, atol=1e-5)
    assert abs(corners.mean()) < 0.02
    assert len(np.unique(offsets[:, ::2].reshape(-1, 16), axis=0)) == 64 * 20


def test_points_are_uniform_in_the_ball_of_l2(points):
    x = np.full((64, *SHAPE), 0.5, np.float32)
    offsets = (points(x, epsilon=0.1, queries=40, norm="l2") - 0.5).reshape(-1, 16) / 0.1
    share = np.linalg.norm(offsets, axis=1) ** 16  # of the volume that is nearer to the middle
    np.testing.assert_allclose(np.histogram(share, bins=5, range=(0, 1))[0] / len(share), 0.2, rtol=0.15)
    np.testing.assert_allclose(offsets.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(offsets.var(axis=0), 1 / 18, rtol=0.1)  # 1 / (D + 2)


@pytest.mark.parametrize("norm", NORMS)
def test_finds_an_adversary_as_often_as_chance_does(norm):
    """By symmetry a quarter of the ball fools the network: where two pixels are both above the middle."""
    x = np.full((512, *SHAPE), 0.5, np.float32)

    def logits_fn(x):
        both = (x[:, 0, 0, 0] > 0.5) & (x[:, 3, 3, 0] > 0.5)
        return tf.one_hot(tf.cast(both, tf.int32), 2)

    for queries in (1, 2, 5):
        x_adv = random_search(logits_fn, x, np.zeros(512, int), epsilon=0.1, queries=queries, norm=norm)
        found = np.mean(margins(logits_fn, x_adv, np.zeros(512, int)) > 0)
        # Every other point of L1 is sparse: it changes one pixel of these images.
        drawn = (queries + 1) // 2 if norm == "l1" else queries
        assert abs(found - (1 - 0.75**drawn)) < 0.06


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.3), ("l2", 1.0)])
def test_returns_the_first_point_that_fools_the_network(norm, epsilon, network, labelled, points):
    x, y = labelled
    tried = points(x, epsilon=epsilon, queries=6, norm=norm)
    assert tried.shape[1] == 6
    assert max(lengths(tried[:, k] - x, norm).max() for k in range(6)) <= epsilon + 1e-6
    assert tried.min() >= 0.0 and tried.max() <= 1.0
    fools = np.stack([margins(network, tried[:, k], y) > 0 for k in range(6)], axis=1)
    expected = np.where(fools.any(axis=1)[:, None, None, None], tried[np.arange(64), fools.argmax(axis=1)], x)
    found = random_search(network, x, y, epsilon=epsilon, queries=6, norm=norm)
    np.testing.assert_array_equal(found, expected)
    assert 5 < fools.any(axis=1).sum() < 60 and len(set(fools.argmax(axis=1))) > 2


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"queries": 0}, "queries is 0; allowed: a whole number, at least 1"),
        ({"queries": 2.0}, "queries is 2.0"),
    ],
)
def test_bad_settings_are_named(settings, words, network, labelled):
    with pytest.raises(ValueError, match=words) as raised:
        random_search(network, *labelled, epsilon=0.1, **settings)
    assert "\n" not in str(raised.value)
