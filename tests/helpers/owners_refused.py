"""What is no classifier of images, or cannot be read as it is: each entry of `REFUSED` makes one, with the words."""

import pathlib
import zipfile

import keras
import numpy as np
import tensorflow as tf

from tests.helpers import owners_files, owners_nested
from tests.helpers.owners import GREY, body, built, layers


def file(name, content):
    """Returns a maker of a file."""

    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def saved(make, name="network.keras"):
    """Returns a maker of the file of a network."""

    def maker(folder):
        make(folder).save(folder / name)
        return folder / name

    return maker


def of(*heads):
    """Returns a maker of a network with heads behind the images."""

    def make(folder):
        inputs = keras.Input(GREY)
        found = [head(inputs) for head in heads]
        return keras.Model(inputs, found[0] if len(found) == 1 else found)

    return make


def flat(units, activation=None, name=None):
    return lambda x: keras.layers.Dense(units, activation, name=name)(keras.layers.Flatten()(x))


def two_inputs(folder):
    inputs = [keras.Input(GREY, name="photo"), keras.Input((3,), name="age")]
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(inputs[0]), inputs[1]])
    return keras.Model(inputs, keras.layers.Dense(2)(joined))


def regression(folder):
    network = of(flat(1))(folder)
    network.compile("adam", "mse")
    return network


def regression_of_keras_2(folder):
    network = regression(folder)
    network.train_on_batch(np.zeros((2, *GREY)), np.zeros(2))
    network.save(folder / "age.h5")
    return folder / "age.h5"


def weights(folder):
    built(layers("softmax")).save_weights(folder / "network.weights.h5")
    return folder / "network.weights.h5"


def truncated(folder):
    body().save(folder / "network.keras")
    content = (folder / "network.keras").read_bytes()
    (folder / "network.keras").write_bytes(content[: len(content) // 2])
    return folder / "network.keras"


def empty_archive(folder):
    with zipfile.ZipFile(folder / "network.keras", "w") as archive:
        archive.writestr("photo.txt", "nothing")
    return folder / "network.keras"


def folder_alone(folder):
    (folder / "variables").mkdir()
    return folder


def saved_model(shape, dtype, reads=False):
    """Returns a maker of a SavedModel that takes images of a shape and a dtype."""

    def make(folder):
        module = tf.Module()

        def serve(images):
            first = tf.cast(images, tf.float32)
            if reads:
                first = first + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
            return tf.reshape(first, (-1, 64))[:, :3]

        module.serve = tf.function(serve, input_signature=[tf.TensorSpec(shape, dtype)])
        tf.saved_model.save(module, str(folder / "graph"), signatures=module.serve)
        return folder / "graph"

    return make


def of_keras_2(described):
    """Returns a maker of a file of Keras 2 whose last layer is `described`."""

    def make(folder):
        start = {"name": "image", "batch_input_shape": [None, *GREY], "dtype": "float32"}
        image = {"class_name": "InputLayer", "name": "image", "config": start, "inbound_nodes": []}
        ends = {"input_layers": [["image", 0, 0]], "output_layers": [[described["name"], 0, 0]]}
        config = {"name": "model", "layers": [image, described], **ends}
        written = {"class_name": "Functional", "config": config}
        return owners_files.rewritten(folder / "keras_2.h5", body(), lambda config: written)

    return make


# A function of TensorFlow that Keras has not, and one of Keras 2 that Keras 3 has under the same name, but changed.
FFT = owners_files.layer_2("TFOpLambda", "tf.fft", [["image", 0, 0, {}]], function="signal.fft")
HARD = owners_files.layer_2("Activation", "hard", [[["image", 0, 0, {}]]], activation="hard_sigmoid")


def unbuilt(folder):
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])


def with_lambda(folder):
    return owners_files.with_lambda(folder).given


def two_of_one_inside(folder):
    return owners_nested.of_several_heads(0, 2)(folder).given


def with_own_layer(folder):
    return owners_files.with_own_layer(folder).given


