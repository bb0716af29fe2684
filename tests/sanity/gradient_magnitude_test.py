import re

import keras
import numpy as np
import pytest
import scipy.special

from sanity import Verdict, measure, report
from sanity.checks.gradient_magnitude import _series, gradient_magnitude
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear


def judged(output, size=300):
    """Returns the result for a linear network followed by `output`, a function of its logits, and the sample."""
    images, _ = linear.batch(size)
    inputs = keras.Input(linear.SHAPE)
    network = keras.Model(inputs, output(linear.shared()(inputs)))
    labels = network.predict(images, verbose=0).argmax(axis=1)
    return gradient_magnitude(Subject(network, images, labels, epsilon=0.1), Settings()), images, labels


def squared_norms(images, labels):
    """Returns those of `linear.shared()` in closed form: the error of the probabilities times the kernel."""
    kernel, bias = (weight.astype(np.float64) for weight in linear.shared().get_weights())
    p = scipy.special.softmax(images.reshape(len(images), -1) @ kernel + bias, axis=1)
    return np.sum(((p - np.eye(linear.CLASSES)[labels]) @ kernel.T) ** 2, axis=1)


def test_mean_and_largest_are_those_of_the_closed_form_in_both_ranges_of_pixels():
    result, images, labels = judged(lambda logits: logits)
    expected = squared_norms(images, labels)
    assert result.verdict is Verdict.PASS and result.value == 0.0 and result.remedy == ""
    numbers = [float(number) for number in re.findall(r"(?<=\s)\d[\d.]*(?:e[-+]\d+)?(?=[\s,.])", result.explanation)]
    found = [number for number in numbers if number not in (0.0, 1.0, 255.0)]
    wanted = [expected.mean(), expected.max(), expected.mean() / 255**2, expected.max() / 255**2]
    assert found == pytest.approx(wanted, rel=0.06)  # two digits


def test_the_figure_is_the_histogram():
    result, images, labels = judged(lambda logits: logits)
    edges, counts = result.series.edges, result.series.counts
    assert 3 <= len(counts) <= 24 and result.series.apart == (("exactly zero", 0),)
    np.testing.assert_allclose(np.diff(np.log10(edges)), np.diff(np.log10(edges))[0])
    below = np.mean(squared_norms(images, labels)[:, None] < np.array(edges), axis=0)
    np.testing.assert_allclose(np.cumsum([0, *counts]) / 300, below, atol=1 / 300)
    assert report.figures.png(result).startswith(b"\x89PNG")


def test_the_histogram_holds_what_a_double_can():
    sizes = np.array([0.0, 5e-324, 1e-200, 1.0, 1.0, 10.0, 1.5e308])
    found = measure.gradients.Gradients(sizes, np.arange(7) == 0, np.arange(7) != 3)
    series = _series(found)
    assert sum(series.counts) + sum(count for _, count in series.apart) == 7
    assert series.apart == (("exactly zero", 1), ("not finite", 1))
    assert np.all(np.isfinite(series.edges)) and np.all(np.diff(series.edges) > 0.0) and len(series.counts) <= 24


def test_equal_gradients_are_one_bar():
    series = _series(measure.gradients.Gradients(np.full(9, 10.0), np.zeros(9, bool), np.ones(9, bool)))
    assert sum(count == 9 for count in series.counts) == 1 and series.edges[0] <= 10.0 < series.edges[-1]


@pytest.mark.parametrize("factor", [0.01, 10.0])
def test_large_and_small_gradients_pass(factor):
    assert judged(keras.layers.Rescaling(factor))[0].verdict is Verdict.PASS


def test_zero_gradients_are_reported_and_another_check_judges_them():
    rounded, *_ = judged(lambda logits: keras.ops.round(logits * 16.0))
    assert rounded.verdict is Verdict.PASS and rounded.p_value is None
    assert rounded.series.counts == () and rounded.series.apart == (("exactly zero", 300),)
    assert "The squared norm of the gradient is 0 on average" in rounded.explanation
    assert report.figures.png(rounded).startswith(b"\x89PNG")


def test_logits_that_are_no_numbers_on_adversaries_alone_are_named():
    """The logarithm of what lies outside of where the images are."""
    images, _ = linear.batch(40)
    images[:, 0, 0] = np.maximum(images[:, 0, 0], 0.2)
    inputs = keras.Input(linear.SHAPE)
    guarded = 0.0 * keras.ops.log(inputs[:, 0, 0] - 0.15)
    network = keras.Model(inputs, linear.shared()(inputs) + guarded)
    labels = network.predict(images, verbose=0).argmax(axis=1)
    result = gradient_magnitude(Subject(network, images, labels, epsilon=0.1), Settings())
    assert result.verdict is Verdict.FAIL and result.p_value is None and 0.0 < result.value < 1.0
    assert "on the way of PGD" in result.explanation and result.remedy


def test_one_gradient_that_is_not_finite_is_proof():
    images, labels = linear.batch(300)
    images[:, 0, 0] = np.maximum(images[:, 0, 0], 0.1)
    images[5, 0, 0] = 0.0
    inputs = keras.Input(linear.SHAPE)
    root = keras.ops.sqrt(inputs[:, 0, 0])  # its derivative at 0 is infinite
    network = keras.Model(inputs, linear.shared()(inputs) + root)
    shifted = keras.Model(inputs, keras.layers.Concatenate()([network.output[:, :1] + root, network.output[:, 1:]]))
    result = gradient_magnitude(Subject(shifted, images, labels, epsilon=0.1), Settings())
    assert result.verdict is Verdict.FAIL and result.value == 1 / 300
    assert "finite" in result.explanation and "nan" not in result.explanation
    assert result.series.apart[1] == ("not finite", 1) and sum(result.series.counts) == 299


def test_where_no_gradient_is_finite_there_is_none_to_measure(monkeypatch):
    none = measure.gradients.Gradients(np.full(300, np.nan), np.zeros(300, bool), np.zeros(300, bool))
    monkeypatch.setattr(measure.gradients, "at", lambda *_, **__: none)
    result, *_ = judged(lambda logits: logits)
    assert result.verdict is Verdict.FAIL and result.value == 1.0 and "There is no gradient" in result.explanation
