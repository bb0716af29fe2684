"""What is made for a network is made once, is not saved with it, and is freed with it."""

import functools
import gc
import weakref

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import small
from tf_nuat.models import precision
from tf_nuat.models.lifetime import kept_by


def network():
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])


class Logits:
    def of(self, x):
        return x

    def __call__(self, x):
        return x


def function():
    return lambda x: x


@pytest.mark.parametrize("make", [network, function, Logits, lambda: functools.partial(tf.reshape, shape=(-1, 10))])
def test_each_has_one_dict_of_its_own(make):
    one, other = make(), make()
    kept_by(one)["key"] = 1
    assert kept_by(one) == {"key": 1} and kept_by(one) is kept_by(one)
    assert kept_by(other) == {}


def test_a_method_has_the_dict_of_its_object():
    one, other = Logits(), Logits()
    kept_by(one.of)["key"] = 1
    assert kept_by(one.of) == {"key": 1}
    assert kept_by(one.__call__) == {} and kept_by(other.of) == {}


def test_a_function_that_wraps_another_has_not_its_dict():
    inner = function()
    kept_by(inner)["key"] = 1
    outer = functools.wraps(inner)(lambda x: 2.0 * inner(x))
    assert kept_by(outer) == {} and kept_by(inner) == {"key": 1}


def test_what_cannot_have_attributes_keeps_nothing():
    kept_by(abs)["key"] = 1
    assert kept_by(abs) == {} and kept_by(Logits) == {}


def attacked(kind):
    """Returns weak references to a network that was attacked, one of its layers and its twin in bfloat16."""
    x, y = small.sample(4)
    one = kind(network()) if kind else network()
    twin = precision.computing_in(one, "mixed_bfloat16")
    assert precision.computing_in(one, "mixed_bfloat16") is twin
    for each in (one, twin):
        tf_nuat.ATTACKS["ifgsm"](each, x, y, epsilon=0.1, steps=2)
    return [weakref.ref(each) for each in (one, one.layers[-1], twin)]


def nested(inner):
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, inner(inputs))


@pytest.mark.parametrize("kind", [None, nested])
def test_a_network_and_what_was_made_for_it_are_freed_together(kind):
    references = attacked(kind)
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_what_was_made_is_not_saved_with_the_network(tmp_path):
    one = network()
    one.save_weights(tmp_path / "before.weights.h5")
    one.save(tmp_path / "before.keras")
    kept_by(one)["function"] = tf.function(lambda x: one(x))
    kept_by(one)["list"] = [network()]
    precision.computing_in(one, "mixed_bfloat16")
    one.save_weights(tmp_path / "after.weights.h5")
    one.save(tmp_path / "after.keras")

    def arrays(path):
        found = []
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return found

    assert arrays(tmp_path / "after.weights.h5") == arrays(tmp_path / "before.weights.h5")
    back = keras.saving.load_model(tmp_path / "after.keras", compile=False)
    assert kept_by(back) == {}
    x, _ = small.sample(4)
    np.testing.assert_array_equal(back(x), one(x))
