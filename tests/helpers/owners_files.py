"""Files of `tests.helpers.owners`: of Keras 1 to 3, of TensorFlow, weights alone. Each entry of `TAKEN` writes one.

What Keras 1 and 2 wrote is written by hand: their files have the weights of a layer under the same names as those that
Keras 3 writes, and a configuration in other words.
"""

import functools
import json
import sys
import types

import h5py
import keras
import numpy as np
import tensorflow as tf

from tests.helpers import owners
from tests.helpers.owners import COLOUR, GREY, Owned, argmax, behind, body, built, layers, owned, trained
from tests.helpers.owners_models import OFF

GRAPH = "the graph of a SavedModel as one layer"
LOGARITHM = "their logarithm was taken"
CODE = "tests_owners_code"  # a module of the owner's


def saved(path, network, before, *said, **more):
    """Returns an `Owned` of the file to which the network is saved."""
    network.save(path)
    return owned(network, before, *said, given=path, **more)


def of_keras_3(folder):
    return saved(folder / "network.h5", built(layers("softmax")), body(), OFF)


def of_dicts(name):
    """Returns a maker of a file of a network that takes a dict of one image and returns a dict of one output."""

    def make(folder):
        softmax = behind(body(), keras.layers.Softmax())
        inputs = keras.Input(GREY, name="image")
        network = keras.Model({"image": inputs}, {"digit": softmax(inputs)})
        said = ["its input was taken out of a dict", "its output was taken out of a dict", OFF]
        return saved(folder / name, network, body(), *said, classes=argmax(softmax))

    return make


def of_keras_3_compiled(folder):
    """A loss of one's own and the optimizer's state are of training: no module is needed to read the network."""

    def loss_of_ones_own(y, p):
        return keras.losses.sparse_categorical_crossentropy(y, p) + 0.1

    network = built(layers("softmax"))
    network.compile("adam", loss_of_ones_own, metrics=[loss_of_ones_own])
    network.train_on_batch(owners.images()[:8], np.zeros(8))
    return saved(folder / "network.keras", network, built(layers(), network.get_weights()), OFF)


def rewritten(path, network, change):
    """Saves a network as .h5 and puts `change(configuration)` in the place of its configuration."""
    network.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(change(json.loads(file.attrs["model_config"])))
        del file.attrs["keras_version"]
    return path


def with_groups(folder):
    """Every `keras_model.h5` of Teachable Machine has them."""
    parts = [keras.layers.DepthwiseConv2D(3), keras.layers.Flatten(), keras.layers.Dense(10)]
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 1))
    dense = np.random.default_rng(1).normal(size=(36, 10))
    before = built(parts, [kernel, np.zeros(1), dense, np.zeros(10)])
    network = behind(before, keras.layers.Softmax())

    def change(config):
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "DepthwiseConv2D":
                layer["config"].update(groups=1, kernel_initializer={"class_name": "GlorotUniform", "config": {}})
        return config

    path = rewritten(folder / "keras_model.h5", network, change)
    return owned(network, before, "arguments that change no output left out: groups", OFF, given=path)


def of_keras_1(folder):
    """A list of layers, whose arguments had other names."""
    network = keras.Sequential([keras.Input(COLOUR), *layers("softmax", colour=True)])
    network.set_weights(trained("colour"))
    unused = {"W_regularizer": None, "b_regularizer": None, "W_constraint": None, "b_constraint": None}
    convolution = {
        "name": "convolution",
        "batch_input_shape": [None, *COLOUR],
        "nb_filter": 8,
        "nb_row": 3,
        "nb_col": 3,
        "border_mode": "valid",
        "subsample": [1, 1],
        "dim_ordering": "tf",
        "init": "glorot_uniform",
        "activation": "linear",
        "bias": True,
        "input_dtype": "float32",
        **unused,
    }
    normalization = {
        "name": "normalization",
        "mode": 0,
        "axis": -1,
        "epsilon": 0.001,
        "momentum": 0.99,
        "gamma_regularizer": None,
        "beta_regularizer": None,
    }
    dense = {"name": "classes", "output_dim": 10, "init": "uniform", "activation": "softmax", "bias": True, **unused}
    described = [
        ("Convolution2D", convolution),
        ("BatchNormalization", normalization),
        ("Activation", {"name": "relu", "activation": "relu"}),
        ("Flatten", {"name": "flat"}),
        ("Dropout", {"name": "dropout", "p": 0.5}),
        ("Dense", {**dense, "input_dim": 288}),
    ]
    written = {"class_name": "Sequential", "config": [{"class_name": name, "config": each} for name, each in described]}
    path = rewritten(folder / "keras_1.h5", network, lambda config: written)
    said = ["Convolution2D as Conv2D", "arguments that change no output left out: mode", "the words of Keras 3", OFF]
    return owned(network, body(colour=True), *said, given=path, colour=True)


