"""The indicators of attack failure: closed forms, and networks and attacks that fail in each of the ways."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from sanity import Verdict, measure
from sanity.checks.attack_does_not_fail import after_as_much_again, attack_does_not_fail, instability, still_gaining
from sanity.settings import Settings
from sanity.statistics import Overrating
from sanity.statistics.tolerance import Share
from sanity.subject import Subject
from tests.helpers import linear, networks, small
from tf_nuat import data, draws, norms
from tf_nuat.attacks import pgd
from tf_nuat.core import threefry

EPSILON = 0.15
module = importlib.import_module("sanity.checks.attack_does_not_fail")  # the package has the function by that name


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def undefended():
    return small.perturbed(small.dense(0), epochs=12)


@pytest.fixture(scope="module")
def robust():
    return small.perturbed(small.dense(0), small.ascent(EPSILON, steps=5, step_size=EPSILON / 3), epochs=12)


def judged(network, digits, settings=None, size=None, epsilon=EPSILON):
    images, labels = (part[:size] for part in digits.arrays("test"))
    return attack_does_not_fail(Subject(network, images, labels, epsilon=epsilon), settings or Settings())


def share(result, indicator):
    (bar,) = [each for each in result.series.bars if each.name.startswith(indicator)]
    return bar


class Noise(keras.layers.Layer):
    def call(self, images):
        return images + 0.3 * tf.random.normal(tf.shape(images))


class KeptLargest(keras.layers.Layer):
    """k-winners-take-all (Xiao et al., 2020)."""

    def call(self, x):
        return tf.where(x >= tf.math.top_k(x, 6).values[:, -1:], x, 0.0)


class Weak(Settings):
    """Steps so small that PGD hardly leaves its start."""

    def pgd(self, epsilon):
        return {**super().pgd(epsilon), "step_size": 0.1 * epsilon / self.steps}


def test_a_trace_is_that_of_gradients_computed_by_hand():
    network, (images, labels) = linear.network(), linear.batch(size=7)
    steps, step_size = 6, 0.04
    found = measure.trace.pgd(
        network, images, labels, epsilon=linear.EPSILON, steps=steps, step_size=step_size, seed=3, batch_size=4
    )
    keys = draws.image_keys(threefry.keys(draws.seed_pair(3), tf.range(7)), tf.constant(images))
    start = norms.LINF.random_point(
        tf.constant(images), linear.EPSILON, draws.fold_in(keys, tf.zeros(7, tf.int32))
    ).numpy()
    weights, logits = network.get_weights(), None
    x = start.astype(np.float64)
    for number in range(steps + 1):
        logits = x.reshape(7, -1) @ weights[0] + weights[1]
        true = logits[np.arange(7), labels]
        wrong = np.where(np.eye(3, dtype=bool)[labels], -np.inf, logits).max(axis=1)
        np.testing.assert_allclose(found.margins[number], wrong - true, atol=1e-5)
        np.testing.assert_array_equal(found.fooled[number], logits.argmax(axis=1) != labels)
        np.testing.assert_allclose(found.losses[number], np.log(np.exp(logits).sum(axis=1)) - true, atol=1e-5)
        # the hand-made step divides by the number of images, which does not change a sign
        _, gradient, _, _ = linear.cross_entropy(weights, x, labels)
        x = np.clip(images + np.clip(x + step_size * np.sign(gradient) - images, -0.1, 0.1), 0.0, 1.0)
    np.testing.assert_allclose(found.last_logits, logits, atol=1e-5)
    _, gradient, _, _ = linear.cross_entropy(weights, images, labels)
    np.testing.assert_allclose(found.slope, 7 * np.abs(gradient).max(axis=(1, 2, 3)), rtol=1e-4)
    np.testing.assert_array_equal(found.fooled_again, found.fooled.any(axis=0))
    np.testing.assert_allclose(found.clean_logits, network(images), atol=1e-6)


def test_a_trace_is_fooled_where_the_answer_is_wrong_also_where_logits_tie():
    """Where both are equal the first class is the answer, which is wrong at a margin of 0."""
    x, y = np.linspace(0.52, 0.68, 8, dtype=np.float32).reshape(-1, 1, 1, 1), np.ones(8, int)
    found = measure.trace.pgd(networks.with_ties(), x, y, epsilon=0.1, steps=10, step_size=0.025, batch_size=8)
    assert found.margins.max() == 0.0
    np.testing.assert_array_equal(found.fooled, found.margins == 0.0)
    np.testing.assert_array_equal(found.fooled.any(axis=0), x.ravel() < 0.6)
    np.testing.assert_array_equal(found.fooled_again, x.ravel() < 0.6)


def test_a_trace_ends_where_the_attack_of_the_same_settings_ends(digits, undefended):
    images, labels = digits.arrays("test")
    attack = Settings(steps=7).pgd(0.05)
    found = measure.trace.pgd(undefended, images, labels, seed=5, batch_size=250, **attack)
    x_adv = pgd(undefended, images, labels, seed=5, **attack)
    fooled = undefended.predict(x_adv, verbose=0).argmax(axis=1) != labels
    clean = undefended.predict(images, verbose=0).argmax(axis=1) == labels
    np.testing.assert_array_equal(np.any(found.fooled, axis=0)[clean], fooled[clean])


def test_what_is_still_gained():
    margins = np.stack([np.linspace(-20.0, 0.0, 21), np.zeros(21), -np.ones(21), np.linspace(-1, -21, 21)], axis=1)
    margins[:12, 2] = np.linspace(-5.0, -1.0, 12)  # settled for the last 10
    np.testing.assert_allclose(still_gaining(margins), [9 / 20, 0.0, 0.0, 0.0])
    margins[0, 3] = -30.0
    margins[-1, 3] = 0.0  # 2 more than the highest before, of a range of 30
    np.testing.assert_allclose(still_gaining(margins)[3], 2 / 30)
    np.testing.assert_allclose(still_gaining(margins[:5])[0], 1.0)  # five points: the whole way
    highest = margins.max(axis=0)
    before = margins[:-9].max(axis=0)  # ten points before the end, itself among them
    np.testing.assert_allclose(after_as_much_again(margins), 2 * highest - before)


def test_instability_is_the_mean_of_random_changes():
    """Of two classes the margin is linear: its change is a sum of uniform draws, nearly normal."""
    network, generator = linear.network(), np.random.default_rng(0)
    images = generator.uniform(0.4, 0.6, size=(200, *linear.SHAPE)).astype(np.float32)
    labels = network.predict(images, verbose=0).argmax(axis=1)
    kernel, bias = network.get_weights()
    found = instability(Subject(network, images, labels, epsilon=0.02))  # a ball of 0.01
    for number in range(200):
        logits = images[number].ravel() @ kernel + bias
        others = np.delete(logits, labels[number])
        gap = logits[labels[number]] - others.max()
        if gap < 0.5 or np.ptp(others) < 0.5:
            continue  # another class may become the largest wrong one
        slope = kernel[:, labels[number]] - np.delete(kernel, labels[number], axis=1)[:, others.argmax()]
        expected = 0.01 * np.linalg.norm(slope) / np.sqrt(3) * np.sqrt(2 / np.pi) / gap
        assert found[number] == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize(
    ("which", "epsilon"), [("undefended", 0.05), ("undefended", EPSILON), ("robust", EPSILON), ("linear", EPSILON)]
)
def test_honest_networks_pass(digits, request, which, epsilon):
    network = (
        small.perturbed(small.dense(0, hidden=0), epochs=12) if which == "linear" else request.getfixturevalue(which)
    )
    result = judged(network, digits, epsilon=epsilon)
    assert result.verdict is Verdict.PASS, result.explanation
    assert result.interval[0] <= result.value <= result.interval[1] and result.remedy == ""


def rescaled(network):
    inputs = keras.Input(network.input_shape[1:])
    return keras.Model(inputs, keras.layers.Rescaling(1e4)(network(inputs)))


def detached(network):
    return small.before(network, keras.layers.Lambda(tf.stop_gradient, output_shape=network.input_shape[1:]))


def rounded(network):
    return small.quantised(network)


@pytest.mark.parametrize("mask", [rescaled, detached, rounded])
def test_gradients_that_are_hidden_are_seen(digits, undefended, mask):
    result = judged(mask(undefended), digits)
    assert result.verdict is Verdict.FAIL
    assert share(result, "unavailable gradients").y > 0.5 and share(result, "unavailable gradients").group == "failing"
    assert share(result, "unconstrained attack failure").group == "reported"
    assert "gradient" in result.explanation and "differentiable" in result.remedy and "Pintor" in result.reference


def test_noise_is_seen(digits, undefended):
    result = judged(small.before(undefended, Noise()), digits, epsilon=0.05)
    assert result.verdict is Verdict.FAIL and share(result, "unstable predictions").group == "failing"


@pytest.mark.parametrize(("shown", "verdict"), [(0.05, Verdict.PASS), (0.2, Verdict.FAIL)])
def test_a_tenth_of_the_images_may_be_unstable(digits, robust, monkeypatch, shown, verdict):
    """Which are is prescribed, of those that withstand PGD."""

    def prescribed(subject):
        left = np.flatnonzero(subject.correct("pgd", **Settings().pgd(subject.epsilon)))
        chosen = left[: round(shown * np.sum(subject.correct()))]
        return np.isin(np.arange(len(subject)), chosen).astype(float)

    monkeypatch.setattr(module, "instability", prescribed)
    result = judged(robust, digits, epsilon=0.05)
    assert result.verdict is verdict, result.explanation
    assert share(result, "unstable predictions").y == pytest.approx(shown, abs=0.005)


def test_an_attack_that_stops_too_soon_is_reported_and_no_sign(digits, robust):
    result = judged(robust, digits, Settings(steps=5))
    assert result.verdict is Verdict.PASS
    unfinished = share(result, "incomplete optimisation")
    assert unfinished.y > 0.02 and unfinished.group == "reported"


def test_an_attack_that_loses_its_adversaries_is_seen(digits, undefended):
    images, labels = digits.arrays("test")
    subject = Subject(undefended, images, labels, epsilon=EPSILON)
    honest = subject.correct

    def loses(attack=None, **settings):
        return honest() if settings.get("epsilon") == EPSILON else honest(attack, **settings)

    subject.correct = loses
    result = attack_does_not_fail(subject, Settings())
    assert result.verdict is Verdict.FAIL
    assert result.quantity == "images with lost adversaries"


def test_a_small_sample_is_inconclusive(digits, robust):
    result = judged(robust, digits, size=20)
    assert result.verdict is Verdict.INCONCLUSIVE and "about" in result.remedy


def test_how_many_images_would_decide():
    """Where no image shows an indicator, Wilson's limit is z^2 / (n + z^2): below 0.06 from 61 images on."""
    found = Share.of(0, 20, 0.01, Settings(), tests=7)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.decisive == 70 and found.more == "Judge about 70 images (--samples)."
    passes = Share.of(0, 61, 0.01, Settings(), tests=7)
    assert (passes.verdict, passes.decisive) == (Verdict.PASS, None)
    assert Share.of(0, 60, 0.01, Settings(), tests=7).verdict is Verdict.INCONCLUSIVE


