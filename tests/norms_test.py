"""Norms: lengths, projections, steps and draws against NumPy, closed forms and known distributions."""

import functools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.helpers import images as pictures
from tests.helpers.images import lengths
from tf_nuat import draws, norms
from tf_nuat.attacks.nuclear import bernoulli_start
from tf_nuat.core import threefry

SHAPE = (6, 5, 2)
PIXELS = 60
L1 = norms.of("l1")

images = functools.partial(pictures.images, shape=SHAPE)
every_norm = pytest.mark.parametrize("norm", norms.NORMS.values(), ids=str)


@tf.function(autograph=False)
def projected(norm, x, epsilon, images):
    return norms.of(norm).projection(x, epsilon)(images)


@every_norm
def test_lengths_are_those_of_numpy(norm):
    change = images(low=-1.0)
    np.testing.assert_allclose(norm.length(tf.constant(change)), lengths(change, norm.name), rtol=1e-5)
    np.testing.assert_allclose(norm.distances(change), lengths(change, norm.name), rtol=1e-5)
    np.testing.assert_allclose(norm.largest(SHAPE), lengths(np.ones((1, *SHAPE)), norm.name)[0])


@every_norm
def test_no_step_gains_more_than_the_dual_length(norm):
    """Hoelder's inequality, and a step for which it is an equality."""
    gradient = images(low=-1.0)
    dual = norm.dual_length(tf.constant(gradient)).numpy()
    steps = images(1000, low=-1.0, seed=1)
    steps /= lengths(steps, norm.name)[:, None, None, None]
    gains = np.einsum("bhwc,shwc->bs", gradient, steps)
    assert np.all(gains <= dual[:, None] + 1e-5)
    conjugate = {1: np.inf, 2: 2, np.inf: 1}[norm.order]
    np.testing.assert_allclose(dual, np.linalg.norm(gradient.reshape(16, -1), ord=conjugate, axis=1), rtol=1e-5)


# Projections.


@every_norm
@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 2.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_projections_are_within_ball_and_box_and_stay_there(norm, epsilon, seed):
    generator = np.random.default_rng(seed)
    x = np.round(images(seed=seed), 1)  # on the border of the box, too
    away = x + generator.normal(size=x.shape).astype(np.float32) * 10.0 ** generator.integers(-4, 2, (len(x), 1, 1, 1))
    project = functools.partial(projected, norm.name, tf.constant(x), tf.constant(epsilon))
    once = project(tf.constant(away, tf.float32)).numpy()
    assert np.all(lengths(once - x, norm.name) <= epsilon * (1 + 1e-5) + 1e-7)
    assert once.min() >= 0.0 and once.max() <= 1.0
    np.testing.assert_allclose(project(tf.constant(once)), once, atol=1e-6)
    inside = np.clip(x + (away - x) * (0.5 * epsilon / lengths(away - x, norm.name))[:, None, None, None], 0, 1)
    np.testing.assert_allclose(project(tf.constant(inside, tf.float32)), inside, atol=1e-6)


def test_l2_projection_reaches_the_sphere_where_the_box_is_not_in_the_way():
    x, offset = images(low=0.4, high=0.6), np.random.default_rng(1).normal(size=(16, *SHAPE))
    found = projected("l2", tf.constant(x), tf.constant(0.2), tf.constant(x + offset, tf.float32))
    expected = 0.2 * offset / lengths(offset, "l2")[:, None, None, None]
    np.testing.assert_allclose(found - x, expected, atol=1e-6)


def nearest_in_l1(z, x, epsilon):
    """Returns the image nearest to z, in L2, in the box and within epsilon of x: of one image, in float64.

    The length is linear in the amount between the places where a pixel leaves its border or reaches x.
    """
    difference = z.astype(np.float64) - x
    room = np.where(difference > 0, 1.0 - x, x)

    def change(amount):
        return np.clip(np.abs(difference) - amount, 0.0, room)

    if change(0.0).sum() > epsilon:
        kinks = np.sort(np.concatenate([[0.0], np.abs(difference).ravel(), (np.abs(difference) - room).ravel()]))
        kinks = kinks[kinks >= 0.0]
        sums = np.array([change(kink).sum() for kink in kinks])  # they fall
        amount = np.interp(epsilon, sums[::-1], kinks[::-1])
    else:
        amount = 0.0
    return x + np.sign(difference) * change(amount)


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("epsilon", [0.05, 1.0, 6.0, 25.0])
def test_l1_projection_is_the_nearest_image(scale, epsilon):
    x = np.round(images(), 1)
    z = (x + scale * np.random.default_rng(1).normal(size=x.shape)).astype(np.float32)
    found = projected("l1", tf.constant(x), tf.constant(epsilon), tf.constant(z)).numpy()
    expected = np.stack([nearest_in_l1(*each, epsilon) for each in zip(z, x)])
    np.testing.assert_allclose(found, expected, atol=2e-6 * max(scale, 1.0))
    assert np.all(lengths(found - x, "l1") <= epsilon + 1e-5)


