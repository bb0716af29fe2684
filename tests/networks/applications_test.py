"""Networks of `keras.applications`: what goes into them, and with which weights they begin."""

import keras
import numpy as np
import pytest

from tf_nuat.models import precision
from tf_nuat.networks import application
from tf_nuat.networks.applications import APPLICATIONS
from tf_nuat.networks.pixels import preprocessing

IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)


def module(name):
    return getattr(keras.applications, APPLICATIONS[name])


def test_every_network_of_keras_is_there_with_its_own_module():
    builders = {name: value for name, value in vars(keras.applications).items() if name[0].isupper()}
    assert {name: value.__module__.rpartition(".")[2] for name, value in builders.items()} == APPLICATIONS


@pytest.mark.parametrize("name", {module: name for name, module in APPLICATIONS.items()}.values())
def test_preprocessing_is_that_of_keras(name):
    layer = preprocessing(module(name).preprocess_input)
    assert type(layer) in (keras.layers.Rescaling, keras.layers.Conv2D) and not layer.trainable_weights
    expected = module(name).preprocess_input(255.0 * IMAGES)
    np.testing.assert_allclose(layer(IMAGES), expected, rtol=1e-5, atol=1e-4 * np.ptp(expected))


# One for each kind of preprocessing: to [-1, 1], by the channels' deviations, in the order BGR, within the network.
@pytest.mark.parametrize("name", ["MobileNet", "DenseNet121", "VGG16", "MobileNetV3Small"])
def test_logits_are_those_of_the_network_on_what_keras_preprocesses_before_and_after_saving(name, tmp_path):
    keras.utils.set_random_seed(0)
    network = application((32, 32, 3), 7, name=name, weights=None)
    base, last = network.layers[-2:]
    features = base(module(name).preprocess_input(255.0 * IMAGES))
    expected = features @ last.kernel + last.bias
    assert np.ptp(expected) > 0 and expected.shape == (2, 7)
    tolerance = 1e-4 * np.ptp(expected)
    np.testing.assert_allclose(network(IMAGES), expected, atol=tolerance)
    network.save(tmp_path / "network.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "network.keras")(IMAGES), expected, atol=tolerance)


def test_all_but_the_preprocessing_is_trained():
    network = application((32, 32, 3), 2, name="VGG16", weights=None)
    trained = {id(variable) for variable in network.trainable_variables}
    fixed = [variable for variable in network.variables if id(variable) not in trained]
    assert [variable.shape for variable in fixed] == [(1, 1, 3, 3), (3,)]
    batch_norms = [
        layer
        for layer in application((32, 32, 3), 2, name="MobileNet", weights=None).layers[-2].layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert batch_norms and all(layer.trainable for layer in batch_norms)


def test_weights_come_from_a_file(tmp_path):
    keras.utils.set_random_seed(1)
    options = {"include_top": False, "alpha": 0.25, "input_shape": (32, 32, 3), "pooling": "avg"}
    pretrained = keras.applications.MobileNet(weights=None, **options)
    pretrained.save_weights(tmp_path / "kept.weights.h5")
    network = application((32, 32, 3), 3, name="MobileNet", weights=str(tmp_path / "kept.weights.h5"), alpha=0.25)
    for ours, theirs in zip(network.layers[-2].get_weights(), pretrained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_its_twin_in_bfloat16_computes_nearly_the_same():
    network = application((32, 32, 3), 2, name="VGG16", weights=None)
    expected = network(IMAGES)
    np.testing.assert_allclose(precision.attacked(network, "bfloat16")(IMAGES), expected, rtol=0.1)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"name": "ResNet18"}, "name is 'ResNet18'; allowed: ConvNeXtBase, "),
        ({"weights": "kept.h5"}, "weights is 'kept.h5', which is no file; allowed: imagenet, null"),
        ({"weights": "x" * 300}, "weights is 'xxx.*', which is no file; allowed: "),
        ({"weights": 3}, "weights is 3, which is no file; allowed: "),
        ({"weights": __file__}, "name is 'MobileNetV2', which Keras cannot build with weights "),
        ({"input_shape": (16, 16, 3)}, "which Keras cannot build .*at least 32x32"),
        ({"input_shape": (32, 32, 1)}, "the number of channels of input_shape is 1; allowed: 3"),
        ({"num_classes": 1}, "num_classes is 1; allowed: "),
    ],
)
def test_what_cannot_be_built_is_named_in_one_line(arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        application(**{"input_shape": (32, 32, 3), "name": "MobileNetV2", "weights": None, **arguments})
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_downloaded_are_named_in_one_line(monkeypatch):
    def offline(*, weights, **options):
        assert weights == "imagenet" and options["include_top"] is False
        raise Exception("URL fetch failure on somewhere: None --\n no route to host")

    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    with pytest.raises(ValueError, match="cannot build with weights 'imagenet' .*no route to host") as caught:
        application((32, 32, 3), name="MobileNetV2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["depth", "include_top", "include_preprocessing"])
def test_other_options_are_refused(option):
    with pytest.raises(TypeError, match=option):
        application((32, 32, 3), name="MobileNetV3Small", weights=None, **{option: True})
