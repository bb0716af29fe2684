"""The networks of the MNIST experiments: LeNet+, the four-convolution network, and a small one of chosen width."""

from collections.abc import Sequence

import keras

from tf_nuat.core import validation
from tf_nuat.networks.resnet import image_input, logits


def lenet_plus(input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10) -> keras.Model:
    """Returns LeNet+: conv32, pool, conv64, pool, fc1024, fc K; 3,274,634 parameters for MNIST.

    Convolutions are 5x5, padded to keep the size, followed by ReLU. Weights start from Keras's default (Glorot).

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1]; at least 4x4.
        num_classes: number K of logits; at least 2.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: Vivek and Babu, "Regularizers for single-step adversarial training", 2020.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.lenet_plus((28, 28, 1), 10).output_shape
        (None, 10)
    """
    inputs = image_input(input_shape, num_classes, smallest=4)
    x = _convolution(inputs, 32)
    x = keras.layers.MaxPooling2D(2)(x)
    x = _convolution(x, 64)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(1024, activation="relu")(x)
    return keras.Model(inputs, logits(x, num_classes), name="lenet_plus")


def mnist_cnn(input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10) -> keras.Model:
    """Returns the MNIST network of NuAT: conv32 twice, pool, conv64 twice, pool, fc512, fc K.

    Convolutions are 5x5, padded to keep the size, followed by ReLU; 1,791,466 parameters for MNIST. Weights start from
    Keras's default (Glorot).

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1]; at least 4x4.
        num_classes: number K of logits; at least 2.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: Sriramanan et al., "Towards efficient and effective adversarial training", 2021.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.mnist_cnn((28, 28, 1), 10).output_shape
        (None, 10)
    """
    inputs = image_input(input_shape, num_classes, smallest=4)
    x = inputs
    for filters in (32, 64):
        x = _convolution(x, filters)
        x = _convolution(x, filters)
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(512, activation="relu")(x)
    return keras.Model(inputs, logits(x, num_classes), name="mnist_cnn")


def two_conv(input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10, *, width: int = 128) -> keras.Model:
    """Returns a network of two convolutions and two fully connected layers: conv16, conv32, fc `width`, fc K.

    Convolutions are 4x4 with stride 2, padded to half the size, followed by ReLU, as is the first fully connected
    layer; 210,618 parameters for MNIST with 128 hidden units, 33,770 with 16. Weights start from Keras's default
    (Glorot).

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1].
        num_classes: number K of logits; at least 2.
        width: number of hidden units of the first fully connected layer, at least 1.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: Xing et al., "Phase transition from clean training to adversarial training", 2022, section 5.3, which has
    16 and 128 units and does not give the convolutions; they are those of the MNIST network of Wong et al., "Fast is
    better than free: revisiting adversarial training", 2020.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.two_conv((8, 8, 1), 10).output_shape
        (None, 10)
    """
    inputs = image_input(input_shape, num_classes)
    validation.whole_number("width", width, at_least=1)
    x = inputs
    for filters in (16, 32):
        x = keras.layers.Conv2D(filters, 4, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(width, activation="relu")(x)
    return keras.Model(inputs, logits(x, num_classes), name="two_conv")


def _convolution(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    return keras.layers.Conv2D(filters, 5, padding="same", activation="relu")(x)
