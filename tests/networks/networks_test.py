import zipfile

import keras
import numpy as np
import pytest

from tf_nuat import networks
from tf_nuat.core import keras_compat, validation
from tf_nuat.networks import NETWORKS
from tf_nuat.networks.resnet import convolution, preact_block

PUBLISHED_COUNTS = {
    "densenet_bc_100": 769_162,
    # Table 1's layers on 28x28 images: (inputs of a neuron + its bias) * neurons, layer by layer.
    "ensemble_a": (5 * 5 + 1) * 64 + (5 * 5 * 64 + 1) * 64 + (20 * 20 * 64 + 1) * 128 + (128 + 1) * 10,
    "ensemble_b": (8 * 8 + 1) * 64 + (6 * 6 * 64 + 1) * 128 + (5 * 5 * 128 + 1) * 128 + (128 + 1) * 10,
    "ensemble_c": (3 * 3 + 1) * 128 + (3 * 3 * 128 + 1) * 64 + (5 * 5 * 64 + 1) * 128 + (128 + 1) * 10,
    "ensemble_d": (28 * 28 + 1) * 300 + 3 * (300 + 1) * 300 + (300 + 1) * 10,
    "lenet_plus": 3_274_634,
    "mnist_cnn": 1_791_466,
    "preact_resnet18": 11_172_170,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    # (inputs of a neuron + its bias) * neurons, layer by layer.
    "two_conv": (4 * 4 + 1) * 16 + (4 * 4 * 16 + 1) * 32 + (7 * 7 * 32 + 1) * 128 + (128 + 1) * 10,
    "vgg11": 9_231_114,
    "vgg13": 9_416_010,
    "vgg19": 20_040_522,
    "wrn_28_10": 36_479_194,
    "wrn_34_10": 46_160_474,
}
SMALL = {  # the smallest networks that still have every kind of block
    "application": {"input_shape": (32, 32, 3), "name": "MobileNet", "weights": None, "alpha": 0.25},
    "densenet_bc_100": {"input_shape": (4, 5, 3), "growth": 1},
    "ensemble_a": {"input_shape": (9, 10, 1)},
    "ensemble_b": {"input_shape": (27, 28, 1)},
    "ensemble_c": {"input_shape": (10, 11, 1)},
    "ensemble_d": {"input_shape": (1, 2, 1)},
    "lenet_plus": {"input_shape": (8, 8, 1)},
    "mnist_cnn": {"input_shape": (8, 8, 1)},
    "preact_resnet18": {"input_shape": (16, 16, 3), "width": 4},
    "resnet18": {"input_shape": (16, 16, 3), "width": 4},
    "resnet50": {"input_shape": (32, 32, 3), "width": 2, "stem": "imagenet"},
    "two_conv": {"input_shape": (5, 6, 1), "width": 3},
    "vgg11": {"input_shape": (28, 28, 1), "width": 4},
    "wide_resnet": {"input_shape": (16, 16, 3), "depth": 10, "widen_factor": 1},
}


def small(name, **arguments):
    return NETWORKS[name](num_classes=7, **{**SMALL[name], **arguments})


def images_for(network, count=5):
    return np.random.default_rng(0).random((count, *network.input_shape[1:]), np.float32)


def randomize(network):
    """Moves every weight, BatchNorm statistics included, away from its initial value."""
    generator = np.random.default_rng(1)
    network.set_weights([w + generator.uniform(0.0, 0.1, w.shape).astype(w.dtype) for w in network.get_weights()])


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_default_network_has_the_published_name_size_and_layers(name):
    with keras_compat.variables_without_values():  # which take longer to draw than all else
        network = NETWORKS[name]()
    assert network.name == name
    assert sum(np.prod(w.shape) for w in network.trainable_weights) == PUBLISHED_COUNTS[name]
    assert network.output_shape == (None, 10)
    assert type(network).__module__.startswith("keras")
    for layer in network.layers:
        assert type(layer).__module__.split(".")[0] == "keras", layer
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
        if isinstance(layer, keras.layers.Conv2D):
            assert layer.use_bias == name.startswith(("ensemble", "lenet", "mnist", "two_conv", "vgg"))


