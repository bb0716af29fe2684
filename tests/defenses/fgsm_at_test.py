"""FGSM-AT and R-FGSM-AT do what the closed form of a linear network says."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import counting, linear
from tf_nuat.attacks.rfgsm import random_step
from tf_nuat.defenses.fgsm_at import FGSMAT, RFGSMAT


@pytest.mark.parametrize("every, size", [(2, 8), (2, 5), (1, 5), (3, 8)])
def test_fgsm_at_replaces_every_nth_image(every, size):
    model = linear.compiled(FGSMAT, every=every)
    x, y = linear.batch(size)
    attacked = linear.step(model.network.get_weights(), x, y, x, linear.EPSILON)
    expected = np.where((np.arange(size) % every == 0)[:, None, None, None], attacked, x)
    np.testing.assert_allclose(tf.function(model.perturb)(tf.constant(x), tf.constant(y)), expected, atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_the_mixed_batch():
    model = linear.compiled(FGSMAT)
    x, y = linear.batch(5)
    x_adv = model.perturb(tf.constant(x), tf.constant(y))
    loss, _ = model.objective(tf.constant(x), x_adv, tf.constant(y))
    expected, *_ = linear.cross_entropy(model.network.get_weights(), x_adv.numpy(), y)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("given", [False, True])
def test_rfgsm_at_steps_on_from_the_random_step(given):
    model = linear.compiled(RFGSMAT, alpha=0.03)
    x, y = map(tf.constant, linear.batch())
    start = random_step(x, 0.03, 7 if given else model.draw_seed)
    x_adv = tf.function(model.perturb)(x, y, start=start if given else None)
    expected = linear.step(model.network.get_weights(), x.numpy(), y.numpy(), start.numpy(), 0.07)
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)


def test_rfgsm_at_on_half_of_the_batch_leaves_the_other_half():
    model = linear.compiled(RFGSMAT, every=2)
    x, y = map(tf.constant, linear.batch())
    x_adv = model.perturb(x, y, start=x + 0.0)
    np.testing.assert_array_equal(x_adv[1::2], x[1::2])
    expected = linear.step(model.network.get_weights(), x.numpy(), y.numpy(), x.numpy(), linear.EPSILON / 2)
    np.testing.assert_allclose(x_adv[::2], expected[::2], atol=1e-6)


@pytest.mark.parametrize("defense", [FGSMAT, RFGSMAT])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_passes(defense, every):
    models = []

    def make_model(network):
        models.append(linear.compiled(defense, network=network, every=every))
        return models[0]

    measured = counting.passes(make_model, *counting.batch(5))
    assert measured == pytest.approx(models[0].passes(5))
    assert measured.input_gradient == pytest.approx({1: 5, 2: 3, 3: 2}[every] / 5)


@pytest.mark.parametrize(
    "defense, options, words",
    [
        (FGSMAT, {"every": 0}, "every is 0; allowed: a whole number, at least 1"),
        (FGSMAT, {"every": 0.5}, "every is 0.5"),
        (RFGSMAT, {"alpha": 0.2}, "alpha is 0.2; allowed: a number at least 0 and at most 0.1"),
    ],
)
def test_bad_options_are_named(defense, options, words):
    with pytest.raises(ValueError, match=words):
        linear.compiled(defense, **options)
