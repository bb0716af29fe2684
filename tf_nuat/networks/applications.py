"""The networks of `keras.applications`, with their preprocessing inside and a new last layer, to be fine-tuned."""

import inspect
import os
from collections.abc import Sequence
from typing import Any

import keras

from tf_nuat.core import files, validation
from tf_nuat.networks.pixels import preprocessing
from tf_nuat.networks.resnet import image_input, logits

# The module of each network; the network was trained with the `preprocess_input` of the module.
APPLICATIONS = {
    **dict.fromkeys(["ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"], "convnext"),
    **dict.fromkeys(["DenseNet121", "DenseNet169", "DenseNet201"], "densenet"),
    **dict.fromkeys([f"EfficientNetB{number}" for number in range(8)], "efficientnet"),
    **dict.fromkeys([f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")], "efficientnet_v2"),
    "InceptionResNetV2": "inception_resnet_v2",
    "InceptionV3": "inception_v3",
    "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2",
    **dict.fromkeys(["MobileNetV3Small", "MobileNetV3Large"], "mobilenet_v3"),
    **dict.fromkeys(["NASNetMobile", "NASNetLarge"], "nasnet"),
    **dict.fromkeys(["ResNet50", "ResNet101", "ResNet152"], "resnet"),
    **dict.fromkeys(["ResNet50V2", "ResNet101V2", "ResNet152V2"], "resnet_v2"),
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "Xception": "xception",
}


def application(
    input_shape: Sequence[int] = (224, 224, 3),
    num_classes: int = 10,
    *,
    name: str,
    weights: str | None = "imagenet",
    **options: Any,
) -> keras.Model:
    """Returns a network of `keras.applications` on images in [0, 1], with global average pooling and a new last layer.

    All layers are trained, BatchNorm included, as is usual in fine-tuning. Only preprocessing that is a convolution
    (colours in the order blue, green, red: VGG, ResNet) stays as it is.

    Args:
        input_shape: (height, width, 3) of the images; how small they may be depends on the network (mostly 32x32).
        num_classes: number K of logits; at least 2.
        name: a name in `APPLICATIONS`, as "MobileNetV2" or "ResNet50".
        weights: "imagenet", which Keras downloads once; None, for random ones; or the path of a file of weights of the
            network without its top.
        **options: further ones of the function of that name, as `alpha` of "MobileNetV2".

    Returns:
        A `keras.Model` of stock layers from images (B, H, W, 3) to logits (B, K).

    Raises:
        ValueError: an argument is out of range, or the weights cannot be loaded.
        TypeError: the network has no such option.

    Source: https://keras.io/api/applications names the paper of each.

    Example:
        >>> import tf_nuat
        >>> network = tf_nuat.networks.application((32, 32, 3), 10, name="MobileNetV2", weights=None)
        >>> network.output_shape
        (None, 10)
    """
    module = validation.one_of("name", name, APPLICATIONS)
    if weights not in (None, "imagenet") and not os.path.isfile(str(weights)):
        raise ValueError(
            f"weights is {weights!r}, which is no file; allowed: imagenet, null (None), or a file of weights"
        )
    inputs = image_input(input_shape, num_classes)
    validation.one_of("the number of channels of input_shape", input_shape[2], (3,))
    build = getattr(keras.applications, name)
    fixed = {"include_top": False, "pooling": "avg", "input_shape": tuple(input_shape), "weights": weights}
    if "include_preprocessing" in inspect.signature(build).parameters:
        fixed["include_preprocessing"] = True
    try:
        network = build(**fixed, **options)
    except TypeError:
        raise
    except Exception as error:  # whatever the network, the file system or Keras raises
        raise ValueError(
            f"name is {name!r}, which Keras cannot build with weights {weights!r} and images of {tuple(input_shape)} "
            f"({files.in_one_line(str(error))}); allowed: weights null or a file where imagenet cannot be "
            "downloaded, larger images"
        ) from error
    x = preprocessing(getattr(keras.applications, module).preprocess_input)(inputs)
    return keras.Model(inputs, logits(network(x), num_classes), name="application")
