"""FAB, the fast adaptive boundary attack (Croce and Hein, 2020), which looks for the adversary closest to an image.

A step replaces the boundary between two classes by a hyperplane, from the gradient of their logits. It goes a little
beyond this hyperplane: mostly from the current point and, for a small part, from the clean image. After an adversary,
the next step begins a bit closer to the clean image. Where the paper and its published code disagree, this follows the
code, with one exception: the paper's final search along a segment, which the code lacks, finds the closest adversary at
any distance.
"""

import functools
from typing import Any, NamedTuple

import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.ascent import input_gradient
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.search import Search, choose
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits

# Twice the distance of a random start if neither `epsilon` nor an adversary determines it: the authors' default.
FARTHEST = {"linf": 0.3, "l2": 1.0}  # by the name of the norm
# By the norm: how fast each pixel's change grows on the way to a hyperplane, what that gains, and where it stops.
GROWTH = {
    "linf": lambda weight, room: (1.0, weight, room),
    "l2": lambda weight, room: (weight, tf.square(weight), tf.math.divide_no_nan(room, weight)),
}
LAST_STEPS = 3  # of the search on the segment between an image and its adversary
# How far beyond the boundary that search aims, as a share of the distance: in a batch of another size the network
# rounds differently, and must still be fooled.
BEYOND = 1e-3
_alpha_max = functools.partial(validation.number, at_least=0.0, at_most=1.0)
_eta = functools.partial(validation.number, at_least=1.0)
_beta = functools.partial(validation.number, above=0.0, below=1.0)


@attack(alpha_max=_alpha_max, eta=_eta, beta=_beta)
def fab(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float | None = None,
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    seed: Any = 0,
    norm: str = "linf",
) -> Search:
    """Returns the closest adversary that FAB finds for each image, or x if it finds none.

    A step takes K - 1 gradients, one for each wrong class, and goes to the boundary that seems the nearest.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0: an image is done at its first adversary within the ball. None for the
            closest adversary after all steps, at any distance.
        steps: number of steps of a run, at least 1.
        restarts: largest number of runs, at least 1. The first begins at x, the others at random points. These are half
            of `epsilon` away from x, or half of the distance of the closest adversary if that is smaller.
        alpha_max: largest share of the step from x, in its mix with the step from the current point, from 0 to 1.
        eta: length of a step as a multiple of the way to the hyperplane, at least 1.
        beta: factor by which an adversary's distance from x is multiplied before the next step, between 0 and 1.
        seed: whole number, at least 0 and below 2**31; the same seed draws the same starts.
        norm: "linf" or "l2", the norm of distances.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.fab(network, x[:4], y[:4], epsilon=0.1, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    return _search(logits_fn, x, y, epsilon, steps, restarts, None, (alpha_max, eta, beta), seed, norm)


@attack(alpha_max=_alpha_max, eta=_eta, beta=_beta)
def fab_t(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float | None = None,
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    seed: Any = 0,
    norm: str = "linf",
) -> Search:
    """Returns what `fab` does, but each run has one wrong class as its target, and each step takes one gradient.

    The targets are the wrong classes with the highest logits at x, the highest first.

    Args:
        logits_fn, x, y, epsilon, steps, alpha_max, eta, beta, seed, norm: as in `fab`.
        restarts: largest number of runs towards each target, at least 1.
        targets: largest number of targets, at least 1. If there are fewer wrong classes, all of them are targets.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.fab_t(network, x[:4], y[:4], epsilon=0.1, steps=3, targets=2)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    return _search(logits_fn, x, y, epsilon, steps, restarts, targets, (alpha_max, eta, beta), seed, norm)


class _State(NamedTuple):
    """A run of each image after `taken` steps. Shapes are (B,), (B, H, W, C) for images, or as noted."""

    x_adv: tf.Tensor  # the closest adversary that is close enough, or x
    fooled: tf.Tensor
    spent: tf.Tensor
    distance: tf.Tensor  # of x_adv, infinite where there is none
    margin: tf.Tensor  # at x_adv
    point: tf.Tensor  # where the next step begins; on the segment, the end that does not fool the network
    margin_at_end: tf.Tensor  # at that end
    run: tf.Tensor  # number of the run, or `runs` on the segment
    runs: tf.Tensor  # the largest number of runs
    ranked: tf.Tensor  # (B, K - 1), the wrong classes, if they are targets
    taken: tf.Tensor


