"""Attacks that know the defense against PGD with restarts: the check names the one to report instead."""

import keras
import numpy as np
import pytest

from sanity import Verdict
from sanity.checks.adaptive_attack_is_not_stronger import adaptive_attack_is_not_stronger
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear, small
from tf_nuat.attacks import ATTACKS

EPSILON = 0.1
NAMES = [*(f"PGD on the nuclear norm, weight {weight}" for weight in (1, 4, 16)), "GAMA-PGD", "targeted APGD"]


@pytest.fixture(scope="module")
def sample():
    return small.sample(300)


@pytest.fixture(scope="module")
def undefended():
    return small.undefended()


def judge(network, sample, epsilon=EPSILON, steps=20):
    return adaptive_attack_is_not_stronger(Subject(network, *sample, epsilon=epsilon), Settings(steps=steps))


def test_a_network_that_hides_its_margin_from_the_cross_entropy_is_seen(undefended, sample):
    """Saturated logits: the softmax has no gradient in float32, the margin of the logits has one."""
    result = judge(small.saturated(undefended), sample)
    assert result.verdict is Verdict.FAIL
    assert "targeted APGD" in result.quantity and "targeted APGD" in result.remedy
    assert "steps 20, targets 9" in result.remedy
    assert "no sign of masked gradients" in result.explanation and result.reference
    assert result.interval[0] < result.value < result.interval[1] and result.value > 0.1 > result.threshold == 0.02


def test_a_weakened_pgd_is_seen(undefended, sample, monkeypatch):
    full = Settings.pgd
    monkeypatch.setattr(Subject, "correct", weakened(Subject.correct, {"epsilon": EPSILON / 4}))
    result = judge(undefended, sample)
    assert result.verdict is Verdict.FAIL
    assert Settings.pgd is full  # the other attacks keep their settings
    left = {bar.name: bar.y for bar in result.series.bars}
    assert min(left, key=left.get).removeprefix("then ") in result.quantity


def test_attacks_without_a_version_for_the_norm_are_left_out(undefended, sample, monkeypatch):
    subject = Subject(undefended, *sample, epsilon=0.5, norm="l2")
    for name in ("nuclear", "gama_pgd"):
        monkeypatch.setattr(ATTACKS[name], "norms", ("linf",))
    result = adaptive_attack_is_not_stronger(subject, Settings(steps=5, restarts=1))
    assert [bar.name for bar in result.series.bars] == ["no attack", "PGD, 1 restarts", "then targeted APGD"]
    monkeypatch.setattr(ATTACKS["apgd_t"], "norms", ("linf",))
    result = adaptive_attack_is_not_stronger(subject, Settings(steps=5, restarts=1))
    assert result.verdict is Verdict.SKIPPED and "L2" in result.explanation and result.remedy and result.reference


def weakened(correct, weak):
    def weaker(self, attack=None, **settings):
        return correct(self, attack, **({**settings, **weak} if attack == "pgd" else settings))

    return weaker


@pytest.mark.parametrize("epsilon", [0.03, 0.1, 0.3])
def test_an_undefended_network_passes(epsilon, undefended, sample):
    result = judge(undefended, sample, epsilon)
    assert result.verdict is Verdict.PASS and result.remedy == ""
    assert [bar.name.removeprefix("then ") for bar in result.series.bars[2:]] == NAMES


def test_a_robust_network_passes(sample):
    result = judge(small.robust(EPSILON), sample)
    assert result.verdict is Verdict.PASS
    assert result.series.bars[1].y > 0.5


def test_a_linear_network_passes_without_targets():
    """Of two classes, where PGD ends at the worst point of the ball and nothing else can find more."""
    inputs = keras.Input(linear.SHAPE)
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(16, 2))
    network.set_weights([kernel, -0.5 * kernel.sum(axis=0)])  # grey images are on the boundary
    images = linear.batch(300)[0]
    labels = network(images).numpy().argmax(axis=1)
    result = judge(network, (images, labels), 0.05)
    assert result.verdict is Verdict.PASS and result.value <= 1 / 300
    assert [bar.name.removeprefix("then ") for bar in result.series.bars[2:]] == NAMES[:-1]

    kernel, bias = network.layers[-1].get_weights()
    sign = np.where(labels == 1, 1.0, -1.0)
    weights = sign[:, None] * (kernel[:, 1] - kernel[:, 0])
    flat = images.reshape(300, -1).astype(np.float64)
    worst = np.clip(flat - 0.05 * np.sign(weights), 0.0, 1.0)
    withstands = np.sum(weights * worst, axis=1) + sign * (bias[1] - bias[0]) > 0
    assert 0.2 < withstands.mean() < 0.9
    for bar in result.series.bars[1:]:
        assert abs(bar.y - withstands.mean()) <= 1 / 300


def test_a_small_sample_says_how_many_images_would_decide(undefended, sample):
    result = judge(undefended, tuple(part[:20] for part in sample), 0.03)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "Judge about" in result.remedy


@pytest.mark.parametrize(
    ("fooled", "images", "expected"),
    [
        ({"GAMA-PGD": 20}, 1000, Verdict.PASS),
        ({"GAMA-PGD": 33}, 1000, Verdict.PASS),  # 33 and more of 1,000 by chance: 0.4 %, of five attacks 2 %
        ({"GAMA-PGD": 36}, 1000, Verdict.FAIL),  # 0.08 %
        ({"targeted APGD": 60, "GAMA-PGD": 50}, 1000, Verdict.FAIL),
        ({NAMES[1]: 36}, 1000, Verdict.FAIL),
        ({"GAMA-PGD": 2}, 60, Verdict.INCONCLUSIVE),
    ],
)
def test_the_strongest_attack_decides(fooled, images, expected):
    """With prescribed outcomes: who takes the most away is named."""

    class Prescribed:
        epsilon, num_classes = EPSILON, 10

        def has(self, attack):
            return attack in ATTACKS

        def correct(self, attack=None, *, among=None, **settings):
            if among is None:
                assert attack in (None, "pgd")  # the others look at what is left
                return np.arange(images) < (images if attack is None else 0.9 * images)
            return np.arange(images) < among.sum() - fooled.get(name_of(attack, **settings), 0)

    result = adaptive_attack_is_not_stronger(Prescribed(), Settings())
    strongest = max(fooled, key=fooled.get)
    assert result.verdict is expected
    assert result.value == fooled[strongest] / images and strongest in result.quantity
    assert (strongest in result.remedy) == (expected is Verdict.FAIL)


def name_of(attack, *, epsilon, weight=None, steps, **settings):
    """Returns what the check calls an attack; each is asked within the ball."""
    assert epsilon == EPSILON
    assert steps == (100 if attack == "gama_pgd" else Settings().steps)
    names = {"gama_pgd": "GAMA-PGD", "apgd_t": "targeted APGD"}
    return names[attack] if weight is None else f"PGD on the nuclear norm, weight {weight:g}"
