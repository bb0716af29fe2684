"""ResNet-18, -34 and -50 and PreAct-ResNet-18, and the layers that the networks here share.

The CIFAR stem is one 3x3 convolution with stride 1, without pooling, so that 32x32 images end as 4x4 feature maps. The
ImageNet stem is one 7x7 convolution with stride 2 and 3x3 max pooling with stride 2, so that 224x224 images end as 7x7.
Convolutions have no bias and start from He's normal distribution by fan-out; the last layer's weights start from
PyTorch's U(-1/sqrt(fan_in), 1/sqrt(fan_in)), its bias from zero.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import keras
import numpy as np

from tf_nuat.core import validation

Block: TypeAlias = Callable[[keras.KerasTensor, int, int], keras.KerasTensor]  # of features, filters and stride


def resnet18(
    input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, width: int = 64, stem: str = "cifar"
) -> keras.Model:
    """Returns ResNet-18: 11,173,962 trainable parameters for CIFAR-10, 11,689,512 for ImageNet with its stem.

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1].
        num_classes: number K of logits; at least 2.
        width: channels of the first stage; the stages have width, 2 width, 4 width and 8 width. At least 1.
        stem: "cifar", for small images, or "imagenet", for images of about 224x224.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: He et al., "Deep residual learning for image recognition", 2016; the CIFAR stem is the usual one.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.resnet18((32, 32, 3), 10).output_shape
        (None, 10)
    """
    return _resnet("resnet18", input_shape, num_classes, width, stem, _basic_block, (2, 2, 2, 2))


def resnet34(
    input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, width: int = 64, stem: str = "cifar"
) -> keras.Model:
    """Returns ResNet-34: 21,282,122 trainable parameters for CIFAR-10, 21,797,672 for ImageNet with its stem.

    Arguments, errors and source are `resnet18`'s.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.resnet34((32, 32, 3), 10).output_shape
        (None, 10)
    """
    return _resnet("resnet34", input_shape, num_classes, width, stem, _basic_block, (3, 4, 6, 3))


def resnet50(
    input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, width: int = 64, stem: str = "cifar"
) -> keras.Model:
    """Returns ResNet-50: 23,520,842 trainable parameters for CIFAR-10, 25,557,032 for ImageNet with its stem.

    Its bottleneck blocks end with 4 times their stage's channels. The stride is in their 3x3 convolution, as in
    PyTorch's ResNet-50; the paper has it in the 1x1 before. Arguments, errors and source are otherwise `resnet18`'s.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.resnet50((32, 32, 3), 10).output_shape
        (None, 10)
    """
    return _resnet("resnet50", input_shape, num_classes, width, stem, _bottleneck_block, (3, 4, 6, 3))


def preact_resnet18(input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, width: int = 64) -> keras.Model:
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

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.preact_resnet18((32, 32, 3), 10).output_shape
        (None, 10)
    """
    validation.whole_number("width", width, at_least=1)
    inputs = image_input(input_shape, num_classes)
    x = convolution(inputs, width)
    for filters, stride in _blocks(width, (2, 2, 2, 2)):
        x = preact_block(x, filters, stride=stride)
    x = keras.layers.GlobalAveragePooling2D()(normalize_relu(x))
    return keras.Model(inputs, logits(x, num_classes), name="preact_resnet18")


def image_input(input_shape: Sequence[int], num_classes: int, *, smallest: int = 1) -> keras.KerasTensor:
    """Returns the `keras.Input` for images of `input_shape`, after a check of it and of `num_classes`.

    Args:
        input_shape: (height, width, channels), positive whole numbers.
        num_classes: number of logits; at least 2.
        smallest: least height and width.

    Raises:
        ValueError: an argument is out of range, or a setting of Keras would change the network.
    """
    validation.keras_settings()
    validation.whole_number("num_classes", num_classes, at_least=2)
    validation.one_of("the number of dimensions of input_shape", np.size(input_shape), (3,))
    for axis, at_least in enumerate((smallest, smallest, 1)):
        validation.whole_number(f"input_shape[{axis}]", input_shape[axis], at_least=at_least)
    return keras.Input(tuple(input_shape), name="images")


