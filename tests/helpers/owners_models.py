"""Models of `tests.helpers.owners` in memory: endings, inputs, nesting. Each entry of `TAKEN` makes one."""

import functools

import keras
import numpy as np
import tensorflow as tf

from tests.helpers.owners import (
    COLOUR,
    GREY,
    Owned,
    argmax,
    behind,
    body,
    built,
    images,
    in_front,
    layers,
    owned,
    trained,
)

OFF = "its last softmax was taken off"
IMAGENET = keras.applications.imagenet_utils.preprocess_input
MEAN, DEVIATION = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.25, 0.3], np.float32)


def ends_in(*parts, said=(OFF,), **options):
    """Returns a maker of a network that ends in layers or functions behind its logits."""
    return lambda folder: owned(behind(body(), *(part() for part in parts)), body(), *said, **options)


def activated(activation, said=(OFF,), **options):
    """Returns a maker of a network whose last layer has an activation."""
    return lambda folder: owned(built(layers(activation())), body(), *said, **options)


def takes(pixels, prepare, said, *, scale, offset, **options):
    """Returns a maker of a network of `prepare(images)`, by which pixels become `scale` * pixel + `offset`."""

    def make(folder):
        network = body(scale=scale, offset=offset, **options)
        softmax = behind(network, keras.layers.Softmax())
        more = {"prepare": prepare, "options": {"pixels": pixels}, "colour": options.get("colour", False)}
        return owned(softmax, network, OFF, f"pixels in [0, 1] become {said}", **more)

    return make


def linear_in_float32(folder):
    """Keras's guide to mixed precision: the last layer returns float32."""
    half = keras.mixed_precision.DTypePolicy("mixed_bfloat16")

    def parts(activation):
        flat, hidden = keras.layers.Flatten(dtype=half), keras.layers.Dense(32, "relu", dtype=half)
        last = keras.layers.Dense(10, activation, dtype=half)
        return [flat, hidden, last, keras.layers.Activation("linear", dtype="float32")]

    return owned(built(parts("softmax")), built(parts(None)), OFF)


def high(activation, said, is_exact=True):
    """Returns a maker of a network of one output: whether a digit is 5 or higher."""

    def make(folder):
        *hidden, kernel, bias = trained("high")
        weights = [*hidden, kernel[:, 1:2] - kernel[:, :1], bias[1:2] - bias[:1]]
        network = built(layers(activation, classes=1), weights)
        before = built(layers(classes=1), weights)

        def classes(x):
            return np.int64(np.asarray(network(x))[:, 0] > (0.5 if activation else 0.0))

        def logits(x):
            return tf.concat([tf.zeros((len(x), 1)), before(x)], axis=1)

        said_of_all = [*said, "its one output became the logits of two classes"]
        return Owned(network, classes, logits if is_exact else None, said_of_all)

    return make


def sigmoid_of_a_sigmoid(folder):
    """It always exceeds a half, whatever the first one does."""
    before = high("sigmoid", [])(folder).given
    said = ["its last sigmoid was taken off", "its one output became the logits of two classes"]
    network = behind(before, keras.layers.Activation("sigmoid"))
    return Owned(network, argmax(network), lambda x: tf.concat([tf.zeros((len(x), 1)), before(x)], axis=1), said)


def softmax_of_pairs(folder):
    """Of each pair the larger is above a half: the order of the logits is another one."""
    network = behind(body(), keras.layers.Reshape((5, 2)), keras.layers.Softmax(), keras.layers.Flatten())
    return Owned(network, argmax(network), said=["its outputs are all from 0 to 1"])


def cell(activation):
    """Returns a maker of a network that ends in a cell, which goes on computing with what its activation returns."""

    def make(folder):
        keras.utils.set_random_seed(0)
        network = behind(body(), keras.layers.Reshape((5, 2)), keras.layers.LSTM(10, activation=activation))
        said = ["its outputs are all from 0 to 1"]
        return Owned(network, argmax(network), lambda x: logit(network(x)), said)

    return make


def logit(probability):
    return tf.math.log(probability) - tf.math.log(1.0 - probability)


@keras.saving.register_keras_serializable()
def own_sigmoid(z):
    return keras.ops.sigmoid(z)


def average(folder):
    inputs = keras.Input(GREY)
    one, other = body(), body()
    other.set_weights([1.1 * each for each in other.get_weights()])
    network = keras.Model(inputs, keras.layers.Average()([keras.ops.softmax(each(inputs)) for each in (one, other)]))

    def logits(x):
        return tf.math.log(tf.nn.softmax(one(x)) / 2 + tf.nn.softmax(other(x)) / 2)

    return Owned(network, argmax(network), logits, ["their logarithm was taken"])


def row(folder):
    network = built(layers("softmax")[1:], shape=(64,))
    said = "images (8, 8, 1) become what it takes: pixels in a row"
    return owned(network, built(layers()[1:], shape=(64,)), OFF, said, prepare=lambda x: tf.reshape(x, (len(x), 64)))


