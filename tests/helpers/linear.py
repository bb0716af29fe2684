"""A linear classifier, of which losses, gradients and attacks are known in closed form."""

import functools

import keras
import numpy as np

SHAPE = (4, 4, 1)
CLASSES = 3
EPSILON = 0.1
LEARNING_RATE = 0.1


def network(seed=0):
    """Returns images (B, 4, 4, 1) -> logits (B, 3), with normal weights drawn from `seed`."""
    generator = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@functools.cache
def shared():
    """Returns `network()`, the same one each time: an attack on it is traced once. It must be left as it is."""
    return network()


def batch(size=8, seed=1):
    """Returns images, some of whose pixels are 0 or 1, and labels."""
    generator = np.random.default_rng(seed)
    images = np.clip(generator.uniform(-0.1, 1.1, size=(size, *SHAPE)), 0, 1).astype(np.float32)
    return images, generator.integers(0, CLASSES, size)


def compiled(defense, **options):
    """Returns `defense` around `network()`, with plain gradient descent."""
    options = {"network": network(), "epsilon": EPSILON, **options}
    model = defense(options.pop("network"), **options)
    model.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE), metrics=["accuracy"])
    return model


def cross_entropy(weights, x, y):
    """Returns the mean cross-entropy and its gradients to x, kernel and bias; `weights` are (kernel, bias)."""
    kernel, bias = weights
    flat = x.reshape(len(x), -1).astype(np.float64)
    logits = flat @ kernel + bias
    log_p = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    error = (np.exp(log_p) - np.eye(CLASSES)[y]) / len(x)
    loss = -np.mean(log_p[np.arange(len(x)), y])
    return loss, (error @ kernel.T).reshape(x.shape), flat.T @ error, error.sum(axis=0)


def step(weights, x, y, start, size):
    """Returns `start` after a step of `size` along the sign of the gradient there, projected onto the ball of x."""
    _, gradient, _, _ = cross_entropy(weights, start, y)
    return np.clip(x + np.clip(start + size * np.sign(gradient) - x, -EPSILON, EPSILON), 0, 1)