def logits(x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """Returns logits (B, num_classes) of features `x` (B, D), in full precision even under mixed precision."""
    torch_uniform = keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")
    layer = keras.layers.Dense(
        num_classes, kernel_initializer=torch_uniform, dtype=keras.config.floatx(), name="logits"
    )
    return layer(x)


def convolution(
    x: keras.KerasTensor, filters: int, *, size: int = 3, stride: int = 1, bias: bool = False
) -> keras.KerasTensor:
    """Returns the `size` x `size` convolution of `x` (B, H, W, C), padded as PyTorch pads it; a bias starts from 0."""
    padding = "same"
    if size > 1 and stride > 1:
        # "same" with a stride pads more at the bottom and right; the published networks pad both sides alike.
        x = keras.layers.ZeroPadding2D(size // 2)(x)
        padding = "valid"
    he_normal = keras.initializers.VarianceScaling(scale=2.0, mode="fan_out", distribution="untruncated_normal")
    layer = keras.layers.Conv2D(
        filters, size, strides=stride, padding=padding, use_bias=bias, kernel_initializer=he_normal
    )
    return layer(x)


def normalize(x: keras.KerasTensor) -> keras.KerasTensor:
    """Returns BatchNorm of `x` with PyTorch's defaults: Keras's momentum 0.9 is PyTorch's 0.1."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def normalize_relu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Returns ReLU of BatchNorm of `x`."""
    return keras.layers.ReLU()(normalize(x))


def preact_block(x: keras.KerasTensor, filters: int, *, stride: int) -> keras.KerasTensor:
    """Returns the pre-activation block of two 3x3 convolutions; a changed shape is projected after the activation."""
    activated = normalize_relu(x)
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = convolution(activated, filters, size=1, stride=stride)
    y = convolution(activated, filters, stride=stride)
    y = convolution(normalize_relu(y), filters)
    return keras.layers.Add()([y, shortcut])


def _resnet(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    width: int,
    stem: str,
    block: Block,
    blocks: Sequence[int],
) -> keras.Model:
    validation.whole_number("width", width, at_least=1)
    stem_of = validation.one_of("stem", stem, {"cifar": _cifar_stem, "imagenet": _imagenet_stem})
    inputs = image_input(input_shape, num_classes)
    x = stem_of(inputs, width)
    for filters, stride in _blocks(width, blocks):
        x = block(x, filters, stride)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, logits(x, num_classes), name=name)


def _cifar_stem(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    return normalize_relu(convolution(x, filters))


def _imagenet_stem(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    x = normalize_relu(convolution(x, filters, size=7, stride=2))
    # Zeros pad as minus infinity would, since ReLU leaves nothing below them; both sides alike, as in `convolution`.
    return keras.layers.MaxPooling2D(3, strides=2)(keras.layers.ZeroPadding2D(1)(x))


def _basic_block(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    shortcut = _shortcut(x, filters, stride)
    y = normalize_relu(convolution(x, filters, stride=stride))
    y = normalize(convolution(y, filters))
    return keras.layers.ReLU()(keras.layers.Add()([y, shortcut]))


def _bottleneck_block(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    shortcut = _shortcut(x, 4 * filters, stride)
    y = normalize_relu(convolution(x, filters, size=1))
    y = normalize_relu(convolution(y, filters, stride=stride))
    y = normalize(convolution(y, 4 * filters, size=1))
    return keras.layers.ReLU()(keras.layers.Add()([y, shortcut]))


def _shortcut(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    if stride == 1 and x.shape[-1] == filters:
        return x
    return normalize(convolution(x, filters, size=1, stride=stride))


def _blocks(width: int, counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields (filters, stride) of every block of the four stages; `counts` has the number of blocks of each stage."""
    for stage, count in enumerate(counts):
        for block in range(count):
            yield width * 2**stage, 2 if stage > 0 and block == 0 else 1