def test_images_that_are_wrong_without_attack_count_among_those_to_judge():
    """35 of 100 are right, which are too few; 70 would do, and they are among 200."""
    found = {
        indicator: Share.of(0, 35, tolerance, Settings(), tests=4) for indicator, tolerance in module.TOLERATED.items()
    }
    verdict, _, _, remedy = module._decided(found, 35, 100, Overrating(True, False, ""))
    assert verdict is Verdict.INCONCLUSIVE and remedy == "Judge about 200 images (--samples)."


def test_where_no_number_of_images_decides():
    """A share of exactly the tolerance and what is detectable is never significantly anything."""
    found = Share.of(3, 50, 0.06, Settings(detectable=1e-6))
    assert found.verdict is Verdict.INCONCLUSIVE and found.decisive is None
    assert found.more == "Judge more images (--samples)."


def test_skipped_where_nothing_is_right(digits, undefended):
    images, labels = digits.arrays("test")
    wrong = (undefended.predict(images, verbose=0).argmax(axis=1) + 1) % 10
    result = attack_does_not_fail(Subject(undefended, images[:30], wrong[:30], epsilon=EPSILON), Settings())
    assert result.verdict is Verdict.SKIPPED and result.value is None


def test_every_indicator_has_its_words():
    assert set(module.TOLERATED) == set(module.SEEN) == set(module.REMEDY)
