"""Models of `tests.helpers.owners` that are classes of their owners', or have others inside; and what no layer makes.

Each entry of `TAKEN` makes one.
"""

import keras
import numpy as np

from tests.helpers.owners import GREY, Owned, argmax, behind, body, built, images, in_front, layers, owned, trained
from tests.helpers.owners_files import LOGARITHM
from tests.helpers.owners_models import OFF


class Subclass(keras.Model):
    """A model in the style of TensorFlow's quickstart for experts."""

    def __init__(self, activation):
        super().__init__()
        self.parts = layers(activation)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def trained_subclass(activation):
    """Returns such a model, which was called on an image, so that it has weights."""
    network = Subclass(activation)
    network(np.zeros((1, *GREY)))
    network.set_weights(trained())
    return network


def subclassed(activation, *said, **options):
    """Returns a maker of such a model."""
    said = ["the class Subclass was put into a functional model", *said]
    return lambda folder: owned(trained_subclass(activation), body(), *said, is_stock=False, **options)


def subclass_inside(folder):
    """As keras.Model(inputs, network(inputs)) makes a functional model of it."""
    return owned(in_front(trained_subclass(None), shape=GREY), body(), is_stock=False)


@keras.saving.register_keras_serializable("tests")
class Gate(keras.layers.Layer):
    """A layer of the owner's whose sigmoid is not the last that it does."""

    def __init__(self, activation="sigmoid", **options):
        super().__init__(**options)
        self.activation = keras.activations.get(activation)

    def call(self, z):
        return z * self.activation(z)

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


@keras.saving.register_keras_serializable("tests")
class Head(keras.layers.Layer):
    """A layer of the owner's that has an activation and no argument for it."""

    activation = staticmethod(keras.activations.softmax)

    def call(self, z):
        return self.activation(z)


def gated(folder):
    network = behind(body(), Gate())
    return owned(network, network)


def with_a_head(folder):
    return owned(behind(body(), Head()), body(), LOGARITHM, has_offset=True)


class Inverting(keras.Model):
    """A functional model whose own call does more than its graph: it exchanges black and white."""

    def call(self, x, training=False):
        return super().call(1.0 - x, training=training)


def with_a_call_of_its_own(*said, inside=False):
    """Returns a maker of a functional model of a class that has a call."""

    def make(folder):
        before = body(scale=-1.0, offset=1.0)
        softmax = behind(before, keras.layers.Softmax())
        network = Inverting(softmax.input, softmax.output)
        network = in_front(network, shape=GREY) if inside else network
        more = {"classes": argmax(network), "prepare": lambda x: 1.0 - x, "is_stock": False, "has_offset": True}
        return owned(network, before, *said, LOGARITHM, **more)

    return make


def rounded(folder):
    """Probabilities that were rounded to bfloat16: their sums are not quite 1."""
    probabilities = [lambda z: keras.ops.softmax(0.2 * z), lambda p: keras.ops.cast(p, "bfloat16")]
    network = behind(body(), *probabilities, lambda p: keras.ops.cast(p, "float32"))
    return Owned(network, argmax(network), said=[LOGARITHM])


def sigmoids(folder):
    """A sigmoid of each class that is no layer of Keras."""
    before = body()
    network = behind(before, lambda z: 1.0 / (1.0 + keras.ops.exp(-0.1 * z)))
    said = "its outputs are all from 0 to 1, as of sigmoids that cannot be taken off"
    return Owned(network, argmax(network), lambda x: 0.1 * before(x), [said])


def not_negative(folder):
    """Logits that are small for pixels in [0, 1], as those of a network for 0..255 are before it is put in front."""
    maps = [keras.layers.Conv2D(8, 3), keras.layers.Conv2D(10, 1, activation="relu")]
    generator = np.random.default_rng(0)
    kernels = generator.normal(size=(3, 3, 1, 8)), 0.01 * generator.normal(size=(1, 1, 8, 10))
    weights = [kernels[0], np.zeros(8), kernels[1], np.zeros(10)]
    network = built([*maps, keras.layers.GlobalAveragePooling2D()], weights)
    assert np.min(network(images())) >= 0.0 and np.max(network(images())) < 1.0 < np.max(network(255.0 * images()))
    said = "pixels in [0, 1] become 0..255"
    return owned(network, network, said, prepare=lambda x: 255.0 * x, options={"pixels": "0..255"})


def all_zero(folder):
    """As a network that has died: no sigmoid is 0 for every image."""
    network = behind(body(), lambda z: keras.ops.relu(z - 1e9))
    return owned(network, network)


def dict_of_logits(folder):
    before = body()
    network = keras.Model(before.input, {"class": before.output})
    return owned(network, before, "its output was taken out of a dict", classes=argmax(before))


def logits_beside_another_output(folder):
    before = body()
    network = keras.Model(before.input, [before.output, keras.layers.Dense(4, name="box")(before.layers[-2].output)])
    said = "of the outputs classes, box, classes was taken"
    return owned(network, before, said, classes=argmax(before), options={"outputs": "classes"})


def of_several_heads(*used, said=(), **options):
    """Returns a maker of a network that returns some outputs of one inside: a softmax, logits, and their softmax."""

    def make(folder):
        before, inputs = body(), keras.Input(GREY)
        heads = [keras.layers.Softmax()(-before.output), before.output, keras.layers.Softmax()(before.output)]
        found = keras.Model(before.input, heads, name="base")(inputs)
        network = keras.Model(inputs, found[used[0]] if len(used) == 1 else [found[each] for each in used])
        return owned(network, before, *said, classes=argmax(keras.Model(inputs, found[used[-1]])), options=options)

    return make


TAKEN = {
    "a subclass of keras.Model": subclassed("softmax", LOGARITHM, has_offset=True),
    "a subclass of keras.Model that returns logits": subclassed(None),
    "a subclass of keras.Model inside": subclass_inside,
    "a functional model with a call of its own": with_a_call_of_its_own(
        "the class Inverting was put into a functional model"
    ),
    "a functional model with a call of its own inside": with_a_call_of_its_own(inside=True),
    "a gate, a layer of one's own": gated,
    "a head without argument, a layer of one's own": with_a_head,
    "softmax, rounded to bfloat16": rounded,
    "sigmoid of each class, a function": sigmoids,
    "logits that are not negative": not_negative,
    "logits that are all 0": all_zero,
    "a dict of logits": dict_of_logits,
    "logits beside another output": logits_beside_another_output,
    "logits of a network inside that returns a softmax, too": of_several_heads(1),
    "a softmax of several of a network inside": of_several_heads(2, said=[OFF]),
    "one of two outputs of a network inside": of_several_heads(
        0, 2, said=["of the outputs base, base_1, base_1 was taken", OFF], outputs="base_1"
    ),
}
