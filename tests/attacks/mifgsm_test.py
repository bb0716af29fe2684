"""MI-FGSM against its steps computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import linear
from tests.helpers.recorded import Recorded
from tf_nuat import attacks
from tf_nuat.attacks.mifgsm import mifgsm

EPSILON = 0.1


def curved(size=16):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(linear.CLASSES)]
    network = keras.Sequential([keras.Input(linear.SHAPE), *layers])
    network.set_weights([3.0 * weight for weight in network.get_weights()])
    return (network, *linear.batch(size))


def by_hand(gradient_at, x, steps, step_size, decay):
    x_adv, total = x.astype(np.float64), 0.0
    for _ in range(steps):
        gradient = gradient_at(x_adv)
        total = decay * total + gradient / np.abs(gradient).sum(axis=(1, 2, 3), keepdims=True)
        x_adv = np.clip(np.clip(x_adv + step_size * np.sign(total), x - EPSILON, x + EPSILON), 0, 1)
    return x_adv


@pytest.mark.parametrize("steps, step_size, decay", [(1, 0.1, 1.0), (10, 0.01, 1.0), (6, 0.05, 0.5), (6, 0.05, 0.0)])
def test_takes_the_steps_of_the_paper(steps, step_size, decay):
    network, x, y = curved()

    def gradient_at(x_adv):
        # In float64, with the network's weights.
        first, first_bias, second, second_bias = (weight.astype(np.float64) for weight in network.get_weights())
        hidden = np.tanh(x_adv.reshape(len(x), -1) @ first + first_bias)
        z = hidden @ second + second_bias
        p = np.exp(z - z.max(axis=1, keepdims=True))
        to_logits = p / p.sum(axis=1, keepdims=True) - np.eye(linear.CLASSES)[y]
        return ((to_logits @ second.T * (1 - hidden**2)) @ first.T).reshape(x.shape)

    x_adv = mifgsm(network, x, y, epsilon=EPSILON, steps=steps, step_size=step_size, decay=decay)
    np.testing.assert_allclose(x_adv, by_hand(gradient_at, x, steps, step_size, decay), atol=1e-5)
    default = mifgsm(network, x, y, epsilon=EPSILON, steps=steps, decay=decay)
    assert (np.max(np.abs(default - x_adv)) < 1e-6) == (abs(step_size * steps - EPSILON) < 1e-9)


def test_momentum_walks_on_where_the_gradient_turns():
    """Past a ridge the gradient points back: I-FGSM stays there, and the sum of gradients goes over it."""
    x, y = np.full((1, *linear.SHAPE), 0.5, np.float32), np.array([0])

    def logits_fn(x):
        offset = tf.reduce_mean(x, axis=(1, 2, 3)) - 0.5
        return tf.stack([tf.zeros_like(offset), -tf.abs(offset - 0.035)], axis=1)

    settings = {"epsilon": EPSILON, "steps": 6, "step_size": 0.01}
    with_momentum = mifgsm(logits_fn, x, y, **settings)
    without = attacks.ifgsm(logits_fn, x, y, **settings)
    np.testing.assert_allclose(without - x, 0.04, atol=1e-6)  # 1, 2, 3, 4, 3, 4 steps away
    np.testing.assert_allclose(with_momentum - x, 0.06, atol=1e-6)
    np.testing.assert_allclose(mifgsm(logits_fn, x, y, decay=0.0, **settings), without, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_gradients_of_any_scale_count_the_same(scale):
    """The margin-like loss of a far class: its gradient is that of the logits, times the scale."""
    network, x, y = curved()
    x = np.concatenate([x, x])

    def logits_fn(images):
        own = tf.where(tf.range(32) < 16, 1.0, scale)[:, None]
        values = tf.reduce_sum(network(images), axis=1, keepdims=True)
        # A gradient that is the slope of `values` times `own`, whatever the cross-entropy.
        passed = tf.custom_gradient(lambda v: (0.0 * v, lambda upstream: own * (1.0 + 0.0 * upstream)))(values)
        return tf.concat([passed, tf.zeros_like(values)], axis=1)

    x_adv = mifgsm(logits_fn, x, np.zeros(32, int), epsilon=EPSILON, steps=4, step_size=0.04).numpy()
    np.testing.assert_allclose(x_adv[16:], x_adv[:16], atol=1e-6)
    assert np.all(np.any(x_adv != x, axis=(1, 2, 3)))


def test_begins_at_the_image_and_every_image_on_the_way_is_in_the_ball():
    network, x, y = curved()
    recorded = Recorded(network)
    x_adv = mifgsm(recorded, x, y, epsilon=EPSILON, steps=5, step_size=0.07).numpy()
    assert len(recorded.seen) == recorded.returned == 5
    for images in [*recorded.seen, x_adv]:
        assert np.max(np.abs(images - x)) <= EPSILON + 1e-6 and images.min() >= 0.0 and images.max() <= 1.0
    np.testing.assert_array_equal(recorded.seen[0], x)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"decay": -0.1}, "decay is -0.1; allowed: a number at least 0"),
        ({"decay": None}, "decay is None"),
        ({"seed": 1}, "argument of mifgsm is 'seed'; allowed: decay, epsilon, norm, step_size, steps"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words) as raised:
        mifgsm(*curved(), **{"epsilon": 0.1, **settings})
    assert "\n" not in str(raised.value)
