"""`Search`, an attack that stops for each image as soon as it has fooled the network, and how one is run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class Search(NamedTuple):
    """An attack that stops for each image as soon as it has found an adversary.

    The state of a search is a NamedTuple of tensors, one row per image (B, ...), among them:

    - `x_adv` (B, H, W, C): what is returned for the image once it is done, if it fools the network, and then within the
      ball and [0, 1];
    - `fooled` (B,), bool: `x_adv` fools the network by the logits that the search has seen;
    - `spent` (B,), bool: nothing is left to try. `x_adv` may be a last candidate that no logits were computed for.

    An image that is fooled or spent is done. Whatever the others in the batch still need, `step` leaves those three as
    they are; and what it does for an image depends on nothing of another: counters are per image, and so are draws.
    Both functions close over the arguments of the attack; `step` must take anything that `first` computed (logits of
    the clean images, for instance) from the state.

    Attributes:
        first: function `() -> state`.
        step: function `state -> state`, with about one gradient or a few forwards.
        climb: of an ascent, function `state -> (images after a step, logits at x_adv)`, the same step for an image that
            is fooled: for those who look at the way of an attack. None where there is none.
    """

    first: Callable[[], Any]
    step: Callable[[Any], Any]
    climb: Callable[[Any], tuple[tf.Tensor, tf.Tensor]] | None = None


class Ended(NamedTuple):
    """The state of an attack that goes a fixed way, as of a search that has nothing left to try."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor


def run_search(search: Search, state: Any, *, steps: Any = None, until_done: Any = None) -> tuple[tf.Tensor, Any]:
    """Returns the number of steps that the images of a search needed, and the state after them.

    Args:
        search: the `Search`.
        state: where to begin.
        steps: number of steps at most, None for no limit.
        until_done: number of images that are done at which to stop, None for all.
    """
    size = tf.shape(state.fooled)[0]
    until_done = size if until_done is None else tf.minimum(until_done, size)

    def goes_on(taken: tf.Tensor, state: Any) -> tf.Tensor:
        done = tf.math.count_nonzero(state.fooled | state.spent, dtype=tf.int32)
        return (done < until_done) if steps is None else (done < until_done) & (taken < steps)

    return tf.while_loop(goes_on, lambda taken, state: (taken + 1, search.step(state)), (tf.constant(0), state))


def ended(x_adv: tf.Tensor) -> Ended:
    """Returns the state of images that nothing is left to try for."""
    one_each = tf.shape(x_adv)[:1]
    return Ended(x_adv, tf.zeros(one_each, tf.bool), tf.ones(one_each, tf.bool))


def choose(condition: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns for each image `one` (B, ...) where the condition (B,) holds, else `other`."""
    if one.shape.rank > 1:  # in one operation: a search chooses between dozens of tensors
        condition = tf.reshape(condition, [-1] + [1] * (one.shape.rank - 1))
    return tf.where(condition, one, other)
