import dataclasses

import keras
import numpy as np
import pytest

from sanity import Verdict
from sanity.checks.network_is_deterministic import is_random, network_is_deterministic
from sanity.settings import Settings
from sanity.statistics import sample_size
from sanity.subject import Subject
from tests.helpers import linear


class Noise(keras.layers.Layer):
    """Adds normal noise at inference, too, to all images or to those whose first pixel is above a half."""

    def __init__(self, stddev, always=True, **options):
        super().__init__(**options)
        self.stddev, self.always = stddev, always
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x):
        noise = keras.random.normal(keras.ops.shape(x), stddev=self.stddev, seed=self.seeds)
        chosen = keras.ops.cast(x[:, :1, :1] > 0.5, x.dtype)
        return x + (noise if self.always else chosen * noise)


def judged(layers, size=200, **options):
    images, labels = linear.batch(size)
    network = keras.Sequential([keras.Input(linear.SHAPE), *layers, linear.network()])
    return network_is_deterministic(Subject(network, images, labels, epsilon=0.1), Settings(**options)), images


def test_noise_at_inference_is_flagged():
    result, _ = judged([Noise(0.1)])
    assert result.verdict is Verdict.FAIL
    assert result.value == 1.0 and result.sample_size == 200
    assert "expectation over transformation" in result.remedy


def test_the_value_is_the_share_of_images_that_vary():
    result, images = judged([Noise(0.1, always=False)])
    assert result.value == np.mean(images[:, 0, 0, 0] > 0.5)
    varies, flips = result.series.bars
    assert varies.y == result.value and 0.0 < flips.y < varies.y
    assert result.interval[0] < result.value < result.interval[1]


def test_one_image_that_varies_is_proof():
    images, labels = linear.batch(20)
    images[:, 0, 0] = 0.0
    images[7, 0, 0] = 1.0
    network = keras.Sequential([keras.Input(linear.SHAPE), Noise(0.1, always=False), linear.network()])
    result = network_is_deterministic(Subject(network, images, labels, epsilon=0.1), Settings())
    assert result.verdict is Verdict.FAIL and result.value == 1 / 20


class Skipped(keras.layers.Layer):
    """Doubles all images of a batch in one call of ten, as stochastic depth that draws once a batch."""

    def __init__(self, seed, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, x):
        return x * (1.0 + keras.ops.cast(keras.random.uniform((), seed=self.seeds) < 0.1, x.dtype))


def test_a_draw_that_all_images_of_a_call_share_is_flagged():
    """Five calls of all images are the same with six seeds of ten."""
    assert {judged([Skipped(seed)])[0].verdict for seed in range(8)} == {Verdict.FAIL}


@pytest.mark.parametrize(("axes", "count"), [((0,), 13), ((0, 1, 2, 3), 10)])
def test_answers_that_depend_on_the_other_images_of_the_batch_are_flagged_and_not_called_random(axes, count):
    """As by BatchNormalization with the statistics of the batch, and images that are brought to the mean of it.

    One image of each of 13 batches is looked at; where the whole batch has one mean, some are near it by themselves.
    """

    class OfBatch(keras.layers.Layer):
        def call(self, x):
            return x - keras.ops.mean(x, axis=axes, keepdims=True)

    result, images = judged([OfBatch()])
    assert result.verdict is Verdict.FAIL and result.value == count / 200
    assert f"depends on the other images of its batch: {count} of" in result.explanation
    assert "random" not in result.explanation and "moving statistics" in result.remedy
    network = keras.Sequential([keras.Input(linear.SHAPE), OfBatch(), linear.network()])
    assert not is_random(Subject(network, images, np.zeros(200, int), epsilon=0.1), [result])
    assert judged([keras.layers.BatchNormalization()])[0].verdict is Verdict.PASS


def test_dropout_left_on_is_flagged():
    class LeftOn(keras.layers.Dropout):
        def call(self, x, training=None):
            return super().call(x, training=True)

    assert judged([LeftOn(0.5)])[0].verdict is Verdict.FAIL


def test_dropout_that_is_on_in_the_graph_alone_is_off_as_predict_calls_the_network():
    inputs = keras.Input(linear.SHAPE)
    network = keras.Model(inputs, linear.network()(keras.layers.Dropout(0.5)(inputs, training=True)))
    result = network_is_deterministic(Subject(network, *linear.batch(200), epsilon=0.1), Settings())
    assert result.verdict is Verdict.PASS


def test_the_smallest_noise_that_matters_is_told_from_that_of_parallel_sums():
    assert judged([Noise(1e-4)])[0].verdict is Verdict.FAIL
    assert judged([Noise(1e-7)])[0].verdict is Verdict.PASS


@pytest.mark.parametrize("layers", [[], [keras.layers.Dropout(0.5)], [keras.layers.GaussianNoise(0.5)]])
def test_an_honest_network_passes(layers):
    result, _ = judged(layers)
    assert result.verdict is Verdict.PASS
    assert result.value == 0.0 and result.remedy == ""


def test_a_network_of_equal_logits_passes():
    network = keras.Sequential([keras.Input(linear.SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)])
    network.set_weights([np.zeros(weight.shape) for weight in network.get_weights()])
    result = network_is_deterministic(Subject(network, *linear.batch(200), epsilon=0.1), Settings())
    assert result.verdict is Verdict.PASS


def test_a_small_sample_is_inconclusive_and_says_how_many_images_decide():
    needed = sample_size.ruling_out(0.05)
    few, _ = judged([], size=needed - 1)
    assert few.verdict is Verdict.INCONCLUSIVE
    assert f"at least {needed} images" in few.remedy
    assert judged([], size=needed)[0].verdict is Verdict.PASS
    assert judged([], size=20, detectable=0.2)[0].verdict is Verdict.PASS


def test_the_sample_may_end_within_a_batch():
    result, images = judged([Noise(0.1, always=False)], size=307)
    assert result.value == np.mean(images[:, 0, 0, 0] > 0.5)


@pytest.mark.parametrize(
    ("said", "stddev", "expected"),
    [
        (Verdict.PASS, 0.1, False),
        (Verdict.FAIL, 0.1, True),
        (Verdict.FAIL, 0.0, False),  # of answers that depend on the batch
        (Verdict.INCONCLUSIVE, 0.1, True),  # of few images, or because no time was left
        (Verdict.INCONCLUSIVE, 0.0, False),
    ],
)
def test_what_the_check_decided_is_not_decided_again(said, stddev, expected):
    network = keras.Sequential([keras.Input(linear.SHAPE), Noise(stddev), linear.network()])
    subject = Subject(network, *linear.batch(20), epsilon=0.1)
    result = dataclasses.replace(network_is_deterministic(subject, Settings()), verdict=said)
    assert is_random(subject, [result]) is expected and is_random(subject) is (stddev > 0.0)


def test_a_network_that_squeezes_a_batch_of_one_depends_on_no_other_image():
    squeezed = keras.layers.Lambda(lambda z: keras.ops.squeeze(z[:, :, None]), output_shape=(3,))
    network = keras.Sequential([keras.Input(linear.SHAPE), linear.network(), squeezed])
    assert network(linear.batch(1)[0]).shape == (3,)
    result = network_is_deterministic(Subject(network, *linear.batch(200), epsilon=0.1), Settings())
    assert result.verdict is Verdict.PASS
