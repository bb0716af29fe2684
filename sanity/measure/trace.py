"""PGD that goes its whole way and writes down what it saw at every point, for the checks that look into an attack."""

import typing

import numpy as np
import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.ascent import cross_entropy_of, input_gradient
from tf_nuat.attacks.search import choose
from tf_nuat.core import threefry
from tf_nuat.models.inference import inference


class Trace(typing.NamedTuple):
    """What PGD saw of N images, in `steps` steps. Arrays.

    Attributes:
        losses: (steps + 1, N), the cross-entropy at the start and after each step.
        margins: (steps + 1, N), the largest wrong logit minus the true one there: above 0 where the network is fooled.
        slope: (N,), the largest entry of the gradient of the cross-entropy at the clean image, without its sign; 0
            where the gradient is not finite.
        fooled_again: (N,), whether the point of the highest margin fools the network when it is looked at again.
        clean_logits, last_logits: (N, K), at the clean image and after the last step.
    """

    losses: np.ndarray
    margins: np.ndarray
    slope: np.ndarray
    fooled_again: np.ndarray
    clean_logits: np.ndarray
    last_logits: np.ndarray


def pgd(network, images, labels, *, epsilon, steps, step_size, norm="linf", seed=0, batch_size):
    """Returns the `Trace` of the first ascent of `tf_nuat.attacks.pgd`, which stops for no image.

    Args:
        network: images (B, H, W, C) -> logits (B, K); attacked in inference mode.
        images: (N, H, W, C), float32 in [0, 1].
        labels: integers (N,).
        epsilon, steps, step_size, norm, seed: as for `tf_nuat.attacks.pgd`: the same start, the same steps.
        batch_size: images at a time, which bounds the memory.
    """
    logits_fn = inference(network)

    def seen(logits, y):
        logits = tf.cast(logits, tf.float32)
        return losses.cross_entropy(logits, y), losses.margin(logits, y)

    def ascent(x, y, index):
        objective, project = cross_entropy_of(logits_fn, y), norms.of(norm).projection(x, epsilon)
        first = draws.fold_in(threefry.keys(draws.seed_pair(seed), index), tf.zeros_like(index))
        start = norms.of(norm).random_point(x, epsilon, first)
        gradient, clean = input_gradient(objective, x)
        none = tf.fill(tf.shape(index), -np.inf)
        written = [tf.TensorArray(tf.float32, size=steps + 1, element_shape=[None]) for _ in range(2)]

        def record(taken, x_adv, logits, best, highest, written):
            loss, margin = seen(logits, y)
            best = choose(margin > highest, x_adv, best)
            written = [array.write(taken, value) for array, value in zip(written, (loss, margin))]
            return best, tf.maximum(highest, margin), written

        def step(taken, x_adv, best, highest, written):
            slope, logits = input_gradient(objective, x_adv)
            found = record(taken, x_adv, logits, best, highest, written)
            return taken + 1, project(x_adv + step_size * norms.of(norm).steepest(slope)), *found

        taken, x_adv, *found = tf.while_loop(
            lambda taken, *_: taken < steps, step, (tf.constant(0), start, start, none, written)
        )
        last = logits_fn(x_adv)
        best, _, (loss, margin) = record(taken, x_adv, last, *found)
        slope = tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3))
        return best, (loss.stack(), margin.stack(), slope), (tf.cast(clean, tf.float32), tf.cast(last, tf.float32))

    shape = images.shape[1:]
    specs = tf.TensorSpec((None, *shape)), tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None,), tf.int32)
    ascent = compiled(ascent, *specs)
    margin = compiled(lambda x, y: seen(logits_fn(x), y)[1], *specs[:2])
    found = []
    for x, y, index in batches(images, labels, batch_size):
        best, curves, logits = ascent(x, y, index)
        found.append(tf.nest.map_structure(np.asarray, (*curves, margin(best, y) > 0.0, *logits)))
    parts = [np.concatenate(part, axis=int(number < 2)) for number, part in enumerate(zip(*found))]
    return Trace(*parts)


def compiled(function, *signature):
    """Returns the graph of a function, which TensorFlow does not take for one that is traced again and again."""
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()


def batches(images, labels, batch_size):
    """Yields (images, labels, numbers of the images), tensors of `batch_size` rows; the last ones may be fewer."""
    for first in range(0, len(images), batch_size):
        rows = np.arange(first, min(first + batch_size, len(images)))
        yield tf.constant(images[rows], tf.float32), tf.constant(labels[rows], tf.int64), tf.constant(rows, tf.int32)
