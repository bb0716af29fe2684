"""Attacks by transfer: what is computed on the surrogate, and what is judged on the network."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import networks
from tests.helpers.images import SHAPE, classes_of, images, margins
from tests.helpers.networks import CLASSES
from tests.helpers.recorded import Recorded
from tf_nuat import evaluate
from tf_nuat.attacks.fgsm import fgsm
from tf_nuat.attacks.ifgsm import ifgsm
from tf_nuat.attacks.mifgsm import mifgsm
from tf_nuat.attacks.transfer import transfer

EPSILON = 0.1


@pytest.fixture(scope="module")
def surrogate(network):
    """The network, with weights that are a little different."""
    model = networks.drawn(seed=2)
    generator = np.random.default_rng(3)
    model.set_weights([weight + 0.3 * generator.normal(size=weight.shape) for weight in network.get_weights()])
    return model


@pytest.fixture(scope="module")
def labelled(network):
    x = images(64)
    return x, classes_of(network, x)


@pytest.mark.parametrize(
    "attack, settings, own",
    [
        (mifgsm, {"steps": 7, "step_size": 0.03, "decay": 0.5}, {"steps": 7, "step_size": 0.03, "decay": 0.5}),
        (mifgsm, {}, {}),
        (ifgsm, {"steps": 5}, {"steps": 5, "decay": 0.0}),
        (fgsm, {}, {"steps": 1}),
    ],
)
def test_is_the_attack_on_the_surrogate_where_it_fools_the_network(attack, settings, own, network, surrogate, labelled):
    x, y = labelled
    on_surrogate = attack(surrogate, x, y, epsilon=EPSILON, **settings).numpy()
    fooled = margins(network, on_surrogate, y) > 0
    assert 5 < np.sum(fooled) < 59
    assert np.any(fooled != (margins(surrogate, on_surrogate, y) > 0))
    x_adv = transfer(network, x, y, epsilon=EPSILON, surrogate=surrogate, **own)
    np.testing.assert_allclose(x_adv, np.where(fooled[:, None, None, None], on_surrogate, x), atol=1e-6)


def test_takes_no_gradient_of_the_network_and_all_steps_on_the_surrogate(network, surrogate, labelled):
    """Those with which it begins fool the surrogate at once."""
    judged, attacked = Recorded(network), Recorded(surrogate)
    x, y = labelled
    transfer(judged, x, (y + 1) % CLASSES, epsilon=EPSILON, surrogate=attacked, steps=6)
    assert (len(judged.seen), judged.returned) == (1, 0)
    assert (len(attacked.seen), attacked.returned) == (6, 6)


def test_a_surrogate_may_be_the_mean_of_several(network, surrogate, labelled):
    """The mean of a network and of one with opposite logits is flat."""
    x, y = labelled
    flat = lambda x: 0.5 * (surrogate(x) + -surrogate(x))  # noqa: E731
    np.testing.assert_array_equal(transfer(network, x, y, epsilon=EPSILON, surrogate=flat), x)
    mean = lambda x: 0.5 * (network(x) + surrogate(x))  # noqa: E731
    on_mean = mifgsm(mean, x, y, epsilon=EPSILON).numpy()
    fooled = margins(network, on_mean, y) > 0
    expected = np.where(fooled[:, None, None, None], on_mean, x)
    np.testing.assert_allclose(transfer(network, x, y, epsilon=EPSILON, surrogate=mean), expected, atol=1e-6)


def test_a_surrogate_is_in_inference_mode(network, labelled):
    """BatchNorm's statistics of the batch would make an image depend on its neighbours, and would be kept."""
    x, y = labelled
    surrogate = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, kernel_initializer=keras.initializers.RandomNormal(seed=1)),
        ]
    )
    before = [weight.copy() for weight in surrogate.get_weights()]
    together = transfer(network, x, y, epsilon=0.5, surrogate=surrogate).numpy()
    assert np.any(together != x)
    for i in range(0, 64, 9):
        alone = transfer(network, x[i : i + 1], y[i : i + 1], epsilon=0.5, surrogate=surrogate)
        np.testing.assert_allclose(alone[0], together[i], atol=1e-6)
    for weight, kept in zip(surrogate.get_weights(), before):
        np.testing.assert_array_equal(weight, kept)


def test_a_surrogate_or_a_network_without_numbers_leaves_the_images_clean(network, surrogate, labelled):
    x, y = labelled
    broken = lambda x: network(x) * float("nan")  # noqa: E731
    answered = np.zeros_like(y)  # by a network without numbers
    for judged, attacked, labels in (network, broken, y), (broken, surrogate, answered):
        np.testing.assert_array_equal(transfer(judged, x, labels, epsilon=EPSILON, surrogate=attacked), x)


def test_stays_as_it_is_from_the_beginning(network, surrogate, labelled):
    x, y = tf.constant(labelled[0]), tf.constant(labelled[1])
    settings = transfer.as_tensors({"epsilon": EPSILON, "surrogate": surrogate})
    search = transfer.search(network, x, y, settings, tf.range(64))
    state = search.first()
    assert np.all(state.spent) and not np.any(state.fooled) and search.step(state) is state


def test_bad_surrogates_and_settings_are_named(network, surrogate, labelled):
    probabilities = keras.Sequential([surrogate, keras.layers.Softmax()])
    for settings, words in (
        ({"surrogate": "resnet"}, "surrogate is a str; allowed: a keras.Model"),
        ({"surrogate": probabilities}, "surrogate ends in softmax"),
        ({"surrogate": surrogate, "decay": -1.0}, "decay is -1.0; allowed: a number at least 0"),
        ({"surrogate": surrogate, "steps": 0}, "steps is 0; allowed: a whole number, at least 1"),
        ({}, "surrogate is a NoneType; allowed: a keras.Model"),
        ({"surrogate": lambda x: network(x)[:, 1:]}, "surrogate has 4 classes; allowed: those of the network, 5"),
        ({"surrogate": networks.drawn((8, 8, 1))}, r"surrogate takes images of shape \(8, 8, 1\); allowed: .*4, 4, 2"),
    ):
        with pytest.raises(ValueError, match=words):
            transfer(network, *labelled, epsilon=EPSILON, **settings)


def test_a_surrogate_of_other_classes_is_named_by_evaluations_too(network, labelled):
    chosen = [("transfer", {"surrogate": networks.drawn(classes=7)})]
    with pytest.raises(ValueError, match="surrogate has 7 classes; allowed: those of the network, 5"):
        evaluate.worst_case(network, labelled, chosen, epsilon=EPSILON, progress=False)
