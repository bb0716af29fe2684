"""CleverHans against our own attacks: one of ours that is weakened is noticed, a masked network misleads both."""

import importlib
import importlib.util
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from sanity import Verdict
from sanity.checks.second_opinion import second_opinion
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear, small
from tf_nuat import attacks, norms
from tf_nuat.attacks.attack import attack as as_attack

EPSILON = 0.1
module = importlib.import_module("sanity.checks.second_opinion")  # the package has the function by that name
needs_cleverhans = pytest.mark.skipif(
    importlib.util.find_spec("cleverhans") is None, reason="cleverhans is not installed"
)


@pytest.fixture(scope="module")
def sample():
    return small.sample(300)


@pytest.fixture(scope="module")
def undefended():
    return small.undefended()


def judge(network, sample, epsilon=EPSILON, steps=10):
    return second_opinion(Subject(network, *sample, epsilon=epsilon), Settings(steps=steps))


def agrees(result):
    return result.verdict is Verdict.REPORTED and "Our own attack is failing" not in result.explanation


@as_attack
def no_steps(network, x, y, *, epsilon, steps=1, step_size=1.0):
    return x


@as_attack
def detached_gradient(network, x, y, *, epsilon, steps=1, step_size=1.0):
    """Its steps go along a gradient that is 0."""
    settings = {"epsilon": epsilon, "steps": steps, "step_size": step_size}
    return attacks.pgd(lambda images: tf.stop_gradient(network(images)), x, y, **settings)


@as_attack
def shrunk_ball(network, x, y, *, epsilon, steps=1, step_size=1.0):
    return attacks.fgsm(network, x, y, epsilon=epsilon / 4)


@needs_cleverhans
@pytest.mark.parametrize("weak", [no_steps, detached_gradient, shrunk_ball])
@pytest.mark.parametrize(("name", "label"), [("pgd", "PGD"), ("mifgsm", "MIM")])
def test_an_attack_of_ours_that_fails_is_seen(name, label, weak, undefended, sample, monkeypatch):
    monkeypatch.setitem(attacks.ATTACKS, name, weak)
    result = judge(undefended, sample)
    assert result.verdict is Verdict.REPORTED and "Our own attack is failing" in result.explanation
    assert f"CleverHans' {label}" in result.quantity and f"{label} of CleverHans" in result.explanation
    assert result.interval[0] > 0.05 and result.remedy and result.reference


@needs_cleverhans
def test_it_is_skipped_for_a_norm_that_cleverhans_lacks(undefended, sample):
    class Taxicab(norms.L2):
        label, order = "L1", 1

    result = second_opinion(Subject(undefended, *sample, epsilon=0.1, norm=Taxicab()), Settings(steps=2))
    assert result.verdict is Verdict.SKIPPED and "no PGD for L1" in result.explanation and result.reference


@needs_cleverhans
@pytest.mark.parametrize("epsilon", [0.03, 0.1, 0.3])
def test_on_an_undefended_network_both_are_alike(epsilon, undefended, sample):
    assert agrees(judge(undefended, sample, epsilon))


@needs_cleverhans
def test_on_a_robust_and_on_a_masked_network_both_are_alike(undefended, sample):
    """It judges our attacks, not the network."""
    for network in small.robust(EPSILON), small.saturated(undefended), small.rounded(undefended):
        assert agrees(judge(network, sample))


@needs_cleverhans
def test_gradients_that_are_no_numbers_fool_nobody(undefended, sample):
    """The derivative of a root at 0 is infinite, and times 0 no number."""
    nowhere = keras.ops.sqrt(0.0 * keras.ops.mean(undefended.input, axis=(1, 2, 3)))[:, None]
    result = judge(keras.Model(undefended.input, undefended.output + nowhere), sample)
    assert agrees(result)
    assert {bar.name: bar.y for bar in result.series.bars}["MIM, CleverHans"] > 0.9


