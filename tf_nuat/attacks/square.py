"""Square attack, a search without gradients (Andriushchenko et al., 2020).

Each query changes the best image so far in one square window, and keeps the change if it increases the loss. Windows
shrink as queries are spent. Where AutoAttack's code and the paper disagree, this follows the paper: windows may touch
the last row and column, each image has its own windows (the code draws one for the whole batch), and in L2 each channel
may spend the norm that it had in a window (in the code, the channels share theirs).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.attack import attack, true_or_false
from tf_nuat.attacks.search import Search, choose
from tf_nuat.core import threefry, validation
from tf_nuat.models.inference import Logits

# What to increase: functions of logits (B, K) and labels.
LOSSES = {"margin": losses.margin, "ce": losses.cross_entropy}

Start = Callable[[tf.Tensor], tf.Tensor]  # keys (B, 2) -> images
Change = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]  # images, share of the pixels (B,), keys -> images

# The share p of the pixels in a window is halved after each of these numbers of queries, out of 10,000.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
WHOLE = 10_000


@attack(
    norms=("linf", "l2", "l1"),
    p_init=lambda name, value: validation.number(name, value, above=0.0, at_most=1.0),
    rescaled=true_or_false,
    loss=lambda name, value: validation.one_of(name, value, LOSSES),
)
def square(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: tf.Tensor | float,
    queries: tf.Tensor | int = 5000,
    restarts: tf.Tensor | int = 1,
    p_init: tf.Tensor | float = 0.8,
    rescaled: bool = True,
    loss: str = "margin",
    seed: tf.Tensor | int = 0,
    start: tf.Tensor | None = None,
    norm: str = "linf",
) -> Search:
    """Returns the first adversary that `restarts` random searches find for each image, or x if they find none.

    It only uses logits: the network need not be differentiable.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        queries: number of changes that a search tries, at least 1, with one forward pass each; its start takes one
            more.
        restarts: largest number of searches, at least 1, each from its own random start.
        p_init: share of the pixels in the first windows, above 0, at most 1.
        rescaled: whether windows shrink as far in `queries` as in the paper's 10,000. Otherwise they shrink as fast as
            there, as in AutoAttack.
        loss: what a search increases: "margin", the largest wrong logit minus the true one, or "ce", the cross-entropy.
        seed: whole number, at least 0 and below 2**31; the same seed draws the same searches.
        start: images to begin the first search at, projected onto the ball; None for a random start.
        norm: "linf" (algorithm 2 of the paper, from vertical stripes), "l2" (algorithm 3) or "l1" (Croce and Hein,
            "Mind the box", 2021), the norm of the ball.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.square(network, x[:4], y[:4], epsilon=0.1, queries=10)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    keys = draws.image_keys(seed, x)
    start_of, change = CHANGES[norm](x, epsilon)

    def keys_of(restart: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
        return draws.fold_in(keys, restart * (queries + 1) + query)

    def first() -> _State:
        none = tf.zeros(tf.shape(x)[:1], tf.int32)
        begun = start_of(keys_of(none, none)) if start is None else norms.of(norm).projection(x, epsilon)(start)
        return _State(
            x_adv=begun,
            fooled=none > 0,
            spent=none > 0,
            restart=none,
            taken=none,
            best=begun,
            best_loss=tf.fill(tf.shape(none), -float("inf")),
        )

    def step(state: _State) -> _State:
        logits = logits_fn(state.x_adv)
        value = LOSSES[loss](logits, y)
        fooled = state.fooled | (~state.spent & losses.fooled(logits, y))
        better = value > state.best_loss
        best = choose(better, state.x_adv, state.best)
        ends = (state.taken >= queries) & ~fooled & ~state.spent
        restart = state.restart + tf.cast(ends, tf.int32)
        taken = tf.where(ends, 0, state.taken + 1)
        new_keys = keys_of(restart, taken)
        new = change(best, _share(p_init, state.taken, queries if rescaled else WHOLE), new_keys)
        new = tf.cond(tf.reduce_any(ends), lambda: choose(ends, start_of(new_keys), new), lambda: new)
        return _State(
            x_adv=choose(fooled | state.spent, state.x_adv, new),
            fooled=fooled,
            # The last change of the last search is a candidate: the caller of the search checks its logits.
            spent=state.spent | (~fooled & (taken >= queries) & (restart + 1 >= restarts)),
            restart=restart,
            taken=taken,
            best=best,
            best_loss=tf.where(ends, -float("inf"), tf.where(better, value, state.best_loss)),
        )

    return Search(first, step)


class _State(NamedTuple):
    """A search of each image: its number, its changes including the one to try next, its best image and its loss."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor
    restart: tf.Tensor
    taken: tf.Tensor
    best: tf.Tensor
    best_loss: tf.Tensor


def _share(p_init: tf.Tensor | float, taken: tf.Tensor, queries: tf.Tensor | int) -> tf.Tensor:
    """Returns the share of the pixels (B,) that the window of the next query has, after `taken` (B,) of `queries`."""
    progress = tf.cast(taken, tf.int64) * WHOLE // tf.cast(queries, tf.int64)
    halvings = tf.math.count_nonzero(progress[:, None] > tf.constant(HALVINGS, tf.int64), axis=1, dtype=tf.int32)
    return p_init * 0.5 ** tf.cast(halvings, tf.float32)


def _linf(x: tf.Tensor, epsilon: tf.Tensor | float) -> tuple[Start, Change]:
    """Returns the functions that start a search of `square`, and that change an image, in L-infinity.

    All images of the search are corners of the ball: each pixel is as dark or as bright as can be.
    """
    low, high = norms.corners(x, epsilon)
    height, width, channels = x.shape[1:]

    def start_of(keys: tf.Tensor) -> tf.Tensor:
        return tf.where(threefry.uniform(keys, (1, width, channels)) < 0.5, low, high)

    def change(best: tf.Tensor, share: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        drawn = threefry.uniform(keys, (2 + channels,))
        side = tf.clip_by_value(_root(share, height, width), 1, min(height, width))
        rows, columns = _coordinates(drawn[:, 0], height, side), _coordinates(drawn[:, 1], width, side)
        painted = tf.where(drawn[:, None, None, 2:] < 0.5, low, high)
        return tf.where(_window(rows, columns, side)[..., None], painted, best)

    return start_of, change


@dataclasses.dataclass(frozen=True)
class _Measure:
    """A norm that adds up over pixels: the length of a change is `root` of the sum of `part` over its pixels.

    Attributes:
        part, root: functions of tensors.
        steepness: the n-th square of a pile is 1 / n^steepness high.
        into_ball: function `(x, epsilon, change)` that returns the images x + change, brought into the ball.
        overdraws: whether each channel of a window gets the budget of all channels, for `into_ball` to cut.
    """

    part: Callable[[tf.Tensor], tf.Tensor]
    root: Callable[[tf.Tensor], tf.Tensor]
    steepness: int
    into_ball: Callable[[tf.Tensor, tf.Tensor | float, tf.Tensor], tf.Tensor]
    overdraws: bool = False

    def unit_channels(self, change: tf.Tensor) -> tf.Tensor:
        """Returns each channel of `change` (B, H, W, C) divided by its length."""
        length = self.root(tf.reduce_sum(self.part(change), axis=(1, 2), keepdims=True))
        return tf.math.divide_no_nan(change, length)


_L2 = _Measure(
    part=tf.square,
    root=tf.sqrt,
    steepness=2,
    into_ball=lambda x, epsilon, change: tf.clip_by_value(x + epsilon * norms.of("l2").steepest(change), 0.0, 1.0),
)


_L1 = _Measure(
    part=tf.abs,
    root=tf.identity,
    steepness=4,
    into_ball=lambda x, epsilon, change: norms.of("l1").projection(x, epsilon)(x + change),
    overdraws=True,
)


def _moved(measure: _Measure, x: tf.Tensor, epsilon: tf.Tensor | float) -> tuple[Start, Change]:
    """Returns what `_linf` does, for other norms: a query moves the change of a window to another, and varies it."""
    height, width, channels = x.shape[1:]
    widest = min(height, width)
    widest -= 1 - widest % 2

    def start_of(keys: tf.Tensor) -> tf.Tensor:
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        drawn = threefry.uniform(keys, (down, across, 1 + channels))[:, :, None, :, None]
        axis = tf.range(side)[None]
        tile = _eta(measure, axis, axis, tf.constant([side]), tf.constant([False]))[0][None, :, None, :, None]
        tiles = tf.where(drawn[..., :1] < 0.5, tile, tf.transpose(tile, (0, 3, 2, 1, 4)))
        tiles *= tf.where(drawn[..., 1:] < 0.5, -1.0, 1.0)  # (B, down, side, across, side, C)
        change = tf.reshape(tiles, (-1, down * side, across * side, channels))
        margins = [(spare // 2, spare - spare // 2) for spare in (height - down * side, width - across * side)]
        return measure.into_ball(x, epsilon, tf.pad(change, [(0, 0), *margins, (0, 0)]))

    def change(best: tf.Tensor, share: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        drawn = threefry.uniform(keys, (5 + channels,))
        side = tf.maximum(_root(share, height, width), 3)
        side = tf.minimum(side + 1 - side % 2, widest)
        rows, columns, other_rows, other_columns = (
            _coordinates(drawn[:, i], size, side) for i, size in enumerate((height, width, height, width))
        )
        window = _window(rows, columns, side)[..., None]
        windows = window | _window(other_rows, other_columns, side)[..., None]
        old = best - x
        parts = measure.part(old)
        unused = tf.maximum(measure.part(epsilon) - tf.reduce_sum(parts, axis=(1, 2, 3), keepdims=True), 0.0)
        freed = tf.reduce_sum(tf.where(windows, parts, 0.0), axis=(1, 2), keepdims=True)

        new = _eta(measure, rows, columns, side, drawn[:, 4] < 0.5)[..., None]
        new *= tf.where(drawn[:, None, None, 5:] < 0.5, -1.0, 1.0)
        new += measure.unit_channels(tf.where(window, old, 0.0))
        new = measure.unit_channels(new) * measure.root(unused / channels + freed)
        new *= channels if measure.overdraws else 1
        return measure.into_ball(x, epsilon, tf.where(window, new, tf.where(windows, 0.0, old)))

    return start_of, change


# By the name of the norm: functions of images and epsilon.
CHANGES: dict[str, Callable[..., tuple[Start, Change]]] = {
    "linf": _linf,
    "l2": functools.partial(_moved, _L2),
    "l1": functools.partial(_moved, _L1),
}


def _root(share: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Returns the side (B,), int32, of a square with the share (B,) of the pixels."""
    return tf.cast(tf.round(tf.sqrt(share * height * width)), tf.int32)


def _coordinates(drawn: tf.Tensor, size: int, side: tf.Tensor) -> tf.Tensor:
    """Returns the places (B, size) along an axis, from where a window begins: at random, by `drawn` (B,) in [0, 1)."""
    begin = tf.cast(drawn * tf.cast(size - side + 1, tf.float32), tf.int32)
    return tf.range(size)[None] - begin[:, None]


def _window(rows: tf.Tensor, columns: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Returns whether pixels (B, H, W) are in a window, from their places along both axes, (B, H) and (B, W)."""
    inside_rows, inside_columns = ((places >= 0) & (places < side[:, None]) for places in (rows, columns))
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def _eta(measure: _Measure, rows: tf.Tensor, columns: tf.Tensor, side: tf.Tensor, sideways: tf.Tensor) -> tf.Tensor:
    """Returns a change (B, H, W) of length 1: a peak in one half of the window, a dip of the same length in the other.

    Each half is a pile of concentric squares, the n-th of height 1/n^2 (1/n^4 in L1), cut off where the half ends.

    Args:
        measure: of the norm.
        rows, columns: places of the pixels from where the window begins, (B, H) and (B, W).
        side: of the window (B,).
        sideways: (B,), bool: the halves are left and right, not above and below.

    Equation 2 of the paper.
    """
    side, flat, longest = side[:, None], sideways[:, None], max(rows.shape[1], columns.shape[1])
    below = tf.constant(np.cumsum([0.0, *(1.0 / np.arange(1, longest + 2) ** measure.steepness)]), tf.float32)

    def heights(places: tf.Tensor, is_split: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the height of the pile along an axis through its middle, and whether places are in the first half."""
        is_first = is_split & (places < side // 2)
        begin = tf.where(is_split & ~is_first, side // 2, 0)
        length = tf.where(is_split, tf.where(is_first, side // 2, side - side // 2), side)
        distance = tf.abs(places - begin - length // 2)
        top = side // 2 + 1
        return tf.gather(below, top) - tf.gather(below, tf.minimum(distance, top)), is_first

    down, is_above = heights(rows, ~flat)
    across, is_left = heights(columns, flat)
    # The pile has one height all around a square: that of the axis along which a pixel is farther from the middle.
    pile = tf.where(_window(rows, columns, side[:, 0]), tf.minimum(down[:, :, None], across[:, None, :]), 0.0)
    is_first = is_above[:, :, None] | is_left[:, None, :]
    parts = measure.part(pile)
    first = tf.reduce_sum(tf.where(is_first, parts, 0.0), axis=(1, 2), keepdims=True)
    second = tf.reduce_sum(tf.where(is_first, 0.0, parts), axis=(1, 2), keepdims=True)
    halves = tf.cast(first > 0.0, tf.float32) + 1.0  # a window of one pixel has one half
    scale = [tf.math.divide_no_nan(1.0, measure.root(halves * half)) for half in (first, second)]
    return pile * tf.where(is_first, scale[0], -scale[1])
