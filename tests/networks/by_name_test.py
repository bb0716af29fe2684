"""Networks that a recipe names: of the table, from a function of the user's own, out of a file."""

import json

import keras
import numpy as np
import pytest

from tests.helpers.small import dense
from tf_nuat import networks, training
from tf_nuat.networks import by_name

MODULE = """
import keras


def build(input_shape, num_classes, *, units=3):
    layers = [keras.layers.Flatten(), keras.layers.Dense(units), keras.layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(input_shape), *layers])


def softmax(input_shape, num_classes):
    network = build(input_shape, num_classes)
    network.add(keras.layers.Softmax())
    return network


def other_images(input_shape, num_classes):
    return build((9, 9, 1), num_classes)


def other_classes(input_shape, num_classes):
    return build(input_shape, num_classes + 1)


def no_network(input_shape, num_classes):
    return None


@keras.saving.register_keras_serializable("own")
class Registered(keras.layers.Dense):
    pass


class Forgotten(keras.layers.Layer):
    def call(self, x):
        return 2 * x


class Subclass(keras.Model):
    def call(self, x):
        return x[:, 0, 0, :]


def registered(input_shape, num_classes):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), Registered(num_classes)])


def forgotten(input_shape, num_classes):
    network = build(input_shape, num_classes)
    network.add(Forgotten())
    return network


def function(input_shape, num_classes):
    network = build(input_shape, num_classes)
    network.add(keras.layers.Lambda(lambda logits: 2 * logits))
    return network


def subclass(input_shape, num_classes):
    network = Subclass()
    network.build((None, *input_shape))
    return network


number = 3
"""
RECIPE = {"dataset": "digits", "defense": "nuat", "epsilon": 0.1, "epochs": 1, "learning_rate": 0.1}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Makes `own_networks`, a module of the user's, importable."""
    (tmp_path / "own_networks.py").write_text(MODULE)
    (tmp_path / "broken_networks.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)


def checked(tmp_path, network, **options):
    """Returns the network that a run would train."""
    recipe = training.Recipe(**RECIPE, network=network, network_options=options)
    _, splits = training.check(recipe, tmp_path / "run")
    return training.build(recipe, splits).network


def test_a_function_gets_the_shapes_of_the_data_and_the_options(own, tmp_path):
    network = checked(tmp_path, "own_networks:build", units=5)
    assert (network.input_shape, network.output_shape) == ((None, 8, 8, 1), (None, 10))
    assert network.layers[-2].units == 5


def test_layers_of_ones_own_are_welcome_where_keras_knows_them(own, tmp_path):
    assert type(checked(tmp_path, "own_networks:registered").layers[-1]).__name__ == "Registered"


def test_a_file_brings_the_weights_that_training_begins_with(tmp_path):
    saved = dense(seed=7)
    saved.save(tmp_path / "saved.keras")
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    network = checked(tmp_path, tmp_path / "saved.keras")
    np.testing.assert_array_equal(network(images), saved(images))
    recipe = training.Recipe(**RECIPE, network=tmp_path / "saved.keras")
    assert recipe.network == str(tmp_path / "saved.keras")  # text, as a card needs it


def test_a_name_of_the_table_is_that_of_the_table():
    assert by_name.builder("network", "resnet18") is networks.NETWORKS["resnet18"]


def bad_shape(path):
    inputs = keras.Input((6, 6, 1))
    keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs))).save(path / "saved.keras")


@pytest.mark.parametrize(
    "network, options, words",
    [
        ("vgg", {}, "network is 'vgg'; allowed: .*resnet18.*, module:function, or the path of a file that Keras saved"),
        (3, {}, "network is 3; allowed: "),
        ("own_networks:missing", {}, "network is 'own_networks:missing'; allowed: a function of the module own_netw"),
        ("own_networks:number", {}, "network is 'own_networks:number'; allowed: a function"),
        ("no_such_module_anywhere:build", {}, "whose module cannot be imported .*No module named"),
        ("broken_networks:build", {}, "whose module cannot be imported .*No module named"),
        ("own_networks:softmax", {}, "network own_networks:softmax ends in softmax; allowed: logits"),
        ("own_networks:no_network", {}, "network own_networks:no_network is a NoneType; allowed: a keras.Model"),
        ("own_networks:other_images", {}, r"other_images takes images of \(9, 9, 1\); allowed: \(8, 8, 1\)"),
        ("own_networks:other_classes", {}, "other_classes has 11 outputs; allowed: 10, one of each class"),
        ("own_networks:build", {"depth": 3}, "options of build are {'depth': 3}"),
        ("own_networks:forgotten", {}, "forgotten cannot be saved and loaded again .*; allowed: layers of"),
        ("own_networks:function", {}, "function cannot be saved and loaded again .*Lambda"),
        (
            "own_networks:subclass",
            {},
            "network own_networks:subclass is a Subclass, a subclass of keras.Model; allowed",
        ),
        ("missing.keras", {}, "network is 'missing.keras'; allowed: "),
        ("{path}/damaged.keras", {}, "network is '{path}/damaged.keras', which Keras cannot read"),
        ("{path}/saved.keras", {}, r"saved.keras takes images of \(6, 6, 1\); allowed: \(8, 8, 1\)"),
        ("{path}/saved.keras", {"width": 3}, "options of saved_network are {'width': 3}"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_one_line_before_training(network, options, words, own, tmp_path):
    bad_shape(tmp_path)
    (tmp_path / "damaged.keras").write_bytes(b"no network")
    network = network.format(path=tmp_path) if isinstance(network, str) else network
    with pytest.raises(ValueError, match=words.replace("{path}", str(tmp_path))) as caught:
        checked(tmp_path, network, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_json_that_was_dumped_twice_is_named_in_one_line(tmp_path):
    (tmp_path / "network.json").write_text(json.dumps(networks.two_conv((8, 8, 1), 3).to_json()))
    with pytest.raises(ValueError, match="--network is '.*', which has a str; allowed: the text of model.to_json"):
        by_name.architecture("--network", str(tmp_path / "network.json"))
