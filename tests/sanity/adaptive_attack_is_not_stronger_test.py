"""Stronger attacks than PGD: what they take is reported, and counts in the worst case."""

import keras
import numpy as np
import pytest

from sanity import Verdict
from sanity.checks.adaptive_attack_is_not_stronger import adaptive_attack_is_not_stronger
from sanity.clock import Clock
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear, small
from tf_nuat.attacks import ATTACKS

EPSILON = 0.1
SETTINGS = Settings(steps=10, restarts=2, queries=20)
NUCLEAR = [f"PGD on the nuclear norm, weight {weight}" for weight in (4, 16, 1)]
NAMES = ["PGD, 2 restarts", "APGD-T", "GAMA-PGD", *NUCLEAR, "APGD-CE", "FAB-T", "Square"]


@pytest.fixture(scope="module")
def sample():
    return small.sample(200)


@pytest.fixture(scope="module")
def undefended():
    return small.undefended()


def judge(subject):
    result = adaptive_attack_is_not_stronger(subject, SETTINGS)
    assert result.verdict is Verdict.REPORTED and not result.masking and result.p_value is None
    return result


def test_what_hides_its_margin_from_the_cross_entropy_falls_to_stronger_attacks(undefended, sample):
    """Saturated logits: the softmax has no gradient in float32, the margin of the logits has one."""
    subject = Subject(small.saturated(undefended), *sample, epsilon=EPSILON)
    result = judge(subject)
    assert result.value > 0.1 and result.interval[0] < result.value < result.interval[1]
    assert [bar.name.removeprefix("then ") for bar in result.series.bars] == ["no attack", "PGD", *NAMES]
    left = [bar.y for bar in result.series.bars]
    assert left == sorted(left, reverse=True)  # each goes on with what those before it left
    assert result.value == pytest.approx(left[1] - left[-1])
    assert np.mean(subject.worst_case()) == left[-1]
    assert f"from {left[1]:.1%} to {left[-1]:.1%}" in result.explanation and "worst case" in result.remedy


def test_attacks_without_a_version_for_the_norm_are_left_out(undefended, sample, monkeypatch):
    subject = Subject(undefended, *sample, epsilon=0.5, norm="l2")
    for name in ("nuclear", "gama_pgd", "fab_t", "apgd_t"):
        monkeypatch.setattr(ATTACKS[name], "norms", ("linf",))
    names = [bar.name.removeprefix("then ") for bar in judge(subject).series.bars[2:]]
    assert names == [name for name in NAMES if name in ("PGD, 2 restarts", "APGD-CE", "Square")]


def test_where_no_stronger_attack_had_time_nothing_is_reported(undefended, sample):
    """Not that they fool no image."""
    subject = Subject(undefended, *sample, epsilon=EPSILON, clock=Clock(0.0))
    result = adaptive_attack_is_not_stronger(subject, SETTINGS)
    assert result.verdict is Verdict.SKIPPED and result.value is None and not result.masking
    assert result.explanation == f"There was no time for {'; '.join(NAMES)}."


def test_a_linear_network_of_two_classes_has_no_targets_and_loses_nothing():
    """PGD ends at the worst point of the ball, and nothing else can find more."""
    inputs = keras.Input(linear.SHAPE)
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(16, 2))
    network.set_weights([kernel, -0.5 * kernel.sum(axis=0)])  # grey images are on the boundary
    images = linear.batch(300)[0]
    labels = network(images).numpy().argmax(axis=1)
    result = judge(Subject(network, images, labels, epsilon=0.05))
    assert result.value <= 1 / 300
    assert [bar.name.removeprefix("then ") for bar in result.series.bars[2:]] == [
        name for name in NAMES if name != "APGD-T"
    ]

    kernel, bias = network.layers[-1].get_weights()
    sign = np.where(labels == 1, 1.0, -1.0)
    weights = sign[:, None] * (kernel[:, 1] - kernel[:, 0])
    flat = images.reshape(300, -1).astype(np.float64)
    worst = np.clip(flat - 0.05 * np.sign(weights), 0.0, 1.0)
    withstands = np.sum(weights * worst, axis=1) + sign * (bias[1] - bias[0]) > 0
    assert 0.2 < withstands.mean() < 0.9
    for bar in result.series.bars[1:]:
        assert abs(bar.y - withstands.mean()) <= 1 / 300