def layer_2(kind, name, inputs, **config):
    """Returns a layer in a functional network as Keras 2 wrote it."""
    described = {"name": name, "trainable": True, "dtype": "float32", **config}
    return {"class_name": kind, "name": name, "config": described, "inbound_nodes": inputs}


def of_keras_2(folder):
    """A functional network whose pixels TensorFlow's operators scale, and names with a stroke."""
    before = body(scale=2.0, offset=-1.0)
    network = behind(before, keras.layers.Softmax())

    def function(name, inputs, y):
        return layer_2("TFOpLambda", f"tf.{name}", [[inputs, 0, 0, {"y": y, "name": None}]], function=name)

    start = {"name": "image", "batch_input_shape": [None, *GREY], "dtype": "float32", "sparse": False, "ragged": False}
    described = [
        {"class_name": "InputLayer", "name": "image", "config": start, "inbound_nodes": []},
        function("math.truediv", "image", 127.5),
        function("math.subtract", "tf.math.truediv", 1.0),
        layer_2(
            "RandomFlip", "flip", [[["tf.math.subtract", 0, 0, {}]]], mode="horizontal", seed=1, rng_type="stateful"
        ),
        layer_2("Flatten", "flat", [[["flip", 0, 0, {}]]], data_format="channels_last"),
        layer_2("Dense", "block/dense", [[["flat", 0, 0, {}]]], units=32, activation="relu", use_bias=True),
        layer_2("Dense", "classes", [[["block/dense", 0, 0, {}]]], units=10, activation="softmax", use_bias=True),
    ]
    ends = {"input_layers": [["image", 0, 0]], "output_layers": [["classes", 0, 0]]}
    written = {"class_name": "Functional", "config": {"name": "model", "layers": described, **ends}}
    path = rewritten(folder / "keras_2.h5", network, lambda config: written)
    said = ["arguments that change no output left out: rng_type", "names with / have _ instead"]
    said += ["tf.math.subtract, tf.math.truediv as operations of Keras", OFF, "pixels in [0, 1] become 0..255"]
    options = {"pixels": "0..255"}
    return owned(network, before, *said, given=path, prepare=lambda x: 255.0 * x / 127.5 - 1.0, options=options)


def network_inside_of_keras_2(folder):
    """Fine-tuning as TensorFlow's tutorials had it: to Keras 2 a call of a network within is its second."""
    inner = built(layers()[:2], trained()[:2])
    network = keras.Sequential([keras.Input(GREY), inner, keras.layers.Dense(10, "softmax")])
    network.set_weights(trained())
    start = {"name": "image", "batch_input_shape": [None, *GREY], "dtype": "float32", "sparse": False}
    base = [
        {"class_name": "InputLayer", "name": "image", "config": start, "inbound_nodes": []},
        layer_2("Flatten", "flat", [[["image", 0, 0, {}]]]),
        layer_2("Dense", "hidden", [[["flat", 0, 0, {}]]], units=32, activation="relu"),
    ]
    ends = {"input_layers": [["image", 0, 0]], "output_layers": [["hidden", 0, 0]]}
    inside = {"class_name": "Functional", "name": "base", "config": {"name": "base", "layers": base, **ends}}
    outside = [
        {"class_name": "InputLayer", "name": "photo", "config": {**start, "name": "photo"}, "inbound_nodes": []},
        {**inside, "inbound_nodes": [[["photo", 0, 0, {"training": False}]]]},
        layer_2("Dense", "classes", [[["base", 1, 0, {}]]], units=10, activation="softmax"),
    ]
    ends = {"input_layers": [["photo", 0, 0]], "output_layers": [["classes", 0, 0]]}
    written = {"class_name": "Functional", "config": {"name": "model", "layers": outside, **ends}}
    path = rewritten(folder / "keras_2.h5", network, lambda config: written)
    return owned(network, body(), OFF, given=path)


def exported(folder):
    network = built(layers("softmax"))
    network.export(folder / "exported", verbose=False)
    more = {"given": folder / "exported", "is_stock": False, "has_offset": True}
    return owned(network, body(), GRAPH, LOGARITHM, **more)


def module_of_tensorflow(folder):
    """No Keras at all: variables, a function, its signature beside another."""
    first, bias, second, last = map(tf.Variable, trained())

    def logits(x):
        return tf.nn.relu(tf.reshape(x, (-1, 64)) @ first + bias) @ second + last

    module, images = tf.Module(), tf.TensorSpec((None, *GREY), tf.float32, name="images")
    module.variables_of_it = [first, bias, second, last]
    module.serve = tf.function(lambda images: {"classes": logits(images)}, input_signature=[images])
    module.hidden = tf.function(lambda images: {"hidden": 2.0 * images}, input_signature=[images])
    signatures = {"hidden": module.hidden, "serving_default": module.serve}
    tf.saved_model.save(module, str(folder / "module"), signatures=signatures)
    return Owned(folder / "module", lambda x: np.asarray(logits(x)).argmax(axis=1), logits, [GRAPH], is_stock=False)


