"""Files and folders that a user may name by mistake."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tf_nuat.core import validation


def saved(path, layers):
    network = keras.Sequential([keras.Input((4, 4, 1)), *layers])
    network.save(path)
    return path


def test_a_network_that_keras_saved_is_loaded(tmp_path):
    path = saved(tmp_path / "network.keras", [keras.layers.Flatten(), keras.layers.Dense(3)])
    assert validation.load_network("checkpoint", path).output_shape == (None, 3)


def missing(path):
    return path / "network.keras"


def a_folder(path):
    return path


def truncated(path):
    path = saved(path / "network.keras", [keras.layers.Flatten(), keras.layers.Dense(3)])
    path.write_bytes(path.read_bytes()[:-200])
    return path


def not_keras(path):
    path = path / "network.keras"
    path.write_text("weights")
    return path


def too_long(path):
    return path / f"{'x' * 300}.keras"


@pytest.mark.parametrize("make", [missing, a_folder, truncated, not_keras, too_long])
def test_anything_else_is_refused_in_one_line(make, tmp_path):
    path = make(tmp_path)
    with pytest.raises(ValueError, match="checkpoint is ") as raised:
        validation.load_network("checkpoint", path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "layers, words",
    [
        ([keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")], "ends in softmax"),
        ([keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.Softmax()], "ends in softmax"),
        ([keras.layers.Flatten(), keras.layers.Dense(3, activation="sigmoid")], "ends in softmax"),
        ([keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.Activation("softmax")], "ends in softmax"),
        ([keras.layers.Flatten(), keras.layers.Dense(3, activation=tf.nn.softmax)], "ends in softmax"),
        ([keras.layers.Flatten(), keras.layers.Dense(1)], "at least 2"),
        ([keras.layers.Conv2D(3, 3)], "outputs of shape"),
    ],
)
def test_networks_that_are_no_classifiers_of_images_are_named(layers, words):
    with pytest.raises(ValueError, match=words):
        validation.classifier("network", keras.Sequential([keras.Input((4, 4, 1)), *layers]))


@pytest.mark.parametrize("wrapped", ["input", "output"])
def test_a_network_of_dicts_is_named(wrapped):
    images = keras.Input((4, 4, 1), name="images")
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(images))
    ends = [{"images": images} if wrapped == "input" else images, {"logits": logits} if wrapped == "output" else logits]
    with pytest.raises(ValueError, match="network takes or returns a dict; allowed: one input"):
        validation.classifier("network", keras.Model(*ends))


def test_a_network_that_does_not_know_its_input_yet_is_named():
    network = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match="network is not built; call it on a batch, or begin it with keras.Input"):
        validation.classifier("network", network)


def test_a_defense_is_told_from_its_network_in_memory_and_in_a_file(tmp_path):
    """`keras.callbacks.ModelCheckpoint` saves the defense."""
    inputs = keras.Input((4, 4, 1))
    network = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    model = tf_nuat.FGSMAT(network, epsilon=0.1)
    model.save(tmp_path / "best.keras")
    for given in (model, tmp_path / "best.keras"):
        with pytest.raises(ValueError, match="is a FGSMAT, which trains a network; allowed: that network"):
            tf_nuat.networks.adapt(given)
    with pytest.raises(ValueError, match="network is a FGSMAT, which trains a network; allowed: .* model.network"):
        tf_nuat.evaluate.worst_case(model, (np.zeros((2, 4, 4, 1), np.float32), [0, 1]), "fgsm", epsilon=0.1)


def test_a_classifier_of_vectors_is_no_classifier_of_images():
    with pytest.raises(ValueError, match="images of"):
        validation.classifier("network", keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))


def test_a_nested_network_is_looked_into():
    inner = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.Softmax()]
    )
    inputs = keras.Input((4, 4, 1))
    with pytest.raises(ValueError, match="ends in softmax"):
        validation.classifier("network", keras.Model(inputs, inner(inputs)))


class OfOnesOwn(keras.Model):
    """A subclass that returns logits; its graph is not known."""

    def __init__(self):
        super().__init__()
        self.flat, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)

    def call(self, x):
        return self.dense(self.flat(x))


def test_a_subclass_inside_a_network_is_taken():
    inputs = keras.Input((4, 4, 1))
    network = keras.Model(inputs, OfOnesOwn()(inputs))
    assert validation.classifier("network", network) is network


def test_of_a_network_inside_the_output_that_is_used_counts():
    images, inputs = keras.Input((4, 4, 1)), keras.Input((4, 4, 1))
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(images))
    first, second = keras.Model(images, [keras.layers.Softmax()(logits), logits])(inputs)
    with pytest.raises(ValueError, match="ends in softmax"):
        validation.classifier("network", keras.Model(inputs, first))
    network = keras.Model(inputs, second)
    assert validation.classifier("network", network) is network


def test_a_network_that_would_cast_images_to_integers_is_named():
    inputs = keras.Input((4, 4, 1), dtype="uint8")
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    with pytest.raises(ValueError, match="network takes uint8, through which no gradient flows; allowed: floating poi"):
        validation.classifier("network", keras.Model(inputs, logits))


def test_images_that_are_beyond_by_rounding_are_clipped_and_of_others_the_error_shows_enough():
    above = np.nextafter(np.float32(1), np.float32(2))
    images = np.array([-1e-7, 0.5, 1.0, above], np.float32).reshape(1, 2, 2, 1)
    found = validation.images("images", images)
    np.testing.assert_array_equal(found.ravel(), np.array([0.0, 0.5, 1.0, 1.0], np.float32))
    assert found.dtype == np.float32 and validation.images("images", found) is found
    with pytest.raises(ValueError, match=r"^images has values from 0 to 1\.00001; allowed: \[0, 1\]$"):
        validation.images("images", 1.00001 * found)


def test_images_of_16_bits_are_taken_and_of_8_bits_are_divided():
    for kind in ("float16", "bfloat16"):
        assert validation.images("x", tf.fill((2, 4, 4, 1), tf.constant(0.5, kind))).dtype.name == kind
    with pytest.raises(ValueError, match=r"x has values from 0 to 255; allowed: \[0, 1\] .divide pixels of 8 bits by"):
        validation.images("x", np.float32([0.0, 255.0]).reshape(2, 1, 1, 1))


def test_probabilities_that_were_rounded_are_probabilities():
    rows = tf.nn.softmax(np.random.default_rng(0).normal(size=(50, 10)))
    rounded = tf.cast(rows, tf.bfloat16).numpy()
    assert np.abs(rounded.astype(np.float64).sum(axis=1) - 1.0).max() > 1e-3
    assert validation.are_probabilities(rounded) and not validation.are_probabilities(0.9 * rows.numpy())


def test_an_output_folder_is_made(tmp_path):
    assert validation.output_folder("out", tmp_path / "new" / "folder").is_dir()


def test_nothing_is_no_output_folder():
    with pytest.raises(ValueError, match="out is ''; allowed: a folder"):
        validation.output_folder("out", "")


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match="out is .*file', which cannot be written"):
        validation.output_folder("out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_network_with_an_operation_without_a_gradient_is_named_in_one_line():
    layers = [keras.layers.Resizing(3, 3, interpolation="area"), keras.layers.Flatten(), keras.layers.Dense(3)]
    network = keras.Sequential([keras.Input((4, 4, 1)), *layers])
    with pytest.raises(ValueError, match="^network uses ResizeArea, for which .*'bilinear'") as caught:
        validation.logits_on("network", network, np.random.default_rng(0).random((2, 4, 4, 1), np.float32))
    assert "\n" not in str(caught.value)


def test_a_network_that_cannot_compute_is_named_in_one_line():
    """As one with convolutions of channels first, which TensorFlow computes on a GPU alone."""

    class Convolution(keras.layers.Layer):
        def call(self, x):
            if not tf.is_symbolic_tensor(x):
                raise tf.errors.UnimplementedError(None, None, "The Conv2D op only supports NHWC on the CPU.")
            return x

    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), Convolution(), keras.layers.Dense(3)]
    with pytest.raises(ValueError) as caught:
        validation.logits_on("network", keras.Sequential(layers), np.zeros((2, 4, 4, 1), np.float32))
    said = str(caught.value)
    assert said.startswith("network cannot compute its outputs for the sample (Exception encountered when calling ")
    assert said.endswith("only supports NHWC on the CPU.); allowed: a network whose predict does") and "\n" not in said


def test_where_no_name_is_allowed_the_line_says_so():
    """As for an option of an attack that takes none."""
    with pytest.raises(ValueError, match="^name in options is 'steps'; allowed: none$"):
        validation.one_of("name in options", "steps", set())
