"""FAB against closed forms, and against the published algorithm written a second time."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import nearest, networks
from tests.helpers.images import SHAPE, classes_of, images, lengths, margins
from tests.helpers.networks import CLASSES
from tests.helpers.recorded import Recorded
from tf_nuat.attacks.fab import FARTHEST, fab, fab_t, to_hyperplane
from tf_nuat.attacks.search import choose, run_search

SIZE = 32
ATTACKS = {"untargeted": fab, "targeted": fab_t}
FEW = {"untargeted": {"steps": 6, "restarts": 2}, "targeted": {"steps": 6, "targets": 3}}
NORMS = ("linf", "l2")
BOTH = [(name, norm) for name in ATTACKS for norm in NORMS]


@pytest.fixture(scope="module")
def labelled(network):
    """Images, some of whose pixels are 0 or 1, and the classes that the network gives them."""
    x = np.round(images(), 1)
    return x, classes_of(network, x)


# The way to a hyperplane.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e15])
def test_the_way_to_a_hyperplane_is_the_shortest_within_the_range_of_pixels(norm, scale):
    generator = np.random.default_rng(0)
    size = 64
    z = np.clip(generator.uniform(-0.3, 1.3, size=(size, *SHAPE)), 0, 1).astype(np.float32)
    slope = generator.normal(size=(size, *SHAPE)) * generator.uniform(size=(size, *SHAPE)) ** 3
    slope[:, 0] = 0.0
    reach = np.sum(np.abs(slope), axis=(1, 2, 3))
    gap = reach * generator.uniform(-0.7, 0.7, size)  # some cannot be closed
    gap[0] = 0.0
    slope[1] = 0.0
    slope, gap = (scale * slope).astype(np.float32), (scale * gap).astype(np.float32)
    found = to_hyperplane(*map(tf.constant, (z, gap, slope)), norm).numpy()
    steepest = np.maximum(np.abs(slope).max(axis=(1, 2, 3), keepdims=True), 1e-38)
    towards = -np.sign(gap)[:, None, None, None] * slope
    expected = nearest.to_plane(z, towards, np.abs(gap), norm)
    # Where almost all pixels are at the border, those of small slopes have to close the gap, and rounding says how.
    np.testing.assert_allclose(slope / steepest * found, slope / steepest * expected, atol=3e-6)
    possible = np.sum(np.abs(slope) * np.where((gap[:, None, None, None] > 0) == (slope < 0), 1 - z, z), axis=(1, 2, 3))
    clear = np.abs(gap) < 0.98 * possible
    np.testing.assert_allclose(lengths(found, norm)[clear], lengths(expected, norm)[clear], rtol=1e-3)
    assert np.all(z + found >= 0) and np.all(z + found <= 1)
    left = np.abs(gap + np.sum(slope.astype(np.float64) * found, axis=(1, 2, 3)))
    closed = left < 1e-5 * scale * reach
    assert np.all(closed[clear]) and 30 < np.sum(clear) <= np.sum(closed) < 60
    assert not np.any(found[:2]) and not np.any(found[:, 0])  # nothing to do, or nothing that helps
    alone = [to_hyperplane(z[i : i + 1], gap[i : i + 1], tf.constant(slope[i : i + 1]), norm) for i in range(8)]
    np.testing.assert_allclose(found[:8], np.concatenate(alone), atol=1e-7)


# The smallest perturbation of a linear network.


def shortest(x, y, kernel, norm):
    """Returns the distance of each image from the nearest one of another class."""
    found = []
    for image, true in zip(x.astype(np.float64).reshape(-1, SIZE), y):
        slopes = np.delete(kernel - kernel[:, true : true + 1], true, axis=1).T
        gaps = slopes @ (image - 0.5)
        places = np.broadcast_to(image, slopes.shape)
        changes = nearest.to_plane(places, -np.sign(gaps)[:, None] * slopes, np.abs(gaps), norm)
        within = np.abs(gaps + np.sum(slopes * changes, axis=1)) < 1e-9
        found.append(np.min(lengths(changes, norm)[within], initial=np.inf))
    return np.array(found)


@pytest.mark.parametrize("name, norm", BOTH)
def test_finds_the_smallest_perturbation_of_a_linear_network_to_1_percent(name, norm):
    """The range of pixels limits it, but for the untargeted attack, which looks away from that where it chooses a
    class, as published. Two classes are in tests/attacks/linear_test.py.
    """
    kernel, logits_fn = networks.linear(CLASSES, seed=2)
    x = images(32, low=0.3, high=0.7) if name == "untargeted" else np.round(images(32), 1)
    y = logits_fn(x).numpy().argmax(axis=1)
    expected = shortest(x, y, kernel.astype(np.float64), norm)
    assert np.all(np.isfinite(expected))
    x_adv = ATTACKS[name](logits_fn, x, y, norm=norm).numpy()
    ratio = lengths(x_adv - x, norm) / expected
    assert ratio.min() > 1 - 1e-4 and ratio.max() < 1.01
    assert np.median(ratio) < 1.0015
    assert np.all(margins(logits_fn, x_adv, y) > 0) and x_adv.min() >= 0 and x_adv.max() <= 1


# The algorithm, written a second time.


def published(exact, x, z, true, target, norm):
    """Returns where a step leads from z, and by how much another class is farther (infinite where there is a target).

    Args:
        x: the clean image.
        z: where the step begins.
        target: a class, or None for the nearest.
    """
    logits, jacobian = exact.logits(z.ravel()), exact.jacobian(z.ravel()).T
    gaps, slopes = logits - logits[true], (jacobian - jacobian[true]).reshape(-1, *z.shape)
    dual = np.abs(slopes).sum(axis=(1, 2, 3)) if norm == "linf" else np.sqrt((slopes**2).sum(axis=(1, 2, 3)))
    away = np.where(np.arange(CLASSES) == true, np.inf, np.abs(gaps) / np.maximum(dual, 1e-12))
    to, next_best = np.argsort(away)[:2] if target is None else (target, None)
    certainty = np.inf if target is not None else away[next_best] - away[to]
    w, b = slopes[to], np.sum(slopes[to] * z) - gaps[to]  # the hyperplane w . z = b
    left = np.array([np.sum(w * start) - b for start in (z, x)])
    own, clean = nearest.to_plane(np.stack([z, x]), -np.sign(left)[:, None, None, None] * w, np.abs(left), norm)
    a, a_clean = (max(lengths(change[None], norm)[0], 1e-8) for change in (own, clean))
    share = min(a / (a + a_clean), 0.1)
    return np.clip((1 - share) * (z + 1.05 * own) + share * (x + 1.05 * clean), 0, 1), certainty


@pytest.mark.parametrize(
    "name, norm, epsilon",
    [(name, norm, None) for name, norm in BOTH] + [("untargeted", "linf", 1e-4), ("targeted", "linf", 1e-4)],
)
def test_takes_the_steps_of_the_published_algorithm(name, norm, epsilon, recorded, network, labelled):
    """Where epsilon is too small for any adversary too, all runs are made."""
    x, y = labelled
    steps, runs, last = 10, 2, 3 if epsilon is None else 0
    more = {"targets": runs} if name == "targeted" else {"restarts": runs}
    x_adv = ATTACKS[name](recorded, x, y, epsilon=epsilon, steps=steps, norm=norm, **more).numpy()
    assert all(np.all((batch >= 0) & (batch <= 1)) for batch in recorded.seen)
    # The clean images, two forwards a step, and the result.
    assert len(recorded.seen) == 1 + 2 * (steps * runs + last) + 1
    assert recorded.returned == (steps * runs + last) * (1 if name == "targeted" else CLASSES - 1)
    begins, ends = (np.stack(recorded.seen[i : i + 2 * steps * runs : 2], axis=1) for i in (1, 2))
    begins, ends = begins.astype(np.float64), ends.astype(np.float64)
    exact, compared = networks.Exact(network), 0
    ranks = np.argsort(-np.where(np.eye(CLASSES)[y] > 0, -np.inf, network(x)), axis=1)
    adversaries = np.stack([margins(network, ends[:, k], y) for k in range(steps * runs)], axis=1)
    for i in range(8):
        for k in range(steps * runs):
            if k % steps:
                back = x[i] + 0.9 * (ends[i, k - 1] - x[i]) if adversaries[i, k - 1] > 0 else ends[i, k - 1]
                if abs(adversaries[i, k - 1]) > 1e-4:
                    np.testing.assert_allclose(begins[i, k], back, atol=1e-6)
            elif name == "targeted" or k == 0:
                np.testing.assert_array_equal(begins[i, k], x[i])
            target = ranks[i, k // steps] if name == "targeted" else None
            end, certainty = published(exact, x[i].astype(np.float64), begins[i, k], y[i], target, norm)
            if certainty > 1e-4:
                compared += 1
                np.testing.assert_allclose(ends[i, k], end, atol=1e-4, err_msg=f"image {i}, step {k}")
    assert compared > 0.9 * 8 * steps * runs
    met = np.where(
        adversaries > 0, lengths((ends - x[:, None]).reshape(-1, SIZE), norm).reshape(ends.shape[:2]), np.inf
    )
    assert np.all(np.isfinite(met.min(axis=1)))
    distance = lengths(x_adv - x, norm)
    if epsilon is None:  # the search on the segment
        below, above = x.astype(np.float64), ends[np.arange(len(x)), met.argmin(axis=1)]
        for tried in recorded.seen[2 * steps * runs + 2 : -1 : 2]:
            at_below, at_above, at_tried = (margins(network, z, y)[:, None, None, None] for z in (below, above, tried))
            crossing = below + at_below / (at_below - at_above) * (above - below) + 1e-3 * (above - x)
            np.testing.assert_allclose(tried, np.clip(crossing, 0, 1), atol=1e-5)
            nearer = (lengths(tried - x, norm) < lengths(above - x, norm))[:, None, None, None]
            below = np.where(at_tried > 0, below, tried)
            above = np.where((at_tried > 0) & nearer, tried, above)
        np.testing.assert_allclose(x_adv, above, atol=1e-6)
        # Its end is nearer than all that was met.
        assert np.all(margins(network, x_adv, y) > 0)
        assert np.all(distance <= met.min(axis=1) + 1e-7) and np.mean(distance < 0.999 * met.min(axis=1)) > 0.5
        assert np.all(distance >= 0.9 * met.min(axis=1))
    else:
        np.testing.assert_array_equal(x_adv, x)


@pytest.mark.parametrize("norm, epsilon", [("linf", None), ("l2", None), ("linf", 1e-3)])
def test_later_runs_start_at_half_the_distance(norm, epsilon, recorded, network):
    x = images(16, low=0.45, high=0.55)
    y = network(x).numpy().argmax(axis=1)
    fab(recorded, x, y, epsilon=epsilon, steps=2, restarts=2, norm=norm)
    met = [lengths(end - x, norm) + np.where(classes_of(network, end) != y, 0, np.inf) for end in recorded.seen[2:5:2]]
    radius = 0.5 * np.minimum(np.minimum(*met), FARTHEST[norm] if epsilon is None else epsilon)
    start = recorded.seen[5] - x
    np.testing.assert_allclose(lengths(start, norm), radius, rtol=1e-3)
    assert abs(np.mean(start / radius[:, None, None, None])) < 0.1
    assert np.all(np.abs(np.corrcoef(start.reshape(16, -1)) - np.eye(16)) < 0.8)


def test_targets_are_the_wrong_classes_in_the_order_of_their_logits():
    """Each class has a row of its own, which the run towards it makes brighter, and no other."""
    x = np.full((1, *SHAPE), 0.5, np.float32)

    def logits_fn(x):
        own = tf.reduce_mean(x, axis=(2, 3))  # rows 0 to 3 speak for the classes 1 to 4
        return tf.concat([tf.fill((tf.shape(x)[0], 1), 10.0), own + [2.0, 4.0, 1.0, 3.0]], axis=1)

    recorded = Recorded(logits_fn)
    fab_t(recorded, x, np.array([0]), epsilon=0.1, steps=1, targets=9, restarts=2)
    starts, ends = recorded.seen[1:-1:2], recorded.seen[2:-1:2]
    assert len(starts) == len(ends) == 8  # 4 wrong classes, twice each
    for number, (start, end, target) in enumerate(zip(starts, ends, np.repeat([2, 4, 1, 3], 2))):
        brighter = np.all(end[0] > 0.9, axis=(1, 2))
        np.testing.assert_array_equal(brighter, np.arange(1, 5) == target)
        assert np.array_equal(start, x) == (number % 2 == 0)


# What is returned.


@pytest.mark.parametrize("name", ATTACKS)
def test_a_seed_repeats_itself_and_another_does_not(name, recorded, labelled):
    """One step finds no adversary on the way, so that the second run, which begins at random, decides."""
    attack = functools.partial(ATTACKS[name], recorded, *labelled, steps=1, restarts=2)
    np.testing.assert_array_equal(attack(seed=1), attack(seed=1))
    assert np.mean(np.abs(attack(seed=1) - attack(seed=2)) > 1e-6) > 0.02


@pytest.mark.parametrize("name, epsilon", [("untargeted", None), ("targeted", None), ("targeted", 0.05)])
def test_neighbours_at_another_step_make_no_difference(name, epsilon, network, labelled):
    """Half of the images begin later, as where the engine puts new ones into the place of those that are done."""
    x, y = (tf.constant(value) for value in labelled)
    y = tf.where(tf.range(16) == 2, (y + 1) % CLASSES, y)  # wrong from the start
    settings = ATTACKS[name].as_tensors({"epsilon": epsilon, **FEW[name], "restarts": 2})
    search = ATTACKS[name].search(network, x, y, settings, tf.range(16))
    run = tf.function(lambda state, steps: run_search(search, state, steps=steps)[1], autograph=False)
    first, until_all_end = search.first(), tf.constant(1000)
    together = run(first, until_all_end)
    late = tf.range(16) % 2 == 0
    mixed = tf.nest.map_structure(functools.partial(choose, late), first, run(first, tf.constant(5)))
    mixed = run(mixed, until_all_end)
    for field in ("fooled", "spent"):
        np.testing.assert_array_equal(getattr(together, field), getattr(mixed, field))
    np.testing.assert_array_equal(together.x_adv, mixed.x_adv)
    found = together.fooled.numpy()
    np.testing.assert_array_equal(found, margins(network, together.x_adv, y) > 0)
    assert np.all(found) if epsilon is None else 2 < np.sum(found) < 14


@pytest.mark.parametrize("name", ATTACKS)
def test_runs_end_where_all_are_fooled(name, recorded, network, labelled):
    x, y = labelled
    x_adv = ATTACKS[name](recorded, x, y, epsilon=1.0, steps=50, restarts=3).numpy()
    assert np.all(margins(network, x_adv, y) > 0)
    assert len(recorded.seen) < 2 + 2 * 10


def test_fewer_targets_are_the_first_of_more(recorded, labelled):
    x, y = labelled
    attack = functools.partial(fab_t, recorded, x, y, steps=20)
    one, three, four = (lengths(attack(targets=targets) - x, "linf") for targets in (1, 3, 4))
    assert np.all(three <= one * 1.001) and np.any(three < 0.99 * one)
    np.testing.assert_array_equal(lengths(attack() - x, "linf"), four)


@pytest.mark.parametrize("name", ATTACKS)
def test_images_and_classes_without_numbers_do_not_disturb_the_others(name, recorded, network, labelled):
    x, y = labelled

    def logits_fn(x):
        logits = tf.concat([network(x), tf.fill((tf.shape(x)[0], 1), -float("inf"))], axis=1)
        return tf.where((tf.range(16) == 0)[:, None], float("nan"), logits)

    x_adv = ATTACKS[name](logits_fn, x, y, **FEW[name]).numpy()
    np.testing.assert_array_equal(x_adv[0], x[0])
    np.testing.assert_allclose(x_adv[1:], ATTACKS[name](recorded, x, y, **FEW[name])[1:], atol=1e-5)


@pytest.mark.parametrize("name", ATTACKS)
def test_images_that_are_wrong_already_are_returned(name, recorded, labelled):
    x, y = labelled
    wrong = np.where(np.arange(16) < 4, (y + 1) % CLASSES, y)
    x_adv = ATTACKS[name](recorded, x, wrong, **FEW[name]).numpy()
    moved = np.any(x_adv != x, axis=(1, 2, 3))
    np.testing.assert_array_equal(moved, np.arange(16) >= 4)


@pytest.mark.parametrize("name", ATTACKS)
def test_does_within_a_compiled_function_for_batches_of_any_size(name, network, labelled):
    x, y = labelled
    signature = [tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((None,), tf.int64)]
    compiled = tf.function(network)  # its gradients are those of a function's call

    @functools.partial(tf.function, autograph=False, input_signature=signature)
    def attack(x, y):
        return ATTACKS[name](compiled, x, y, epsilon=None, seed=0, **FEW[name])

    together = attack(x, y)
    np.testing.assert_allclose(attack(x[:1], y[:1]), together[:1], atol=1e-5)
    np.testing.assert_allclose(ATTACKS[name](network, x, y, **FEW[name]), together, atol=1e-5)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"alpha_max": 1.5}, "alpha_max is 1.5; allowed: a number at least 0 and at most 1"),
        ({"eta": 0.9}, "eta is 0.9; allowed: a number at least 1"),
        ({"beta": 1.0}, "beta is 1.0; allowed: a number above 0 and below 1"),
    ],
)
def test_bad_settings_are_named(settings, words, network, labelled):
    for attack in ATTACKS.values():
        with pytest.raises(ValueError, match=words) as raised:
            attack(network, *labelled, **{"epsilon": 0.1, **settings})
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="targets is 0; allowed: a whole number, at least 1"):
        fab_t(network, *labelled, epsilon=0.1, targets=0)


def test_an_unknown_norm_is_named_inside_a_compiled_function_too(network, labelled):
    for attack in ATTACKS.values():
        with pytest.raises(ValueError, match="norm is 'l0'; allowed: "):
            tf.function(functools.partial(attack, network, epsilon=0.1, norm="l0"), autograph=False)(*labelled)
