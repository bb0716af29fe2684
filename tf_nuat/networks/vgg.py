"""VGG-11, VGG-13 and VGG-19 with BatchNorm, ending in global average pooling and one dense layer."""

from collections.abc import Sequence

import keras

from tf_nuat.core import validation
from tf_nuat.networks.resnet import convolution, image_input, logits, normalize_relu


def vgg11(input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, width: int = 64) -> keras.Model:
    """Returns VGG-11 for small images: 9,231,114 trainable parameters for CIFAR-10.

    Five stages of 3x3 convolutions, each followed by BatchNorm and ReLU, end in 2x2 max pooling. Pooling rounds odd
    sizes up, so images of every size work; 28x28 and 32x32 images end as one vector, 224x224 images as
    7x7 feature maps. Convolutions have a bias, as in the usual CIFAR variant, and start from He's normal distribution
    by fan-out.

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1].
        num_classes: number K of logits; at least 2.
        width: channels of the first stage; the stages have 1, 2, 4, 8 and 8 times as many. At least 1.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015, with
    BatchNorm and without its three dense layers.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.vgg11((32, 32, 3), 10).output_shape
        (None, 10)
    """
    return _vgg("vgg11", input_shape, num_classes, width, (1, 1, 2, 2, 2))


def vgg13(input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, width: int = 64) -> keras.Model:
    """Returns VGG-13, 9,416,010 trainable parameters for CIFAR-10; arguments, errors and source are `vgg11`'s.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.vgg13((32, 32, 3), 10).output_shape
        (None, 10)
    """
    return _vgg("vgg13", input_shape, num_classes, width, (2, 2, 2, 2, 2))


def vgg19(input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, width: int = 64) -> keras.Model:
    """Returns VGG-19, 20,040,522 trainable parameters for CIFAR-10; arguments, errors and source are `vgg11`'s.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.vgg19((32, 32, 3), 10).output_shape
        (None, 10)
    """
    return _vgg("vgg19", input_shape, num_classes, width, (2, 2, 4, 4, 4))


def _vgg(
    name: str, input_shape: Sequence[int], num_classes: int, width: int, convolutions: Sequence[int]
) -> keras.Model:
    validation.whole_number("width", width, at_least=1)
    inputs = x = image_input(input_shape, num_classes)
    for multiple, count in zip((1, 2, 4, 8, 8), convolutions):
        for _ in range(count):
            x = normalize_relu(convolution(x, multiple * width, bias=True))
        x = keras.layers.MaxPooling2D(2, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, logits(x, num_classes), name=name)
