"""The ascents of APGD: where they start, what a step is, and when the step size changes.

Where the papers and their published code disagree, this follows the code. A checkpoint halves the step size if *at
most* the share `RHO` of the steps increased the loss. The first checkpoint does not halve it for want of a new best
loss. After a halving, the best iterate replaces the iterate of the checkpoint, before its step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_nuat import draws, norms
from tf_nuat.attacks.search import choose

# Percentages of the steps at which the step size is reconsidered: p_1 = 22, p_{j+1} = p_j + max(p_j - p_{j-1} - 3, 6).
CHECKPOINTS = (22, 41, 57, 70, 80, 87, 93, 99)
MOMENTUM = 0.75  # weight of the new step; the previous change has the rest
RHO = 0.75


class HalvedState(NamedTuple):
    """An ascent of each image after `taken` steps. Shapes are (B,), (B, H, W, C) for images, or as noted."""

    taken: tf.Tensor
    step_size: tf.Tensor  # (B, 1, 1, 1)
    best: tf.Tensor  # the iterate with the largest loss
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    checked: tf.Tensor  # the step of the last checkpoint
    previous: tf.Tensor  # the iterate before this one
    loss: tf.Tensor  # of the iterate before this one
    increases: tf.Tensor  # steps since the last checkpoint that increased the loss
    loss_when_checked: tf.Tensor  # best_loss at the last checkpoint
    halved: tf.Tensor  # whether the last checkpoint halved the step size


class HalvedSteps:
    """Steps with momentum, whose length is halved at checkpoints (Croce and Hein, 2020).

    Args:
        x: the clean images (B, H, W, C).
        epsilon: radius of the ball.
        steps: number of steps of an ascent.
        norm: name of the norm.

    Attributes:
        moves: number of moves of an ascent. A gradient follows each of them but the last.
    """

    def __init__(self, x: tf.Tensor, epsilon: tf.Tensor | float, steps: tf.Tensor | int, norm: str) -> None:
        self._x, self._epsilon, self._norm = x, epsilon, norms.of(norm)
        self._project = self._norm.projection(x, epsilon)
        self.moves = steps

    def start(self, keys: tf.Tensor) -> tf.Tensor:
        """Returns a random start on the sphere, cut to [0, 1], drawn with the keys (B, 2) of the images."""
        return tf.clip_by_value(self._x + self._epsilon * self._norm.random_direction(self._x, keys), 0.0, 1.0)

    def begin(self, start: tf.Tensor) -> HalvedState:
        """Returns the state of an ascent which begins at `start`."""
        per_image = tf.zeros(tf.shape(start)[:1])
        unknown = per_image - tf.float32.max
        nothing = tf.cast(per_image, tf.int32)
        return HalvedState(
            taken=nothing,
            step_size=2.0 * self._epsilon * tf.ones_like(per_image)[:, None, None, None],
            best=start,
            best_gradient=tf.zeros_like(start),
            best_loss=unknown,
            checked=nothing,
            previous=start,
            loss=-unknown,
            increases=nothing,
            loss_when_checked=unknown,
            halved=nothing == 0,
        )

    def is_candidate(self, ascent: HalvedState) -> tf.Tensor:
        """Returns whether the iterate is an adversary if it fools the network (B,): always, as it is in the ball."""
        return ascent.taken >= 0

    def move(
        self, x_adv: tf.Tensor, ascent: HalvedState, gradient: tf.Tensor, loss: tf.Tensor
    ) -> tuple[tf.Tensor, HalvedState]:
        """Returns the iterate and the state after a step from x_adv, with the gradient and the loss (B,) there."""
        increases = ascent.increases + tf.cast(loss > ascent.loss, tf.int32)
        ascent = _keep_best(x_adv, ascent._replace(loss=loss, increases=increases), gradient, loss)
        origin, gradient, ascent = self._check(x_adv, ascent, gradient)
        new = self._project(origin + ascent.step_size * self._norm.steepest(gradient)) - origin
        share = tf.where(tf.equal(ascent.taken, 0), 1.0, MOMENTUM)[:, None, None, None]
        x_adv = self._project(origin + share * new + (1.0 - share) * (origin - ascent.previous))
        return x_adv, ascent._replace(previous=origin, taken=ascent.taken + 1)

    def _check(
        self, x_adv: tf.Tensor, ascent: HalvedState, gradient: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, HalvedState]:
        """Returns the point to continue from, the gradient there and the state, after a checkpoint if one is due."""
        checkpoints = (tf.constant(CHECKPOINTS) * self.moves + 99) // 100
        due = tf.reduce_any(tf.equal(ascent.taken[:, None], checkpoints), axis=1)
        since = tf.cast(ascent.taken - ascent.checked, tf.float32)
        too_few = tf.cast(ascent.increases, tf.float32) <= RHO * since
        no_better = ~ascent.halved & (ascent.best_loss <= ascent.loss_when_checked)
        halve = due & (too_few | no_better)
        checked = ascent._replace(
            checked=tf.where(due, ascent.taken, ascent.checked),
            step_size=choose(halve, 0.5 * ascent.step_size, ascent.step_size),
            increases=tf.where(due, 0, ascent.increases),
            loss_when_checked=tf.where(due, ascent.best_loss, ascent.loss_when_checked),
            halved=tf.where(due, halve, ascent.halved),
        )
        return choose(halve, ascent.best, x_adv), choose(halve, ascent.best_gradient, gradient), checked


class SparseState(NamedTuple):
    """An ascent of each image after `taken` moves. Shapes are (B,), or (B, H, W, C) for images."""

    taken: tf.Tensor
    step_size: tf.Tensor
    best: tf.Tensor  # the iterate with the largest loss within the current radius
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    changed: tf.Tensor  # pixels in which the best iterate differed from x at the last checkpoint


class SparseSteps:
    """Steps along the largest entries of the gradient, in balls that shrink (Croce and Hein, "Mind the box", 2021).

    An ascent has three parts, of 30, 30 and 40 percent of the steps, in balls of radius 3, 2 and 1 epsilon. A part
    begins at the best iterate of the previous one, projected onto its ball. The sparser the best iterate is, the fewer
    pixels a step changes. If the best iterate has become 5 percent sparser at a checkpoint, the step size is reset to
    the radius, and the ascent continues from that iterate. Otherwise the step size is divided by 1.5, down to a tenth
    of the radius.

    Unlike in the published code, a step leaves out pixels at 0 or 1 that the gradient pushes out of [0, 1]. With them,
    an ascent can stall short of the optimum, even on a linear network.

    Args, Attributes:
        As for `HalvedSteps`. The two moves from one ball to the next are not steps: an ascent has two more moves.
    """

    def __init__(self, x: tf.Tensor, epsilon: tf.Tensor | float, steps: tf.Tensor | int, norm: str) -> None:
        self._x, self._epsilon, self._norm = x, epsilon, norms.of(norm)
        self.moves = steps + 2
        lengths = tf.minimum((3 * steps + 9) // 10, (steps - 1) // 2)  # of each of the first two parts
        self._begins = tf.stack([0, lengths + 1, 2 * lengths + 2])
        self._lengths = tf.stack([lengths, lengths, steps - 2 * lengths])

    def start(self, keys: tf.Tensor) -> tf.Tensor:
        """Returns a random start, x plus noise, projected, drawn with the keys (B, 2) of the images."""
        return self._norm.projection(self._x, 3.0 * self._epsilon)(self._x + draws.normal(self._x, keys))

    def begin(self, start: tf.Tensor) -> SparseState:
        """Returns the state of an ascent which begins at `start`."""
        return self._part(start, tf.zeros(tf.shape(start)[:1], tf.int32))

    def is_candidate(self, ascent: SparseState) -> tf.Tensor:
        """Returns whether the iterate is an adversary if it fools the network (B,): only in the last ball."""
        return self._number(ascent.taken) == 2

    def move(
        self, x_adv: tf.Tensor, ascent: SparseState, gradient: tf.Tensor, loss: tf.Tensor
    ) -> tuple[tf.Tensor, SparseState]:
        """Returns the iterate and the state after a move from x_adv, with the gradient and the loss (B,) there."""
        ascent = _keep_best(x_adv, ascent, gradient, loss)
        origin, gradient, ascent = self._check(x_adv, ascent, gradient)
        pixels = tf.maximum((2 * ascent.changed + 2) // 3, 1)
        step = ascent.step_size[:, None, None, None] * norms.sign_of_largest(norms.inwards(origin, gradient), pixels)
        taken = ascent.taken + 1
        shrinks = self._number(taken) > self._number(ascent.taken)
        project = self._norm.projection(self._x, self._radius(taken))
        x_adv = project(choose(shrinks, ascent.best, origin + step))
        moved = tf.nest.map_structure(
            lambda new, old: choose(shrinks, new, old), self._part(x_adv, taken), ascent._replace(taken=taken)
        )
        return x_adv, moved

    def _number(self, taken: tf.Tensor) -> tf.Tensor:
        """Returns which part, 0 to 2, the iterate after `taken` moves belongs to (B,)."""
        return tf.reduce_sum(tf.cast(taken[:, None] >= self._begins, tf.int32), axis=1) - 1

    def _radius(self, taken: tf.Tensor) -> tf.Tensor:
        return self._epsilon * tf.cast(3 - self._number(taken), tf.float32)

    def _changed(self, images: tf.Tensor) -> tf.Tensor:
        return tf.math.count_nonzero(images != self._x, axis=(1, 2, 3), dtype=tf.int32)

    def _part(self, start: tf.Tensor, taken: tf.Tensor) -> SparseState:
        """Returns the state at the beginning of a part, after `taken` moves (B,)."""
        return SparseState(
            taken=taken,
            step_size=self._radius(taken),
            best=start,
            best_gradient=tf.zeros_like(start),
            best_loss=tf.fill(tf.shape(taken), -tf.float32.max),
            changed=self._changed(start),
        )

    def _check(
        self, x_adv: tf.Tensor, ascent: SparseState, gradient: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, SparseState]:
        """Returns the point to continue from, the gradient there and the state, after a checkpoint if one is due."""
        number = self._number(ascent.taken)
        steps = ascent.taken - tf.gather(self._begins, number)
        every = tf.maximum(4 * tf.gather(self._lengths, number) // 100, 1)
        due = (steps > 0) & (steps % every == 0)
        changed, radius = self._changed(ascent.best), self._radius(ascent.taken)
        is_sparser = due & (tf.cast(changed, tf.float32) < 0.95 * tf.cast(ascent.changed, tf.float32))
        smaller = tf.maximum(ascent.step_size / 1.5, radius / 10.0)
        checked = ascent._replace(
            step_size=tf.where(is_sparser, radius, tf.where(due, smaller, ascent.step_size)),
            changed=tf.where(due, changed, ascent.changed),
        )
        return choose(is_sparser, ascent.best, x_adv), choose(is_sparser, ascent.best_gradient, gradient), checked


def _keep_best(x_adv: tf.Tensor, ascent: Any, gradient: tf.Tensor, loss: tf.Tensor) -> Any:
    """Returns the state, with x_adv as the best iterate of the images whose loss is the largest so far."""
    better = loss > ascent.best_loss
    return ascent._replace(
        best=choose(better, x_adv, ascent.best),
        best_gradient=choose(better, gradient, ascent.best_gradient),
        best_loss=tf.where(better, loss, ascent.best_loss),
    )


# Name of the norm -> class of the steps, which takes images, epsilon, the number of steps and that name.
STEPS: dict[str, Callable[..., Any]] = {"linf": HalvedSteps, "l2": HalvedSteps, "l1": SparseSteps}