def with_lambda(folder):
    double = keras.layers.Lambda(lambda x: tf.multiply(2.0, x))  # a name of the module that it comes from
    network = owners.in_front(behind(body(scale=2.0), keras.layers.Softmax()), double, shape=GREY)
    options = {"trust": True}
    prepare = functools.partial(tf.multiply, 2.0)
    logits = body(scale=2.0)
    owner = saved(folder / "network.keras", network, logits, OFF, options=options, is_stock=False)
    return Owned(owner.given, owner.classes, lambda x: logits(prepare(x)), [OFF], options, is_stock=False)


class Scaled(keras.layers.Layer):
    """A layer of the owner's own, of a module that registers nothing."""

    def call(self, x):
        return 2.0 * x


def with_own_layer(folder):
    sys.modules[CODE] = types.ModuleType(CODE)
    sys.modules[CODE].Scaled = Scaled
    logits = owners.in_front(body(scale=2.0), Scaled(), shape=GREY)
    network = behind(logits, keras.layers.Softmax())
    options = {"modules": [CODE]}
    return saved(folder / "network.keras", network, logits, OFF, options=options, is_stock=False)


def weights(name, architecture, **options):
    """Returns a maker of a file of weights, and of an architecture with others."""

    def make(folder):
        network = built(layers("softmax"))
        network.save_weights(folder / name) if "weights" in name else network.save(folder / name)
        if name == "old.h5":  # of `save_weights` before Keras 3: the groups of the layers alone
            with h5py.File(folder / name, "r+") as file:
                for key in file["model_weights"]:
                    file.copy(f"model_weights/{key}", key)
                file.attrs["layer_names"] = file["model_weights"].attrs["layer_names"]
                del file["model_weights"], file.attrs["model_config"]
        options = {"architecture": architecture(folder)}
        return owned(network, body(), "weights put into the architecture", OFF, given=folder / name, options=options)

    return make


class InParts(keras.Model):
    """A model of the owner's own, whose file of weights has no group for layers."""

    def __init__(self, **options):
        super().__init__(**options)
        self.parts = layers("softmax")

    def call(self, x, training=False):
        for part in self.parts:
            x = part(x)
        return x


def weights_of_a_subclass(folder):
    network, other = InParts(), InParts()
    for each in (network, other):
        each(np.zeros((1, *GREY), np.float32))
    network.set_weights(trained())
    network.save_weights(folder / "network.weights.h5")
    said = ["weights put into the architecture", "the class InParts was put into a functional model", LOGARITHM]
    more = {"given": folder / "network.weights.h5", "options": {"architecture": other}}
    return owned(network, body(), *said, **more, is_stock=False, has_offset=True)


class ToldTheMode(InParts):
    """Keras cannot build its layers when it reads the file, and leaves them without weights, with a warning alone."""

    def call(self, x, training):
        return super().call(x, training=training)


def class_that_keras_does_not_build(folder):
    sys.modules[CODE] = types.ModuleType(CODE)
    sys.modules[CODE].ToldTheMode = ToldTheMode
    network = ToldTheMode()
    network(np.zeros((1, *GREY), np.float32), training=False)
    network.set_weights(trained())
    said = ["the class ToldTheMode was put into a functional model", LOGARITHM]
    more = {"options": {"modules": [CODE]}, "is_stock": False, "has_offset": True}
    return saved(folder / "network.keras", network, body(), *said, **more)


def from_json(folder):
    from tf_nuat.networks import by_name

    (folder / "network.json").write_text(built(layers("softmax")).to_json())
    return by_name.architecture("--network", str(folder / "network.json"))


def untrained(folder):
    return built(layers("softmax"), [np.zeros_like(each) for each in trained()])


TAKEN = {
    ".h5 of Keras 3": of_keras_3,
    ".keras of dicts": of_dicts("network.keras"),
    ".h5 of dicts": of_dicts("network.h5"),
    ".keras with a loss of one's own": of_keras_3_compiled,
    ".h5 with groups of a depthwise convolution": with_groups,
    ".h5 of Keras 1": of_keras_1,
    ".h5 of Keras 2 with operators of TensorFlow": of_keras_2,
    ".h5 of Keras 2 with a network inside": network_inside_of_keras_2,
    "a SavedModel that Keras exported": exported,
    "a SavedModel of a tf.Module": module_of_tensorflow,
    "a Lambda that is trusted": with_lambda,
    "a layer of one's own, with its module": with_own_layer,
    "a class that Keras does not build": class_that_keras_does_not_build,
    "weights of Keras 3": weights("network.weights.h5", untrained),
    "weights of Keras 3, of a subclass": weights_of_a_subclass,
    "weights of Keras 2": weights("old.h5", untrained),
    "weights and model.json": weights("network.weights.h5", from_json),
}
