import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from sanity import Verdict
from sanity.checks.iterative_beats_single_step import iterative_beats_single_step
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear, small
from tf_nuat import data

SETTINGS = Settings(steps=10)


class Prescribed:
    """A subject of which each attack leaves a prescribed share of `size` images correct, the same ones first."""

    def __init__(self, size=1000, **accuracies):
        self.size, self.accuracies, self.epsilon, self.chance = size, accuracies, 0.25, 0.1

    def __len__(self):
        return self.size

    def correct(self, attack=None, **settings):
        return np.arange(self.size) < round(self.accuracies.get(attack, 1.0) * self.size)


@pytest.mark.parametrize(
    ("fgsm", "ifgsm", "pgd", "expected"),
    [
        (0.6, 0.5, 0.4, Verdict.PASS),
        (0.9, 0.0, 0.0, Verdict.PASS),  # catastrophic overfitting is another check's to see
        (0.0, 0.0, 0.0, Verdict.PASS),
        (0.5, 0.505, 0.5, Verdict.PASS),
        (0.4, 0.5, 0.4, Verdict.FAIL),
        (0.4, 0.4, 0.5, Verdict.FAIL),
        (0.5, 0.509, 0.4, Verdict.FAIL),  # p = 1/512, twice
        (0.5, 0.507, 0.4, Verdict.PASS),  # p = 1/128, twice
    ],
)
def test_the_verdict(fgsm, ifgsm, pgd, expected):
    result = iterative_beats_single_step(Prescribed(fgsm=fgsm, ifgsm=ifgsm, pgd=pgd), Settings())
    assert result.verdict is expected
    assert bool(result.remedy) is (expected is not Verdict.PASS)


def test_the_value_names_the_attack_that_is_behind():
    result = iterative_beats_single_step(Prescribed(fgsm=0.3, ifgsm=0.25, pgd=0.55), Settings())
    assert "PGD" in result.quantity and result.value == pytest.approx(0.25)
    assert result.interval[0] < 0.25 < result.interval[1]
    assert [bar.y for bar in result.series.bars] == [1.0, 0.3, 0.25, 0.55]


def test_a_small_sample_is_inconclusive():
    result = iterative_beats_single_step(Prescribed(size=20, fgsm=0.6, ifgsm=0.5, pgd=0.5), Settings())
    assert result.verdict is Verdict.INCONCLUSIVE and "--samples" in result.remedy


@pytest.mark.parametrize(
    ("size", "fgsm", "pgd", "expected"),
    [
        (200, 0.02, 0.135, Verdict.INCONCLUSIVE),  # 27 of 200, where chance is 20
        (1600, 0.02, 0.135, Verdict.FAIL),  # 216, where it is 160
        (200, 0.135, 0.135, Verdict.PASS),
        (200, 0.0, 0.0, Verdict.PASS),
    ],
)
def test_where_pgd_may_leave_more_than_chance_a_sign_needs_more_images(size, fgsm, pgd, expected):
    result = iterative_beats_single_step(Prescribed(size=size, fgsm=fgsm, ifgsm=fgsm, pgd=pgd), Settings())
    assert result.verdict is expected
    if expected is Verdict.INCONCLUSIVE:
        assert result.explanation.startswith("PGD leaves 11.5% more images correct than FGSM. PGD leaves 13.5%")
        assert "too few to tell that from chance" in result.explanation and "--samples" in result.remedy
        assert result.p_value == 1.0


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def undefended():
    return small.perturbed(small.dense(0), epochs=10, batch_size=64)


@pytest.fixture(scope="module")
def robust():
    return small.perturbed(small.dense(0), small.ascent(0.1, steps=4), epochs=10, batch_size=64)


@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_an_undefended_network_passes(digits, undefended, epsilon):
    subject = Subject(undefended, *digits.arrays("test"), epsilon=epsilon)
    assert iterative_beats_single_step(subject, SETTINGS).verdict is Verdict.PASS


def test_a_robust_network_passes(digits, robust):
    subject = Subject(robust, *digits.arrays("test"), epsilon=0.1)
    result = iterative_beats_single_step(subject, SETTINGS)
    assert result.verdict is Verdict.PASS
    assert result.series.bars[-1].y > 0.6  # it is robust


def test_on_a_linear_network_of_two_classes_one_step_is_as_good_as_many():
    images = np.random.default_rng(0).uniform(size=(300, *linear.SHAPE)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(16, 2))
    network = keras.Sequential([keras.Input(linear.SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])
    network.set_weights([kernel, np.zeros(2)])
    labels = network.predict(images, verbose=0).argmax(axis=1)
    result = iterative_beats_single_step(Subject(network, images, labels, epsilon=0.05), SETTINGS)
    assert result.verdict is Verdict.PASS

    sign = np.where(labels == 1, 1.0, -1.0)[:, None]
    weights = sign * (kernel[:, 1] - kernel[:, 0])
    worst = np.clip(images.reshape(300, -1) - 0.05 * np.sign(weights), 0.0, 1.0)
    robust = np.mean(np.sum(weights * worst, axis=1) > 0.0)
    for bar in result.series.bars[1:]:
        assert bar.y == pytest.approx(robust, abs=1 / 300)


def test_gradients_that_only_clean_images_have_are_flagged(digits, undefended):
    """The digits have 16 levels; off these the gradient is taken away, so that only the first step leads anywhere."""

    @tf.custom_gradient
    def only_on_levels(x):
        on = tf.reduce_all(tf.abs(16.0 * x - tf.round(16.0 * x)) < 1e-3, axis=(1, 2, 3), keepdims=True)
        return tf.identity(x), lambda upstream: upstream * tf.cast(on, upstream.dtype)

    class OnlyOnLevels(keras.layers.Layer):
        def call(self, x):
            return only_on_levels(x)

    masked = keras.Sequential([keras.Input(digits.input_shape), OnlyOnLevels(), undefended])
    result = iterative_beats_single_step(Subject(masked, *digits.arrays("test"), epsilon=0.17), SETTINGS)
    assert result.verdict is Verdict.FAIL and result.value > 0.5


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_weak_iterative_attack_is_flagged(digits, undefended, share):
    """PGD whose step size is next to 0, or whose ball is a tenth of what it is said to be."""

    @dataclasses.dataclass(frozen=True)
    class Weak(Settings):
        def pgd(self, epsilon):
            if share:
                return super().pgd(share * epsilon)
            return {**super().pgd(epsilon), "step_size": 1e-6}

    subject = Subject(undefended, *digits.arrays("test"), epsilon=0.2)
    result = iterative_beats_single_step(subject, Weak(steps=5))
    assert result.verdict is Verdict.FAIL and "PGD" in result.quantity
