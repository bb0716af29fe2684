"""Square attack, a search without gradients (Andriushchenko et al., 2020), as AutoAttack configures it.

Each query changes the best image so far in one square window, which shrinks as queries are spent, and is kept where it
increases the loss. AutoAttack's code and the paper disagree in small things; where they do this is the paper's way:
windows may touch the last row and column, each image has windows of its own (the code draws one for the whole batch),
and in L2 each channel has the norm to spend in a window that it had there (in the code, all channels together).
"""

import typing

import numpy as np
import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.search import Search, choose
from tf_nuat.core import threefry, validation

# What to increase: functions of logits (B, K) and labels.
LOSSES = {"margin": losses.margin, "ce": losses.cross_entropy}

# The share p of the pixels in a window is halved after so many of 10,000 queries. Other numbers of queries rescale it.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@attack(
    queries=lambda name, value: validation.whole_number(name, value, at_least=1),
    p_init=lambda name, value: validation.number(name, value, above=0.0, at_most=1.0),
    loss=lambda name, value: validation.one_of(name, value, LOSSES),
)
def square(logits_fn, x, y, *, epsilon, queries=5000, restarts=1, p_init=0.8, loss="margin", seed=0, norm="linf"):
    """Returns an adversary of each image, the first that `restarts` random searches find, and x where none is.

    It takes logits alone: the network need not be differentiable.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        queries: number of changes that a search tries, at least 1, each for one forward; its start takes one more.
        restarts: number of searches at most, at least 1, each from a draw of its own.
        p_init: share of the pixels in the first windows, above 0, at most 1.
        loss: what a search increases: "margin", the largest wrong logit minus the true one, or "ce", the cross-entropy.
        seed: whole number, at least 0; the same seed draws the same searches.
        norm: "linf" (algorithm 2 of the paper, from vertical stripes) or "l2" (algorithm 3), the norm of the ball.

    Raises:
        ValueError: an argument is out of its range.
    """
    keys = draws.image_keys(seed, x)
    start_of, change = CHANGES[norm](x, epsilon)

    def keys_of(restart, query):
        return draws.fold_in(keys, restart * (queries + 1) + query)

    def first():
        none = tf.zeros(tf.shape(x)[:1], tf.int32)
        start = start_of(keys_of(none, none))
        return _State(
            x_adv=start,
            fooled=none > 0,
            spent=none > 0,
            restart=none,
            taken=none,
            best=start,
            best_loss=tf.fill(tf.shape(none), -float("inf")),
        )

    def step(state):
        logits = logits_fn(state.x_adv)
        value = LOSSES[loss](logits, y)
        fooled = state.fooled | (~state.spent & (losses.margin(logits, y) > 0.0))
        better = value > state.best_loss
        best = choose(better, state.x_adv, state.best)
        ends = (state.taken >= queries) & ~fooled & ~state.spent
        restart = state.restart + tf.cast(ends, tf.int32)
        taken = tf.where(ends, 0, state.taken + 1)
        new_keys = keys_of(restart, taken)
        new = change(best, _share(p_init, state.taken, queries), new_keys)
        new = tf.cond(tf.reduce_any(ends), lambda: choose(ends, start_of(new_keys), new), lambda: new)
        return _State(
            x_adv=choose(fooled | state.spent, state.x_adv, new),
            fooled=fooled,
            # The last change of the last search is a candidate: whoever runs the search looks at its logits.
            spent=state.spent | (~fooled & (taken >= queries) & (restart + 1 >= restarts)),
            restart=restart,
            taken=taken,
            best=best,
            best_loss=tf.where(ends, -float("inf"), tf.where(better, value, state.best_loss)),
        )

    return Search(first, step)


