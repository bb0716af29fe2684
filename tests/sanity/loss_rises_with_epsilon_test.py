import functools

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import tensorflow as tf

from sanity import Verdict, measure
from sanity.checks.loss_rises_with_epsilon import loss_rises_with_epsilon
from sanity.measure.losses import Losses
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear, small
from tf_nuat import attacks, data
from tf_nuat.attacks.attack import attack

SETTINGS = Settings(steps=10)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def undefended():
    return small.perturbed(small.dense(0, hidden=128), epochs=20, learning_rate=2e-3)


@pytest.fixture(scope="module")
def robust():
    return small.perturbed(small.dense(0, hidden=128), small.ascent(0.1, steps=4), epochs=10, learning_rate=2e-3)


@pytest.fixture(scope="module")
def overfitted():
    """Trained on FGSM samples for long enough to overfit to them; a test below says that it did."""
    fgsm = functools.partial(attacks.fgsm, epsilon=0.3)
    return small.perturbed(small.dense(0, hidden=128), fgsm, epochs=40, learning_rate=2e-3)


def judged(digits, network, epsilon, size=None):
    images, labels = digits.arrays("test")
    subject = Subject(network, images[:size], labels[:size], epsilon=epsilon)
    return loss_rises_with_epsilon(subject, SETTINGS)


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 1.0])
def test_an_undefended_network_passes(digits, undefended, epsilon):
    result = judged(digits, undefended, epsilon)
    assert result.verdict is Verdict.PASS
    assert result.value > 0.8 and result.threshold == 0.5


def test_a_robust_network_passes(digits, robust):
    result = judged(digits, robust, 0.1)
    assert result.verdict is Verdict.PASS and result.value > 0.8
    assert result.interval[0] < result.value < result.interval[1]


def test_a_linear_network_passes(digits):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input(digits.input_shape), keras.layers.Flatten(), keras.layers.Dense(10)])
    network.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(*digits.arrays("train"), epochs=5, batch_size=64, verbose=0)
    result = judged(digits, network, 0.1)
    assert result.verdict is Verdict.PASS
    assert result.value == pytest.approx(1.0, abs=0.03)  # the sign of the gradient hardly changes on the way


def test_catastrophic_overfitting_is_flagged(digits, overfitted):
    images, labels = (tf.constant(part) for part in digits.arrays("test"))
    left = {
        attack: np.mean(overfitted.predict(x, verbose=0).argmax(axis=1) == labels)
        for attack, x in {
            "fgsm": attacks.fgsm(overfitted, images, labels, epsilon=0.3),
            "pgd": attacks.pgd(overfitted, images, labels, epsilon=0.3, steps=20),
        }.items()
    }
    assert left["fgsm"] > 0.6 and left["pgd"] < 0.1  # it overfitted
    result = judged(digits, overfitted, 0.3)
    assert result.verdict is Verdict.FAIL
    assert result.value < 0.3 and "FGSM" in result.quantity and result.remedy


def test_saturated_logits_are_flagged(digits, undefended):
    masked = keras.Sequential([keras.Input(digits.input_shape), undefended, keras.layers.Rescaling(1e4)])
    result = judged(digits, masked, 0.2)
    assert result.verdict is Verdict.FAIL
    assert "does not rise" in result.quantity and result.value > 0.8


class Reversed(keras.layers.Layer):
    """The image itself, of which the gradient is that of its negative."""

    def call(self, x):
        return tf.custom_gradient(lambda x: (tf.identity(x), lambda upstream: -upstream))(x)


def test_a_gradient_that_leads_downhill_is_flagged(digits, robust):
    result = judged(digits, keras.Sequential([keras.Input(digits.input_shape), Reversed(), robust]), 0.1)
    assert result.verdict is Verdict.FAIL
    assert "fall of the loss" in result.quantity and result.value > 0.01


@attack
def nothing(network, x, y, *, epsilon, steps=1, step_size=None):
    return x


@attack
def shrunk(network, x, y, *, epsilon):
    return attacks.fgsm(network, x, y, epsilon=0.3 * epsilon)


@pytest.mark.parametrize(
    ("name", "weak", "quantity"),
    [
        ("fgsm", nothing, "rise of the loss"),
        ("fgsm", shrunk, "rise of the loss"),
        ("ifgsm", nothing, "does not rise under I-FGSM"),
    ],
)
def test_weak_attacks_are_noticed(digits, undefended, monkeypatch, name, weak, quantity):
    monkeypatch.setitem(attacks.ATTACKS, name, weak)
    result = judged(digits, undefended, 0.1)
    assert result.verdict is Verdict.FAIL and quantity in result.quantity


def test_a_small_sample_is_inconclusive(digits, undefended, overfitted):
    few = judged(digits, undefended, 0.1, size=20)
    assert few.verdict is Verdict.INCONCLUSIVE and "at least 30" in few.remedy
    assert judged(digits, overfitted, 0.3, size=30).verdict in (Verdict.INCONCLUSIVE, Verdict.FAIL)


