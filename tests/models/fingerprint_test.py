"""Networks of equal weights that answer otherwise have other fingerprints; one that is read again keeps its own."""

import shutil

import keras
import numpy as np
import pytest

from tf_nuat.models.fingerprint import fingerprint

WEIGHTS = [np.arange(12.0).reshape(4, 3), np.ones(3)]


class WithoutConfig(keras.layers.Layer):
    """A layer of which Keras can make no configuration."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def built(*last, activation=None, bias=1.0, dtype=None):
    """Returns a dense network, the layers `last` behind it."""
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Dense(3, activation, dtype=dtype)(keras.layers.Flatten(dtype=dtype)(inputs))
    for layer in last:
        x = layer(x)
    network = keras.Model(inputs, x)
    network.set_weights([WEIGHTS[0], bias * WEIGHTS[1]])
    return network


def difference(of):
    """Returns a network whose logits are the difference of a dense layer and its positive part, in the order `of`."""
    inputs = keras.Input((2, 2, 1))
    whole = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    parts = {"whole": whole, "positive": keras.layers.ReLU()(whole)}
    network = keras.Model(inputs, keras.layers.Subtract()([parts[name] for name in of]))
    network.set_weights(WEIGHTS)
    return network


def in_sequence(*layers):
    return keras.Sequential([keras.Input((2, 2, 1)), *layers])


SAME = {
    "plain": built,
    "of operations": lambda: built(lambda x: 3.0 * x),
    "graph": lambda: difference(["whole", "positive"]),
    "network within": lambda: in_sequence(difference(["whole", "positive"])),
    "without configuration": lambda: built(WithoutConfig(keras.ops.tanh)),
    "random layer without a seed": lambda: in_sequence(keras.layers.RandomCrop(2, 2), built()),
}


@pytest.mark.parametrize("name", SAME)
def test_a_network_that_is_built_again_keeps_it(name):
    """Keras numbers the names of its layers anew."""
    one, other = SAME[name](), SAME[name]()
    assert one.layers[-1].name != other.layers[-1].name
    assert fingerprint(one) == fingerprint(other)
    other.set_weights([2.0 * weight for weight in other.get_weights()])
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("name", ["plain", "of operations", "graph", "network within"])
def test_a_network_that_is_read_from_a_file_keeps_it(name, tmp_path):
    network = SAME[name]()
    network.save(tmp_path / "network.keras")
    read = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    read.trainable = False
    assert fingerprint(read) == fingerprint(network)


def test_a_saved_model_that_lies_elsewhere_keeps_it(tmp_path):
    built().export(tmp_path / "one", verbose=False)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    layers = [keras.layers.TFSMLayer(str(tmp_path / name)) for name in ("one", "other")]
    one, other = map(in_sequence, layers)
    assert layers[0].get_config()["filepath"] != layers[1].get_config()["filepath"]
    assert fingerprint(one) == fingerprint(other) != fingerprint(in_sequence(layers[0], keras.layers.ReLU()))


OTHERS = {
    "plain": built,
    "bias": lambda: built(bias=2.0),
    "activation": lambda: built(activation="tanh"),
    "layer": lambda: built(keras.layers.Rescaling(1000.0)),
    "number of a layer": lambda: built(keras.layers.Rescaling(10.0)),
    "operation": lambda: built(lambda x: 3.0 * x),
    "number of an operation": lambda: built(lambda x: 4.0 * x),
    "precision": lambda: built(dtype="mixed_bfloat16"),
    "graph": lambda: difference(["whole", "positive"]),
    "order in a graph": lambda: difference(["positive", "whole"]),
}


def test_networks_that_answer_otherwise_have_others():
    assert len({fingerprint(make()) for make in OTHERS.values()}) == len(OTHERS)


def test_the_precision_of_a_sequence_counts():
    """In a graph the dtypes of its tensors tell, too."""
    one, other = (in_sequence(keras.layers.ReLU(dtype=policy)) for policy in ("float32", "mixed_bfloat16"))
    assert fingerprint(one) != fingerprint(other)