class _State(typing.NamedTuple):
    """A search of each image: its number, the changes it has tried or is about to, its best image and loss there."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor
    restart: tf.Tensor
    taken: tf.Tensor
    best: tf.Tensor
    best_loss: tf.Tensor


def _share(p_init, taken, queries):
    """Returns the share of the pixels (B,) that the window of the next query has, after `taken` (B,) of them."""
    progress = tf.cast(taken, tf.int64) * 10000 // tf.cast(queries, tf.int64)
    halvings = tf.math.count_nonzero(progress[:, None] > tf.constant(HALVINGS, tf.int64), axis=1, dtype=tf.int32)
    return p_init * 0.5 ** tf.cast(halvings, tf.float32)


def _linf(x, epsilon):
    """Returns the start of a search, of keys, and how it changes an image: functions for `square`.

    All images that it visits are corners of the ball: each pixel is as dark or as bright as can be.
    """
    low, high = norms.corners(x, epsilon)
    height, width, channels = x.shape[1:]

    def start_of(keys):
        return tf.where(threefry.uniform(keys, (1, width, channels)) < 0.5, low, high)

    def change(best, share, keys):
        drawn = threefry.uniform(keys, (2 + channels,))
        side = tf.clip_by_value(_root(share, height, width), 1, min(height, width))
        rows, columns = _coordinates(drawn[:, 0], height, side), _coordinates(drawn[:, 1], width, side)
        painted = tf.where(drawn[:, None, None, 2:] < 0.5, low, high)
        return tf.where(_window(rows, columns, side)[..., None], painted, best)

    return start_of, change


def _l2(x, epsilon):
    """Returns what `_linf` does, for L2: a query moves the change in one window into another, and varies it there."""
    height, width, channels = x.shape[1:]
    widest = min(height, width)
    widest -= 1 - widest % 2

    def within_ball(change):
        return tf.clip_by_value(x + epsilon * norms.of("l2").steepest(change), 0.0, 1.0)

    def start_of(keys):
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        drawn = threefry.uniform(keys, (down, across, 1 + channels))[:, :, None, :, None]
        axis = tf.range(side)[None]
        tile = _eta(axis, axis, tf.constant([side]), tf.constant([False]))[0][None, :, None, :, None]
        tiles = tf.where(drawn[..., :1] < 0.5, tile, tf.transpose(tile, (0, 3, 2, 1, 4)))
        tiles *= tf.where(drawn[..., 1:] < 0.5, -1.0, 1.0)  # (B, down, side, across, side, C)
        change = tf.reshape(tiles, (-1, down * side, across * side, channels))
        margins = [(spare // 2, spare - spare // 2) for spare in (height - down * side, width - across * side)]
        return within_ball(tf.pad(change, [(0, 0), *margins, (0, 0)]))

    def change(best, share, keys):
        drawn = threefry.uniform(keys, (5 + channels,))
        side = tf.maximum(_root(share, height, width), 3)
        side = tf.minimum(side + 1 - side % 2, widest)
        rows, columns, other_rows, other_columns = (
            _coordinates(drawn[:, i], size, side) for i, size in enumerate((height, width, height, width))
        )
        window = _window(rows, columns, side)[..., None]
        windows = window | _window(other_rows, other_columns, side)[..., None]
        old = best - x
        squares = tf.square(old)
        unused = tf.maximum(epsilon**2 - tf.reduce_sum(squares, axis=(1, 2, 3), keepdims=True), 0.0)
        freed = tf.reduce_sum(tf.where(windows, squares, 0.0), axis=(1, 2), keepdims=True)

        new = _eta(rows, columns, side, drawn[:, 4] < 0.5)[..., None]
        new *= tf.where(drawn[:, None, None, 5:] < 0.5, -1.0, 1.0)
        new += _unit_channels(tf.where(window, old, 0.0))
        new = _unit_channels(new) * tf.sqrt(unused / channels + freed)
        return within_ball(tf.where(window, new, tf.where(windows, 0.0, old)))

    return start_of, change


CHANGES = {"linf": _linf, "l2": _l2}  # by the name of the norm


def _root(share, height, width):
    """Returns the side (B,), int32, of a square with the share (B,) of the pixels."""
    return tf.cast(tf.round(tf.sqrt(share * height * width)), tf.int32)


def _coordinates(drawn, size, side):
    """Returns the places (B, size) of the pixels along an axis, from where a window begins: `drawn` (B,) of [0, 1)."""
    begin = tf.cast(drawn * tf.cast(size - side + 1, tf.float32), tf.int32)
    return tf.range(size)[None] - begin[:, None]


def _window(rows, columns, side):
    """Returns whether pixels (B, H, W) are in a window, from their places along both axes, (B, H) and (B, W)."""
    inside_rows, inside_columns = ((places >= 0) & (places < side[:, None]) for places in (rows, columns))
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def _unit_channels(change):
    """Returns each channel of `change` (B, H, W, C) divided by its L2 norm."""
    return tf.math.divide_no_nan(change, tf.sqrt(tf.reduce_sum(tf.square(change), axis=(1, 2), keepdims=True)))


def _eta(rows, columns, side, sideways):
    """Returns the change (B, H, W) of the L2 attack, of norm 1: a peak in one half of the window, a dip in the other.

    Each half is a pile of concentric squares, the n-th of height 1/n^2, cut off where the half ends.

    Args:
        rows, columns: places of the pixels from where the window begins, (B, H) and (B, W).
        side: of the window (B,).
        sideways: (B,), bool: the halves are left and right, not above and below.

    Equation 2 of the paper.
    """
    side, flat, longest = side[:, None], sideways[:, None], max(rows.shape[1], columns.shape[1])
    below = tf.constant(np.cumsum([0.0, *(1.0 / np.arange(1, longest + 2) ** 2)]), tf.float32)

    def heights(places, is_split):
        """Returns how high the pile is along an axis through its middle, and whether that is in the first half."""
        is_first = is_split & (places < side // 2)
        begin = tf.where(is_split & ~is_first, side // 2, 0)
        length = tf.where(is_split, tf.where(is_first, side // 2, side - side // 2), side)
        distance = tf.abs(places - begin - length // 2)
        top = side // 2 + 1
        return tf.gather(below, top) - tf.gather(below, tf.minimum(distance, top)), is_first

    down, is_above = heights(rows, ~flat)
    across, is_left = heights(columns, flat)
    # Around a square the pile is as high as on the axis that is farther away from the middle.
    pile = tf.where(_window(rows, columns, side[:, 0]), tf.minimum(down[:, :, None], across[:, None, :]), 0.0)
    is_first = is_above[:, :, None] | is_left[:, None, :]
    squares = tf.square(pile)
    first = tf.reduce_sum(tf.where(is_first, squares, 0.0), axis=(1, 2), keepdims=True)
    second = tf.reduce_sum(tf.where(is_first, 0.0, squares), axis=(1, 2), keepdims=True)
    halves = tf.cast(first > 0.0, tf.float32) + 1.0  # a window of one pixel has one half
    scale = [tf.math.divide_no_nan(1.0, tf.sqrt(halves * half)) for half in (first, second)]
    return pile * tf.where(is_first, scale[0], -scale[1])