def without_channels(folder):
    network = built(layers("softmax"), shape=(8, 8))
    said = "images (8, 8, 1) become what it takes: images without an axis of channels"
    return owned(network, built(layers(), shape=(8, 8)), OFF, said, prepare=lambda x: x[..., 0])


def channels_first(folder):
    network = in_front(body(colour=True), keras.layers.Permute((2, 3, 1)), shape=(3, 8, 8))
    prepare = functools.partial(tf.transpose, perm=(0, 3, 1, 2))
    said = "images (8, 8, 3) become what it takes: channels first"
    return owned(behind(network, keras.layers.Softmax()), network, OFF, said, prepare=prepare, colour=True)


def bytes_in(folder):
    """As a graph for a phone takes images; its owner rounds pixels to bytes."""
    softmax = behind(body(), keras.layers.Softmax())
    network = in_front(softmax, keras.layers.Rescaling(1 / 255), shape=GREY, dtype="uint8")
    said = ["it takes bytes", OFF, "pixels in [0, 1] become 0..255"]
    return Owned(network, argmax(network, lambda x: np.uint8(np.round(255 * x))), body(), said)


def bytes_in_inside(folder):
    softmax = behind(body(), keras.layers.Softmax())
    inner = in_front(softmax, keras.layers.Rescaling(1 / 255), shape=GREY, dtype="uint8")
    network = in_front(inner, shape=GREY, dtype="uint8")
    said = ["it takes bytes", OFF, "pixels in [0, 1] become 0..255"]
    return Owned(network, argmax(network, lambda x: np.uint8(np.round(255 * x))), body(), said)


def bytes_in_with_normalization(folder):
    """Its statistics are weights, of which the layer makes constants."""
    given = 255.0 * images()
    normalization = keras.layers.Normalization(axis=None)
    normalization.adapt(given)
    scale = 255.0 / given.std()
    softmax = behind(body(scale=scale, offset=-given.mean() / given.std()), keras.layers.Softmax())
    network = in_front(softmax, normalization, shape=GREY, dtype="uint8")
    said = ["it takes bytes", OFF, "pixels in [0, 1] become 0..255"]
    return Owned(network, argmax(network, lambda x: np.uint8(np.round(255 * x))), body(), said)


def dict_of_one_output(folder):
    softmax = behind(body(), keras.layers.Softmax())
    network = keras.Model(softmax.input, {"class": softmax.output})  # a word of Python
    return owned(network, body(), "its output was taken out of a dict", OFF, classes=argmax(softmax))


def one_of_several_outputs(folder):
    before = body()
    softmax = keras.layers.Softmax(name="digit")(before.output)
    network = keras.Model(before.input, [softmax, keras.layers.Dense(4, name="box")(before.layers[-2].output)])
    said = "of the outputs digit, box, digit was taken"
    classes = argmax(keras.Model(before.input, softmax))
    return owned(network, before, said, OFF, classes=classes, options={"outputs": "digit"})


def dict_input(folder):
    inputs = {"image": keras.Input(GREY, name="image")}
    softmax = behind(body(), keras.layers.Softmax())
    network = keras.Model(inputs, softmax(inputs["image"]))
    classes = argmax(network, lambda x: {"image": x})
    return owned(network, body(), "its input was taken out of a dict", OFF, classes=classes)


def softmax_in_the_inner_network(folder):
    inner = behind(body(), keras.layers.Softmax())
    return owned(in_front(inner, keras.layers.Identity(), shape=GREY), body(), OFF)


def softmax_behind_the_inner_network(folder):
    before = in_front(body(), shape=GREY)
    return owned(behind(before, keras.layers.Activation("softmax")), before, OFF)


def averaged_maps(folder):
    """As networks without a Dense: a map of each class, its mean, and a softmax."""
    convolution, normalization = keras.layers.Conv2D(8, 3), keras.layers.BatchNormalization()
    maps, mean = keras.layers.Conv2D(10, 1), keras.layers.GlobalAveragePooling2D()
    weights = [*trained("colour")[:6], np.random.default_rng(0).normal(size=(1, 1, 8, 10)), np.zeros(10)]
    before = built([convolution, normalization, maps, mean], weights, shape=COLOUR)
    return owned(behind(before, keras.layers.Activation("softmax")), before, OFF, colour=True)


def application(folder):
    """A network of `keras.applications`, which takes what its own `preprocess_input` makes of bytes."""
    keras.utils.set_random_seed(0)
    size = {"weights": None, "input_shape": (32, 32, 3), "classes": 10, "alpha": 0.25}
    softmax = keras.applications.MobileNet(**size)
    before = keras.Model(softmax.input, softmax.layers[-2].output)  # all but the Activation

    def prepare(x):
        return IMAGENET(255.0 * tf.repeat(tf.repeat(x, 4, axis=1), 4, axis=2), mode="tf")

    shown = before(prepare(images(colour=True)))
    *others, kernel, bias = before.get_weights()
    spread = np.std(shown, axis=0)  # not trained: of each class as much, so that answers differ
    before.set_weights([*others, kernel / spread, bias - np.mean(shown, axis=0) / spread])
    larger = keras.layers.UpSampling2D(4)
    network = in_front(softmax, larger, shape=COLOUR)
    said = [OFF, "pixels in [0, 1] become -1..1"]
    more = {"classes": argmax(softmax, prepare), "options": {"pixels": "-1..1"}}
    return owned(network, before, *said, prepare=prepare, colour=True, **more)


