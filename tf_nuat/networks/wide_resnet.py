"""Wide residual networks for small images."""

from collections.abc import Sequence

import keras

from tf_nuat.core import validation
from tf_nuat.networks.resnet import convolution, image_input, logits, normalize_relu, preact_block


def wide_resnet(
    input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, depth: int = 28, widen_factor: int = 10
) -> keras.Model:
    """Returns the wide residual network WRN-depth-widen_factor, without dropout.

    Three stages of (depth - 4) / 6 pre-activation blocks have 16, 32 and 64 times `widen_factor` channels; 32x32
    images end as 8x8 feature maps. Convolutions start from He's normal distribution by fan-out, as in the original.

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1].
        num_classes: number K of logits; at least 2.
        depth: number of convolutions with the last layer, 6 n + 4 with n at least 1.
        widen_factor: channels of the first stage divided by 16; at least 1.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: Zagoruyko and Komodakis, "Wide residual networks", 2016.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.wide_resnet((32, 32, 3), 10, depth=10, widen_factor=1).count_params()
        78330
    """
    return _wide_resnet("wide_resnet", input_shape, num_classes, depth, widen_factor)


def wrn_28_10(input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Returns WRN-28-10, 36,479,194 trainable parameters for CIFAR-10; arguments and errors are `wide_resnet`'s.

    Example:
        >>> import tf_nuat
        >>> network = tf_nuat.networks.wrn_28_10((32, 32, 3), 10)  # doctest: +SKIP
    """
    return _wide_resnet("wrn_28_10", input_shape, num_classes, depth=28, widen_factor=10)


def wrn_34_10(input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Returns WRN-34-10, 46,160,474 trainable parameters for CIFAR-10; arguments and errors are `wide_resnet`'s.

    Example:
        >>> import tf_nuat
        >>> network = tf_nuat.networks.wrn_34_10((32, 32, 3), 10)  # doctest: +SKIP
    """
    return _wide_resnet("wrn_34_10", input_shape, num_classes, depth=34, widen_factor=10)


def _wide_resnet(name: str, input_shape: Sequence[int], num_classes: int, depth: int, widen_factor: int) -> keras.Model:
    validation.whole_number("depth", depth, at_least=10)
    blocks, remainder = divmod(depth - 4, 6)
    validation.one_of("depth (6 n + 4)", depth, (depth - remainder, depth - remainder + 6))
    validation.whole_number("widen_factor", widen_factor, at_least=1)
    inputs = image_input(input_shape, num_classes)
    x = convolution(inputs, 16)
    for stage in range(3):
        for block in range(blocks):
            x = preact_block(x, 16 * widen_factor * 2**stage, stride=2 if stage > 0 and block == 0 else 1)
    x = keras.layers.GlobalAveragePooling2D()(normalize_relu(x))
    return keras.Model(inputs, logits(x, num_classes), name=name)