def with_operations(folder):
    """One of the operations, Subtract, has the name of a layer, which takes other arguments."""
    images = keras.Input(GREY)
    scaled = keras.layers.Flatten()((images - 0.5) / 255.0)
    keras.Model(images, keras.layers.Dense(3)(scaled)).save(folder / "network.h5")
    return folder / "network.h5"


class WithNumPy(keras.Model):
    """Its owner calls it on arrays."""

    def __init__(self):
        super().__init__()
        self.last = keras.layers.Dense(3)

    def build(self, shape):
        self.last.build((None, 64))

    def call(self, x):
        return self.last(np.reshape(x, (-1, 64)))


def with_numpy(folder):
    network = WithNumPy()
    network.build((None, *GREY))
    return network


class OfAFunction(keras.layers.Layer):
    """It has no configuration."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def bytes_without_config(folder):
    inputs = keras.Input(GREY, dtype="uint8")
    return keras.Model(inputs, flat(3)(OfAFunction(keras.ops.relu)(keras.layers.Rescaling(1 / 255)(inputs))))


def of_whole_numbers(dtype, *parts):
    """Returns a maker of a network that takes another type than floating point."""

    def make(folder):
        x = inputs = keras.Input(GREY, dtype=dtype)
        for part in parts:
            x = part(x)
        return keras.Model(inputs, flat(3)(x))

    return make


def one_image(folder):
    """Its author always gives it one, and its softmax is a function."""
    inputs = keras.Input(batch_shape=(1, *GREY))
    logits = keras.layers.Dense(3)(keras.ops.reshape(inputs, (1, 64)))
    return keras.Model(inputs, 1.0 * keras.ops.softmax(logits))


def row(folder):
    return built([keras.layers.Dense(2)], [np.zeros((63, 2)), np.zeros(2)], shape=(63,))


def other_layers(folder):
    return {"architecture": of(flat(3))(folder)}


def of_a_deeper_network(ending):
    def make(folder):
        deeper = of(lambda x: keras.layers.Dense(2)(keras.layers.Dropout(0.5)(flat(3)(x))))(folder)
        deeper.compile("adam", "mse")
        save = deeper.save if ending == ".keras" else deeper.save_weights
        save(folder / f"network{ending}")
        return folder / f"network{ending}"

    return make


SEVERAL = of(flat(10, "softmax", "digit"), flat(4, None, "box"))
# For each: a maker; what the one line contains, what to type among it; and a maker of options, or options.
REFUSED = {
    "several outputs": (SEVERAL, ["digit (None, 10), box (None, 4)", "--output NAME (outputs=)"]),
    "several outputs, and another's name": (SEVERAL, ["'cat'; allowed: box, digit"], {"outputs": "cat"}),
    "several outputs of a network inside": (two_of_one_inside, ["base (None, 10), base_1 (None, 10)", "--output NAME"]),
    "several inputs": (two_inputs, ["photo (8, 8, 1), age (3,)", "keras.Model(image, model([image, OTHERS]))"]),
    "a Lambda that is not trusted": (with_lambda, ["Lambda", "--trust (trust=True)"]),
    "operations in HDF5": (with_operations, ["(Subtract, TrueDivide)", "the same network as .keras"]),
    "a layer of one's own": (with_own_layer, ["Scaled", "--import MODULE (modules=)"]),
    "a map of classes for each pixel": (of(keras.layers.Conv2D(3, 1)), ["(8, 8, 3)", "a classifier, (classes,)"]),
    "boxes": (of(lambda x: keras.layers.Reshape((5, 4))(flat(20)(x))), ["(5, 4)", "a classifier, (classes,)"]),
    "a regression": (regression, ["mse, a regression", "a classifier"]),
    "a regression, a file": (regression_of_keras_2, ["a regression", "a classifier"]),
    "a regression, .keras": (saved(regression), ["mse, a regression", "a classifier"]),
    "weights alone": (weights, ["weights and no architecture", "--network (architecture)", "model.to_json()"]),
    "weights of other layers": (weights, ["does not fit the architecture"], other_layers),
    "weights of more layers": (of_a_deeper_network(".weights.h5"), ["has 203 weights", "takes 195"], other_layers),
    "weights of more layers, .keras": (of_a_deeper_network(".keras"), ["has 203 weights", "takes 195"], other_layers),
    "a file that ends too early": (truncated, ["an archive that is not whole", "(.keras, .h5)"]),
    "an archive of something else": (empty_archive, ["it has no model.weights.h5", "(.keras, .h5)"]),
    "a text": (file("network.h5", b"epoch,loss\n1,2.3\n"), ["neither HDF5 nor an archive", "(.keras, .h5)"]),
    "nothing in it": (file("network.keras", b""), ["it is empty", "(.keras, .h5)"]),
    "a description for weights": (
        file("network.json", b'{"class_name": "Functional"}'),
        ["it is JSON, which --network"],
    ),
    "a pointer of Git LFS": (file("network.keras", b"version https://git-lfs.github.com/spec/v1\n"), ["git lfs pull"]),
    "a part of a SavedModel": (file("saved_model.pb", b"\x08\x01"), ["whose folder is wanted", "the folder of"]),
    "a name that is too long": (lambda folder: folder / f"{'a' * 300}.keras", ["which is not a file"]),
    "nothing there": (lambda folder: folder / "none.keras", ["not a file", "(.keras, .h5)"]),
    "a folder": (folder_alone, ["a folder without saved_model.pb", "the folder of a SavedModel"]),
    "a SavedModel of bytes": (saved_model((None, *GREY), tf.uint8), ["takes uint8", "floating point"]),
    "a SavedModel of one image": (saved_model((1, *GREY), tf.float32), ["(None, ...)"]),
    "a SavedModel that reads files": (saved_model((None, *GREY), tf.float32, True), ["ReadFile", "--trust"]),
    "a function of TensorFlow": (of_keras_2(FFT), ["tf.signal.fft", "model.save(FOLDER)"]),
    "a function that Keras 3 has changed": (
        of_keras_2(HARD),
        ["the hard_sigmoid of Keras 2", "model.save(FOLDER)"],
    ),
    "a class that computes with NumPy": (with_numpy, ["a WithNumPy, which cannot be put into", "Keras or TensorFlow"]),
    "bytes, and a layer that cannot be copied": (bytes_without_config, ["takes uint8", "keras.Input(SHAPE, dtype="]),
    "an Embedding of bytes": (
        of_whole_numbers("uint8", keras.layers.Flatten(), keras.layers.Embedding(256, 2)),
        ["takes uint8", "through which no gradient flows", "floating point from its first layer on"],
    ),
    "truth values": (of_whole_numbers("bool"), ["takes bool; allowed: floating point, or bytes (uint8)"]),
    "one image at a time": (one_image, ["cannot compute its outputs", "allowed: a network whose predict does"]),
    "not built": (unbuilt, ["not built", "keras.Model(inputs, model(inputs))"]),
    "a row that is no square": (row, ["63 pixels in a row", "keras.layers.Reshape((63,))"]),
    "no network": (lambda folder: {"weights": 3}, ["is a dict", "a keras.Model, or the path of one"]),
    "pixels of no name": (lambda folder: body(), ["'0-255'", "0..255"], {"pixels": "0-255"}),
    "means of two of three channels": (
        lambda folder: body(colour=True),
        ["one number for all, or for each of the 3 channels"],
        {"pixels": "0.5,0.5/0.2"},
    ),
    "colours of grey images": (lambda folder: body(), ["'caffe'", "images of 3 channels"], {"pixels": "caffe"}),
    "no such module": (saved(lambda folder: body()), ["no_such_module"], {"modules": ["no_such_module"]}),
}


def case(kind: str, folder: pathlib.Path):
    """Returns what to give to `adapt`, its options, and the words of the refusal."""
    make, words, *options = REFUSED[kind]
    (options,) = options or [{}]
    return make(folder), options(folder) if callable(options) else options, words
