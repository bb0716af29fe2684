"""Accuracy against counts made by hand."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_nuat import attacks, evaluate


@pytest.fixture(scope="module")
def network():
    """Says class 1 where the mean pixel exceeds 0.5."""
    inputs = keras.Input((2, 2, 1))
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    network.set_weights([np.array([[0.0, 1.0]] * 4), np.array([0.0, -2.0])])
    return network


@pytest.fixture(scope="module")
def data():
    means = np.array([0.1, 0.2, 0.3, 0.4, 0.45, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0])  # two are wrong: the fifth and the last
    return np.tile(means[:, None, None, None], (1, 2, 2, 1)).astype(np.float32), labels


@pytest.mark.parametrize("batch_size", [1, 3, 4, 11, 100])
def test_clean_accuracy_whatever_the_batches(network, data, batch_size):
    outcomes = evaluate.correct(network, data, batch_size=batch_size)
    np.testing.assert_array_equal(outcomes, [True] * 4 + [False] + [True] * 5 + [False])
    assert evaluate.accuracy(network, data, batch_size=batch_size) == 9 / 11


@pytest.mark.parametrize("batch_size", [3, 100])
def test_accuracy_under_attack_is_the_closed_form(network, data, batch_size):
    """Within epsilon 0.15, exactly those stay correct whose mean is further than that from 0.5."""
    attack = functools.partial(attacks.pgd, epsilon=0.15, steps=5)
    outcomes = evaluate.correct(network, data, attack, batch_size=batch_size)
    np.testing.assert_array_equal(outcomes, [True, True, True, False, False, False, False, True, True, True, False])


@pytest.mark.parametrize("norm, largest", [("linf", "1"), ("l2", "2"), ("l1", "4")])
def test_a_radius_of_pixels_in_0_to_255_is_refused(norm, largest, network, data):
    """Everything is fooled within it, which passed for an accuracy of 0."""
    words = f"epsilon is 8; allowed: a number at least 0 and at most {largest}$"
    for call in (
        lambda: evaluate.accuracy(network, data, functools.partial(attacks.pgd, epsilon=8, norm=norm)),
        lambda: evaluate.worst_case(network, data, "pgd", epsilon=8, norm=norm),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    everything = functools.partial(attacks.pgd, epsilon=float(largest), norm=norm, steps=2)
    assert evaluate.accuracy(network, data, everything) < 1.0


@pytest.mark.parametrize(
    "changed, words",
    [
        (lambda pairs: pairs, "data has single images; allowed: batches of them, as dataset.batch.250. makes"),
        (lambda pairs: pairs.batch(4).repeat(), "data has no end; allowed: a dataset without repeat"),
        (lambda pairs: pairs.batch(4).take(0), "data is empty; allowed: at least one image"),
        (lambda pairs: pairs.map(lambda x, y: {"image": x, "label": y}).batch(4), "data is not a pair; allowed: "),
        (lambda pairs: pairs.map(lambda x, y: ({"image": x}, y)).batch(4), "data is not a pair; allowed: "),
        (lambda pairs: pairs.map(lambda x, y: (x, y, 1.0)).batch(4), "data is not a pair; allowed: "),
    ],
)
def test_a_dataset_of_something_else_is_named(changed, words, network, data):
    with pytest.raises(ValueError, match=words):
        evaluate.accuracy(network, changed(tf.data.Dataset.from_tensor_slices(data)))


@pytest.mark.parametrize("chosen", [attacks.fgsm, [attacks.fgsm], ("fgsm", {}), [("fgsm", 3)], [("fgsm",)], None])
def test_attacks_in_another_form_are_named(chosen, network, data):
    with pytest.raises(
        ValueError, match=r"attacks is .*; allowed: a name, or a list of names and of pairs \(name, set"
    ):
        evaluate.worst_case(network, data, chosen, epsilon=0.1)


def test_a_name_is_no_attack(network, data):
    with pytest.raises(ValueError, match="attack is 'pgd'; allowed: None, or a function of network, x and y"):
        evaluate.accuracy(network, data, "pgd")


def test_the_attacks_of_autoattack_get_its_norm_and_its_epsilon(network, data):
    """There are 4 pixels: a change of all is twice as long in L2 as in L-infinity."""
    expected = evaluate.correct(network, data, functools.partial(attacks.pgd, epsilon=0.15, steps=5))
    attack = functools.partial(attacks.autoattack, epsilon=0.3, norm="l2", version="rand")
    np.testing.assert_array_equal(evaluate.correct(network, data, attack), expected)


def test_the_attacks_of_autoattack_get_its_seed(network, data, monkeypatch):
    seen = []

    class Nobody(list):
        size = 0

        def __init__(self, *arguments, **_):
            seen.append(arguments[-1])

    monkeypatch.setattr("tf_nuat.evaluate.outcomes.Pool", Nobody)
    evaluate.correct(network, data, functools.partial(attacks.autoattack, epsilon=0.1, seed=5, version="plus"))
    assert [settings["seed"] for settings in seen] == [5] * 4  # two of six take more classes


def test_an_attack_with_a_pair_as_its_seed_has_an_accuracy(network, data):
    """The engine takes one seed: such an attack runs batch by batch."""
    attack = functools.partial(attacks.pgd, epsilon=0.15, steps=5)
    outcomes = evaluate.correct(network, data, functools.partial(attack, seed=(3, 4)), batch_size=4)
    np.testing.assert_array_equal(outcomes, evaluate.correct(network, data, attack))


def test_images_that_are_not_among_those_attacked_keep_their_outcome(network, data):
    """Whether that is right or wrong: a chosen image that is wrong without the attack is wrong."""
    attack, among = functools.partial(attacks.pgd, epsilon=0.15, steps=5), np.arange(11) >= 4
    clean, attacked = evaluate.correct(network, data), evaluate.correct(network, data, attack)
    assert np.any(clean[~among] & ~attacked[~among]) and np.any(clean[among] & ~attacked[among])
    found = evaluate.correct(network, data, attack, among=among)
    np.testing.assert_array_equal(found, np.where(among, attacked, clean))


def test_datasets_one_hot_labels_and_functions_give_the_same(network, data):
    images, labels = data
    expected = evaluate.correct(network, data)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4)
    np.testing.assert_array_equal(evaluate.correct(network, dataset), expected)
    np.testing.assert_array_equal(evaluate.correct(network, (images, np.eye(2)[labels])), expected)
    np.testing.assert_array_equal(evaluate.correct(lambda x: network(x), data), expected)

    def padded(x):
        return tf.pad(network(x), [[0, 0], [0, 1]], constant_values=-9.0)  # a third class, which is no answer

    np.testing.assert_array_equal(evaluate.correct(padded, (images, np.eye(3)[labels])), expected)


@pytest.mark.parametrize("name", ["pgd", "autoattack"])
def test_a_network_that_ends_in_softmax_has_an_accuracy_and_no_attack(name, network, data):
    soft = keras.Sequential([keras.Input((2, 2, 1)), network, keras.layers.Softmax()])
    assert evaluate.accuracy(soft, data) == 9 / 11
    with pytest.raises(ValueError, match="network ends in softmax; allowed: logits"):
        evaluate.accuracy(soft, data, functools.partial(attacks.ATTACKS[name], epsilon=0.15))


def test_batch_norm_is_in_inference_mode(data):
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.BatchNormalization()(inputs)
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    before = network.get_weights()
    alone = [bool(evaluate.correct(network, (data[0][i : i + 1], data[1][i : i + 1]))[0]) for i in range(11)]
    np.testing.assert_array_equal(evaluate.correct(network, data), alone)
    for weight, old in zip(network.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x, y: (x * 255, y), "images has values"),
        (lambda x, y: ((x * 255).astype(int), y), "images has dtype"),
        (lambda x, y: (x[:, :1], y), "the network takes"),
        (lambda x, y: (x, y + 1), "labels has values"),
        (lambda x, y: (x, y[:3]), "3 entries for 11 images"),
        (lambda x, y: (x[:0], y[:0]), "images is empty"),
        (lambda x, y: x, "not a pair"),
    ],
)
def test_bad_data_is_named(change, words, network, data):
    with pytest.raises(ValueError, match=words):
        evaluate.accuracy(network, change(*data))
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluate.accuracy(network, data, batch_size=0)
