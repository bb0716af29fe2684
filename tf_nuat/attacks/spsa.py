"""SPSA, an ascent along gradients that are estimated from logits alone (Uesato et al., 2018)."""

from typing import Any, NamedTuple

import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.search import Search, choose
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits

# Adam's settings (Kingma and Ba, 2015), which the paper leaves as they are.
DECAY = 0.9
DECAY_OF_SQUARES = 0.999
TINY = 1e-8

LARGEST = 1e18  # of a slope; its square is still a number

# About how many images go into one forward pass: if the batch is small, several samples share a pass.
FORWARD = 256


@attack(
    samples=lambda name, value: validation.whole_number(name, value, at_least=2),
    delta=lambda name, value: validation.number(name, value, above=0.0),
)
def spsa(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    steps: int = 100,
    samples: int = 128,
    delta: float = 0.01,
    step_size: float = 0.01,
    seed: Any = 0,
) -> Search:
    """Returns the first adversary that SPSA along the margin finds for each image, or x if it finds none.

    A step of Adam follows the mean of finite differences along random directions, all of whose entries are -1 or 1.
    The network need not be differentiable, but it should not be flat at distances of `delta`.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K). It is called with images up to `delta`
            outside of [0, 1] and of the ball.
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball (L-infinity), at least 0.
        steps: number of steps, at least 1. Each takes `samples` forward passes, and one more to check its result.
        samples: forward passes per gradient, at least 2, two for each direction; of an odd number one is left out. They
            need not fit into memory together. The paper takes up to 8,192, which is stronger.
        delta: how far to go along a direction, above 0.
        step_size: step size of Adam, above 0.
        seed: whole number, at least 0 and below 2**31; the same seed draws the same directions.

    Raises:
        ValueError: an argument is out of its range.

    Algorithm 1 of the paper, with projection onto the ball after each step.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.spsa(network, x[:4], y[:4], epsilon=0.1, steps=2, samples=4)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    keys = draws.image_keys(seed, x)
    project = norms.LINF.projection(x, epsilon)

    def first() -> _State:
        none = tf.zeros(tf.shape(x)[0], tf.int32)
        nothing = tf.zeros_like(x)
        return _State(x_adv=x, fooled=none > 0, spent=none > 0, taken=none, mean=nothing, mean_square=nothing)

    def step(state: _State) -> _State:
        gradient = _estimate(logits_fn, state.x_adv, y, draws.fold_in(keys, state.taken), samples // 2, delta)
        taken = state.taken + 1
        mean, mean_square, change = _adam(state, gradient, step_size)
        x_adv = choose(state.fooled | state.spent, state.x_adv, project(state.x_adv + change))
        fooled = state.fooled | (~state.spent & losses.fooled(logits_fn(x_adv), y))
        return _State(x_adv, fooled, state.spent | (~fooled & (taken >= steps)), taken, mean, mean_square)

    return Search(first, step)


def _adam(state: "_State", gradient: tf.Tensor, step_size: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns Adam's two moving averages after `gradient`, and the change of the images in a step along it."""
    mean = DECAY * state.mean + (1.0 - DECAY) * gradient
    mean_square = DECAY_OF_SQUARES * state.mean_square + (1.0 - DECAY_OF_SQUARES) * tf.square(gradient)
    power = tf.cast(state.taken + 1, tf.float32)[:, None, None, None]
    root = tf.sqrt(mean_square / (1.0 - DECAY_OF_SQUARES**power))
    return mean, mean_square, step_size * mean / (1.0 - DECAY**power) / (root + TINY)


def _estimate(
    logits_fn: Logits, x_adv: tf.Tensor, y: tf.Tensor, keys: tf.Tensor, directions: tf.Tensor, delta: float
) -> tf.Tensor:
    """Returns the gradient of the margin; each forward pass takes as many directions as fit into it."""
    size = tf.shape(x_adv)[0]
    together = tf.clip_by_value(FORWARD // (2 * size), 1, directions)

    def add(done: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        some = tf.minimum(together, directions - done)
        numbers = tf.repeat(done + tf.range(some), size)
        many = tf.tile(x_adv, (some, 1, 1, 1))
        signs = draws.signs(many, draws.fold_in(tf.tile(keys, (some, 1)), numbers))
        logits = logits_fn(tf.concat([many + delta * signs, many - delta * signs], axis=0))
        ahead, behind = tf.split(losses.margin(logits, tf.tile(y, [2 * some] + [1] * (y.shape.rank - 1))), 2)
        slopes = (ahead - behind) / (2.0 * delta)
        slopes = tf.where(tf.abs(slopes) < LARGEST, slopes, 0.0)  # also where it is NaN
        found = tf.reshape(slopes[:, None, None, None] * signs, (some, size, *x_adv.shape[1:]))
        return done + some, tf.ensure_shape(total + tf.reduce_sum(found, axis=0), x_adv.shape)

    _, total = tf.while_loop(lambda done, _: done < directions, add, (tf.constant(0), tf.zeros_like(x_adv)))
    return total / tf.cast(directions, tf.float32)


class _State(NamedTuple):
    """An ascent of each image after `taken` steps, and the moving averages of Adam (B, H, W, C)."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor
    taken: tf.Tensor
    mean: tf.Tensor
    mean_square: tf.Tensor