@needs_cleverhans
def test_all_four_attacks_leave_a_linear_network_what_the_closed_form_does():
    inputs = keras.Input(linear.SHAPE)
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(16, 2))
    network.set_weights([kernel, -0.5 * kernel.sum(axis=0)])  # grey images are on the boundary
    images = linear.batch(150)[0]
    labels = network(images).numpy().argmax(axis=1)
    labels[:15] = 1 - labels[:15]  # misclassified, whatever an attack makes of them
    result = judge(network, (images, labels), 0.05)
    assert agrees(result) and result.sample_size == 150

    sign = np.where(labels == 1, 1.0, -1.0)
    weights = sign[:, None] * (kernel[:, 1] - kernel[:, 0])
    worst = np.clip(images.reshape(150, -1) - 0.05 * np.sign(weights), 0.0, 1.0)
    withstands = np.sum(weights * (worst - 0.5), axis=1) > 0
    assert 0.2 < withstands.mean() < 0.85 and not withstands[:15].any()
    for bar in result.series.bars:
        assert abs(bar.y - withstands.mean()) <= 1 / 150


@needs_cleverhans
def test_logits_of_16_bits_are_attacked(undefended, sample):
    half = small.after(undefended, keras.layers.Activation("linear", dtype="bfloat16"))
    assert half.output.dtype == "bfloat16"
    result = judge(half, sample)
    assert result.verdict is Verdict.REPORTED
    assert {bar.name: bar.y for bar in result.series.bars}["PGD, CleverHans"] < 0.9


@needs_cleverhans
def test_what_it_found_counts_in_the_worst_case(undefended, sample):
    subject = Subject(undefended, *sample, epsilon=EPSILON)
    second_opinion(subject, Settings(steps=2, slow_images=50))
    theirs = [each for each in subject.evaluations() if str(each.attack).startswith("CleverHans")]
    assert [each.attack for each in theirs] == ["CleverHans' PGD", "CleverHans' MIM"]
    assert all(each.among.sum() == 50 and each.settings["epsilon"] == EPSILON for each in theirs)
    assert not np.any(subject.worst_case() & ~theirs[0].correct)


@needs_cleverhans
def test_few_images_are_asked_and_seeded_starts_leave_tensorflows_generator_alone(undefended, sample):
    tf.random.set_seed(3)
    expected = tf.random.uniform((4,)).numpy()
    tf.random.set_seed(3)
    first = judge(undefended, sample)
    np.testing.assert_array_equal(tf.random.uniform((4,)).numpy(), expected)
    assert first.sample_size == Settings().slow_images == 200
    assert judge(undefended, sample) == first


@needs_cleverhans
def test_their_adversaries_are_within_the_ball(undefended, sample):
    subject = Subject(undefended, *sample, epsilon=EPSILON)
    x, y = tf.constant(sample[0][:50]), tf.constant(sample[1][:50])
    modules = [importlib.import_module(f"cleverhans.tf2.attacks.{name}") for name in module.MODULES]
    for steps in 1, 10:
        for attack in module._attacks(modules, subject, Settings(steps=steps).pgd(EPSILON)):
            x_adv = attack(undefended, x, y).numpy()
            assert x_adv.min() >= 0.0 and x_adv.max() <= 1.0
            assert 0.9 * EPSILON < np.abs(x_adv - x.numpy()).max() <= EPSILON + 1e-6


def without_cleverhans(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cleverhans"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cleverhans", None)


def test_it_is_skipped_without_cleverhans(undefended, sample, monkeypatch):
    without_cleverhans(monkeypatch)
    result = judge(undefended, sample)
    assert result.verdict is Verdict.SKIPPED and result.value is None
    assert result.explanation == "cleverhans is not installed; pip install cleverhans"
    assert "pip install cleverhans" in result.remedy


def test_it_is_skipped_with_the_reason_where_cleverhans_is_broken(undefended, sample, monkeypatch):
    def broken(name):
        raise ImportError("libbroken.so: cannot open shared object file")

    monkeypatch.setattr(module.importlib, "import_module", broken)
    result = judge(undefended, sample)
    assert result.verdict is Verdict.SKIPPED
    assert "cannot be imported (libbroken.so: cannot open shared object file)" in result.explanation
