"""Random search against the distribution that it draws from, and probabilities known in closed form."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import linear
from tf_nuat import losses, norms
from tf_nuat.attacks.random_search import random_search

SHAPE = linear.SHAPE


def margins(logits_fn, x, y):
    return losses.margin(logits_fn(tf.constant(x, tf.float32)), tf.constant(y)).numpy()


@pytest.fixture(scope="module")
def network():
    return linear.network()


@pytest.fixture(scope="module")
def labelled(network):
    """Images, some of whose pixels are 0 or 1, and the classes that the network gives them."""
    x, _ = linear.batch(64)
    return x, network(x).numpy().argmax(axis=1)


class Recorded:
    """A network that keeps the batches it was given, in their order, and is never fooled."""

    def __init__(self):
        self.seen = []

    def __call__(self, x):
        with tf.control_dependencies([tf.numpy_function(lambda x: self.seen.append(x.copy()), [x], [], stateful=True)]):
            return tf.zeros((tf.shape(x)[0], 2)) + tf.constant([1.0, 0.0])


def points(x, **settings):
    """Returns the points (images, queries, H, W, C)."""
    recorded = Recorded()
    random_search(recorded, x, np.zeros(len(x), int), **settings)
    return np.stack(recorded.seen, axis=1)


def test_points_are_uniform_and_corners_in_turn():
    x = np.full((64, *SHAPE), 0.5, np.float32)
    offsets = (points(x, epsilon=0.1, queries=40) - 0.5) / 0.1
    uniform, corners = offsets[:, ::2].ravel(), offsets[:, 1::2].ravel()
    deciles = np.histogram(uniform, bins=10, range=(-1, 1))[0] / uniform.size
    np.testing.assert_allclose(deciles, 0.1, rtol=0.05)
    np.testing.assert_allclose(np.abs(corners), 1.0, atol=1e-5)
    assert abs(corners.mean()) < 0.02
    assert len(np.unique(offsets[:, ::2].reshape(-1, 16), axis=0)) == 64 * 20


def test_points_are_uniform_in_the_ball_of_l2():
    x = np.full((64, *SHAPE), 0.5, np.float32)
    offsets = (points(x, epsilon=0.1, queries=40, norm="l2") - 0.5).reshape(-1, 16) / 0.1
    share = np.linalg.norm(offsets, axis=1) ** 16  # of the volume that is nearer to the middle
    np.testing.assert_allclose(np.histogram(share, bins=5, range=(0, 1))[0] / len(share), 0.2, rtol=0.15)
    np.testing.assert_allclose(offsets.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(offsets.var(axis=0), 1 / 18, rtol=0.1)  # 1 / (D + 2)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_finds_an_adversary_as_often_as_chance_does(norm):
    """By symmetry a quarter of the ball fools the network: where two pixels are both above the middle."""
    x = np.full((512, *SHAPE), 0.5, np.float32)

    def logits_fn(x):
        both = (x[:, 0, 0, 0] > 0.5) & (x[:, 3, 3, 0] > 0.5)
        return tf.one_hot(tf.cast(both, tf.int32), 2)

    for queries in (1, 2, 5):
        x_adv = random_search(logits_fn, x, np.zeros(512, int), epsilon=0.1, queries=queries, norm=norm)
        found = np.mean(margins(logits_fn, x_adv, np.zeros(512, int)) > 0)
        assert abs(found - (1 - 0.75**queries)) < 0.06


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.3), ("l2", 1.0)])
def test_returns_the_first_point_that_fools_the_network(norm, epsilon, network, labelled):
    x, y = labelled
    tried = points(x, epsilon=epsilon, queries=6, norm=norm)
    assert tried.shape[1] == 6
    distance = np.abs(tried - x[:, None]).reshape(64, 6, -1)
    distance = distance.max(axis=2) if norm == "linf" else np.linalg.norm(distance, axis=2)
    assert distance.max() <= epsilon + 1e-6 and tried.min() >= 0.0 and tried.max() <= 1.0
    fools = np.stack([margins(network, tried[:, k], y) > 0 for k in range(6)], axis=1)
    expected = np.where(fools.any(axis=1)[:, None, None, None], tried[np.arange(64), fools.argmax(axis=1)], x)
    found = random_search(network, x, y, epsilon=epsilon, queries=6, norm=norm)
    np.testing.assert_array_equal(found, expected)
    assert 5 < fools.any(axis=1).sum() < 60 and len(set(fools.argmax(axis=1))) > 2


def test_neighbours_and_the_form_of_labels_make_no_difference(network, labelled):
    x, y = labelled
    settings = {"epsilon": 0.3, "queries": 5, "seed": 3}
    together = random_search(network, x, y, **settings).numpy()
    np.testing.assert_array_equal(random_search(network, x, np.eye(3, dtype=np.float32)[y], **settings), together)
    np.testing.assert_array_equal(
        random_search(network, x[40:], y[40:], index=np.arange(40, 64), **settings), together[40:]
    )
    assert np.any(together[40:] != x[40:])
    np.testing.assert_array_equal(random_search(network, x[63:], y[63:], index=[63], **settings), together[63:])


def test_a_seed_repeats_itself_and_another_does_not(network, labelled):
    attack = functools.partial(random_search, network, *labelled, epsilon=1.0, queries=5)
    np.testing.assert_array_equal(attack(seed=1), attack(seed=1))
    assert np.mean(attack(seed=1) != attack(seed=2)) > 0.5


@pytest.mark.parametrize("norm", norms.NORMS)
def test_epsilon_0_and_networks_without_numbers_return_the_images(norm, network, labelled):
    x, y = labelled
    wrong = np.where(np.arange(64) < 4, (y + 1) % 3, y)
    np.testing.assert_array_equal(random_search(network, x, wrong, epsilon=0.0, queries=3, norm=norm), x)
    nothing = random_search(lambda x: network(x) * float("nan"), x, y, epsilon=0.3, queries=3, norm=norm)
    np.testing.assert_array_equal(nothing, x)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"queries": 0}, "queries is 0; allowed: a whole number, at least 1"),
        ({"queries": 2.0}, "queries is 2.0"),
        ({"norm": "l0"}, "norm is 'l0'; allowed"),
    ],
)
def test_bad_settings_are_named(settings, words, network, labelled):
    with pytest.raises(ValueError, match=words) as raised:
        random_search(network, *labelled, epsilon=0.1, **settings)
    assert "\n" not in str(raised.value)
