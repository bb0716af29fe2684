"""What a file of a network is, seen by how it begins."""

import json
import zipfile

import h5py
import keras
import numpy as np

from tests.helpers import small
from tf_nuat.networks import adapt


def test_a_keras_file_whose_weights_lie_where_hdf5_may_begin_is_read(tmp_path):
    network = small.dense(0)
    network.save(tmp_path / "saved.keras")
    path = tmp_path / "network.keras"
    with zipfile.ZipFile(tmp_path / "saved.keras") as saved, zipfile.ZipFile(path, "w") as moved:
        weights = "model.weights.h5"
        moved.writestr("config.json", saved.read("config.json"))
        header = 30 + len(weights)
        padding = -(moved.start_dir + 30 + len("padding") + header) % 8192
        moved.writestr("padding", bytes(padding))
        moved.writestr(weights, saved.read(weights))
        moved.writestr("metadata.json", saved.read("metadata.json"))
    assert h5py.is_hdf5(path)  # the weights are at 8192, and h5py looks at every power of 2 from 512
    x, _ = small.sample(8)
    np.testing.assert_array_equal(adapt(path).network(x), network(x))


def test_attention_in_a_keras_file_of_keras_2_is_read(tmp_path):
    """It has one shape to build the layer from, where Keras 3 has that of the query and that of the value."""
    inputs = keras.Input((8, 8, 1))
    tokens = keras.layers.Reshape((8, 8))(inputs)
    attention = keras.layers.MultiHeadAttention(1, 2)(tokens, tokens)
    network = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(attention)))
    network.save(tmp_path / "saved.keras")
    with zipfile.ZipFile(tmp_path / "saved.keras") as saved, zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        config = json.loads(saved.read("config.json"))
        (layer,) = [each for each in config["config"]["layers"] if each["class_name"] == "MultiHeadAttention"]
        layer["build_config"] = {"input_shape": [None, 8, 8]}
        old.writestr("config.json", json.dumps(config))
        old.writestr("metadata.json", saved.read("metadata.json"))
        old.writestr("model.weights.h5", saved.read("model.weights.h5"))
    x, _ = small.sample(8)
    np.testing.assert_array_equal(adapt(tmp_path / "old.keras").network(x), network(x))