def test_a_network_that_learned_nothing_is_skipped():
    images, labels = linear.batch(300)
    network = keras.Sequential([keras.Input(linear.SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)])
    network.set_weights([np.zeros(weight.shape) for weight in network.get_weights()])
    result = loss_rises_with_epsilon(Subject(network, images, labels, epsilon=0.1), SETTINGS)
    assert result.verdict is Verdict.SKIPPED and "chance" in result.explanation


class Prescribed:
    """What the check needs of a subject, with losses prescribed through `measure_losses.under`."""

    network, images, labels, num_classes, epsilon, batch_size = None, None, None, 10, 0.2, 250
    chance = 0.1
    radius_label = "epsilon"

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def threat(self, attack):
        return {}

    def per_image(self, key, measured):
        return measured(None, None, 0)


def prescribed(monkeypatch, single, iterative, size=1000, correct=0.5, spread=0.2, passed=0.0):
    """Returns the result where the mean losses over ln 10 at 0 ... epsilon are given, spread among the images.

    Of the share `correct` that an attack leaves, FGSM at half of epsilon fools the share `passed` of all.
    """
    generator = np.random.default_rng(0)
    own = generator.uniform(-spread, spread, size)

    def under(network, images, labels, attack=None, epsilon=0.0, **settings):
        means = {"fgsm": single, "ifgsm": iterative, None: single}[attack]
        noise = generator.normal(scale=0.01, size=size)
        share = np.interp(epsilon / 0.2, [0, 0.25, 0.5, 0.75, 1], means) + own + noise
        left = np.arange(size) < (0.95 if attack is None else correct) * size
        if attack == "fgsm" and epsilon == 0.1:
            left[: round(passed * size)] = False
        return Losses(share * np.log(10), left)

    monkeypatch.setattr(measure.losses, "under", under)
    return loss_rises_with_epsilon(Prescribed(size), SETTINGS)


RISING = (0.3, 0.4, 0.5, 0.6, 0.7)
FLAT = (0.3, 0.3, 0.3, 0.3, 0.294)  # with noise of 1 %


@pytest.mark.parametrize(
    ("single", "iterative", "options", "expected"),
    [
        (RISING, RISING, {}, Verdict.PASS),
        ((0.3, 0.35, 0.4, 0.45, 0.505), RISING, {}, Verdict.PASS),  # 0.51 of the rise
        ((0.3, 0.35, 0.4, 0.45, 0.49), RISING, {}, Verdict.FAIL),  # 0.475
        ((0.3, 0.35, 0.4, 0.45, 0.4), RISING, {}, Verdict.FAIL),
        ((0.3, 0.4, 0.5, 0.6, 0.58), RISING, {}, Verdict.FAIL),  # falls by 2 points at the end
        ((0.3, 0.4, 0.5, 0.6, 0.595), RISING, {}, Verdict.PASS),  # by half a point, which is allowed
        ((0.3, 0.4, 0.5, 0.6, 0.58), RISING, {"correct": 0.1}, Verdict.PASS),  # nothing is overrated
        ((0.3,) * 5, (0.3,) * 5, {"size": 40}, Verdict.INCONCLUSIVE),
        ((0.3, 0.302, 0.304, 0.306, 0.308), (0.3, 0.31, 0.32, 0.33, 0.34), {}, Verdict.PASS),  # a gap of 3 points
        (RISING, RISING, {"passed": 0.03}, Verdict.FAIL),  # the ray passes adversaries on 3 % of the images
        (RISING, RISING, {"passed": 0.01}, Verdict.PASS),
        # Whether 13.4 % are more than chance 200 images cannot tell.
        (RISING, RISING, {"correct": 0.134, "size": 200}, Verdict.PASS),
        ((0.3, 0.35, 0.4, 0.45, 0.4), RISING, {"correct": 0.134, "size": 200}, Verdict.INCONCLUSIVE),
        ((0.3, 0.35, 0.4, 0.45, 0.4), RISING, {"correct": 0.134, "size": 1600}, Verdict.FAIL),
        # On two thirds of the images the loss does not rise.
        (FLAT, FLAT, {"correct": 0.134, "size": 200}, Verdict.INCONCLUSIVE),
        (FLAT, FLAT, {"correct": 0.134, "size": 1600}, Verdict.FAIL),
    ],
)
def test_the_verdict_follows_the_means(monkeypatch, single, iterative, options, expected):
    result = prescribed(monkeypatch, single, iterative, **options)
    assert result.verdict is expected
    assert bool(result.remedy) is (expected is not Verdict.PASS)


def test_four_signs_both_attacks_and_all_pairs_of_radii_share_the_error_probability(monkeypatch):
    flat = prescribed(monkeypatch, FLAT, FLAT, size=200)
    assert "does not rise" in flat.quantity
    alone = scipy.stats.binomtest(round(200 * flat.value), 200, 0.5, alternative="greater").pvalue
    assert flat.p_value == pytest.approx(4 * 2 * alone, rel=1e-6, abs=0.0)
    fall = prescribed(monkeypatch, (0.3, 0.4, 0.5, 0.6, 0.58), RISING, size=40)
    assert "fall of the loss under FGSM" in fall.quantity
    error = (fall.interval[1] - fall.value) / scipy.stats.t.ppf((1.0 + SETTINGS.confidence) / 2.0, 39)
    alone = scipy.stats.t.sf((fall.value - 0.01) / error, 39)
    assert fall.p_value == pytest.approx(4 * 2 * 10 * alone, rel=1e-6, abs=0.0)


