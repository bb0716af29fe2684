"""GAT guides its attack on the batches it should, and counts the forwards that this takes."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import counting, linear
from tf_nuat import schedules
from tf_nuat.attacks.nuclear import bernoulli_start
from tf_nuat.defenses.gat import GAT

WEIGHT = 50.0


def probabilities(weights, x):
    logits = x.reshape(len(x), -1).astype(np.float64) @ weights[0] + weights[1]
    return np.exp(logits) / np.sum(np.exp(logits), axis=1, keepdims=True)


def guided_step(weights, x, y, start, weight):
    """Returns what one step makes of `start`: the closed form of a linear network."""
    p, clean, kernel = probabilities(weights, start), probabilities(weights, x), weights[0]
    towards = 2 * weight * (p - clean)
    # The derivative of softmax: p_j * (delta_jk - p_k).
    to_logits = (p - np.eye(linear.CLASSES)[y]) + p * (towards - np.sum(p * towards, axis=1, keepdims=True))
    gradient = (to_logits @ kernel.T).reshape(x.shape)
    return np.clip(x + np.clip(start + linear.EPSILON * np.sign(gradient) - x, -linear.EPSILON, linear.EPSILON), 0, 1)


@pytest.mark.parametrize("alternate, step, guided", [(True, 0, False), (True, 1, True), (False, 0, True)])
def test_attack_of_a_linear_network(alternate, step, guided):
    model = linear.compiled(GAT, guidance_weight=WEIGHT, alternate=alternate)
    model.optimizer.iterations.assign(step)
    x, y = linear.batch(16)
    start = bernoulli_start(tf.constant(x), linear.EPSILON / 2, model.draw_seed)
    with_guidance, without = (
        guided_step(model.network.get_weights(), x, y, start.numpy(), weight) for weight in (WEIGHT, 0.0)
    )
    assert np.mean(np.abs(with_guidance - without) > 1e-5) > 0.02  # else agreement would not tell them apart
    x_adv = tf.function(model.perturb)(tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(x_adv, with_guidance if guided else without, atol=1e-6)


def test_the_weight_follows_its_schedule():
    model = linear.compiled(GAT, guidance_weight=schedules.ramp(8.0, 2, steps_per_epoch=10))
    (x, y), (x_adv, _) = linear.batch(), linear.batch(seed=2)
    weights = model.network.get_weights()
    distance = np.sum((probabilities(weights, x_adv) - probabilities(weights, x)) ** 2, axis=1).mean()
    clean, *_ = linear.cross_entropy(weights, x, y)
    for step, weight in (0, 0.0), (5, 2.0), (40, 8.0):
        model.optimizer.iterations.assign(step)
        loss, _ = model.objective(*map(tf.constant, (x, x_adv, y)))
        np.testing.assert_allclose(loss, clean + weight * distance, rtol=1e-5)


@pytest.mark.parametrize(
    "options, forward", [({}, 0.5), ({"alternate": False}, 1.0), ({"alternate": False, "guidance_weight": 0}, 0.0)]
)
def test_passes(options, forward):
    models = []

    def make_model(network):
        models.append(linear.compiled(GAT, network=network, **options))
        return models[0]

    measured = counting.passes(make_model, *counting.batch())
    assert measured == models[0].passes(8) == (1.0, 2.0, forward)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"alpha": 0.2}, "alpha is 0.2"),
        ({"guidance_weight": -1}, "guidance_weight is -1"),
        ({"alternate": "odd"}, "alternate is 'odd'; allowed: False, True"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        linear.compiled(GAT, **options)
