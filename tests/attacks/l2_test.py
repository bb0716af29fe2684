"""Attacks in L2 against L-infinity, and their steps in L2."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import images as pictures
from tests.helpers import networks
from tests.helpers.images import lengths
from tests.helpers.recorded import Recorded, reluctant
from tf_nuat import attacks

SHAPE = (6, 5, 2)
CLASSES = 4
NORMS = ("linf", "l2")
LOOK_AT_CLEAN = ("nuclear", "gama_pgd", "gama_fw")  # beside their first step, in an order that is not fixed

images = functools.partial(pictures.images, shape=SHAPE)


def test_the_default_step_size_of_pgd_is_two_and_a_half_of_its_share_of_epsilon():
    x, y = images(low=0.4, high=0.6), np.arange(16) % 2
    recorded = Recorded(reluctant(networks.drawn(SHAPE, 2, 0, scale=0.2), y, confidence=5.0))
    attacks.pgd(recorded, x, y, epsilon=0.1, steps=5, random_start=False, norm="l2")
    for seen, expected in zip(recorded.seen, [0.0, 0.05, 0.1, 0.1, 0.1, 0.1], strict=True):
        np.testing.assert_allclose(lengths(seen - x), expected, atol=1e-5)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("pgd", {"steps": 4, "random_start": False}),
        ("pgd", {"steps": 4, "step_size": 0.07, "start": pictures.images(shape=(1, 1, 1), seed=3)}),
        ("fgsm", {}),
        ("ifgsm", {"steps": 3}),
        ("mifgsm", {"steps": 3, "step_size": 0.07}),
        ("gama_pgd", {"steps": 10, "step_size": 0.07}),
        ("gama_fw", {"steps": 10}),
        ("nuclear", {"weight": 2.0, "seed": 1}),
        ("nuclear", {"weight": 2.0, "steps": 3, "alpha": 0.05, "step_size": 0.07}),
    ],
)
def test_the_norms_of_a_single_pixel_coincide(name, settings):
    x, y = pictures.images(64, shape=(1, 1, 1)), np.arange(64) % CLASSES
    settings = {key: np.resize(value, x.shape) if key == "start" else value for key, value in settings.items()}
    recorded = Recorded(networks.drawn((1, 1, 1), CLASSES, 8))
    attack = functools.partial(attacks.ATTACKS[name], recorded, x, y, epsilon=0.2, **settings)
    seen, returned = {}, {}
    for norm in NORMS:
        returned[norm] = attack(norm=norm).numpy()
        seen[norm] = recorded.on_the_way(x) if name in LOOK_AT_CLEAN else recorded.seen.copy()
        recorded.seen.clear()
    np.testing.assert_allclose(seen["l2"], seen["linf"], atol=1e-6)
    np.testing.assert_allclose(returned["l2"], returned["linf"], atol=1e-6)
    assert np.mean(np.abs((seen["l2"][-1] if name == "pgd" else returned["l2"]) - x)) > 0.03


@pytest.mark.parametrize("name", ["pgd", "nuclear"])
def test_a_zero_gradient_of_some_images_moves_them_nowhere(name):
    """One image's logits are rounded to a constant: beside it, the others take their steps."""
    x, y = images(low=0.4, high=0.6), np.arange(16) % 2
    first, linear = (tf.range(16) == 0)[:, None], reluctant(networks.drawn(SHAPE, 2, 0, scale=0.2), y, confidence=5.0)
    recorded = Recorded(lambda x: tf.where(first, tf.round(linear(x)), linear(x)))
    settings = {"random_start": False} if name == "pgd" else {"start": x, "weight": 0.0}
    x_adv = attacks.ATTACKS[name](recorded, x, y, epsilon=0.1, norm="l2", **settings)
    last = recorded.seen[-1] if name == "pgd" else x_adv
    np.testing.assert_allclose(lengths(last - x), np.where(np.arange(16) == 0, 0.0, 0.1), atol=1e-6)


def test_an_unknown_norm_is_named_inside_a_compiled_function_too():
    x, y = images(), np.arange(16) % 2
    for name in ("pgd", "nuclear"):
        with pytest.raises(ValueError, match="norm is 'l0'; allowed: "):
            tf.function(functools.partial(attacks.ATTACKS[name], epsilon=0.1, norm="l0"), autograph=False)(
                networks.drawn(SHAPE, 2, 0, scale=0.2), tf.constant(x), tf.constant(y)
            )
