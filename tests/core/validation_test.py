"""Files and folders that a user may name by mistake."""

import keras
import pytest

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


@pytest.mark.parametrize("make", [missing, a_folder, truncated, not_keras])
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


def test_an_output_folder_is_made(tmp_path):
    assert validation.output_folder("out", tmp_path / "new" / "folder").is_dir()


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match="out is .*file', which cannot be written"):
        validation.output_folder("out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
