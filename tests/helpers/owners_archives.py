"""Files of Keras 2.12 to 2.15 that name modules, `.keras`, or should, `.json`. Each entry of `TAKEN` writes one.

Their configurations are written by hand, as in `tests.helpers.owners_files`.
"""

import json
import zipfile

import keras

from tests.helpers.owners import COLOUR, GREY, body, built, layers, owned, trained
from tests.helpers.owners_files import layer_2, weights
from tests.helpers.owners_models import OFF


def layer(kind, name, inputs, **config):
    """Returns a layer as Keras 2.12 to 2.15 wrote it into `.keras` files."""
    return {"module": "keras.layers", "registered_name": None, **layer_2(kind, name, inputs, **config)}


def image(name):
    config = {"name": name, "batch_input_shape": [None, *COLOUR], "dtype": "float32", "sparse": False, "ragged": False}
    return {**layer("InputLayer", name, []), "config": config}


def after(name, call=0):
    """Returns the inputs of a layer that follows another."""
    return [[[name, call, 0, {}]]]


def convolution(**first):
    """Returns the first layers of the network for colours; `first` goes on with the configuration of the first."""
    kernel = {"filters": 8, "kernel_size": [3, 3], "groups": 1, "activation": "linear"}
    statistics = {"axis": [3], "momentum": 0.99, "epsilon": 0.001}
    return [
        image("image"),
        layer("Conv2D", "convolution", after("image"), **kernel, **first),
        layer("BatchNormalization", "normalization", after("convolution"), **statistics),
        layer("ReLU", "relu", after("normalization"), max_value=None, negative_slope=0.0, threshold=0.0),
    ]


def functional(name, described, inputs=(), package="keras"):
    """Returns a functional network, of which Keras 3 has the module elsewhere."""
    ends = {"input_layers": [[described[0]["name"], 0, 0]], "output_layers": [[described[-1]["name"], 0, 0]]}
    return {
        "module": f"{package}.src.engine.functional",
        "class_name": "Functional",
        "registered_name": "Functional",
        "name": name,
        "config": {"name": name, "layers": described, **ends},
        "build_config": {"input_shape": [None, *COLOUR]},
        "inbound_nodes": inputs,
    }


def with_config(path, network, config):
    """Saves a network as .keras, puts another configuration in the place of its own, and returns what is owned."""
    network.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)
    return owned(network, body(colour=True), OFF, given=path, colour=True)


def functional_archive(package):
    """Returns a maker; `package` is "keras" before Keras 3 came out, and "tf_keras" since."""

    def make(folder):
        *parts, flat, last = layers("softmax", colour=True)
        inner = built(parts, trained("colour")[:6], shape=COLOUR)
        described = [
            image("photo"),
            functional("base", convolution(), after("photo"), package),
            layer("Flatten", "flat", after("base", 1), data_format="channels_last"),
            layer("Dense", "classes", after("flat"), units=10, activation="softmax", use_bias=True),
        ]
        network = built([inner, flat, last], trained("colour"), shape=COLOUR)
        return with_config(folder / "network.keras", network, functional("model", described, package=package))

    return make


def sequential_archive(folder):
    """Its first layer has the shape of the images, too."""
    network = keras.Sequential([keras.Input(COLOUR), *layers("softmax", colour=True)])
    network.set_weights(trained("colour"))
    described = [
        *convolution(batch_input_shape=[None, *COLOUR]),
        layer("Flatten", "flat", []),
        layer("Dense", "classes", [], units=10, activation="softmax"),
    ]
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "sequential", "layers": described}}
    return with_config(folder / "network.keras", network, {**config, "registered_name": None})


def from_json(folder):
    """What `model.to_json()` wrote: it names no modules."""
    from tf_nuat.networks import by_name

    start = {"name": "image", "batch_input_shape": [None, *GREY], "dtype": "float32", "sparse": False}
    described = [
        {"class_name": "InputLayer", "name": "image", "config": start, "inbound_nodes": []},
        layer_2("Flatten", "flat", after("image")),
        layer_2("Dense", "hidden", after("flat"), units=32, activation="relu"),
        layer_2("Dense", "classes", after("hidden"), units=10, activation="softmax"),
    ]
    ends = {"input_layers": [["image", 0, 0]], "output_layers": [["classes", 0, 0]]}
    written = {"class_name": "Functional", "config": {"name": "model", "layers": described, **ends}}
    (folder / "network.json").write_text(json.dumps({**written, "keras_version": "2.15.0", "backend": "tensorflow"}))
    return by_name.architecture("--network", str(folder / "network.json"))


TAKEN = {
    ".keras of Keras 2 with a network inside": functional_archive("keras"),
    ".keras of tf_keras with a network inside": functional_archive("tf_keras"),
    ".keras of Keras 2, sequential": sequential_archive,
    "weights and model.json of Keras 2": weights("network.weights.h5", from_json),
}