def _search(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    epsilon: float | None,
    steps: int,
    restarts: int,
    targets: int | None,
    settings: tuple[float, float, float],
    seed: Any,
    norm: str,
) -> Search:
    """Returns a search: at most `restarts` runs or, unless `targets` is None, as many towards each of these classes."""
    alpha_max, eta, beta = settings
    keys = draws.image_keys(seed, x)
    farthest = FARTHEST[norm] if epsilon is None else epsilon

    def random_start(state: _State) -> tf.Tensor:
        radius = 0.5 * tf.minimum(state.distance, farthest)[:, None, None, None]
        change = norms.of(norm).random_direction(x, draws.fold_in(keys, state.run))
        return tf.clip_by_value(x + radius * change, 0.0, 1.0)

    def boundary(state: _State) -> tuple[tf.Tensor, tf.Tensor]:
        if targets is None:
            return _nearest_boundary(logits_fn, state.point, y, norm)
        target = tf.gather(state.ranked, tf.minimum(state.run, state.runs - 1) // restarts, batch_dims=1)
        return _boundary_with(logits_fn, state.point, y, target)

    def step(state: _State) -> _State:
        on_segment = state.run >= state.runs
        moved = _moved(x, state.point, *boundary(state), alpha_max=alpha_max, eta=eta, norm=norm)
        if epsilon is None:
            moved = choose(on_segment, _just_past_boundary(x, state), moved)
        logits, distance = logits_fn(moved), norms.of(norm).length(moved - x)
        margin, is_adversary = losses.margin(logits, y), losses.fooled(logits, y)
        searched = ~state.fooled & ~state.spent
        # Within epsilon any distance will do: the engine may have found that the adversary in the state is none.
        better = searched & is_adversary & (distance < state.distance if epsilon is None else distance <= epsilon)

        ends = searched & ~on_segment & (state.taken + 1 >= steps)
        following = choose(is_adversary, x + beta * (moved - x), moved)
        after = state._replace(
            x_adv=choose(better, moved, state.x_adv),
            distance=tf.where(better, distance, state.distance),
            margin=tf.where(better, margin, state.margin),
            point=choose(ends, x, following),
            run=state.run + tf.cast(ends, tf.int32),
            taken=tf.where(ends, 0, state.taken + 1),
        )
        over = after.run >= state.runs
        if epsilon is None:
            lower = on_segment & ~is_adversary
            after = after._replace(
                point=choose(on_segment & is_adversary, state.point, after.point),
                margin_at_end=tf.where(lower, margin, state.margin_at_end),
            )
            found = tf.math.is_finite(after.distance)
            over &= ~found | (after.taken >= LAST_STEPS)
            fooled = searched & over & found
        else:
            fooled = better
        at_random = ends & (after.run < state.runs) & (after.run % restarts > 0)
        point = tf.cond(
            tf.reduce_any(at_random),
            lambda: choose(at_random, random_start(after), after.point),
            lambda: after.point,
        )
        return after._replace(point=point, fooled=state.fooled | fooled, spent=state.spent | (searched & over))

    return Search(lambda: _first(logits_fn, x, y, restarts, targets), step)


def _first(logits_fn: Logits, x: tf.Tensor, y: tf.Tensor, restarts: int, targets: int | None) -> _State:
    clean = tf.cast(logits_fn(x), tf.float32)
    margin = losses.margin(clean, y)
    none = tf.zeros(tf.shape(x)[:1], tf.int32)
    runs, ranked = none + restarts, none[:, None]
    if targets is not None:
        ranked = losses.wrong_classes(clean, y)
        runs *= tf.minimum(targets, tf.shape(ranked)[1])
    return _State(
        x_adv=x,
        fooled=losses.fooled(clean, y),
        spent=none > 0,
        distance=tf.fill(tf.shape(none), float("inf")),
        margin=margin,
        point=x,
        margin_at_end=margin,
        run=none,
        runs=runs,
        ranked=ranked,
        taken=none,
    )


def _moved(
    x: tf.Tensor, point: tf.Tensor, gap: tf.Tensor, slope: tf.Tensor, *, alpha_max: float, eta: float, norm: str
) -> tf.Tensor:
    """Returns the images after a step from `point` towards the hyperplane where `gap` would be 0."""
    gap_at_x = gap + tf.reduce_sum(slope * (x - point), axis=(1, 2, 3))
    change, change_of_x = to_hyperplane(point, gap, slope, norm), to_hyperplane(x, gap_at_x, slope, norm)
    length, length_of_x = (tf.maximum(norms.of(norm).length(d), 1e-8) for d in (change, change_of_x))
    share = tf.minimum(length / (length + length_of_x), alpha_max)[:, None, None, None]
    moved = (1.0 - share) * (point + eta * change) + share * (x + eta * change_of_x)
    return tf.clip_by_value(moved, 0.0, 1.0)


def _just_past_boundary(x: tf.Tensor, state: _State) -> tf.Tensor:
    """Returns points a bit beyond those of the segments at which the margin, linearly interpolated, is 0."""
    share = tf.math.divide_no_nan(state.margin_at_end, state.margin_at_end - state.margin)[:, None, None, None]
    boundary = state.point + share * (state.x_adv - state.point)
    return tf.clip_by_value(boundary + BEYOND * (state.x_adv - x), 0.0, 1.0)


def _boundary_with(logits_fn: Logits, point: tf.Tensor, y: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the target's logit minus the true one, (B,), at images `point`, and its gradient."""

    def objective(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.cast(logits_fn(images), tf.float32)
        other, true = (tf.gather(logits, chosen, batch_dims=1) for chosen in (target, losses.true_class(y)))
        return other - true, other - true

    slope, gap = input_gradient(objective, point)
    return _finite(gap), slope


def _nearest_boundary(logits_fn: Logits, point: tf.Tensor, y: tf.Tensor, norm: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what `_boundary_with` does, for the class whose linearized boundary is the nearest."""
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = tf.cast(logits_fn(point), tf.float32)
    true = losses.true_class(y)
    num_classes = tf.shape(logits)[-1]

    def compare(number: tf.Tensor, nearest: tf.Tensor, gap: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, ...]:
        other = tf.cast(number, true.dtype)
        other = tf.where(other < true, other, other + 1)  # the classes without the true one
        upstream = tf.one_hot(other, num_classes) - tf.one_hot(true, num_classes)
        # No product with `upstream`: 0 times a logit that is not finite is not 0.
        new_gap = tf.gather(logits, other, batch_dims=1) - tf.gather(logits, true, batch_dims=1)
        new_slope = tape.gradient(logits, point, upstream, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        new_slope = _finite(new_slope)
        steepness = norms.of(norm).dual_length(new_slope)
        distance = tf.where(steepness > 0.0, tf.abs(new_gap) / steepness, float("inf"))
        nearer = distance < nearest
        return (
            number + 1,
            tf.where(nearer, distance, nearest),
            tf.where(nearer, new_gap, gap),
            choose(nearer, new_slope, slope),
        )

    nowhere = tf.zeros(tf.shape(point)[:1])
    _, _, gap, slope = tf.while_loop(
        lambda number, *_: number < num_classes - 1,
        compare,
        (tf.constant(0), nowhere + float("inf"), nowhere, tf.zeros_like(point)),
    )
    return gap, slope


def to_hyperplane(images: tf.Tensor, gap: tf.Tensor, slope: tf.Tensor, norm: str) -> tf.Tensor:
    """Returns the smallest change of each image that brings it to a hyperplane and keeps it within [0, 1].

    The hyperplane is where `gap + <slope, change>` is 0. If it lies outside of [0, 1], the change goes as far as it
    can. If the slope is 0, so is the change.

    The best change of pixel i is min(s * rate_i, room_i) in the direction that helps. `room` is the way to the border,
    and `rate` is 1 in L-infinity and |slope_i| in L2. The part of the gap that it closes is concave and piecewise
    linear in s. So Newton's method from 0 grows to the exact solution in few steps, without sorting pixels. An image
    that has reached its solution stays there while others go on.

    Args:
        images: (B, H, W, C) in [0, 1].
        gap: (B,), finite.
        slope: (B, H, W, C), finite.
        norm: "linf" or "l2", in which the change is the smallest.
    """
    steepest = tf.reduce_max(tf.abs(slope), axis=(1, 2, 3), keepdims=True)  # squares of small slopes would underflow
    slope = tf.math.divide_no_nan(slope, steepest)
    gap = tf.math.divide_no_nan(gap[:, None, None, None], steepest)
    way = -tf.sign(gap) * tf.sign(slope)
    room = tf.where(way > 0.0, 1.0 - images, images)
    weight = tf.abs(slope)
    at_border = weight * room
    rate, gain, stops_at = GROWTH[norm](weight, room)
    needed = tf.minimum(tf.abs(gap), _total(at_border))

    def grow(scale: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        moves = scale < stops_at
        missing = needed - _total(tf.where(moves, 0.0, at_border))
        grown = tf.maximum(scale, tf.math.divide_no_nan(missing, _total(tf.where(moves, gain, 0.0))))
        return grown, tf.reduce_any(grown > scale)

    scale, _ = tf.while_loop(lambda _, grows: grows, grow, (tf.zeros_like(gap), tf.constant(True)))
    return way * tf.minimum(scale * rate, room)


def _total(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values, axis=(1, 2, 3), keepdims=True)


def _finite(values: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(values), values, 0.0)
