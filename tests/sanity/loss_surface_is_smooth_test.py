"""The smoothness of the loss surface: closed forms, and networks that are smooth, jump or ripple."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from sanity import Verdict, measure, report
from sanity.checks.loss_surface_is_smooth import PARTS, loss_surface_is_smooth, misleads, relative_error
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear, small
from tf_nuat import data, draws, norms
from tf_nuat.core import threefry

EPSILON = 0.15


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def undefended():
    return small.perturbed(small.dense(0), epochs=12)


@pytest.fixture(scope="module")
def robust():
    return small.perturbed(small.dense(0), small.ascent(EPSILON, steps=5, step_size=EPSILON / 3), epochs=12)


def judged(network, digits, epsilon=EPSILON, size=150, **options):
    images, labels = (part[:size] for part in digits.arrays("test"))
    return loss_surface_is_smooth(Subject(network, images, labels, epsilon=epsilon, **options), Settings())


def rippled(images):
    """Ripples whose slope is up to 6 times that of the image, though they change it by no more than 0.1."""
    return images + 0.1 * keras.ops.sin(60.0 * images)


@pytest.mark.parametrize(("which", "epsilon"), [("undefended", 0.05), ("robust", EPSILON), ("linear", EPSILON)])
def test_honest_networks_pass(digits, request, which, epsilon):
    network = (
        small.perturbed(small.dense(0, hidden=0), epochs=12) if which == "linear" else request.getfixturevalue(which)
    )
    result = judged(network, digits, epsilon)
    assert result.verdict is Verdict.PASS and result.value < 0.02 and result.remedy == ""
    assert result.interval[0] <= result.value <= result.interval[1]


def test_the_scale_of_the_logits_does_not_matter(digits, undefended):
    inputs = keras.Input(digits.input_shape)
    rescaled = keras.Model(inputs, undefended(inputs) * 1e4)
    images, labels = digits.arrays("test")
    linearity = functools.partial(measure.surface.linearity, epsilon=EPSILON, points=3, batch_size=100)
    one, other = (linearity(each, images, labels) for each in (undefended, rescaled))
    np.testing.assert_allclose(relative_error(other), relative_error(one), atol=2e-3)
    assert judged(rescaled, digits).verdict is Verdict.PASS


class Radial(keras.layers.Layer):
    """Gaussian functions of the distance from images (N, 64)."""

    def __init__(self, centres, width):
        super().__init__()
        self.centres, self.width = centres, width

    def call(self, x):
        squares = keras.ops.sum(x**2, axis=1, keepdims=True) + np.sum(self.centres**2, axis=1)
        return keras.ops.exp((2.0 * keras.ops.matmul(x, self.centres.T) - squares) / (2.0 * self.width**2))


def test_radial_functions_fall_everywhere_and_hide_nothing(digits):
    """Their margin falls around an image, whatever the direction, which the gradient cannot say; it leads uphill."""
    images, labels = digits.arrays("train")
    inputs = keras.Input(digits.input_shape)
    radial = Radial(images[:100].reshape(100, 64), 1.4)
    features = radial(keras.layers.Flatten()(inputs))
    network = keras.Model(inputs, keras.layers.Dense(10, use_bias=False)(features))
    seen = keras.ops.convert_to_numpy(radial(images.reshape(-1, 64)))
    network.layers[-1].set_weights([np.linalg.lstsq(seen, 10.0 * np.eye(10)[labels], rcond=1e-3)[0]])
    result = judged(network, digits, epsilon=0.2)
    assert result.verdict is Verdict.PASS, result.explanation


@pytest.mark.parametrize("which", ["undefended", "robust"])
def test_ripples_are_seen(digits, request, which):
    result = judged(small.before(request.getfixturevalue(which), rippled), digits)
    assert result.verdict is Verdict.FAIL and result.value > 0.5
    assert "single-step" in result.remedy and "Qin" in result.reference


def test_levels_of_grey_are_seen(digits, undefended):
    result = judged(small.quantised(undefended), digits)
    assert result.verdict is Verdict.FAIL
    assert "1 at the median image" in result.explanation  # the error is the whole change


def test_a_shrunk_ball_hides_the_ripples(digits, undefended):
    """The weakened check: within a hundredth of a ripple there is nothing to see."""
    assert judged(small.before(undefended, rippled), digits, epsilon=0.0005).verdict is Verdict.PASS


def test_a_small_sample_is_inconclusive(digits, robust):
    result = judged(robust, digits, size=15)
    assert result.verdict is Verdict.INCONCLUSIVE and "--samples" in result.remedy


def test_skipped_where_nothing_is_right(digits, undefended):
    images, _ = (part[:20] for part in digits.arrays("test"))
    wrong = (undefended.predict(images, verbose=0).argmax(axis=1) + 1) % 10
    result = loss_surface_is_smooth(Subject(undefended, images, wrong, epsilon=EPSILON), Settings())
    assert result.verdict is Verdict.SKIPPED and result.value is None


@pytest.mark.parametrize("norm", norms.NORMS)
def test_errors_are_those_of_numpy_at_the_same_points(norm):
    """Behind squares of the images: the margin is a quadratic form, and its gradient is known."""
    network = linear.network()
    kernel, bias = (weight.astype(np.float64) for weight in network.get_weights())
    inputs = keras.Input(linear.SHAPE)
    squared = keras.Model(inputs, network(inputs * inputs))
    images, labels = linear.batch(30)
    epsilon, points = 0.2, 5
    found = measure.surface.linearity(
        squared, images, labels, epsilon=epsilon, norm=norm, points=points, seed=3, batch_size=8
    )
    rows = np.arange(30)

    def logits(images):
        return images.reshape(30, -1).astype(np.float64) ** 2 @ kernel + bias

    rival = np.where(np.eye(linear.CLASSES, dtype=bool)[labels], -np.inf, logits(images)).argmax(axis=1)
    weight = (kernel[:, labels] - kernel[:, rival]).T

    def margin(images):
        return logits(images)[rows, labels] - logits(images)[rows, rival]

    slope = 2.0 * images.reshape(30, -1) * weight
    x, keys = tf.constant(images), threefry.keys(draws.seed_pair(3), tf.range(30))
    changes, steps = [], []
    for number in range(points):
        point = norms.of(norm).random_point(x, epsilon, draws.fold_in(keys, tf.fill([30], number))).numpy()
        step = np.sum(slope * (point.astype(np.float64) - images).reshape(30, -1), axis=1)
        changes.append(margin(point) - margin(images))
        steps.append(step)
    change, predicted = np.array(changes), np.array(steps)
    error = change - predicted
    np.testing.assert_allclose(found.margin, margin(images), atol=1e-5)
    np.testing.assert_allclose(found.change, np.mean(abs(change), axis=0), atol=1e-5)
    np.testing.assert_allclose(found.error, np.mean(abs(error), axis=0), atol=1e-5)
    np.testing.assert_allclose(found.predicted, np.mean(abs(predicted), axis=0), atol=1e-5)
    np.testing.assert_allclose(found.spread, np.mean(abs(change - change.mean(axis=0)), axis=0), atol=1e-5)
    np.testing.assert_allclose(found.spread_error, np.mean(abs(error - error.mean(axis=0)), axis=0), atol=1e-5)


def test_what_misleads():
    """No change; explained; unexplained but trivial; unexplained; misled; not a number; the same shift everywhere."""
    margin = np.array([1.0, 1.0, 1.0, 1.0, -1.0, np.nan, 1.0])
    change = np.array([0.0, 1.0, 0.05, 0.5, 0.2, np.nan, 0.5])
    error = np.array([0.0, 0.5, 0.05, 0.5, 0.8, np.nan, 0.5])
    left = np.array([0.0, 0.2, 0.05, 0.5, 0.3, np.nan, 0.04])  # by the gradient, of a spread that is 0.1 at the last
    found = measure.surface.Linearity(margin, change, error, error, np.append(change[:-1], 0.1), left)
    np.testing.assert_array_equal(misleads(found), [False, False, False, True, True, False, False])
    np.testing.assert_allclose(relative_error(found), [1.0, 0.5, 1.0, 1.0, 4.0, 1.0, 1.0])


def test_orthogonal_signs_are_signs_and_orthogonal():
    generator = np.random.default_rng(0)
    directions = np.sign(generator.normal(size=(50, 4, 4, 1)))
    directions[:25, 0] = 0.0  # as at pixels without a gradient
    directions[25:, 0, 0] = 0.0  # an odd number is left
    found = measure.surface.orthogonal(directions, generator)
    np.testing.assert_array_equal(np.sum(found * directions, axis=(1, 2, 3)), 0.0)
    assert np.all(np.abs(found[:25]) == 1.0)
    np.testing.assert_array_equal(np.sum(np.abs(found[25:]), axis=(1, 2, 3)), 15.0)
    assert abs(found.mean()) < 0.1 and not np.array_equal(found[0], found[1])


@pytest.mark.parametrize("norm", norms.NORMS.values(), ids=str)
def test_random_directions_of_a_plane_have_length_1(norm):
    generator = np.random.default_rng(0)
    gradients = tf.constant(generator.normal(size=(50, 4, 4, 1)), tf.float32)
    steepest = norm.steepest(gradients).numpy()
    for draw in (measure.surface.orthogonal, measure.surface.independent):
        found = draw(steepest, generator, norm)
        assert found.dtype == np.float32 and found.shape == steepest.shape
        np.testing.assert_allclose(norm.distances(found), 1.0, rtol=1e-5)
        assert not np.array_equal(found[0], found[1])
    found = measure.surface.orthogonal(steepest, generator, norm)
    np.testing.assert_allclose(np.sum(found * steepest, axis=(1, 2, 3)), 0.0, atol=1e-5)


def test_the_plane_has_the_image_at_its_centre_and_fgsm_at_its_edge(digits, undefended):
    images, labels = (part[:20] for part in digits.arrays("test"))
    sample = undefended, images, labels
    found = measure.surface.plane(*sample, epsilon=EPSILON, parts=(-1.0, 0.0, 1.0), seed=0, batch_size=7)
    for part, attack in ((0.0, None), (1.0, "fgsm")):
        options = {"epsilon": EPSILON} if attack else {}
        expected = measure.losses.under(*sample, attack, batch_size=20, **options).share_of_chance(10)
        np.testing.assert_allclose(found[:, 1, int(part) + 1], expected, atol=1e-5)
    assert np.mean(found[:, 1, 2] - found[:, 1, 1]) > 5 * np.mean(np.abs(found[:, ::2, 1] - found[:, 1:2, 1]))


def test_the_figure_is_the_mean_plane_and_the_worst_one(digits, undefended):
    result = judged(undefended, digits)
    heights = np.array([panel.z for panel in result.series.panels])
    assert heights.shape == (2, len(PARTS), len(PARTS)) and np.all((heights >= 0.0) & (heights <= 1.0))
    assert result.series.x == result.series.y == PARTS and len(str(result.series)) < 10_000
    assert report.figures.png(result).startswith(b"\x89PNG")
