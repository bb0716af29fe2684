"""The geometry of the norms: projections, directions and random draws."""

import functools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.helpers import images as pictures
from tests.helpers.images import lengths
from tf_nuat import norms
from tf_nuat.attacks.nuclear import bernoulli_start

SHAPE = (6, 5, 2)
PIXELS = 60
NORMS = ("linf", "l2")

images = functools.partial(pictures.images, shape=SHAPE)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 2.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_projections_are_within_ball_and_box_and_stay_there(norm, epsilon, seed):
    generator = np.random.default_rng(seed)
    x = np.round(images(seed=seed), 1)  # on the border of the box, too
    away = x + generator.normal(size=x.shape).astype(np.float32) * 10.0 ** generator.integers(-4, 2, (len(x), 1, 1, 1))
    project = norms.of(norm).projection(tf.constant(x), epsilon)
    once = project(tf.constant(away, tf.float32)).numpy()
    distance = lengths(once - x, norm)
    assert np.all(distance <= epsilon * (1 + 1e-5) + 1e-7)
    assert once.min() >= 0.0 and once.max() <= 1.0
    np.testing.assert_allclose(project(once), once, atol=1e-6)
    inside = np.clip(x + (away - x) * (0.5 * epsilon / lengths(away - x))[:, None, None, None], 0, 1)
    np.testing.assert_allclose(project(tf.constant(inside, tf.float32)), inside, atol=1e-6)


def test_l2_projection_reaches_the_sphere_where_the_box_is_not_in_the_way():
    x, offset = images(low=0.4, high=0.6), np.random.default_rng(1).normal(size=(16, *SHAPE))
    projected = norms.of("l2").projection(tf.constant(x), 0.2)(tf.constant(x + offset, tf.float32))
    np.testing.assert_allclose(projected - x, 0.2 * offset / lengths(offset)[:, None, None, None], atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e22, 1e37])
def test_l2_direction_is_that_of_the_gradient_at_any_scale(scale):
    gradient = np.random.default_rng(2).uniform(-1, 1, size=(4, *SHAPE))
    gradient[1] = 0.0
    gradient[2, 1:] = 0.0
    expected = gradient / np.maximum(lengths(gradient), 1e-9)[:, None, None, None]
    found = norms.of("l2").steepest(tf.constant(scale * gradient, tf.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found[1], 0.0)


def test_l2_random_point_is_uniform_in_the_ball():
    """(radius / epsilon)^D is uniform in [0, 1], and so is the half of the ball that each coordinate lies in."""
    epsilon, shape = 0.3, (2, 3, 1)
    x = tf.fill((4000, *shape), 0.5)
    offset = (norms.of("l2").random_point(x, epsilon, 7) - x).numpy().reshape(4000, 6) / epsilon
    assert scipy.stats.kstest(np.linalg.norm(offset, axis=1) ** 6, "uniform").pvalue > 0.01
    # The covariance of a uniform draw from the ball of radius 1 is 1 / (D + 2) times the identity.
    np.testing.assert_allclose(offset.T @ offset / 4000, np.eye(6) / 8, atol=0.01)
    np.testing.assert_allclose(offset.mean(axis=0), 0.0, atol=0.025)
    other = (norms.of("l2").random_point(x, epsilon, 8) - x).numpy().reshape(4000, 6) / epsilon
    for statistic in (lambda offset: np.linalg.norm(offset, axis=1), lambda offset: offset[:, 0]):
        assert abs(np.corrcoef(statistic(offset), statistic(other))[0, 1]) < 0.06


@pytest.mark.parametrize("draw", [norms.of("l2").random_point, functools.partial(bernoulli_start, norm="l2")])
def test_l2_noise_is_cut_to_the_range_of_pixels_and_within_the_ball(draw):
    x = tf.constant(np.round(images()))
    drawn = draw(x, 2.0, 3)
    assert np.min(drawn) == 0.0 and np.max(drawn) == 1.0
    assert np.all(lengths(drawn - x) <= 2.0 + 1e-5)


def test_l2_start_has_random_signs_and_length_alpha():
    x = tf.constant(images(low=0.4, high=0.6))
    offset = (bernoulli_start(x, 0.3, 5, norm="l2") - x).numpy()
    np.testing.assert_allclose(lengths(offset), 0.3, rtol=1e-5)
    np.testing.assert_allclose(np.abs(offset), 0.3 / np.sqrt(PIXELS), rtol=1e-4)
    np.testing.assert_array_equal(np.sign(offset), np.sign(bernoulli_start(x, 0.3, 5) - x))


def test_l2_noise_is_drawn_for_the_global_batch(two_devices):
    whole = norms.of("l2").random_point(tf.fill((8, 2, 2, 1), 0.5), 0.1, 5).numpy()
    draw = tf.function(lambda: norms.of("l2").random_point(tf.fill((4, 2, 2, 1), 0.5), 0.1, 5))
    parts = two_devices.experimental_local_results(two_devices.run(draw))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-7)
    assert np.any(parts[0] != parts[1])
