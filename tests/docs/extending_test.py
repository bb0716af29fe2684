"""The examples of a defense, an attack and a check run as they stand on the page, and do what it says."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from docs.render import code
from sanity import Settings, Verdict
from sanity.checks import CHECKS
from sanity.subject import Subject
from tests.helpers import linear, small

DEFENSE, ATTACK, CHECK = code("docs/extending.md", "python")


TABLES = tf_nuat.DEFENSES, tf_nuat.ATTACKS, CHECKS


@pytest.fixture(scope="module", autouse=True)
def tables_as_they_are():
    """What the examples add to the tables is gone after them."""
    before = [dict(table) for table in TABLES]
    yield
    for table, entries in zip(TABLES, before):
        table.clear()
        table.update(entries)


def run(example):
    """Returns the names that an example has defined; what it trains is the same each time."""
    keras.utils.set_random_seed(0)
    names = {"__name__": "example"}
    exec(compile(example, "docs/extending.md", "exec"), names)
    return names


@pytest.mark.parametrize("example", [DEFENSE, ATTACK, CHECK])
def test_an_example_is_short(example):
    assert len([line for line in example.splitlines() if line]) <= 30
    assert max(map(len, example.splitlines())) <= 120


def test_the_defense(capsys):
    defense = run(DEFENSE)["LogitPairing"]
    assert float(re.search(r"under PGD: (.*)%", capsys.readouterr().out)[1]) > 60.0  # undefended: see the next example
    assert tf_nuat.DEFENSES["logit_pairing"] is defense

    model = linear.compiled(defense, pairing_weight=0.25)
    x, y = linear.batch()
    x_adv = model.perturb(tf.constant(x), tf.constant(y)).numpy()
    assert np.abs(x_adv - x).max() <= linear.EPSILON + 1e-6 and x_adv.min() >= 0.0 and x_adv.max() <= 1.0
    weights = model.network.get_weights()
    distance = np.sum(((x_adv - x).reshape(len(x), -1) @ weights[0]) ** 2, axis=1)
    loss, _ = model.objective(tf.constant(x), tf.constant(x_adv), tf.constant(y))
    assert float(loss) == pytest.approx(linear.cross_entropy(weights, x_adv, y)[0] + 0.25 * distance.mean(), rel=1e-5)
    with pytest.raises(ValueError, match="pairing_weight is -1; allowed: a number at least 0"):
        linear.compiled(defense, pairing_weight=-1)


def test_the_attack(capsys):
    attack = run(ATTACK)["runner_up"]
    clean, runner_up, pgd = map(float, re.findall(r": (.*)% left", capsys.readouterr().out))
    assert clean > 80.0 > 60.0 > runner_up >= pgd

    network, (x, y) = linear.network(), linear.batch()
    logits = network.predict(x, verbose=0)
    logits[np.arange(len(x)), y] = -np.inf
    target = logits.argmax(axis=1)
    weights = network.get_weights()
    expected = linear.step(weights, x, target, x, -linear.EPSILON)
    found = attack(network, x, y, epsilon=linear.EPSILON, steps=1, step_size=linear.EPSILON)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match="steps is 0; allowed: a whole number, at least 1"):
        attack(network, x, y, epsilon=0.1, steps=0)


def test_the_check(capsys):
    check = run(CHECK)["noise_is_not_stronger"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("pass FGSM leaves -")
    images, labels = small.sample(353)
    masked = Subject(small.saturated(small.undefended()), images, labels, epsilon=0.3)
    assert check(masked, Settings()).verdict is Verdict.FAIL
    few = Subject(small.undefended(), images[:20], labels[:20], epsilon=0.01)
    assert check(few, Settings()).verdict is Verdict.INCONCLUSIVE