def test_registry_holds_every_builder():
    assert set(NETWORKS) == set(PUBLISHED_COUNTS) | set(SMALL)
    assert all(getattr(networks, name) is builder for name, builder in NETWORKS.items())


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_logits_which_a_saved_network_has_too(name, tmp_path):
    network = validation.classifier("network", small(name))
    x = images_for(network)
    before = network(x, training=False).numpy()
    assert before.shape == (5, 7)
    kernel, bias = network.get_layer("logits").get_weights()
    assert not bias.any()
    network.get_layer("logits").set_weights([1024.0 * kernel, bias])
    # Scaling the last layer scales logits exactly; probabilities would stay within [0, 1].
    np.testing.assert_array_equal(network(x, training=False), 1024.0 * before)
    network.get_layer("logits").set_weights([kernel, bias])

    randomize(network)
    network.save(tmp_path / "network.keras")
    # Nothing in the file names this package, so it loads where the package is not installed.
    assert b"tf_nuat" not in zipfile.ZipFile(tmp_path / "network.keras").read("config.json")
    reloaded = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    assert reloaded.name == name
    expected = network(x, training=False).numpy()
    assert np.ptp(expected) > 0.0
    np.testing.assert_array_equal(reloaded(x, training=False), expected)


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)],
)
def test_imagenet_network_has_the_published_size(name, count):
    with keras_compat.variables_without_values():
        network = NETWORKS[name]((224, 224, 3), 1000, stem="imagenet")
    assert sum(np.prod(w.shape) for w in network.trainable_weights) == count


@pytest.mark.parametrize(
    ("name", "dropped", "activations"),
    [
        ("ensemble_a", [0.25, 0.5], ["relu", "relu", "relu"]),
        ("ensemble_b", [0.2, 0.5], ["relu", "relu", "relu"]),
        ("ensemble_c", [], ["tanh", "tanh", "relu"]),
        ("ensemble_d", [0.5, 0.5, 0.5, 0.5], ["relu", "relu", "relu", "relu"]),
    ],
)
def test_network_of_table_1_drops_and_activates_as_printed(name, dropped, activations):
    layers = small(name).layers
    assert [layer.rate for layer in layers if isinstance(layer, keras.layers.Dropout)] == dropped
    assert [layer.activation.__name__ for layer in layers if layer.weights] == [*activations, "linear"]


def test_bottleneck_block_strides_in_its_3x3_convolution():
    layers = [layer for layer in NETWORKS["resnet50"](width=2).layers if isinstance(layer, keras.layers.Conv2D)]
    strided = [(layer.kernel_size[0], layer.filters) for layer in layers if layer.strides != (1, 1)]
    # A shortcut ends with 4 times the channels of the 3x3 convolution that it goes round.
    assert sorted(strided) == [(1, 16), (1, 32), (1, 64), (3, 4), (3, 8), (3, 16)]


def test_imagenet_stem_pools_a_centred_window():
    """The pooled pixel (i, j) is the greatest of the 3x3 window around the stem's pixel (2 i, 2 j)."""
    network = NETWORKS["resnet18"]((8, 12, 3), width=2, stem="imagenet")
    pooling = next(layer for layer in network.layers if isinstance(layer, keras.layers.MaxPooling2D))
    activation = next(layer for layer in network.layers if isinstance(layer, keras.layers.ReLU))
    stem = keras.Model(network.input, [activation.output, pooling.output])
    before, after = (np.array(maps) for maps in stem(images_for(network, 2)))
    assert after.shape == (2, 2, 3, 2)
    expected = [
        [before[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].max(axis=(1, 2)) for j in (0, 2, 4)] for i in (0, 2)
    ]
    np.testing.assert_array_equal(after, np.transpose(expected, (2, 0, 1, 3)))