def test_l1_projection_takes_a_radius_for_each_image():
    x, z = images(), images(seed=1)
    radii = np.linspace(0.0, 12.0, 16).astype(np.float32)
    together = projected("l1", tf.constant(x), tf.constant(radii), tf.constant(z))
    for i in range(16):
        np.testing.assert_allclose(together[i], nearest_in_l1(z[i], x[i], radii[i]), atol=2e-6)
    np.testing.assert_array_equal(together[0], x[0])


# Steps.


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e22, 1e37])
def test_l2_direction_is_that_of_the_gradient_at_any_scale(scale):
    gradient = np.random.default_rng(2).uniform(-1, 1, size=(4, *SHAPE))
    gradient[1] = 0.0
    gradient[2, 1:] = 0.0
    expected = gradient / np.maximum(lengths(gradient), 1e-9)[:, None, None, None]
    found = norms.of("l2").steepest(tf.constant(scale * gradient, tf.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found[1], 0.0)


@every_norm
def test_steps_climb_and_are_as_long_as_asked(norm):
    gradient, x = images(low=-1.0), images(low=0.4, high=0.6)
    for step in (norm.steepest(tf.constant(gradient)), norm.step(tf.constant(x), tf.constant(gradient), 0.05) / 0.05):
        np.testing.assert_allclose(lengths(step, norm.name), 1.0, rtol=1e-5)
        gain = np.sum(step * gradient, axis=(1, 2, 3))
        assert np.all(gain >= 0.99 * norm.dual_length(tf.constant(gradient)))
    np.testing.assert_array_equal(norm.steepest(tf.zeros((2, *SHAPE))), 0.0)
    np.testing.assert_array_equal(norm.step(tf.constant(x), tf.zeros((16, *SHAPE)), 0.05), 0.0)


@pytest.mark.parametrize("shape, pixels", [((6, 5, 2), 1), ((10, 10, 1), 1), ((10, 10, 3), 3), ((20, 20, 3), 12)])
def test_the_steepest_step_of_l1_has_the_largest_hundredth_of_the_entries(shape, pixels):
    gradient = images(4, low=-1.0, shape=shape)
    step = L1.steepest(tf.constant(gradient)).numpy().reshape(4, -1)
    for found, entries in zip(step, gradient.reshape(4, -1)):
        expected = np.zeros(len(entries))
        largest = np.argsort(-np.abs(entries))[:pixels]
        expected[largest] = np.sign(entries[largest]) / pixels
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_step_of_l1_stays_in_the_box_and_gains_as_much_as_can_be():
    """Of all steps that move no pixel by more than a third of it: the greedy choice, pixel by pixel."""
    x, gradient = np.round(images(shape=(10, 10, 3)), 1), images(low=-1.0, shape=(10, 10, 3), seed=1)
    step = L1.step(tf.constant(x), tf.constant(gradient), 1.2).numpy()
    assert np.min(x + step) >= 0.0 and np.max(x + step) <= 1.0
    np.testing.assert_allclose(lengths(step, "l1"), 1.2, rtol=1e-5)
    for i in range(16):
        left, expected = 1.2, np.zeros(300)
        for place in np.argsort(-np.abs(gradient[i].ravel())):
            up = gradient[i].ravel()[place] > 0
            moves = min(left, 0.4, 1.0 - x[i].ravel()[place] if up else x[i].ravel()[place])
            expected[place], left = moves if up else -moves, left - moves
        np.testing.assert_allclose(step[i].ravel(), expected, atol=1e-6)


# Draws.


@pytest.mark.parametrize("norm", [norms.of("l2"), L1], ids=str)
@pytest.mark.parametrize("is_per_image", [False, True])
def test_random_points_are_uniform_in_the_ball(norm, is_per_image):
    """(radius / epsilon)^D is uniform in [0, 1], and the coordinates have the moments that they have in a ball.

    An image draws its radius, or its signs, from other bits than its direction: else coordinates would have a mean.
    """
    epsilon, shape = 0.3, (3, 1, 2)
    x = tf.fill((4000, *shape), 0.5)
    seeds = [threefry.keys((seed, 0), np.arange(4000)) if is_per_image else seed for seed in (7, 8)]
    offset = (norm.random_point(x, epsilon, seeds[0]) - x).numpy().reshape(4000, 6) / epsilon
    assert scipy.stats.kstest(lengths(offset, norm.name) ** 6, "uniform").pvalue > 0.01
    # Of a ball of radius 1 the covariance is 1 / (D + 2) times the identity; of L1's, 2 / ((D + 1) (D + 2)) times.
    variance = {2: 1 / 8, 1: 2 / 56}[norm.order]
    np.testing.assert_allclose(offset.T @ offset / 4000, variance * np.eye(6), atol=0.08 * variance)
    np.testing.assert_allclose(offset.mean(axis=0), 0.0, atol=0.025)
    other = (norm.random_point(x, epsilon, seeds[1]) - x).numpy().reshape(4000, 6) / epsilon
    for statistic in (lambda offset: lengths(offset, norm.name), lambda offset: offset[:, 0]):
        assert abs(np.corrcoef(statistic(offset), statistic(other))[0, 1]) < 0.06


@every_norm
def test_random_points_are_cut_to_the_range_of_pixels_and_within_the_ball(norm):
    x = tf.constant(np.round(images()))
    epsilon = 0.5 * norm.largest(SHAPE)
    drawn = norm.random_point(x, epsilon, 3)
    assert np.min(drawn) == 0.0 and np.max(drawn) == 1.0
    assert np.all(lengths(drawn - x, norm.name) <= epsilon + 1e-5)


@every_norm
@pytest.mark.parametrize("drawn", [0.0, 1.0 - 2.0**-24])
def test_random_points_are_numbers_even_where_a_draw_is_the_smallest_or_the_largest(norm, drawn, monkeypatch):
    monkeypatch.setattr(draws, "uniform", lambda x, seed: tf.fill(x.shape, drawn))
    change = norm.random_change(tf.constant(images()), 3).numpy()
    assert np.all(lengths(change, norm.name) <= 1.0 + 1e-5)


@every_norm
def test_random_directions_have_length_1(norm):
    direction = norm.random_direction(tf.constant(images()), 3).numpy()
    np.testing.assert_allclose(lengths(direction, norm.name), 1.0, rtol=1e-5)
    assert 0.4 < np.mean(direction > 0) < 0.6


@pytest.mark.parametrize("norm", [norms.of("l2"), L1], ids=str)
def test_noise_is_drawn_for_the_global_batch(norm, two_devices):
    draw = functools.partial(norm.random_point, epsilon=0.1, seed=5)
    whole = draw(tf.fill((8, 2, 2, 1), 0.5)).numpy()
    one = tf.function(lambda: draw(tf.fill((4, 2, 2, 1), 0.5)))
    parts = two_devices.experimental_local_results(two_devices.run(one))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-7)
    assert np.any(parts[0] != parts[1])


# The start of the nuclear attack.


def test_l2_noise_is_cut_to_the_range_of_pixels_and_within_the_ball():
    x = tf.constant(np.round(images()))
    drawn = bernoulli_start(x, 2.0, 3, norm="l2")
    assert np.min(drawn) == 0.0 and np.max(drawn) == 1.0
    assert np.all(lengths(drawn - x) <= 2.0 + 1e-5)


def test_l2_start_has_random_signs_and_length_alpha():
    x = tf.constant(images(low=0.4, high=0.6))
    offset = (bernoulli_start(x, 0.3, 5, norm="l2") - x).numpy()
    np.testing.assert_allclose(lengths(offset), 0.3, rtol=1e-5)
    np.testing.assert_allclose(np.abs(offset), 0.3 / np.sqrt(PIXELS), rtol=1e-4)
    np.testing.assert_array_equal(np.sign(offset), np.sign(bernoulli_start(x, 0.3, 5) - x))
