"""Square against closed forms, and against the published algorithm written a second time."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import images as pictures
from tests.helpers import networks
from tests.helpers.images import classes_of, lengths, margins
from tests.helpers.networks import CLASSES
from tests.helpers.recorded import Recorded, constant
from tf_nuat import norms
from tf_nuat.attacks import pgd
from tf_nuat.attacks.autoattack import stages
from tf_nuat.attacks.square import _L1, _L2, LOSSES, WHOLE, _eta, _share, square

SHAPE = (7, 8, 2)
NORMS = ("linf", "l2", "l1")

images = functools.partial(pictures.images, shape=SHAPE)


@pytest.fixture(scope="module")
def network():
    return networks.drawn(SHAPE, scale=0.3, centred=True)


@pytest.fixture(scope="module")
def labelled(network):
    x = images()
    return x, classes_of(network, x)


@pytest.fixture(scope="module")
def robust(network):
    """The same for the three images that are hardest to fool, with some pixels of 0 and 1."""
    x = np.round(images(64), 1)
    y = network(x).numpy().argmax(axis=1)
    hardest = np.argsort(margins(network, x, y))[:3]
    return x[hardest], y[hardest]


@functools.cache
def recorder(network):
    return Recorded(network)


def candidates(network, x, y, **settings):
    """Returns what the attack asks for, (images, forwards, H, W, C)."""
    recorded = recorder(network)
    recorded.forget()
    square(recorded, x, y, **settings)
    return np.stack(recorded.seen, axis=1)


# Closed forms.


def at_distance(distance, shape):
    """Returns a linear network of two classes, and images of the first at an L2 distance from the other."""
    weights = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    x = images(low=0.4, high=0.6, shape=shape)
    along = np.sum((x - 0.5) * weights, axis=(1, 2, 3), keepdims=True)
    x -= (along + distance * np.linalg.norm(weights)) * weights / np.sum(weights**2)

    def logits_fn(x):
        a = tf.reduce_sum((x - 0.5) * weights, axis=(1, 2, 3))
        return tf.stack([-a, a], axis=1)

    return logits_fn, x


def test_comes_near_the_optimum_of_a_linear_network_in_l2():
    """Patterns of 3x3 pixels and more follow weights without any pattern to two thirds of what is possible."""
    logits_fn, x = at_distance(0.1, (7, 7, 1))
    for epsilon, fools in (0.15, True), (0.099, False):
        x_adv = square(logits_fn, x, np.zeros(16, int), epsilon=epsilon, queries=1500, norm="l2")
        np.testing.assert_array_equal(margins(logits_fn, x_adv, np.zeros(16, int)) > 0, fools)


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.1), ("l2", 0.8), ("l1", 5.0)])
def test_fools_a_network_without_gradients(norm, epsilon, network, labelled):
    x, _ = labelled

    def rounded(x):
        return tf.round(5.0 * network(x))

    y = rounded(x).numpy().argmax(axis=1)
    attack = functools.partial(pgd, x=x, y=y, epsilon=epsilon, norm=norm)
    np.testing.assert_array_equal(attack(rounded, random_start=False), x)
    x_adv = square(rounded, x, y, epsilon=epsilon, queries=400, norm=norm)
    assert np.mean(rounded(x_adv).numpy().argmax(axis=1) != y) > 0.8


# The algorithm, written a second time.


def test_windows_shrink_with_the_queries_or_as_in_ten_thousand():
    """AutoAttack's 5,000 queries have every halving at its place among 10,000, the last two of them at none."""
    taken = np.array([0, 11, 51, 201, 1001, 4000, 4001, 4999])
    rescaled, plain = (_share(0.8, tf.constant(taken), each).numpy() for each in (5000, WHOLE))
    np.testing.assert_allclose(rescaled, [share_of_pixels(query, 5000, 0.8) for query in taken])
    np.testing.assert_allclose(plain, [share_of_pixels(query, 10_000, 0.8) for query in taken])
    assert plain[-1] == pytest.approx(0.8 / 2**7) and rescaled[-1] == pytest.approx(0.8 / 2**9)
    [(_, _, settings)] = [each for each in stages({}, num_classes=10, norm="linf") if each[0] == "square"]
    assert settings["rescaled"] is False


