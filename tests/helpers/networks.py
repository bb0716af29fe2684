"""Networks with weights drawn from a seed, of one hidden layer and linear, also in float64; and one of equal logits."""

import keras
import numpy as np
import tensorflow as tf

from tests.helpers.images import SHAPE

CLASSES = 5


def drawn(shape=SHAPE, classes=CLASSES, hidden=12, *, seed=1, scale=1.0, centred=False):
    """Returns a network W2 tanh(W1 x + b1) + b2 with normal weights, W x + b where `hidden` is 0.

    Args:
        scale: standard deviation of the weights.
        centred: whether pixels go from -1 to 1, and there are no biases.
    """
    layers = [keras.layers.Rescaling(2.0, offset=-1.0)] if centred else []
    layers.append(keras.layers.Flatten())
    if hidden:
        layers.append(keras.layers.Dense(hidden, activation="tanh", use_bias=not centred))
    model = keras.Sequential([keras.Input(shape), *layers, keras.layers.Dense(classes, use_bias=not centred)])
    generator = np.random.default_rng(seed)
    model.set_weights([scale * generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def with_ties():
    """Returns a network of one pixel and two classes: logits 0 and what the pixel has above a half, else 0 both."""
    inputs = keras.Input((1, 1, 1))
    lead = keras.ops.relu(keras.layers.Flatten()(inputs) - 0.5)
    return keras.Model(inputs, keras.ops.concatenate([0.0 * lead, lead], axis=1))


def linear(classes, *, seed=1):
    """Returns the kernel (D, K) of a linear function of images of `SHAPE`, and the function, 0 at grey."""
    kernel = np.random.default_rng(seed).normal(size=(np.prod(SHAPE), classes)).astype(np.float32)
    return kernel, lambda x: tf.reshape(x - 0.5, (-1, len(kernel))) @ kernel


class Exact:
    """The function of a network W2 tanh(W1 x + b1) + b2, and its gradients, in float64."""

    def __init__(self, network):
        self.weights = [weight.astype(np.float64) for weight in network.get_weights()]

    def hidden(self, x):
        """Returns the hidden layer (..., units) of points (..., D)."""
        first, first_bias, _, _ = self.weights
        return np.tanh(x @ first + first_bias)

    def logits(self, x):
        """Returns the logits (..., K) of points (..., D)."""
        _, _, second, second_bias = self.weights
        return self.hidden(x) @ second + second_bias

    def jacobian(self, x):
        """Returns the gradients (D, K) of the logits at a point (D,)."""
        first, _, second, _ = self.weights
        return (first * (1 - self.hidden(x) ** 2)) @ second

    def gradient(self, image, to_logits):
        """Returns the gradient of a loss at an image: `to_logits` (K,) is that with respect to the logits there."""
        return (self.jacobian(image.ravel()) @ to_logits).reshape(image.shape)
