"""Random points against PGD: guessing must not find what the gradients hide."""

import keras
import numpy as np
import pytest

from sanity import Verdict
from sanity.checks.random_search_is_not_stronger import random_search_is_not_stronger
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear, small

EPSILON = 0.1


@pytest.fixture(scope="module")
def sample():
    return small.sample(300)


@pytest.fixture(scope="module")
def undefended():
    return small.undefended()


def judge(network, sample, epsilon=EPSILON):
    return random_search_is_not_stronger(Subject(network, *sample, epsilon=epsilon), Settings())


@pytest.mark.parametrize("mask", [small.saturated, small.rounded])
def test_hidden_gradients_are_seen(mask, undefended, sample):
    """At a radius where guessing works."""
    result = judge(mask(undefended), sample, 0.3)
    assert result.verdict is Verdict.FAIL
    assert result.interval[0] > result.threshold == 0.005 and result.value > 0.03
    assert "Guessing" in result.explanation and result.remedy and result.reference


def test_steps_without_length_are_seen(undefended, sample, monkeypatch):
    """PGD is then one random point, and 100 find more."""
    monkeypatch.setattr(Settings, "pgd", lambda self, epsilon: {"epsilon": epsilon, "steps": 5, "step_size": 1e-9})
    assert judge(undefended, sample, 0.3).verdict is Verdict.FAIL


@pytest.mark.parametrize("epsilon", [0.03, 0.1, 0.3])
def test_an_undefended_network_passes(epsilon, undefended, sample):
    assert judge(undefended, sample, epsilon).verdict is Verdict.PASS


def test_a_robust_network_passes(sample):
    result = judge(small.robust(EPSILON), sample)
    assert result.verdict is Verdict.PASS and result.value < 0.01
    assert result.series.bars[1].y > 0.5


def test_a_linear_network_passes():
    """Along a linear network's gradients lies the worst point of the ball: nothing is left for any other attack."""
    network, images = linear.shared(), linear.batch(300)[0]
    labels = network(images).numpy().argmax(axis=1)
    result = judge(network, (images, labels), 0.02)
    assert result.verdict is Verdict.PASS and result.value <= 1 / 300


def test_a_small_sample_is_inconclusive(undefended, sample):
    result = judge(undefended, tuple(part[:20] for part in sample))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "about 70 images" in result.remedy  # Wilson's upper limit of 0 of 70 is 5.2 %, of 0 of 60 it is 6.0 %


def test_the_value_is_the_probability_that_a_point_is_found(sample):
    """A network without gradients that is fooled where its one pixel is below 0.5, from 0.5 + k epsilon / 50.

    A uniform point is below with probability (1 - k / 50) / 2, a corner with 1/2 in any case: with 50 pairs of points
    no image withstands both; each image whose ball reaches 0.5 is fooled but for 2 ** -50, and no other one.
    """
    inputs = keras.Input((1, 1, 1))
    logits = keras.ops.concatenate([3.0 * keras.ops.sign(inputs - 0.5), 0.0 * inputs], axis=-1)
    network = keras.Model(inputs, keras.layers.Reshape((2,))(logits))
    images = np.linspace(0.51, 0.81, 301).astype(np.float32).reshape(-1, 1, 1, 1)
    result = judge(network, (images, np.zeros(301, np.int64)), 0.1005)
    in_reach = 91  # 0.51 to 0.60
    by_start = 1.0 - result.series.bars[1].y  # PGD stays at its random start
    assert result.value + by_start == pytest.approx(in_reach / 301)
    assert 0.2 < by_start / (in_reach / 301) < 0.35  # its mean is (1 - k / 50) / 2, for k from 5 to 50
    assert result.verdict is Verdict.PASS and "nothing that masked" in result.explanation  # of one class chance is 1
