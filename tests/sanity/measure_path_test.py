"""Paths between networks: their ends, equal networks, the plane, and a bend that lowers the loss."""

import keras
import numpy as np
import pytest

from sanity import measure
from tests.helpers import linear, small


def test_the_ends_of_the_path_are_the_networks_and_its_middle_has_the_shares_of_bernstein():
    start, end = (measure.path.weights_of(linear.network(seed)) for seed in (0, 1))
    bend = [np.full_like(weight, 7.0) for weight in start]
    for part, expected in [(0.0, start), (1.0, end)]:
        for found, weight in zip(measure.path.point(start, bend, end, part), expected):
            np.testing.assert_array_equal(found, weight)
    middle = measure.path.point(start, bend, end, 0.5)
    for found, first, last in zip(middle, start, end):
        np.testing.assert_allclose(found, 0.25 * first + 0.5 * 7.0 + 0.25 * last, rtol=1e-6)


def test_a_path_between_equal_networks_with_its_bend_there_is_constant():
    weights = measure.path.weights_of(linear.network())
    losses = measure.path.Losses(linear.network(), *linear.batch(50), batch_size=20)
    found = [losses.at(measure.path.point(weights, weights, weights, part)) for part in (0.0, 0.3, 1.0)]
    np.testing.assert_allclose(found, [found[0]] * 3, rtol=1e-5)


def test_the_loss_at_an_end_is_that_of_the_network():
    images, labels = linear.batch(50)
    network, other = linear.network(0), linear.network(1)
    losses = measure.path.Losses(network, images, labels, batch_size=20)
    expected = measure.losses.under(other, images, labels, batch_size=50)
    loss, accuracy = losses.at(measure.path.weights_of(other))
    assert loss == pytest.approx(np.mean(expected.loss), rel=1e-5)
    assert accuracy == np.mean(expected.correct)


def test_a_plane_gives_back_its_points():
    generator = np.random.default_rng(0)
    start, end, bend = ([generator.normal(size=shape) for shape in [(3, 2), (4,)]] for _ in range(3))
    plane = measure.path.Plane(start, end, bend)
    assert plane.coordinates(start) == pytest.approx((0.0, 0.0))
    distance = np.sqrt(sum(np.sum((first - last) ** 2) for first, last in zip(start, end)))
    assert plane.coordinates(end) == pytest.approx((distance, 0.0), abs=1e-9)
    assert plane.coordinates(bend)[1] > 0.0
    on_curve = measure.path.point(start, bend, end, 0.3)
    for found, expected in zip(plane.weights(*plane.coordinates(on_curve)), on_curve):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_bend_lowers_the_loss_between_networks_of_other_starts_and_leaves_them_alone():
    images, labels = small.digits().arrays("train")
    first, last = small.undefended(0), small.undefended(1)
    start, end = measure.path.weights_of(first), measure.path.weights_of(last)
    bend = measure.path.trained_bend(first, start, end, images, labels, epochs=10)
    for before, after in zip((start, end), (first, last)):
        assert all(np.array_equal(*pair) for pair in zip(before, measure.path.weights_of(after)))
    losses = measure.path.Losses(first, *small.sample(200))
    curve, _ = losses.at(measure.path.point(start, bend, end, 0.5))
    line, _ = losses.at(measure.path.straight(start, end, 0.5))
    assert curve < 0.8 * line, (curve, line)


def test_architectures_are_told_apart_and_statistics_seen():
    assert measure.path.architecture(small.dense(0)) == measure.path.architecture(small.dense(1))
    assert measure.path.architecture(small.dense(0)) != measure.path.architecture(small.dense(0, hidden=32))
    inputs = keras.Input((4, 4, 1))
    normalized = keras.Model(
        inputs, keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.BatchNormalization()(inputs)))
    )
    assert measure.path.has_statistics(normalized) and not measure.path.has_statistics(linear.network())
