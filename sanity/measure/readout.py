"""Linear read-outs of a network's features, which replace its last layer and have a known adversary."""

import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC

from tf_nuat import draws, norms
from tf_nuat.core import keras_compat, threefry
from tf_nuat.models.inference import inference

INNER_RADIUS = 0.95  # of the ball that the inner points are drawn from, in epsilon
CLOSENESS = 0.9999  # 1 moves the decision boundary onto the planted point, 0 leaves it halfway to the inner points
HARD = 1e6  # penalty of the support vector machine: no point may be on the wrong side
ITERATIONS = 10_000  # after which points count as not separable; separable ones took 550 at most
_PURPOSE = 1_000_003  # makes these draws differ from those of the attacks, which start from the same keys


def last_dense(network: keras.Model) -> keras.layers.Dense | None:
    """Returns the last `Dense` layer of a network or of a nested network if it has one output per class, else None."""
    for layer in reversed(network.layers):
        if isinstance(layer, keras.Model):
            return last_dense(layer)
        if isinstance(layer, keras.layers.Dense):
            return layer if layer.units == network.output_shape[-1] else None
    return None


def features_of(network: keras.Model, layer: keras.layers.Dense) -> Callable:
    """Returns the network without `layer`, as a function of images: (B, H, W, C) -> (B, D).

    While the function calls the network, the layer returns its inputs unchanged.
    """

    def features(x):
        with keras_compat.passing_through(layer):
            return tf.cast(inference(network)(x), tf.float32)

    return features


def points(
    x: tf.Tensor, index: tf.Tensor, *, epsilon: float, inner: int, seed: int, norm: str | norms.Norm = "linf"
) -> tf.Tensor:
    """Returns `inner` points well inside the ball around an image, the image first, and then one point on its surface.

    Args:
        x: the image, (H, W, C).
        index: the number of the image, which determines the draws together with `seed`.

    Returns:
        (inner + 1, H, W, C), within [0, 1].
    """
    norm = norms.of(norm)
    x = tf.repeat(x[None], inner + 1, axis=0)
    own = threefry.fold_in(threefry.keys(draws.seed_pair(seed), tf.fill([inner + 1], index)), _PURPOSE)
    own = threefry.fold_in(own, tf.range(inner + 1))
    inside = norm.random_point(x[1:-1], INNER_RADIUS * epsilon, own[1:-1])
    surface = x[-1:] + epsilon * norm.random_direction(x[-1:], own[-1:])
    return tf.concat([x[:1], inside, tf.clip_by_value(surface, 0.0, 1.0)], axis=0)


def planted(features: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Returns the read-out whose decision boundary separates the last point from all others and passes next to it.

    The paper's logistic regression without a penalty converges to the maximal margin between them (Soudry et al.,
    2018); the support vector machine finds it twenty times faster.

    Args:
        features: (P, D), at P points.
        logits: (P, K), of the network there.

    Returns:
        weights (D,), bias, and whether the points are separable. The logits of the read-out, -g and g with
        g = weights . features + bias, have the range of the network's before the boundary is moved ("adaptive").
    """
    features = np.asarray(features, np.float64)
    centred = features - features.mean(axis=0)
    scale = np.abs(centred).max() or 1.0
    last = np.arange(len(features)) == len(features) - 1
    machine = SVC(kernel="linear", C=HARD, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(centred / scale, last)
    weights = machine.coef_[0] / scale
    g = centred @ weights + machine.intercept_[0]
    separable = bool(np.all((g > 0.0) == last))
    rescale = np.ptp(logits) / (2.0 * np.abs(g).max())
    weights *= rescale
    return weights, (1.0 - CLOSENESS) * g[-1] * rescale - features[-1] @ weights, separable
