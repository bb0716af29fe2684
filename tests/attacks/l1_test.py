"""The L1 threat model: attacks against closed forms, and APGD against the published algorithm written a second time.

The norm itself is in tests/norms_test.py, Square's windows are in tests/attacks/square_test.py.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import networks
from tests.helpers.images import classes_of, lengths, margins
from tests.helpers.networks import CLASSES
from tests.helpers.recorded import Recorded, constant
from tf_nuat import attacks, losses, norms
from tf_nuat.evaluate import __main__ as evaluation

SHAPE = (5, 4, 2)
LARGE = (10, 10, 3)
L1 = norms.of("l1")
# What share of the optimum each is to reach, with which settings. Searches follow weights without any pattern badly.
NEARLY_ALL = {
    "pgd": (0.99, {"steps": 200}),
    "apgd_ce": (0.99, {"steps": 50}),
    "apgd_dlr": (0.99, {"steps": 50}),
    "apgd_t": (0.99, {"steps": 50, "targets": 1}),
    "square": (0.2, {"queries": 500}),
    "random_search": (0.15, {"queries": 200}),
}


def images(size=16, shape=SHAPE, seed=0):
    """Returns images, some of whose pixels are 0 or 1."""
    drawn = np.random.default_rng(seed).uniform(-0.1, 1.1, size=(size, *shape))
    return np.clip(drawn, 0.0, 1.0).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return networks.drawn(SHAPE, scale=0.4)


@pytest.fixture(scope="module")
def labelled(network):
    x = images()
    return x, classes_of(network, x)


# Closed forms.


def largest_rise(slope, x, epsilon):
    """Returns how much a linear function rises within epsilon and [0, 1] at most: the steepest pixels go to the border.

    Args:
        slope: (H, W, C), the gradient of the function.
        x: images (B, H, W, C).
    """
    risen = np.zeros(len(x))
    left = np.full(len(x), float(epsilon))
    room = np.where(slope > 0, 1.0 - x, x).reshape(len(x), -1).astype(np.float64)
    for place in np.argsort(-np.abs(slope.ravel())):
        moved = np.minimum(room[:, place], left)
        risen, left = risen + moved * np.abs(slope.ravel()[place]), left - moved
    return risen


def linear_function(x, slope):
    """Returns a linear network of four classes, and how much a logit rises (B,) before each image fools it."""
    needed = tf.Variable(tf.zeros(len(x)))
    clean = tf.constant(np.sum(x * slope, axis=(1, 2, 3)), tf.float32)

    def logits_fn(x):
        a = tf.reduce_sum(x * slope, axis=(1, 2, 3)) - clean - needed
        return tf.stack([-a, a, tf.fill(tf.shape(a), -30.0), tf.fill(tf.shape(a), -31.0)], axis=1)

    return logits_fn, needed


@pytest.mark.parametrize("name", NEARLY_ALL)
def test_comes_near_the_optimum_of_a_linear_network(name):
    """It never gets more, and the attacks with gradients get 99 percent. In wider balls they would get more."""
    share, settings = NEARLY_ALL[name]
    slope, x, y = np.random.default_rng(2).normal(size=LARGE).astype(np.float32), images(shape=LARGE), np.zeros(16, int)
    optimum = largest_rise(slope, x, 5.0)
    logits_fn, needed = linear_function(x, slope)
    for rise, fools in (share * optimum, True), (1.001 * optimum, False):
        needed.assign(rise.astype(np.float32))
        x_adv = attacks.ATTACKS[name](logits_fn, x, y, epsilon=5.0, norm="l1", **settings).numpy()
        np.testing.assert_array_equal(margins(logits_fn, x_adv, y) > 0, fools)
        assert np.all(lengths(x_adv - x, "l1") <= 5.0 + 1e-5)


# Algorithms, written a second time.


def gradient_by_hand(exact, x, y):
    """Returns the gradient of the cross-entropy at an image, in float64."""
    z = exact.logits(np.float64(x.ravel()))
    return exact.gradient(np.float64(x), np.exp(z - z.max()) / np.exp(z - z.max()).sum() - np.eye(CLASSES)[y])


@tf.function(autograph=False)
def projected_tensors(z, x, epsilon):
    return L1.projection(x[None], epsilon)(z[None])[0]


def projected(z, x, epsilon):
    return projected_tensors(*(tf.constant(each, tf.float32) for each in (z, x, epsilon))).numpy()


def published(iterates, values, gradient_at, x, epsilon, steps):
    """Returns where APGD goes from all iterates but the last, which of them are beyond doubt, and some step sizes.

    Three parts of 30, 30 and 40 percent of the steps. The iterates are those of an attack, so that no error of rounding
    grows from one step to the next.
    """
    parts = [int(np.ceil(0.3 * steps)), int(np.ceil(0.3 * steps))]
    parts.append(steps - sum(parts))
    moved, certain, sizes, number = [], [], [], 0

    def changed(image):
        return np.count_nonzero(image != x)

    for multiple, length in zip((3, 2, 1), parts):
        begin, radius = number, multiple * epsilon
        size, pixels, sparsity = radius, changed(iterates[begin]) / 1.5, changed(iterates[begin])
        every = max(int(0.04 * length), 1)
        for number in range(begin, begin + length + 1):
            if number == len(iterates) - 1:
                return np.stack(moved), np.array(certain), sizes
            best = begin + int(np.argmax(values[begin : number + 1]))
            at = iterates[number]
            if number > begin and (number - begin) % every == 0:
                sparser = changed(iterates[best]) < 0.95 * sparsity
                sparsity = changed(iterates[best])
                pixels = sparsity / 1.5
                size = radius if sparser else max(size / 1.5, radius / 10)
                at = iterates[best] if sparser else at
            if number == begin + length:
                moved.append(projected(iterates[best], x, (multiple - 1) * epsilon))
                certain.append(True)
                break
            gradient = gradient_at(at)
            gradient[((at <= 0) & (gradient < 0)) | ((at >= 1) & (gradient > 0))] = 0.0  # not so in the published code
            kept = max(int(np.ceil(pixels - 1e-9)), 1)
            order = np.sort(np.abs(gradient).ravel())[::-1]
            step = np.sign(gradient) * (np.abs(gradient) >= order[kept - 1])
            moved.append(projected(at + size * step / np.abs(step).sum(), x, radius))
            # Rounding decides which of two gradients is the larger where they are nearly the same.
            certain.append(kept == order.size or order[kept - 1] > (1 + 1e-4) * order[kept])
            sizes.append(size / radius)
        number += 1
    raise AssertionError("there are more iterates than moves")


@pytest.mark.parametrize("steps", [10, 100])
def test_apgd_takes_the_steps_of_the_published_algorithm(steps, network, recorded, labelled):
    """Until it meets an adversary in the last ball, which it returns."""
    x, y = labelled
    epsilon, exact = 0.7, networks.Exact(network)
    x_adv = attacks.apgd_ce(recorded, x, y, epsilon=epsilon, steps=steps, seed=4, norm="l1").numpy()
    assert len(recorded.seen) == steps + 3 and recorded.returned == steps + 2
    seen = np.stack(recorded.seen, axis=1)
    values = np.stack([losses.cross_entropy(network(batch), tf.constant(y)) for batch in recorded.seen], axis=1)
    fooled = np.stack([margins(network, batch, y) > 0 for batch in recorded.seen], axis=1)
    first = 2 * int(np.ceil(0.3 * steps)) + 2  # of the last part
    fooled[:, :first] = False
    every_size = set()
    for i in range(len(x)):
        last = int(np.argmax(fooled[i])) if np.any(fooled[i]) else steps + 2
        gradient_at = functools.partial(gradient_by_hand, exact, y=y[i])
        moved, certain, sizes = published(seen[i, : last + 1], values[i], gradient_at, x[i], epsilon, steps)
        np.testing.assert_allclose(seen[i, 1 : last + 1][certain], moved[certain], atol=1e-4, err_msg=f"image {i}")
        assert np.mean(certain) > 0.9
        np.testing.assert_array_equal(x_adv[i], seen[i, last] if np.any(fooled[i]) else x[i])
        every_size |= set(np.round(sizes, 3))
    assert 2 < np.sum(np.any(fooled, axis=1)) < 14
    assert {1.0, 0.667, 0.444} <= every_size and (steps < 100 or 0.1 in every_size)


def test_balls_shrink_from_three_epsilon_to_one(recorded, labelled):
    attacks.apgd_ce(recorded, *labelled, epsilon=0.2, steps=10, norm="l1")
    far = np.stack([lengths(batch - labelled[0], "l1") for batch in recorded.seen])
    np.testing.assert_allclose(far[0], 0.6, atol=1e-5)
    for part, radius in ((slice(0, 4), 0.6), (slice(4, 8), 0.4), (slice(8, 13), 0.2)):
        assert np.all(far[part] <= radius + 1e-5) and np.all(far[part].max(axis=0) > 0.99 * radius)


def test_pgd_takes_the_steps_of_the_norm(network, labelled):
    x, y = labelled
    recorded = Recorded(network)
    attacks.pgd(recorded, x, y, epsilon=0.5, steps=6, step_size=0.1, seed=3, norm="l1")
    project, exact = L1.projection(tf.constant(x), 0.5), networks.Exact(network)
    fooled = np.zeros(len(x), bool)
    for before, after in zip(recorded.seen, recorded.seen[1:]):
        fooled |= margins(network, before, y) > 0
        gradient = np.float32([gradient_by_hand(exact, *each) for each in zip(before, y)])
        expected = project(before + L1.step(tf.constant(before), tf.constant(gradient), 0.1)).numpy()
        np.testing.assert_allclose(after, np.where(fooled[:, None, None, None], before, expected), atol=1e-5)
    assert np.sum(fooled) < 12


def test_the_default_step_size_of_pgd_is_ten_times_its_share_of_epsilon(recorded, labelled):
    x, y = labelled
    for given in ({}, {"step_size": 10.0 * 0.5 / 8}):
        attacks.pgd(recorded, x, y, epsilon=0.5, steps=8, norm="l1", **given)
    by_default, as_told = np.split(np.stack(recorded.seen), 2)
    np.testing.assert_allclose(by_default, as_told, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_few_steps_do(steps, recorded, labelled):
    """The balls take a gradient each, however few steps there are."""
    x_adv = attacks.apgd_ce(recorded, *labelled, epsilon=1.0, steps=steps, norm="l1").numpy()
    assert recorded.returned == steps + 2
    assert np.all(lengths(x_adv - labelled[0], "l1") <= 1.0 + 1e-5)


def test_the_sparse_points_of_random_search_move_pixels_all_the_way():
    x = images(64)

    recorded = Recorded(constant)
    attacks.random_search(recorded, x, np.zeros(64, int), epsilon=3.0, queries=4, norm="l1")
    for number, batch in enumerate(recorded.seen[:4]):
        moved = batch != x
        if number % 2 == 0:
            assert np.mean(moved) > 0.85  # those that are cut to [0, 1] stay
            continue
        between = moved & (batch > 0.0) & (batch < 1.0)
        assert np.all(np.sum(between, axis=(1, 2, 3)) <= 1) and np.mean(moved) < 0.5
        np.testing.assert_allclose(lengths(batch - x, "l1"), 3.0, atol=1e-5)
        assert 0.4 < np.mean(batch[moved] > x[moved]) < 0.6  # the order of the pixels says nothing of the signs


# Where it is named.


def test_the_command_evaluates_in_l1(network, labelled, tmp_path):
    x, y = labelled
    network.save(tmp_path / "network.keras")
    np.savez(tmp_path / "data.npz", images=x, labels=y)
    arguments = [f"--checkpoint={tmp_path / 'network.keras'}", f"--dataset={tmp_path / 'data.npz'}", "--norm=l1"]
    options = "--options=steps=6,queries=10"
    status = evaluation.command([*arguments, "--epsilon=1", "--attack=pgd,square", options])
    with np.load(tmp_path / "evaluation" / "record.npz") as record:
        distance = record["distance"]
    assert status == 0 and 0 < np.nanmax(distance) <= 1.0 + 1e-5
    with pytest.raises(ValueError, match="norm of autoattack is 'l1'; allowed: l2, linf"):
        evaluation.command([*arguments, "--epsilon=1", f"--out={tmp_path / 'other'}"])
