"""Losses per example, and the nuclear norm, which belongs to a batch.

Logits are (B, K). Labels are integers (B,) or rows of probabilities (B, K), one-hot for instance.
"""

from collections.abc import Callable

import tensorflow as tf

from tf_nuat import parallel
from tf_nuat.core import placement, validation


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy of each example, (B,), in float32.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.cross_entropy(logits, labels).numpy().round(3)
        array([0.408, 3.095], dtype=float32)
    """
    logits = tf.cast(logits, tf.float32)
    if labels.shape.rank == 2:
        return tf.nn.softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.float32), logits=logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=true_class(labels), logits=logits)


def true_class(labels: tf.Tensor) -> tf.Tensor:
    """Returns integer labels (B,) for integer labels or rows of probabilities.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.true_class(tf.constant([[0.0, 1.0, 0.0]])).numpy()
        array([1])
    """
    return tf.argmax(labels, axis=-1) if labels.shape.rank == 2 else tf.cast(labels, tf.int64)


def one_hot(labels: tf.Tensor, num_classes: int | tf.Tensor) -> tf.Tensor:
    """Returns rows of probabilities (B, K), float32, for integer labels or rows of probabilities.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.one_hot(labels, 3).numpy()
        array([[1., 0., 0.],
               [0., 1., 0.]], dtype=float32)
    """
    return tf.cast(labels, tf.float32) if labels.shape.rank == 2 else tf.one_hot(labels, num_classes)


def smoothed(labels: tf.Tensor, num_classes: int, share: float) -> tf.Tensor:
    """Returns rows of probabilities (B, K), with `share` of each label spread evenly over all classes.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.smoothed(labels, 3, 0.3).numpy().round(2)
        array([[0.8, 0.1, 0.1],
               [0.1, 0.8, 0.1]], dtype=float32)
    """
    return (1.0 - share) * one_hot(labels, num_classes) + share / num_classes


def kl_divergence(logits: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns KL(softmax logits || softmax others) of each example, (B,), in float32; differentiable in both.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.kl_divergence(logits, logits[::-1]).numpy().round(3)
        array([1.528, 1.041], dtype=float32)
    """
    log_p = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    log_q = tf.nn.log_softmax(tf.cast(others, tf.float32))
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)


def margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the largest wrong logit minus the true one, (B,), in float32: see `fooled` for what 0 means.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.margin(logits, labels).numpy()
        array([-1.,  3.], dtype=float32)
    """
    logits = tf.cast(logits, tf.float32)
    true = tf.one_hot(true_class(labels), tf.shape(logits)[-1], on_value=True, off_value=False, dtype=tf.bool)
    wrong = tf.reduce_max(tf.where(true, -tf.float32.max, logits), axis=-1)
    return wrong - tf.reduce_sum(tf.where(true, logits, 0.0), axis=-1)


def fooled(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns whether the predicted class of each example, that of the highest logit, is wrong, bool (B,).

    If several logits are the highest, the first of them is the prediction, as in `predict`. A margin of 0 does not tell
    which class that is.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.fooled(logits, labels).numpy()
        array([False,  True])
    """
    return tf.not_equal(tf.argmax(logits, axis=-1), true_class(labels))


def wrong_classes(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the wrong classes of each example, (B, K - 1), the one with the highest logit first.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.wrong_classes(logits, labels).numpy()
        array([[2, 1],
               [2, 0]], dtype=int32)
    """
    num_classes = tf.shape(logits)[-1]
    wrong = tf.where(one_hot(true_class(labels), num_classes) > 0.0, -float("inf"), tf.cast(logits, tf.float32))
    return tf.argsort(wrong, direction="DESCENDING", stable=True)[:, :-1]


def dlr(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the difference of logits ratio of each example, (B,), in float32: the margin over a spread of logits.

    Shifting or scaling the logits does not change it. From Croce and Hein (2020).

    Raises:
        ValueError: there are fewer than 3 classes.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.dlr(logits, labels).numpy().round(3)
        array([-0.5,  1. ], dtype=float32)
    """
    top = _highest(logits, 3, "DLR")
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_dlr(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns the targeted difference of logits ratio of each example, (B,), in float32.

    Args:
        logits, labels: (B, K), and integers (B,) or rows of probabilities (B, K).
        targets: the class whose logit is to exceed that of the true class, integers (B,).

    From Croce and Hein (2020).

    Raises:
        ValueError: there are fewer than 4 classes.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits = tf.constant([[3.0, 2.0, 1.0, 0.0]])
        >>> losses.targeted_dlr(logits, tf.constant([0]), tf.constant([2])).numpy().round(3)
        array([-0.8], dtype=float32)
    """
    top = _highest(logits, 4, "targeted DLR")
    logits = tf.cast(logits, tf.float32)
    target, true = (tf.gather(logits, chosen, batch_dims=1) for chosen in (targets, true_class(labels)))
    return (target - true) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + _TINY)


_TINY = 1e-12  # avoids 0 / 0 if all logits are equal


def _highest(logits: tf.Tensor, count: int, loss: str) -> tf.Tensor:
    """Returns the `count` highest logits of each example, the highest first, in float32."""
    if logits.shape[-1] is not None:
        validation.whole_number(f"number of classes ({loss} loss)", logits.shape[-1], at_least=count)
    return tf.math.top_k(tf.cast(logits, tf.float32), count).values


def nuclear_norm(matrix: tf.Tensor) -> tf.Tensor:
    """Returns the sum of the singular values of `matrix` (B, K), a statistic of the GLOBAL batch, in float32.

    The rows of all replicas are gathered first: the norm of a batch is not the mean of the norms of its halves.
    The gradient is U V^T, finite at repeated and at zero singular values, and at the zero matrix.
    Singular values need float32 or more, whatever the precision of the network.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.nuclear_norm(logits).numpy().round(3)
        np.float32(5.099)
    """
    return _sum_of_singular_values(parallel.gather(tf.cast(matrix, tf.float32)))


@tf.custom_gradient
def _sum_of_singular_values(matrix: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    # One decomposition serves the value and its gradient; TensorFlow's own gradient of `svd` decomposes again.
    values, left, right = tf.linalg.svd(matrix, full_matrices=False)
    return tf.reduce_sum(values), lambda upstream: upstream * tf.matmul(left, right, transpose_b=True)


def nuclear_penalty(matrix: tf.Tensor, weight: float | tf.Tensor) -> tf.Tensor:
    """Returns this replica's share of `weight * |matrix|_* / B`, with the norm and the size of the GLOBAL batch.

    Args:
        matrix: (B, K), logits of perturbed images minus logits of clean images.
        weight: lambda of equations 1 and 2 of the NuAT paper (Sriramanan et al., 2021), a float or a scalar tensor.
            If it is 0, the decomposition is skipped.

    Example:
        >>> import tensorflow as tf
        >>> from tf_nuat import losses
        >>> logits, labels = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), tf.constant([0, 1])
        >>> losses.nuclear_penalty(logits - logits[::-1], 1.0).numpy().round(3)
        np.float32(2.0)
    """
    matrix = parallel.gather(tf.cast(matrix, tf.float32))

    def penalty() -> tf.Tensor:
        return weight * _sum_of_singular_values(matrix) / tf.cast(tf.shape(matrix)[0], tf.float32)

    # The rows are gathered outside of the branch: replicas cannot exchange tensors inside one.
    whole = tf.cond(placement.is_zero(weight), lambda: tf.constant(0.0), penalty)
    return parallel.share_of_batch_statistic(whole)