def share_of_pixels(query, queries, p_init):
    progress = int(query / queries * 10000)
    thresholds = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    return p_init / 2 ** sum(progress > threshold for threshold in thresholds)


def bests(values):
    """Returns the number of the best candidate so far, before each next one."""
    best = [0]
    for k in range(1, len(values)):
        best.append(k if values[k] > values[best[-1]] else best[-1])
    return best


def changes(best, low, high, side):
    """Yields all images that a query may change `best` to."""
    height, width, channels = best.shape
    for top, left in itertools.product(range(height - side + 1), range(width - side + 1)):
        for bright in itertools.product([False, True], repeat=channels):
            new = best.copy()
            new[top : top + side, left : left + side] = np.where(bright, high, low)[
                top : top + side, left : left + side
            ]
            yield new


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.02), ("l2", 0.2), ("l1", 1.0)])
def test_begins_where_it_is_told_to(norm, epsilon, network, robust):
    """The first forward is of the images given, in the ball; the search goes on from what is the best of them."""
    x, y = robust
    start = np.clip(x + np.float32(0.01), 0.0, 1.0)
    settings = {"epsilon": epsilon, "queries": 20, "norm": norm}
    seen = candidates(network, x, y, start=start, **settings)
    np.testing.assert_allclose(seen[:, 0], norms.of(norm).projection(x, epsilon)(start), atol=1e-6)
    if norm == "linf":
        changed = np.any(seen[:, 1] != start, axis=-1)  # a window of it
        assert np.all(changed.mean(axis=(1, 2)) < 1.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_changes_squares_of_the_best_image(loss, network, robust):
    x, y = robust
    epsilon, queries = 0.02, 200
    seen = candidates(network, x, y, epsilon=epsilon, queries=queries, loss=loss)
    assert seen.shape[1] == queries + 1
    low, high = np.maximum(x - np.float32(epsilon), 0), np.minimum(x + np.float32(epsilon), 1)
    sides = set()
    for i in range(3):
        value = LOSSES[loss](network(seen[i]), tf.repeat(y[i], queries + 1)).numpy()
        best = bests(value)
        for k in range(queries):
            side = max(round(np.sqrt(share_of_pixels(k, queries, 0.8) * 56)), 1)
            sides.add(side)
            options = changes(seen[i, best[k]], low[i], high[i], side)
            assert any(np.array_equal(seen[i, k + 1], option) for option in options), (i, k, side)
        assert len(set(best)) > 10
    assert sides == {7, 5, 3, 2, 1}


def length_of_each(change, order):
    """Returns the length of each channel of a change (H, W, C)."""
    return np.sum(np.abs(change) ** order, axis=(0, 1)) ** (1 / order)


def pile(height, width, order):
    """Returns concentric rectangles, one upon the other, scaled to length 1."""
    total = np.zeros((height, width))
    for n in range(max(height // 2, width // 2) + 1):
        rows = slice(max(height // 2 - n, 0), height // 2 + n + 1)
        columns = slice(max(width // 2 - n, 0), width // 2 + n + 1)
        total[rows, columns] += 1 / (n + 1) ** {2: 2, 1: 4}[order]
    return total / length_of_each(total, order)


def eta(side, order=2):
    halves = [pile(side // 2, side, order), -pile(side - side // 2, side, order)]
    return np.concatenate(halves) / 2 ** (1 / order)


@pytest.mark.parametrize("measure, order", [(_L2, 2), (_L1, 1)])
@pytest.mark.parametrize("side", range(2, 12))
def test_the_pattern_is_that_of_the_papers(side, measure, order):
    for sideways in (False, True):
        expected = np.zeros((11, 12))
        expected[:side, 1 : side + 1] = eta(side, order).T if sideways else eta(side, order)
        rows, columns = tf.range(11)[None], tf.range(12)[None] - 1
        found = _eta(measure, rows, columns, tf.constant([side]), tf.constant([sideways]))[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def moved_changes(old, epsilon, side, order):
    """Returns all changes (N, H, W, C) that a query may turn `old` into, before they are brought into the ball."""
    height, width, channels = old.shape
    corners = list(itertools.product(range(height - side + 1), range(width - side + 1)))
    windows = [(slice(top, top + side), slice(left, left + side)) for top, left in corners]
    unused = max(epsilon**order - np.sum(np.abs(old) ** order), 0) / channels
    signed = [
        pattern[..., None] * np.array(signs)
        for pattern in (eta(side, order), eta(side, order).T)
        for signs in itertools.product([-1, 1], repeat=channels)
    ]
    changes = []
    for one in windows:
        inside = old[one] / (1e-12 + length_of_each(old[one], order)) + np.stack(signed)
        inside /= np.stack([length_of_each(each, order) for each in inside])[:, None, None]
        for two in windows:
            both = np.zeros((height, width, 1))
            both[one] = both[two] = 1
            budget = (unused + length_of_each(old * both, order) ** order) ** (1 / order)
            new = np.repeat((old * (1 - both))[None], len(inside), axis=0)
            new[:, *one] = inside * budget * {2: 1, 1: channels}[order]
            changes.append(new)
    return np.concatenate(changes)


def into_ball(x, changes, epsilon, order):
    """Returns the images x + changes, brought into the ball."""
    if order == 2:
        unit = changes / np.sqrt(np.sum(changes**2, axis=(1, 2, 3), keepdims=True))
        return np.clip(x + epsilon * unit, 0, 1)
    return norms.of("l1").projection(tf.constant(x[None]), epsilon)(tf.constant(x + changes, tf.float32)).numpy()


@pytest.mark.parametrize("norm, epsilon", [("l2", 0.2), ("l1", 0.5)])
def test_moves_the_change_between_windows(norm, epsilon, network, robust):
    x, y = robust
    queries, p_init, order = {"l2": 6, "l1": 4}[norm], 0.3, norms.of(norm).order
    seen = candidates(network, x, y, epsilon=epsilon, queries=queries, p_init=p_init, norm=norm)
    sides = set()
    for i in range(2):
        best = bests(margins(network, seen[i], np.repeat(y[i], queries + 1)))
        for k in range(queries):
            side = max(round(np.sqrt(share_of_pixels(k, queries, p_init) * 56)), 3)
            side += 1 - side % 2
            sides.add(side)
            changes = moved_changes(seen[i, best[k]] - x[i].astype(np.float64), epsilon, side, order)
            nearest = np.abs(into_ball(x[i], changes, epsilon, order) - seen[i, k + 1]).max(axis=(1, 2, 3)).min()
            assert nearest < 1e-5, (i, k, side)
    assert sides == {5, 3}, sides


def test_windows_are_anywhere_as_often():
    x = np.full((64, *SHAPE), 0.5, np.float32)
    seen = candidates(constant, x, np.zeros(64, int), epsilon=0.1, queries=400, p_init=0.001)
    changed = np.mean(seen[:, 1:] != seen[:, :1], axis=(0, 1))
    np.testing.assert_allclose(changed, 0.5 / 56, rtol=0.3)  # the sign is the old one half of the time
    np.testing.assert_allclose(changed.mean(), 0.5 / 56, rtol=0.04)
    # An image goes a way of its own.
    assert len(np.unique((seen[:, 1:] != seen[:, :1])[:, :5].reshape(64, -1), axis=0)) > 60


def test_starts_from_vertical_stripes():
    x = images(64)
    start = candidates(constant, x, np.zeros(64, int), epsilon=0.1, queries=1)[:, 0]
    bright = start > x
    np.testing.assert_allclose(start, np.clip(x + np.where(bright, 0.1, -0.1), 0, 1), atol=1e-6)
    np.testing.assert_array_equal(bright, np.tile(bright[:, :1], (1, SHAPE[0], 1, 1)))
    assert abs(np.mean(bright[:, 0]) - 0.5) < 0.06
    assert len(np.unique(bright[:, 0].reshape(64, -1), axis=0)) == 64


@pytest.mark.parametrize("norm, epsilon, length", [("l2", 0.3, 0.3 / np.sqrt(60)), ("l1", 100.0, 1.0)])
def test_starts_from_tiles(norm, epsilon, length):
    """In L1 each has length 1, where the ball has room for all of them."""
    x = np.full((64, 11, 12, 2), 0.5, np.float32)
    start = candidates(constant, x, np.zeros(64, int), epsilon=epsilon, queries=1, norm=norm)[:, 0]
    # 5 x 6 tiles of 2 x 2 pixels, the row that is left over is the last.
    np.testing.assert_array_equal(start[:, 10], 0.5)
    tiles = np.moveaxis((start - x)[:, :10].reshape(64, 5, 2, 6, 2, 2), (2, 4), (-2, -1)).reshape(-1, 2, 2)
    tiles /= length
    tile = eta(2, norms.of(norm).order)
    kinds = np.stack([tile, -tile, tile.T, -tile.T])
    distances = np.abs(tiles[:, None] - kinds).max(axis=(2, 3))
    assert np.all(distances.min(axis=1) < 1e-5)
    np.testing.assert_allclose(np.bincount(distances.argmin(axis=1)) / len(tiles), 0.25, atol=0.04)


# What is returned.


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.05), ("l2", 0.3), ("l2", 5.0), ("l1", 1.5)])
def test_every_image_it_asks_for_is_valid(norm, epsilon, network, labelled):
    x, y = np.round(labelled[0], 1), labelled[1]
    seen = candidates(network, x, y, epsilon=epsilon, queries=100, norm=norm)
    offsets = seen - x[:, None]
    assert np.all(lengths(offsets.reshape(-1, *SHAPE), norm) <= epsilon + 1e-6)
    assert seen.min() >= 0.0 and seen.max() <= 1.0
    if norm == "l2" and epsilon < 1:
        inner = images(low=0.4, high=0.6)
        seen = candidates(constant, inner, np.zeros(16, int), epsilon=epsilon, queries=50, norm=norm)
        used = lengths((seen - inner[:, None]).reshape(-1, *SHAPE), norm)
        np.testing.assert_allclose(used, epsilon, atol=1e-5)


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.05), ("l2", 0.4), ("l1", 2.5)])
def test_more_queries_fool_more(norm, epsilon, network, labelled):
    x, y = labelled
    few, many = (square(network, x, y, epsilon=epsilon, norm=norm, seed=3, queries=number) for number in (10, 300))
    assert np.sum(margins(network, many, y) > 0) > np.sum(margins(network, few, y) > 0)


@pytest.mark.parametrize("norm", NORMS)
def test_searches_end_where_all_are_fooled(norm, network, labelled):
    """A query is a forward, and so is a start; restarts begin anew."""
    x, y = labelled
    seen = candidates(network, x, y, epsilon=1e-4, queries=6, restarts=3, norm=norm)
    assert seen.shape[1] == 3 * 7
    assert len(np.unique(seen[0, ::7], axis=0)) == 3
    wrong = (y + 1) % CLASSES
    assert candidates(network, x, wrong, epsilon=1e-4, queries=6, norm=norm).shape[1] == 2  # and one to look at it


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 9, 2)])
def test_takes_small_and_oblong_images(shape, norm):
    x = np.full((4, *shape), 0.5, np.float32)
    x[0] = 0.0
    seen = candidates(constant, x, np.zeros(4, int), epsilon=0.1, queries=30, p_init=1.0, norm=norm)
    assert np.all(lengths((seen - x[:, None]).reshape(-1, *shape), norm) <= 0.1 + 1e-6) and seen.min() >= 0.0
    assert np.all(np.any(seen[:, 1:] != seen[:, :-1], axis=(1, 2, 3, 4)))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"queries": 0}, "queries is 0; allowed: a whole number, at least 1"),
        ({"queries": 10.0}, "queries is 10.0"),
        ({"p_init": 0.0}, "p_init is 0.0"),
        ({"p_init": 1.5}, "p_init is 1.5"),
        ({"loss": "dlr"}, "loss is 'dlr'; allowed: ce, margin"),
    ],
)
def test_bad_settings_are_named(settings, words, network, labelled):
    with pytest.raises(ValueError, match=words) as raised:
        square(network, *labelled, epsilon=0.1, **settings)
    assert "\n" not in str(raised.value)
