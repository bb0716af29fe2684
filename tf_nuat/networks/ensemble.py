"""The networks A, B, C and D of ensemble adversarial training for MNIST.

The layers are those of Table 1 of Vivek and Babu, "Regularizers for single-step adversarial training", 2020. Details
that the table leaves open follow the code of Tramer et al., "Ensemble adversarial training: attacks and defenses",
2018: convolutions are not padded and have stride 1, except for the strides and the padding of B; the hidden layers of D
start from He's normal distribution, all others from Keras's default (Glorot). Network C follows that code only in its
lack of padding, since C has no pooling there.
"""

from collections.abc import Sequence

import keras
from keras import layers

from tf_nuat.networks.resnet import image_input, logits


def ensemble_a(input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10) -> keras.Model:
    """Returns network A: conv64 5x5 twice, dropout, fc128, dropout, fc K; 3,382,346 parameters for MNIST.

    Args:
        input_shape: (height, width, channels) of the images, float32 in [0, 1]; at least 9x9.
        num_classes: number K of logits; at least 2.

    Returns:
        A `keras.Model` from images (B, H, W, C) to logits (B, K).

    Raises:
        ValueError: an argument is out of range.

    Source: Tramer et al., "Ensemble adversarial training: attacks and defenses", 2018.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.ensemble_a((28, 28, 1), 10).output_shape
        (None, 10)
    """
    hidden = [
        layers.Conv2D(64, 5, activation="relu"),
        layers.Conv2D(64, 5, activation="relu"),
        layers.Dropout(0.25),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(0.5),
    ]
    return _network("ensemble_a", input_shape, num_classes, hidden, smallest=9)


def ensemble_b(input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10) -> keras.Model:
    """Returns network B: dropout, conv64 8x8, conv128 6x6, conv128 5x5, dropout, fc K; 710,218 parameters for MNIST.

    The first two convolutions have stride 2, the first is padded; images are at least 27x27. Arguments, errors and
    source are otherwise `ensemble_a`'s.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.ensemble_b((28, 28, 1), 10).output_shape
        (None, 10)
    """
    hidden = [
        layers.Dropout(0.2),
        layers.Conv2D(64, 8, strides=2, padding="same", activation="relu"),
        layers.Conv2D(128, 6, strides=2, activation="relu"),
        layers.Conv2D(128, 5, activation="relu"),
        layers.Dropout(0.5),
        layers.Flatten(),
    ]
    return _network("ensemble_b", input_shape, num_classes, hidden, smallest=27)


def ensemble_c(input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10) -> keras.Model:
    """Returns network C: conv128 3x3, pool, conv64 3x3, pool, fc128, fc K; 281,290 parameters for MNIST.

    Its convolutions are followed by tanh; images are at least 10x10. Arguments and errors are otherwise `ensemble_a`'s.

    Source: Vivek and Babu, "Regularizers for single-step adversarial training", 2020, Table 1.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.ensemble_c((28, 28, 1), 10).output_shape
        (None, 10)
    """
    hidden = [
        layers.Conv2D(128, 3, activation="tanh"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="tanh"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
    ]
    return _network("ensemble_c", input_shape, num_classes, hidden, smallest=10)


def ensemble_d(input_shape: Sequence[int] = (28, 28, 1), num_classes: int = 10) -> keras.Model:
    """Returns network D: four times fc300 and dropout, then fc K; 509,410 parameters for MNIST.

    Images of any size are taken. Arguments, errors and source are otherwise `ensemble_a`'s.

    Example:
        >>> import tf_nuat
        >>> tf_nuat.networks.ensemble_d((28, 28, 1), 10).output_shape
        (None, 10)
    """
    hidden = [layers.Flatten()]
    for _ in range(4):
        hidden += [layers.Dense(300, activation="relu", kernel_initializer="he_normal"), layers.Dropout(0.5)]
    return _network("ensemble_d", input_shape, num_classes, hidden, smallest=1)


def _network(
    name: str, input_shape: Sequence[int], num_classes: int, hidden: Sequence[keras.Layer], *, smallest: int
) -> keras.Model:
    inputs = x = image_input(input_shape, num_classes, smallest=smallest)
    for layer in hidden:
        x = layer(x)
    return keras.Model(inputs, logits(x, num_classes), name=name)