@pytest.mark.parametrize(
    ("name", "arguments", "last_map"),
    [
        ("densenet_bc_100", {"growth": 2}, (8, 8, 57)),  # (((4 + 32) / 2 + 32) / 2 + 32)
        ("resnet34", {"width": 2}, (4, 4, 16)),
        ("resnet50", {"width": 2}, (4, 4, 64)),
        ("resnet50", {"width": 2, "input_shape": (224, 224, 3), "stem": "imagenet"}, (7, 7, 64)),
        ("vgg11", {"width": 4}, (1, 1, 32)),
        ("vgg11", {"width": 4, "input_shape": (28, 28, 1)}, (1, 1, 32)),
        ("vgg13", {"width": 4, "input_shape": (224, 224, 3)}, (7, 7, 32)),
        ("vgg19", {"width": 4, "input_shape": (33, 35, 1)}, (2, 2, 32)),
        ("vgg19", {"width": 4, "input_shape": (1, 1, 3)}, (1, 1, 32)),
        ("resnet18", {"width": 4}, (4, 4, 32)),
        ("preact_resnet18", {"width": 4}, (4, 4, 32)),
        ("wide_resnet", {"depth": 10, "widen_factor": 2}, (8, 8, 128)),
        ("resnet18", {"width": 4, "input_shape": (33, 35, 1)}, (5, 5, 32)),
    ],
)
def test_last_feature_map_has_the_published_size(name, arguments, last_map):
    network = NETWORKS[name](**arguments)
    pooling = next(layer for layer in network.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    assert pooling.input.shape == (None, *last_map)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_strided_convolution_is_centred_as_in_pytorch(size, kernel_size):
    inputs = keras.Input((size, size, 1))
    model = keras.Model(inputs, convolution(inputs, 1, size=kernel_size, stride=2))
    kernel = np.zeros((kernel_size, kernel_size, 1, 1), np.float32)
    kernel[kernel_size // 2, kernel_size // 2] = 1.0
    model.set_weights([kernel])
    x = images_for(model)
    # With symmetric padding the centre tap reads the even pixels; with "same" an even size would read the odd ones.
    np.testing.assert_array_equal(model(x), x[:, ::2, ::2])


def test_convolutions_start_from_he_normal_by_fan_out():
    network = NETWORKS["resnet18"]()
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = layer.get_weights()[0]
            expected = np.sqrt(2.0 / (kernel.shape[0] * kernel.shape[1] * kernel.shape[3]))
            assert kernel.std() == pytest.approx(expected, rel=6.0 / np.sqrt(2.0 * kernel.size))
    kernel = network.get_layer("logits").get_weights()[0]
    assert 0.99 / np.sqrt(512) < np.abs(kernel).max() <= 1.0 / np.sqrt(512)


def test_layers_of_equal_shape_start_from_different_weights():
    kernels = [w for w in NETWORKS["resnet18"](width=4).get_weights() if w.shape == (3, 3, 4, 4)]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels) == 4


def test_logits_are_full_precision_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = small("resnet18")
    finally:
        keras.config.set_dtype_policy(policy)
    assert network.output.dtype == "float32"


def test_preact_block_computes_its_definition():
    """Against NumPy, in inference mode, for the block that halves the image and widens it."""
    inputs = keras.Input((6, 6, 2))
    block = keras.Model(inputs, preact_block(inputs, 3, stride=2))
    randomize(block)
    x = images_for(block, 1)
    kernels = [layer.get_weights()[0] for layer in block.layers if isinstance(layer, keras.layers.Conv2D)]
    norms = [layer.get_weights() for layer in block.layers if isinstance(layer, keras.layers.BatchNormalization)]
    by_shape = {kernel.shape: kernel for kernel in kernels}
    norm_by_channels = {len(norm[0]): norm for norm in norms}

    def activate(values):
        gamma, beta, mean, variance = norm_by_channels[values.shape[-1]]
        return np.maximum((values - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0.0)

    def convolve(values, kernel, stride):
        radius = kernel.shape[0] // 2
        padded = np.pad(values, [(radius, radius), (radius, radius), (0, 0)])
        places = range(0, len(values), stride)
        windows = [[padded[i : i + kernel.shape[0], j : j + kernel.shape[0]] for j in places] for i in places]
        return np.einsum("ijklc,klcf->ijf", np.array(windows), kernel)

    activated = activate(x[0])
    inner = activate(convolve(activated, by_shape[3, 3, 2, 3], 2))
    expected = convolve(inner, by_shape[3, 3, 3, 3], 1) + convolve(activated, by_shape[1, 1, 2, 3], 2)
    np.testing.assert_allclose(block(x)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "argument"),
    [
        ("resnet18", {"num_classes": 1}, "num_classes"),
        ("lenet_plus", {"num_classes": 2.5}, "num_classes"),
        ("lenet_plus", {"input_shape": (3, 28, 1)}, "input_shape"),
        ("mnist_cnn", {"input_shape": (28, 3, 1)}, "input_shape"),
        ("mnist_cnn", {"input_shape": (28, 28)}, "input_shape"),
        ("resnet18", {"input_shape": 32}, "input_shape"),
        ("preact_resnet18", {"input_shape": (32, None, 3)}, "input_shape"),
        ("wrn_28_10", {"input_shape": (32, 32, 0)}, "input_shape"),
        ("resnet18", {"width": 0}, "width"),
        ("two_conv", {"width": 0}, "width"),
        ("resnet34", {"width": 0}, "width"),
        ("resnet50", {"stem": "mnist"}, "stem"),
        ("vgg11", {"input_shape": (0, 28, 1)}, "input_shape"),
        ("vgg19", {"width": 0}, "width"),
        ("densenet_bc_100", {"growth": 0}, "growth"),
        ("densenet_bc_100", {"input_shape": (3, 32, 3)}, "input_shape"),
        ("ensemble_a", {"input_shape": (8, 28, 1)}, "input_shape"),
        ("ensemble_b", {"input_shape": (28, 26, 1)}, "input_shape"),
        ("ensemble_c", {"input_shape": (9, 28, 1)}, "input_shape"),
        ("ensemble_d", {"num_classes": 1}, "num_classes"),
        ("preact_resnet18", {"width": 1.5}, "width"),
        ("wide_resnet", {"depth": 30}, "depth"),
        ("wide_resnet", {"depth": 4}, "depth"),
        ("wide_resnet", {"widen_factor": 0}, "widen_factor"),
    ],
)
def test_bad_argument_is_named_in_one_line(name, arguments, argument):
    with pytest.raises(ValueError, match=argument) as caught:
        NETWORKS[name](**arguments)
    assert "\n" not in str(caught.value)
    assert "allowed" in str(caught.value)


def test_lenet_takes_images_of_4_by_4():
    assert NETWORKS["lenet_plus"]((4, 4, 1))(np.zeros((2, 4, 4, 1), np.float32)).shape == (2, 10)


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("image_data_format", "channels_first", "channels_last"),  # rows of an image would pass for its channels
        ("floatx", "float16", "float32"),  # metrics would end at 65,504 images
    ],
)
def test_with_other_settings_of_keras_nothing_is_built_or_taken(name, value, allowed):
    network = networks.two_conv((8, 8, 1), 3)
    change = getattr(keras.config, f"set_{name}")
    change(value)
    try:
        for call in (
            lambda: networks.two_conv((8, 8, 1), 3),
            lambda: networks.adapt(network, pixels="torch"),
            lambda: validation.classifier("network", network),
        ):
            with pytest.raises(ValueError, match=f"^{name} is '{value}'; allowed: {allowed}, which is set by keras"):
                call()
    finally:
        change(allowed)
