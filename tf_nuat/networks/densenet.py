"""Densely connected networks for small images."""

from collections.abc import Sequence

import keras

from tf_nuat.core import validation
from tf_nuat.networks.resnet import convolution, image_input, logits, normalize_relu


def densenet_bc_100(
    input_shape: Sequence[int] = (32, 32, 3), num_classes: int = 10, *, growth: int = 12
) -> keras.Model:
    """Returns DenseNet-BC of 100 layers, without dropout: 769,162 trainable parameters for CIFAR-10.

    Three stages of 16 bottleneck layers each add `growth` channels a layer. Between the stages, the number of channels
    (compression 0.5) and the image size are halved; 32x32 images end as 8x8 feature maps. Convolutions have no bias and
    start from He's normal distribution by fan-out, as in the original.

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1]; at least 4x4.
        num_classes: number K of logits; at least 2.
        growth: channels that each layer adds, half those of the first convolution; at least 1.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: Huang et al., "Densely connected convolutional networks", 2017.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.densenet_bc_100((32, 32, 3), 10).output_shape
        (None, 10)
    """
    validation.whole_number("growth", growth, at_least=1)
    inputs = image_input(input_shape, num_classes, smallest=4)
    x = convolution(inputs, 2 * growth)
    for stage in range(3):
        if stage > 0:
            x = convolution(normalize_relu(x), x.shape[-1] // 2, size=1)
            x = keras.layers.AveragePooling2D(2)(x)
        for _ in range(16):
            y = convolution(normalize_relu(x), 4 * growth, size=1)
            y = convolution(normalize_relu(y), growth)
            x = keras.layers.Concatenate()([x, y])
    x = keras.layers.GlobalAveragePooling2D()(normalize_relu(x))
    return keras.Model(inputs, logits(x, num_classes), name="densenet_bc_100")
