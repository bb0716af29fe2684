"""Random search: points drawn from the ball, without gradients, until one fools the network."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.search import Search, choose
from tf_nuat.models.inference import Logits


@attack(norms=("linf", "l2", "l1"))
def random_search(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: tf.Tensor | float,
    queries: tf.Tensor | int = 100,
    seed: tf.Tensor | int = 0,
    norm: str = "linf",
) -> Search:
    """Returns the first of `queries` random points around each image that fools the network, or x if none does.

    In L-infinity the first, third, ... points are drawn uniformly from the ball, the others from its corners, where a
    linear network changes by sqrt(3) times as much. In L2 all are uniform: with many pixels, most of the ball is near
    its sphere. In L1 the first, third, ... are uniform, the others sparse: pixels in a random order go to 0 or 1, until
    the length of the change is epsilon.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K). It need not be differentiable.
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        queries: number of points, at least 1, each for one forward.
        seed: whole number, at least 0 and below 2**31; the same seed draws the same points.
        norm: "linf", "l2" or "l1", the norm of the ball.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.random_search(network, x[:4], y[:4], epsilon=0.1, queries=5)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    keys = draws.image_keys(seed, x)

    def point(number: tf.Tensor) -> tf.Tensor:
        return POINTS[norm](x, epsilon, draws.fold_in(keys, number), number)

    def first() -> _State:
        none = tf.zeros(tf.shape(x)[:1], tf.int32)
        return _State(x_adv=point(none), fooled=none > 0, spent=none + 1 >= queries, drawn=none + 1)

    def step(state: _State) -> _State:
        fooled = state.fooled | (~state.spent & losses.fooled(logits_fn(state.x_adv), y))
        return _State(
            x_adv=choose(fooled | state.spent, state.x_adv, point(state.drawn)),
            fooled=fooled,
            # The last point is a candidate: the caller of the search checks its logits.
            spent=state.spent | (~fooled & (state.drawn + 1 >= queries)),
            drawn=state.drawn + 1,
        )

    return Search(first, step)


def _inside_or_at_a_corner(x: tf.Tensor, epsilon: tf.Tensor | float, keys: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    change = 2.0 * draws.uniform(x, keys) - 1.0
    corner = tf.where(change < 0.0, -1.0, 1.0)
    return tf.clip_by_value(x + epsilon * choose(number % 2 == 1, corner, change), 0.0, 1.0)


def _inside(x: tf.Tensor, epsilon: tf.Tensor | float, keys: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    return norms.of("l2").random_point(x, epsilon, keys)


def _inside_or_sparse(x: tf.Tensor, epsilon: tf.Tensor | float, keys: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    signs = draws.signs(x, draws.fold_in(keys, 3))
    room = tf.where(signs > 0.0, 1.0 - x, x)
    change = signs * norms.shared_out(epsilon, room, draws.uniform(x, draws.fold_in(keys, 4)))
    sparse = tf.clip_by_value(x + change, 0.0, 1.0)
    return choose(number % 2 == 1, sparse, norms.of("l1").random_point(x, epsilon, keys))


# By the name of the norm: functions of images, epsilon, keys and the number of the point (B,).
POINTS: dict[str, Callable[..., tf.Tensor]] = {"linf": _inside_or_at_a_corner, "l2": _inside, "l1": _inside_or_sparse}


class _State(NamedTuple):
    """The last point drawn for each image, and the number of points drawn."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor
    drawn: tf.Tensor