def test_where_it_is_open_whether_a_fall_counts_what_is_left_is_told(monkeypatch):
    result = prescribed(monkeypatch, (0.3, 0.35, 0.4, 0.45, 0.4), RISING, correct=0.134, size=200)
    assert result.explanation.startswith("The sample is too small to judge the rise of the loss at epsilon under FGSM")
    left = "FGSM leaves 13.5% of the images, and they are too few to tell that from chance (10.0%)."
    assert result.explanation.endswith(f". {left}") and result.p_value == 1.0


def test_a_rise_of_which_nothing_is_left_to_overrate_is_said_to_be_one(monkeypatch):
    weak = (0.3, 0.33, 0.36, 0.39, 0.42)  # 0.3 of the rise by many steps, where no image withstands the one step
    result = prescribed(monkeypatch, weak, RISING, correct=0.1)
    assert result.verdict is Verdict.PASS and "nothing is overrated" in result.explanation


def test_the_ratio_and_the_figure_are_those_of_numpy(digits, undefended):
    """Against steps and losses written out in NumPy, for a dense network of two layers."""
    result = judged(digits, undefended, 0.1)
    images, labels = digits.arrays("test")
    weights = [weight.astype(np.float64) for weight in undefended.get_weights()]
    flat, target = images.reshape(len(images), -1).astype(np.float64), np.eye(10)[labels]

    def forward(x):
        hidden = np.maximum(x @ weights[0] + weights[1], 0.0)
        logits = hidden @ weights[2] + weights[3]
        return hidden, logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))

    def attack(epsilon, steps):
        x = flat
        for _ in range(steps):
            hidden, log_p = forward(x)
            gradient = (((np.exp(log_p) - target) @ weights[2].T) * (hidden > 0)) @ weights[0].T
            x = np.clip(x + epsilon / steps * np.sign(gradient), np.maximum(flat - epsilon, 0), flat + epsilon)
            x = np.minimum(x, 1.0)
        return np.mean(np.minimum(-np.sum(target * forward(x)[1], axis=1) / np.log(10), 1.0))

    single, iterative = result.series.curves
    radii = np.array([0.0, 0.025, 0.05, 0.075, 0.1])
    np.testing.assert_allclose(single.x, radii)
    np.testing.assert_allclose(single.y, [attack(radius, 1) for radius in radii], atol=2e-3)
    np.testing.assert_allclose(iterative.y, [attack(radius, 10) for radius in radii], atol=2e-3)
    ratio = (single.y[-1] - single.y[0]) / (iterative.y[-1] - iterative.y[0])
    assert result.value == pytest.approx(ratio)


def test_small_losses_keep_their_digits():
    logits = np.array([[50.0, 0.0, -np.inf], [0.0, 0.0, 0.0], [0.0, 800.0, 0.0], [np.nan, 0.0, 0.0]])
    measured = measure.losses.of_logits(logits, np.zeros(4, int))
    np.testing.assert_allclose(measured.loss, [np.exp(-50.0), np.log(3.0), 800.0, np.inf])
    np.testing.assert_array_equal(measured.correct, [True, True, False, False])  # of those that tie the first
    np.testing.assert_allclose(measured.share_of_chance(3), [np.exp(-50.0) / np.log(3.0), 1.0, 1.0, 1.0])


def test_students_test_and_interval_are_those_of_scipy():
    values = np.random.default_rng(0).normal(0.1, 1.0, 50)
    expected = scipy.stats.ttest_1samp(values, 0.05, alternative="greater")
    assert measure.losses.exceeds(values, 0.05) == pytest.approx(expected.pvalue)
    limits = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert measure.losses.interval(values, confidence=0.9) == pytest.approx(tuple(limits))
    assert measure.losses.exceeds(np.full(9, 0.25), 0.0) == 0.0
    assert measure.losses.exceeds(np.zeros(9), 0.0) == 1.0


def test_the_limits_of_the_ratio_are_where_students_test_turns():
    generator = np.random.default_rng(0)
    below = generator.normal(1.0, 0.5, 60)
    above = 0.7 * below + generator.normal(0.0, 0.3, 60)

    def excess(ratio, side):
        return measure.losses.exceeds(side * (above - ratio * below), 0.0) - 0.025

    low, high = measure.losses.ratio_interval(above, below, confidence=0.95)
    assert low == pytest.approx(scipy.optimize.brentq(functools.partial(excess, side=1), -1.0, 0.7))
    assert high == pytest.approx(scipy.optimize.brentq(functools.partial(excess, side=-1), 0.7, 2.0))
    assert measure.losses.ratio_interval(above, generator.normal(0.0, 1.0, 60)) is None
