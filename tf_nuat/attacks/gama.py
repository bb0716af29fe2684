"""GAMA, the guided adversarial margin attack (Sriramanan et al., 2020), in its two variants.

Both increase the margin of the probabilities plus a weight times the squared L2 distance of the probabilities from
those at x. This term guides the first steps: its weight falls linearly to 0 over the first quarter of the steps. As in
the paper, the distance is from the clean image; the published code takes it from the random start.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.nuclear import bernoulli_start
from tf_nuat.attacks.pgd import ascents
from tf_nuat.attacks.search import Search
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits

# Images, the gradient there, steps taken (B,) -> images after a step.
Move = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

DROPS = (60, 85)  # percentages of the steps at which steps become shorter


@attack
def gama_pgd(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    steps: int = 100,
    step_size: float | None = None,
    weight: float = 50.0,
    restarts: int = 1,
    seed: Any = 0,
    norm: str = "linf",
) -> Search:
    """Returns the first adversary that GAMA-PGD finds for each image, or x if it finds none.

    Steps follow the sign of the gradient, and become 10 times shorter after 60 % and again after 85 % of them.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        steps: number of steps of an ascent, at least 1.
        step_size: length of the first steps, above 0; default `2 * epsilon`.
        weight: weight of the guiding term at the first step, at least 0.
        restarts: largest number of ascents, at least 1, each from its own random start: x plus or minus `epsilon`.
        seed: whole number, at least 0 and below 2**31; the same seed draws the same starts.
        norm: "linf" or "l2". In L2, a start is `epsilon` away from x, and steps follow the gradient itself.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.gama_pgd(network, x[:4], y[:4], epsilon=0.1, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    step_size = 2.0 * epsilon if step_size is None else step_size
    project = norms.of(norm).projection(x, epsilon)

    def move(x_adv: tf.Tensor, gradient: tf.Tensor, taken: tf.Tensor) -> tf.Tensor:
        return project(x_adv + step_size * _per_image(_drops(taken, steps, 10.0)) * norms.of(norm).steepest(gradient))

    return _search(logits_fn, x, y, move, epsilon, steps, weight, restarts, seed, norm)


@attack(gamma=lambda name, value: validation.number(name, value, above=0.0, at_most=1.0))
def gama_fw(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    steps: int = 100,
    gamma: float = 0.5,
    weight: float = 50.0,
    restarts: int = 1,
    seed: Any = 0,
    norm: str = "linf",
) -> Search:
    """Returns the first adversary that GAMA-FW finds for each image, or x if it finds none.

    Steps are those of Frank and Wolfe: a share `gamma` of the way to the corner of the ball that the gradient points
    to. The share becomes 5 times smaller after 60 % and again after 85 % of the steps.

    Args:
        logits_fn, x, y, epsilon, steps, weight, restarts, seed, norm: as in `gama_pgd`.
        gamma: that share in the first steps, above 0 and at most 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.gama_fw(network, x[:4], y[:4], epsilon=0.1, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    project = norms.of(norm).projection(x, epsilon)

    def move(x_adv: tf.Tensor, gradient: tf.Tensor, taken: tf.Tensor) -> tf.Tensor:
        share = gamma * _per_image(_drops(taken, steps, 5.0))
        return project((1.0 - share) * x_adv + share * (x + epsilon * norms.of(norm).steepest(gradient)))

    return _search(logits_fn, x, y, move, epsilon, steps, weight, restarts, seed, norm)


def _search(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    move: Move,
    epsilon: float,
    steps: int,
    weight: float,
    restarts: int,
    seed: Any,
    norm: str,
) -> Search:
    keys = draws.image_keys(seed, x)

    def loss_of(logits: tf.Tensor, clean: tf.Tensor, taken: tf.Tensor) -> tf.Tensor:
        probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
        gone = tf.cast(taken, tf.float32) / tf.cast(steps, tf.float32)
        guide = weight * tf.maximum(1.0 - 4.0 * gone, 0.0)
        return losses.margin(probabilities, y) + guide * tf.reduce_sum(tf.square(probabilities - clean), axis=-1)

    return ascents(
        logits_fn,
        x,
        y,
        loss_of,
        move,
        lambda restart: bernoulli_start(x, epsilon, draws.fold_in(keys, restart), norm),
        steps=steps,
        restarts=restarts,
        clean_of=tf.nn.softmax,
    )


def _drops(taken: tf.Tensor, steps: int, factor: float) -> tf.Tensor:
    """Returns the length of each image's step (B,) as a share of the first one's."""
    passed = tf.cast(100 * taken[:, None] >= tf.constant(DROPS) * steps, tf.float32)
    return factor ** -tf.reduce_sum(passed, axis=1)


def _per_image(value: tf.Tensor) -> tf.Tensor:
    return value[:, None, None, None]
