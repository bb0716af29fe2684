"""Averaged gradients on functions of one pixel and on a linear network, of which they are known."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import linear
from tf_nuat import attacks, losses

PIXEL = np.full((1, 1, 1, 1), 0.6, np.float32)
IMAGES, LABELS = linear.batch(20)


def of_pixel(function):
    """Returns images (B, 1, 1, 1) -> logits (B, 2), the first of which is the function of the pixel."""
    return lambda x: tf.concat([function(x)[:, 0, 0], tf.zeros_like(x)[:, 0, 0]], axis=1)


def slope(logits_fn, x=PIXEL):
    """Returns the gradient of the first logit, (B, ...)."""

    @tf.function(autograph=False)
    def gradient(x):
        return tf.gradients(logits_fn(x)[:, 0], x)[0]

    return gradient(tf.constant(x)).numpy()


@pytest.mark.parametrize("radius", [0.2, 0.4])
def test_the_slope_of_a_kink_is_smoothed(radius):
    """The mean of the sign of x - 0.5 over [x - r, x + r] is (x - 0.5) / r."""
    kink = of_pixel(lambda x: tf.abs(x - 0.5))
    assert slope(kink) == pytest.approx(1.0)
    found = slope(attacks.averaged(kink, radius=radius, points=2000))
    assert found == pytest.approx(0.1 / radius, abs=0.06)  # 2.7 standard deviations


def test_the_slope_of_a_staircase_is_that_from_one_side_to_the_other():
    stairs = of_pixel(lambda x: tf.floor(x * 10.0 + 0.5) / 10.0)
    assert slope(attacks.averaged(stairs, radius=0.2)) == 0.0  # its gradient is 0 wherever it is taken
    for radius, expected in ((0.27, 0.6 / 0.54), (0.04, 0.0)):
        found = slope(attacks.averaged(stairs, radius=radius, by="differences"))
        assert found == pytest.approx(expected, abs=1e-5)
    at_the_end = slope(attacks.averaged(stairs, radius=0.2, by="differences"), np.ones((1, 1, 1, 1), np.float32))
    assert at_the_end == pytest.approx(1.0, abs=1e-5)  # from 0.8 to 1, and not to 1.2


@pytest.mark.parametrize("answers", ["image", "mean"])
def test_a_linear_network_has_the_same_gradient_everywhere(answers):
    network = linear.network()
    surface = attacks.averaged(network, radius=0.3, points=5, answers=answers)
    np.testing.assert_allclose(slope(surface, IMAGES), slope(network, IMAGES), rtol=1e-4)
    if answers == "image":
        np.testing.assert_array_equal(surface(IMAGES), network(IMAGES))
    else:
        assert np.abs(surface(IMAGES) - network(IMAGES)).max() > 1e-3


def test_differences_in_all_directions_are_the_gradient_of_a_linear_network():
    network = linear.network()
    found = slope(attacks.averaged(network, radius=0.1, points=3000, by="differences"), IMAGES)
    expected = slope(network, IMAGES)
    assert np.sum(found * expected) / np.sqrt(np.sum(found**2) * np.sum(expected**2)) > 0.99


def test_passes_through_a_random_network_are_averaged():
    """Gradient and logits are the means over the draws: of x u with u from [0, 2], x and 1."""
    generator = tf.random.Generator.from_seed(0)
    noisy = of_pixel(lambda x: x * generator.uniform((), 0.0, 2.0))
    surface = attacks.averaged(noisy, radius=0.0, points=2000, answers="mean")
    mean = tf.function(surface, autograph=False)(PIXEL).numpy()
    assert mean[0, 0] == pytest.approx(0.6, abs=0.03) and slope(surface) == pytest.approx(1.0, abs=0.04)


def test_an_attack_runs_on_it_and_the_draws_of_an_image_are_its_own():
    network = linear.network()
    labels = np.argmax(network(IMAGES), axis=1)
    surface = attacks.averaged(network, radius=0.05, points=3)
    settings = {"epsilon": linear.EPSILON, "steps": 10, "loss": "margin"}
    found, expected = (attacks.pgd(each, IMAGES, labels, **settings) for each in (surface, network))
    np.testing.assert_allclose(found, expected, atol=1e-6)

    curved = of_pixel(lambda x: tf.sin(30.0 * x))
    pixels = np.linspace(0.2, 0.8, 7, dtype=np.float32).reshape(7, 1, 1, 1)
    together, alone = attacks.averaged(curved, radius=0.1), attacks.averaged(curved, radius=0.1)
    np.testing.assert_allclose(slope(together, pixels)[3], slope(alone, pixels[3:4])[0], rtol=1e-5)


def test_a_radius_that_is_assigned_holds_for_what_is_compiled():
    kink = of_pixel(lambda x: tf.abs(x - 0.5))
    surface = attacks.averaged(kink, radius=0.0, points=2000)
    compiled = tf.function(lambda x: tf.gradients(losses.margin(surface(x), tf.constant([1])), x)[0], autograph=False)
    assert compiled(tf.constant(PIXEL)).numpy() == pytest.approx(1.0)
    surface.radius.assign(0.4)
    assert compiled(tf.constant(PIXEL)).numpy() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"radius": -0.1}, "radius is -0.1; allowed: a number at least 0"),
        ({"radius": 0.0, "by": "differences"}, "radius is 0.0; allowed: a number above 0"),
        ({"points": 0}, "points is 0; allowed: a whole number, at least 1"),
        ({"by": "magic"}, "by is 'magic'; allowed: differences, gradients"),
        ({"answers": "best"}, "answers is 'best'; allowed: image, mean"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**31}, "seed is 2147483648"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        attacks.averaged(linear.network(), **{"radius": 0.1, **wrong})
