"""FAB against closed forms, and against the published algorithm written a second time."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_nuat import losses, norms
from tf_nuat.attacks.fab import FARTHEST, fab, fab_t, to_hyperplane
from tf_nuat.attacks.search import choose, run_search

SHAPE = (4, 4, 2)
SIZE = 32
CLASSES = 5
ATTACKS = {"untargeted": fab, "targeted": fab_t}
FEW = {"untargeted": {"steps": 6, "restarts": 2}, "targeted": {"steps": 6, "targets": 3}}
BOTH = [(name, norm) for name in ATTACKS for norm in norms.NORMS]
EPSILON = {"linf": 0.1, "l2": 0.4}


def images(size=16, low=0.0, high=1.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, size=(size, *SHAPE)).astype(np.float32)


def lengths(difference, norm):
    flat = np.reshape(difference, (len(difference), -1))
    return np.abs(flat).max(axis=1) if norm == "linf" else np.linalg.norm(flat, axis=1)


def margins(logits_fn, x, y):
    return losses.margin(logits_fn(tf.constant(x, tf.float32)), tf.constant(y)).numpy()


@pytest.fixture(scope="module")
def network():
    generator = np.random.default_rng(1)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="tanh"),
            keras.layers.Dense(CLASSES),
        ]
    )
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def labelled(network):
    """Images, some of whose pixels are 0 or 1, and the classes that the network gives them."""
    x = np.round(images(), 1)
    return x, network(x).numpy().argmax(axis=1)


# The way to a hyperplane.


def nearest(z, gap, slope, norm):
    """Returns the smallest change of an image that closes the gap, and all that can be done where none does.

    In float64, by bisection: the longest change allowed grows until what it gains suffices.
    """
    z, gap, slope = (np.asarray(value, np.float64) for value in (z, gap, slope))
    way = -np.sign(gap) * np.sign(slope)
    room = np.where(way > 0, 1 - z, z)
    size = np.abs(slope) / np.abs(slope).max() if norm == "l2" and np.any(slope) else np.ones_like(z)

    def change(scale):
        return way * np.minimum(scale * size, room)

    low, high = 0.0, np.max(room[size > 0] / size[size > 0])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(np.abs(slope * change(middle))) < np.abs(gap) else (low, middle)
    return change(high)


@pytest.mark.parametrize("norm", norms.NORMS)
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
    expected = np.stack([nearest(*case, norm) for case in zip(z, gap, slope)])
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


def linear(classes, seed=2):
    kernel = np.random.default_rng(seed).normal(size=(SIZE, classes)).astype(np.float32)

    def logits_fn(x):
        return tf.reshape(x - 0.5, (-1, SIZE)) @ kernel

    return logits_fn, kernel.astype(np.float64)


def shortest(x, y, kernel, norm):
    """Returns the distance of each image from the nearest one of another class."""
    found = []
    for image, true in zip(x.astype(np.float64).reshape(-1, SIZE), y):
        slopes = np.delete(kernel - kernel[:, true : true + 1], true, axis=1).T
        gaps = slopes @ (image - 0.5)
        changes = np.stack([nearest(image, gap, slope, norm) for gap, slope in zip(gaps, slopes)])
        within = np.abs(gaps + np.sum(slopes * changes, axis=1)) < 1e-9
        found.append(np.min(lengths(changes, norm)[within], initial=np.inf))
    return np.array(found)


@pytest.mark.parametrize("norm", norms.NORMS)
@pytest.mark.parametrize("name, classes", [("untargeted", 2), ("untargeted", CLASSES), ("targeted", CLASSES)])
def test_finds_the_smallest_perturbation_of_a_linear_network_to_1_percent(name, norm, classes):
    """The range of pixels limits it, but for the untargeted attack on several classes, which looks away from that where
    it chooses a class, as published.
    """
    logits_fn, kernel = linear(classes)
    x = images(32, low=0.3, high=0.7) if (name, classes) == ("untargeted", CLASSES) else np.round(images(32), 1)
    y = logits_fn(x).numpy().argmax(axis=1)
    expected = shortest(x, y, kernel, norm)
    assert np.all(np.isfinite(expected))
    x_adv = ATTACKS[name](logits_fn, x, y, norm=norm).numpy()
    ratio = lengths(x_adv - x, norm) / expected
    assert ratio.min() > 1 - 1e-4 and ratio.max() < 1.01
    assert np.median(ratio) < 1.0015
    assert np.all(margins(logits_fn, x_adv, y) > 0) and x_adv.min() >= 0 and x_adv.max() <= 1


@pytest.mark.parametrize("name, norm", [("untargeted", "l2"), ("targeted", "linf")])
def test_fools_a_linear_network_exactly_where_epsilon_allows_it(name, norm):
    logits_fn, kernel = linear(2)
    x = np.round(images(32), 1)
    y = logits_fn(x).numpy().argmax(axis=1)
    y[:3] = 1 - y[:3]  # wrong from the start
    distance = np.where(np.arange(32) < 3, 0.0, shortest(x, y, kernel, norm))
    epsilon = float(np.median(distance))
    x_adv = ATTACKS[name](logits_fn, x, y, epsilon=epsilon, norm=norm).numpy()
    fooled = margins(logits_fn, x_adv, y) > 0
    clear = np.abs(distance / epsilon - 1) > 0.01
    np.testing.assert_array_equal(fooled[clear], distance[clear] < epsilon)
    assert np.sum(clear) > 25
    assert lengths(x_adv - x, norm).max() <= epsilon + 1e-6
    np.testing.assert_array_equal(x_adv[:3], x[:3])
    np.testing.assert_array_equal(x_adv[~fooled], x[~fooled])


# The algorithm, written a second time.


class Recorded:
    """A network that keeps the batches it was given, in their order, and counts the gradients that came back."""

    def __init__(self, network):
        self.network, self.seen, self.returned, self.traces = network, [], 0, 0

    def __call__(self, x):
        self.traces += 1

        def keep(x):
            self.seen.append(x.copy())

        def count():
            self.returned += 1

        def backward(upstream):
            # Stateful, so that TensorFlow neither drops nor merges what it counts.
            with tf.control_dependencies([tf.numpy_function(count, [], [], stateful=True)]):
                return tf.identity(upstream)

        with tf.control_dependencies([tf.numpy_function(keep, [x], [], stateful=True)]):
            x = tf.identity(x)
        return self.network(tf.custom_gradient(lambda v: (tf.identity(v), backward))(x))


@pytest.fixture(scope="module")
def recorder(network):
    return Recorded(network)


@pytest.fixture
def recorded(recorder):
    """A network that is compiled once for all tests, and has seen nothing yet."""
    recorder.seen, recorder.returned = [], 0
    return recorder


def differences(network, z, true):
    """Returns the logits minus the true one, and their gradients (K, H, W, C), in float64, for logits W2 tanh(W1 z)."""
    first, first_bias, second, second_bias = (weight.astype(np.float64) for weight in network.get_weights())
    hidden = np.tanh(z.ravel() @ first + first_bias)
    logits = hidden @ second + second_bias
    gradients = ((first * (1 - hidden**2)) @ second).T
    return logits - logits[true], (gradients - gradients[true]).reshape(-1, *z.shape)


def published(network, x, z, true, target, norm):
    """Returns where a step leads from z, and by how much another class is farther (infinite where there is a target).

    Args:
        x: the clean image.
        z: where the step begins.
        target: a class, or None for the nearest.
    """
    gaps, slopes = differences(network, z, true)
    dual = np.abs(slopes).sum(axis=(1, 2, 3)) if norm == "linf" else np.sqrt((slopes**2).sum(axis=(1, 2, 3)))
    away = np.where(np.arange(CLASSES) == true, np.inf, np.abs(gaps) / np.maximum(dual, 1e-12))
    to, next_best = np.argsort(away)[:2] if target is None else (target, None)
    certainty = np.inf if target is not None else away[next_best] - away[to]
    w, b = slopes[to], np.sum(slopes[to] * z) - gaps[to]  # the hyperplane w . z = b
    own, clean = (nearest(start, np.sum(w * start) - b, w, norm) for start in (z, x))
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
    # The clean images, two forwards a step, and the result.
    assert len(recorded.seen) == 1 + 2 * (steps * runs + last) + 1
    assert recorded.returned == (steps * runs + last) * (1 if name == "targeted" else CLASSES - 1)
    begins, ends = (np.stack(recorded.seen[i : i + 2 * steps * runs : 2], axis=1) for i in (1, 2))
    begins, ends = begins.astype(np.float64), ends.astype(np.float64)
    compared = 0
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
            end, certainty = published(network, x[i].astype(np.float64), begins[i, k], y[i], target, norm)
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
    met = [lengths(end - x, norm) + np.where(margins(network, end, y) > 0, 0, np.inf) for end in recorded.seen[2:5:2]]
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


@pytest.mark.parametrize("name, norm", BOTH)
def test_is_in_the_ball_and_fools_the_network_or_is_clean(name, norm, recorded, network, labelled):
    x, y = labelled
    for epsilon in (0.3 * EPSILON[norm], 10.0):
        x_adv = ATTACKS[name](recorded, x, y, epsilon=epsilon, norm=norm, **FEW[name]).numpy()
        assert np.all(lengths(x_adv - x, norm) <= epsilon + 1e-6) and x_adv.min() >= 0.0 and x_adv.max() <= 1.0
        fooled = margins(network, x_adv, y) > 0
        np.testing.assert_array_equal(x_adv[~fooled], x[~fooled])
        assert np.all(fooled) if epsilon == 10.0 else (np.any(fooled) and not np.all(fooled))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_seed_repeats_itself_and_another_does_not(name, recorded, labelled):
    """One step finds no adversary on the way, so that the second run, which begins at random, decides."""
    attack = functools.partial(ATTACKS[name], recorded, *labelled, steps=1, restarts=2)
    np.testing.assert_array_equal(attack(seed=1), attack(seed=1))
    assert np.mean(np.abs(attack(seed=1) - attack(seed=2)) > 1e-6) > 0.02


@pytest.mark.parametrize("name", ATTACKS)
def test_one_hot_labels_do_what_integers_do(name, recorded, labelled):
    x, y = labelled
    attack = functools.partial(ATTACKS[name], recorded, x, **FEW[name])
    np.testing.assert_array_equal(attack(y), attack(np.eye(CLASSES, dtype=np.float32)[y]))


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
def test_more_restarts_fool_the_same_and_more(name):
    """Ripples on a slope: which of the boundaries is found depends on the start."""
    directions = np.random.default_rng(5).normal(size=(SIZE, CLASSES - 1)).astype(np.float32)

    def logits_fn(x):
        along = tf.reshape(x - 0.5, (-1, SIZE)) @ directions
        wrong = along + 0.7 * tf.sin(8.0 * along)
        return tf.concat([tf.fill((tf.shape(x)[0], 1), 4.0), wrong], axis=1)

    x, y = images(32), np.zeros(32, int)
    settings = {"epsilon": 0.15, "steps": 5, "seed": 2}
    once, often = (margins(logits_fn, ATTACKS[name](logits_fn, x, y, restarts=n, **settings), y) > 0 for n in (1, 6))
    assert np.all(often >= once) and np.any(often & ~once) and np.any(once)


@pytest.mark.parametrize(
    "name, epsilon, scale", [("untargeted", 0.2, 0.01), ("targeted", None, 0.01), ("targeted", 0.2, np.nan)]
)
def test_networks_without_gradients_or_numbers_leave_the_images_clean(name, epsilon, scale, network, labelled):
    x, y = labelled
    x_adv = ATTACKS[name](lambda x: tf.round(scale * network(x)), x, y, epsilon=epsilon, **FEW[name])
    np.testing.assert_array_equal(x_adv, x)


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
def test_images_that_are_wrong_already_and_epsilon_0_return_the_images(name, recorded, labelled):
    x, y = labelled
    wrong = np.where(np.arange(16) < 4, (y + 1) % CLASSES, y)
    np.testing.assert_array_equal(ATTACKS[name](recorded, x, wrong, epsilon=0.0, **FEW[name]), x)
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


@pytest.mark.parametrize("name", ATTACKS)
def test_other_settings_do_not_compile_again(name, recorded, labelled):
    attack = functools.partial(ATTACKS[name], recorded, *labelled)
    attack(epsilon=0.1, **FEW[name])
    before = recorded.traces
    attack(epsilon=0.2, steps=3, restarts=1, seed=3, alpha_max=0.2, eta=1.1, beta=0.8)
    attack(epsilon=0.3, steps=2, restarts=3, seed=4)
    assert 0 < before == recorded.traces


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"norm": "l0"}, "norm is 'l0'; allowed"),
        ({"alpha_max": 1.5}, "alpha_max is 1.5; allowed: a number at least 0 and at most 1"),
        ({"eta": 0.9}, "eta is 0.9; allowed: a number at least 1"),
        ({"beta": 1.0}, "beta is 1.0; allowed: a number above 0 and below 1"),
        ({"epsilon": -0.1}, "epsilon is -0.1"),
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
