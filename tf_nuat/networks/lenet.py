"""The two networks of the MNIST experiments: LeNet+ and the four-convolution network."""

import keras

from tf_nuat.networks.resnet import image_input, logits


def lenet_plus(input_shape=(28, 28, 1), num_classes=10):
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
    """
    inputs = image_input(input_shape, num_classes, smallest=4)
    x = _convolution(inputs, 32)
    x = keras.layers.MaxPooling2D(2)(x)
    x = _convolution(x, 64)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(1024, activation="relu")(x)
    return keras.Model(inputs, logits(x, num_classes), name="lenet_plus")


def mnist_cnn(input_shape=(28, 28, 1), num_classes=10):
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


def _convolution(x, filters):
    return keras.layers.Conv2D(filters, 5, padding="same", activation="relu")(x)