def augmentation_inside(folder):
    """As in Keras's tutorials on images: what is random while it trains, and a layer of statistics, come first."""
    normalization = keras.layers.Normalization(axis=None, mean=0.25, variance=0.04)
    front = [keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1), normalization, keras.layers.Dropout(0.5)]
    network = in_front(body(scale=5.0, offset=-1.25), *front, shape=GREY)
    return owned(behind(network, keras.layers.Dropout(0.1), keras.layers.Softmax()), network, OFF)


TAKEN = {
    "logits": ends_in(said=()),
    "softmax, a layer": ends_in(keras.layers.Softmax),
    "softmax, activation of a Dense": activated(lambda: "softmax"),
    "softmax, an Activation": ends_in(lambda: keras.layers.Activation("softmax")),
    "softmax, an operation": ends_in(lambda: keras.ops.softmax),
    "softmax, a function of keras.activations": ends_in(lambda: keras.activations.softmax),
    "softmax, a function of TensorFlow": activated(lambda: tf.nn.softmax),
    "softmax, a layer as activation": activated(keras.layers.Softmax),
    "softmax, an Activation as activation": activated(lambda: keras.layers.Activation("softmax")),
    "softmax in the cell of an LSTM": cell("softmax"),
    "softmax, then Reshape": ends_in(keras.layers.Softmax, lambda: keras.layers.Reshape((10,))),
    "softmax, then linear in float32": linear_in_float32,
    "sigmoid of one unit": high("sigmoid", ["its last sigmoid was taken off"]),
    "hard sigmoid of one unit, an Activation as activation": high(
        keras.layers.Activation("hard_sigmoid"), ["it returns a probability"], is_exact=False
    ),
    "hard sigmoid of one unit": high("hard_sigmoid", ["it returns a probability"], is_exact=False),
    "sigmoid of one unit, a function": high(own_sigmoid, ["it returns a probability"], is_exact=False),
    "sigmoid of a sigmoid": sigmoid_of_a_sigmoid,
    "one logit": high(None, []),
    "softmax of a softmax": ends_in(keras.layers.Softmax, keras.layers.Softmax, said=(OFF, OFF)),
    "softmax of each pair": softmax_of_pairs,
    "sigmoid of each class": activated(lambda: "sigmoid", ["its last sigmoid was taken off"]),
    "log_softmax": activated(lambda: "log_softmax", [], has_offset=True),
    "average of two softmaxes": average,
    "pixels in a row": row,
    "images without channels": without_channels,
    "pixels in 0..255": takes("0..255", lambda x: 255.0 * x, "0..255", scale=255.0, offset=0.0),
    "pixels in -1..1": takes("-1..1", lambda x: 2.0 * x - 1.0, "-1..1", scale=2.0, offset=-1.0),
    "pixels by mean and deviation": takes(
        "0.5,0.4,0.3/0.2,0.25,0.3",
        lambda x: (x - MEAN) / DEVIATION,
        "mean and deviation 0.5,0.4,0.3/0.2,0.25,0.3",
        scale=1.0 / DEVIATION,
        offset=-MEAN / DEVIATION,
        colour=True,
    ),
    "pixels as caffe": takes(
        "caffe",
        lambda x: IMAGENET(255.0 * x, mode="caffe"),
        "caffe",
        scale=255.0,
        offset=-np.array([103.939, 116.779, 123.68]),
        colour=True,
        reverse=True,
    ),
    "pixels as torch": takes(
        "torch",
        lambda x: IMAGENET(255.0 * x, mode="torch"),
        "torch",
        scale=1.0 / np.array([0.229, 0.224, 0.225]),
        offset=-np.array([0.485, 0.456, 0.406]) / np.array([0.229, 0.224, 0.225]),
        colour=True,
    ),
    "channels first": channels_first,
    "bytes": bytes_in,
    "bytes, taken by a network inside": bytes_in_inside,
    "bytes, whose statistics it knows": bytes_in_with_normalization,
    "a dict of one output": dict_of_one_output,
    "one of several outputs": one_of_several_outputs,
    "a dict of inputs": dict_input,
    "softmax in a network inside": softmax_in_the_inner_network,
    "softmax behind a network inside": softmax_behind_the_inner_network,
    "averaged maps": averaged_maps,
    "keras.applications": application,
    "augmentation and normalization inside": augmentation_inside,
}
