"""FBF does what the closed form of a linear network says."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import linear
from tf_nuat import norms
from tf_nuat.defenses.fbf import FBF


@pytest.mark.parametrize("step_size", [None, 0.04])
@pytest.mark.parametrize("given", [False, True])
def test_one_step_from_a_random_point(step_size, given):
    model = linear.compiled(FBF, step_size=step_size)
    x, y = map(tf.constant, linear.batch())
    start = norms.LINF.random_point(x, linear.EPSILON, 7 if given else model.draw_seed)
    assert np.mean(np.abs(start - x) < linear.EPSILON / 2) == pytest.approx(0.5, abs=0.15)  # uniform
    x_adv = tf.function(model.perturb)(x, y, start=start if given else None)
    size = 1.25 * linear.EPSILON if step_size is None else step_size
    expected = linear.step(model.network.get_weights(), x.numpy(), y.numpy(), start.numpy(), size)
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_the_adversarial_images():
    model = linear.compiled(FBF)
    (x, y), (x_adv, _) = linear.batch(), linear.batch(seed=2)
    loss, _ = model.objective(*map(tf.constant, (x, x_adv, y)))
    expected, *_ = linear.cross_entropy(model.network.get_weights(), x_adv, y)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="step_size is 0; allowed: a number above 0"):
        linear.compiled(FBF, step_size=0)
