"""ResNet-18 and PreAct-ResNet-18 with the CIFAR stem, and the layers that every residual network here shares.

The stem is one 3x3 convolution with stride 1, without pooling, so that 32x32 images end as 4x4 feature maps.
Convolutions have no bias and start from He's normal distribution by fan-out; the last layer's weights start from
PyTorch's U(-1/sqrt(fan_in), 1/sqrt(fan_in)), its bias from zero.
"""

import keras
import numpy as np

from tf_nuat import validation


def resnet18(input_shape=(32, 32, 3), num_classes=10, *, width=64):
    """Returns ResNet-18 for small images: 11,173,962 trainable parameters for CIFAR-10.

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1].
        num_classes: number K of logits; at least 2.
        width: channels of the first stage; the stages have width, 2 width, 4 width and 8 width. At least 1.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: He et al., "Deep residual learning for image recognition", 2016, with the usual CIFAR stem.
    """
    validation.whole_number("width", width, at_least=1)
    inputs = image_input(input_shape, num_classes)
    x = normalize_relu(convolution(inputs, width))
    for filters, stride in _blocks(width):
        x = _basic_block(x, filters, stride)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, logits(x, num_classes), name="resnet18")


def preact_resnet18(input_shape=(32, 32, 3), num_classes=10, *, width=64):
    """Returns the pre-activation ResNet-18, with BatchNorm and ReLU after the last block.

    This is the variant of the fast adversarial training papers: 11,172,170 trainable parameters for CIFAR-10, 1,024
    more than the one that pools the last block's sum as it is.

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1].
        num_classes: number K of logits; at least 2.
        width: channels of the first stage; the stages have width, 2 width, 4 width and 8 width. At least 1.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: He et al., "Identity mappings in deep residual networks", 2016; the variant of Wong et al., "Fast is better
    than free", 2020, and Rice et al., "Overfitting in adversarially robust deep learning", 2020.
    """
    validation.whole_number("width", width, at_least=1)
    inputs = image_input(input_shape, num_classes)
    x = convolution(inputs, width)
    for filters, stride in _blocks(width):
        x = preact_block(x, filters, stride=stride)
    x = keras.layers.GlobalAveragePooling2D()(normalize_relu(x))
    return keras.Model(inputs, logits(x, num_classes), name="preact_resnet18")


def image_input(input_shape, num_classes, *, smallest=1):
    """Returns the `keras.Input` of images of `input_shape`, once it and `num_classes` are found to be in range.

    Args:
        input_shape: (height, width, channels), positive whole numbers.
        num_classes: number of logits; at least 2.
        smallest: least height and width.

    Raises:
        ValueError: an argument is out of range.
    """
    validation.whole_number("num_classes", num_classes, at_least=2)
    validation.one_of("the number of dimensions of input_shape", np.size(input_shape), (3,))
    for axis, at_least in enumerate((smallest, smallest, 1)):
        validation.whole_number(f"input_shape[{axis}]", input_shape[axis], at_least=at_least)
    return keras.Input(tuple(input_shape), name="images")


def logits(x, num_classes):
    """Returns logits (B, num_classes), in full precision under mixed precision too, of features `x` (B, D)."""
    torch_uniform = keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")
    layer = keras.layers.Dense(
        num_classes, kernel_initializer=torch_uniform, dtype=keras.config.floatx(), name="logits"
    )
    return layer(x)


def convolution(x, filters, *, size=3, stride=1):
    """Returns the `size` x `size` convolution of `x` (B, H, W, C), without bias, padded as PyTorch pads it."""
    padding = "same"
    if size > 1 and stride > 1:
        # "same" with a stride pads more at the bottom and right; the published networks pad both sides alike.
        x = keras.layers.ZeroPadding2D(size // 2)(x)
        padding = "valid"
    he_normal = keras.initializers.VarianceScaling(scale=2.0, mode="fan_out", distribution="untruncated_normal")
    layer = keras.layers.Conv2D(
        filters, size, strides=stride, padding=padding, use_bias=False, kernel_initializer=he_normal
    )
    return layer(x)


def normalize(x):
    """Returns BatchNorm of `x` with PyTorch's defaults: Keras's momentum 0.9 is PyTorch's 0.1."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def normalize_relu(x):
    """Returns ReLU of BatchNorm of `x`."""
    return keras.layers.ReLU()(normalize(x))


def preact_block(x, filters, *, stride):
    """Returns the pre-activation block of two 3x3 convolutions; a changed shape is projected after the activation."""
    activated = normalize_relu(x)
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = convolution(activated, filters, size=1, stride=stride)
    y = convolution(activated, filters, stride=stride)
    y = convolution(normalize_relu(y), filters)
    return keras.layers.Add()([y, shortcut])


def _basic_block(x, filters, stride):
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = normalize(convolution(x, filters, size=1, stride=stride))
    y = normalize_relu(convolution(x, filters, stride=stride))
    y = normalize(convolution(y, filters))
    return keras.layers.ReLU()(keras.layers.Add()([y, shortcut]))


def _blocks(width):
    """Yields (filters, stride) of the eight blocks of an 18-layer network."""
    for stage in range(4):
        for stride in (1 if stage == 0 else 2, 1):
            yield width * 2**stage, stride
