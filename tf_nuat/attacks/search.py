"""`Search`, an attack that stops for each image as soon as it fools the network, and `run_search`, which runs it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class Search(NamedTuple):
    """An attack that stops for each image as soon as it has found an adversary.

    The state of a search is a NamedTuple of tensors, one row per image (B, ...), among them:

    - `x_adv` (B, H, W, C): the result for an image that is done, if it fools the network. It then lies within the ball
      and [0, 1];
    - `fooled` (B,), bool: `x_adv` fools the network, by the logits that the search has computed;
    - `spent` (B,), bool: nothing is left to try. `x_adv` may be a last candidate without computed logits.

    An image that is fooled or spent is done: `step` must not change these three fields any more. What `step` does for
    one image must not depend on the others in the batch, so counters and draws are per image. Both functions close over
    the arguments of the attack. `step` must take anything that `first` computed (logits of the clean images, for
    instance) from the state.

    Attributes:
        first: function `() -> state`.
        step: function `state -> state`, with about one gradient or a few forward passes.
        climb: function `state -> (images after a step, logits at x_adv)` of an ascent. It also moves images that are
            fooled, for code that looks at the path of an attack. None if the search is not such an ascent.
    """

    first: Callable[[], Any]
    step: Callable[[Any], Any]
    climb: Callable[[Any], tuple[tf.Tensor, tf.Tensor]] | None = None


class Ended(NamedTuple):
    """The state of an attack that is not a search, in the form of a search with nothing left to try."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor


def run_search(search: Search, state: Any, *, steps: Any = None, until_done: Any = None) -> tuple[tf.Tensor, Any]:
    """Runs a search; returns the number of steps taken, and the state after them.

    Args:
        search: the `Search`.
        state: the state to begin with.
        steps: largest number of steps, None for no limit.
        until_done: stops when this number of images is done, None for all.
    """
    size = tf.shape(state.fooled)[0]
    until_done = size if until_done is None else tf.minimum(until_done, size)

    def goes_on(taken: tf.Tensor, state: Any) -> tf.Tensor:
        done = tf.math.count_nonzero(state.fooled | state.spent, dtype=tf.int32)
        return (done < until_done) if steps is None else (done < until_done) & (taken < steps)

    return tf.while_loop(goes_on, lambda taken, state: (taken + 1, search.step(state)), (tf.constant(0), state))


def ended(x_adv: tf.Tensor) -> Ended:
    """Returns the state in which `x_adv` is the result, and nothing is left to try."""
    one_each = tf.shape(x_adv)[:1]
    return Ended(x_adv, tf.zeros(one_each, tf.bool), tf.ones(one_each, tf.bool))


def choose(condition: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns for each image `one` (B, ...) where the condition (B,) holds, else `other`."""
    if one.shape.rank > 1:  # in one operation: a search chooses between dozens of tensors
        condition = tf.reshape(condition, [-1] + [1] * (one.shape.rank - 1))
    return tf.where(condition, one, other)
