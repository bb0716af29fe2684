import functools

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from sanity import Verdict, measure
from sanity.checks.gradients_are_available import gradients_are_available
from sanity.settings import Settings
from sanity.statistics import sample_size
from sanity.subject import Subject
from tests.helpers import linear


def judged(output, size=300, labels=None, epsilon=1e-6, **options):
    """Returns the result for a linear network followed by `output`, a function of its logits; PGD leaves all images."""
    images, drawn = linear.batch(size)
    network = masked(output)
    labels = network.predict(images, verbose=0).argmax(axis=1) if labels is None else drawn
    return gradients_are_available(Subject(network, images, labels, epsilon=epsilon), Settings(**options))


def as_they_are(logits):
    return logits


@functools.cache
def masked(output):
    inputs = keras.Input(linear.SHAPE)
    return keras.Model(inputs, output(linear.shared()(inputs)))


def scaled(logits, factor):
    return keras.layers.Rescaling(factor)(logits)


def test_logits_without_temperature_are_flagged_although_every_image_is_classified_correctly():
    result = judged(functools.partial(scaled, factor=1e4))
    assert result.verdict is Verdict.FAIL
    assert result.value > 0.9 and result.threshold == 0.01
    assert "margin" in result.remedy


@pytest.mark.parametrize("output", [lambda z: keras.ops.round(z * 16.0), lambda z: keras.ops.stop_gradient(z)])
def test_layers_without_a_gradient_are_flagged(output):
    result = judged(output)
    assert result.verdict is Verdict.FAIL and result.value == 1.0


def test_a_gradient_that_only_the_clean_images_have_is_flagged():
    """Where PGD begins there is none: the images have 16 levels, and off these levels the gradient is taken away."""

    @tf.custom_gradient
    def only_on_levels(x):
        on = tf.reduce_all(tf.abs(16.0 * x - tf.round(16.0 * x)) < 1e-3, axis=(1, 2, 3), keepdims=True)
        return tf.identity(x), lambda upstream: upstream * tf.cast(on, upstream.dtype)

    class OnlyOnLevels(keras.layers.Layer):
        def call(self, x):
            return only_on_levels(x)

    images, _ = linear.batch(200)
    network = keras.Sequential([keras.Input(linear.SHAPE), OnlyOnLevels(), linear.shared()])
    images = np.round(images * 16) / 16
    labels = network.predict(images, verbose=0).argmax(axis=1)
    result = gradients_are_available(Subject(network, images, labels, epsilon=0.01), Settings())
    assert result.verdict is Verdict.FAIL
    on_images, at_random_points = (bar.y for bar in result.series.bars)
    assert on_images == 0.0 and at_random_points > 0.7
    assert "random points" in result.quantity


@pytest.mark.parametrize("factor", [0.01, 1.0, 10.0])
def test_an_honest_linear_network_passes(factor):
    result = judged(functools.partial(scaled, factor=factor))
    assert result.verdict is Verdict.PASS and result.value == 0.0 and result.remedy == ""


def test_the_value_is_the_share_of_probabilities_that_round_to_zero():
    """In float32 exp(-z) is 0 from z = 104 on, and less than the smallest normal number from 87.4 on."""
    result = judged(functools.partial(scaled, factor=60.0))
    images, _ = linear.batch(300)
    kernel, bias = linear.shared().get_weights()
    logits = 60.0 * (images.reshape(300, -1).astype(np.float64) @ kernel + bias)
    ordered = np.sort(logits, axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    on_images = result.series.bars[0].y
    assert np.mean(lead > 104.0) <= on_images <= np.mean(lead > 87.0)
    assert 0.2 < on_images < 0.9


def test_wrong_images_have_a_gradient_whatever_the_logits():
    images, _ = linear.batch(300)
    network = masked(functools.partial(scaled, factor=1e4))
    wrong = network.predict(images, verbose=0).argmin(axis=1)
    result = gradients_are_available(Subject(network, images, wrong, epsilon=0.02), Settings())
    assert result.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("zeros", "size", "expected"),
    [
        (10, 1000, Verdict.PASS),
        (0, 100, Verdict.PASS),
        (16, 1000, Verdict.PASS),  # p = 0.05, twice, and less than 6 % for sure
        (25, 1000, Verdict.FAIL),
        (2, 50, Verdict.INCONCLUSIVE),
        (0, 20, Verdict.INCONCLUSIVE),
        (20, 20, Verdict.FAIL),
    ],
)
def test_the_verdict_follows_the_binomial_test(zeros, size, expected, monkeypatch):
    zero = np.arange(size) < zeros
    prescribed = measure.gradients.Gradients(np.where(zero, 0.0, 1.0), zero, np.ones(size, bool))
    monkeypatch.setattr(measure.gradients, "at", lambda *_, **__: prescribed)
    result = judged(as_they_are, size=size)
    assert result.verdict is expected
    assert result.value == zeros / size
    assert bool(result.remedy) is (expected is not Verdict.PASS)


def test_a_small_sample_says_how_many_images_decide():
    needed = sample_size.ruling_out(0.06)
    few = judged(as_they_are, size=needed - 1)
    assert few.verdict is Verdict.INCONCLUSIVE and f"at least {needed} images" in few.remedy
    assert judged(as_they_are, size=needed).verdict is Verdict.PASS


def test_gradients_are_those_of_the_closed_form():
    images, labels = linear.batch(307)  # ends within a batch
    measured = measure.gradients.at(linear.shared(), images, labels, batch_size=250)
    kernel, bias = (weight.astype(np.float64) for weight in linear.shared().get_weights())
    p = scipy.special.softmax(images.reshape(307, -1) @ kernel + bias, axis=1)
    gradient = (p - np.eye(linear.CLASSES)[labels]) @ kernel.T
    np.testing.assert_allclose(measured.squared_norm, np.sum(gradient**2, axis=1), rtol=1e-3, atol=1e-10)
    assert not measured.zero.any() and measured.finite.all()


def test_small_gradients_are_not_zero_and_infinite_ones_are_told_apart():
    images, _ = linear.batch(50)
    images[:10, 0, 0] = 0.0
    images[10:, 0, 0] = 0.5
    inputs = keras.Input(linear.SHAPE)
    root = keras.ops.sqrt(inputs[:, 0, 0])  # its derivative at 0 is infinite
    network = keras.Model(inputs, keras.layers.Concatenate()([root, 1.0 - root]))
    measured = measure.gradients.at(network, images, np.zeros(50, int), batch_size=250)
    np.testing.assert_array_equal(measured.finite, np.arange(50) >= 10)
    assert np.all(measured.squared_norm[:10] == 0.0) and np.all(measured.missing == ~measured.finite)
    tiny = keras.Model(inputs, keras.layers.Concatenate()([root, 1.0 - root]) * 1e-25)
    measured = measure.gradients.at(tiny, images, np.zeros(50, int), batch_size=250)
    assert np.all((measured.squared_norm[10:] > 0.0) & (measured.squared_norm[10:] < 1e-45))
    assert not measured.zero[10:].any()


@pytest.mark.parametrize("share", [0.05, 0.06, 0.2])
def test_the_number_of_images_that_decide_is_the_smallest(share):
    from sanity.statistics import wilson

    needed = sample_size.ruling_out(share)
    assert wilson(0, needed)[1] < share <= wilson(0, needed - 1)[1]
