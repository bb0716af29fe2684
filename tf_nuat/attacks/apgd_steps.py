"""How an ascent of APGD goes: where it starts, what a step is, and when its length changes.

The paper and its published code disagree in small things; where they do this is the code's way: it halves the step
where *at most* the share `RHO` of the steps increased the loss, not at the first checkpoint for want of a new best
loss, and what restarts from the best is the iterate of the checkpoint.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_nuat import norms
from tf_nuat.attacks.search import choose

# Percentages of the steps at which the step size is reconsidered: p_1 = 22, p_{j+1} = p_j + max(p_j - p_{j-1} - 3, 6).
CHECKPOINTS = (22, 41, 57, 70, 80, 87, 93, 99)
MOMENTUM = 0.75  # the share of the new step; the rest is that of the change before
RHO = 0.75


class HalvedState(NamedTuple):
    """An ascent of each image after `taken` steps; all are (B,) but images (B, H, W, C) and what says otherwise."""

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
        moves: number of moves of an ascent: after each comes a gradient, but for the last.
    """

    def __init__(self, x: tf.Tensor, epsilon: tf.Tensor | float, steps: tf.Tensor | int, norm: str) -> None:
        self._x, self._epsilon, self._norm = x, epsilon, norms.of(norm)
        self._project = self._norm.projection(x, epsilon)
        self.moves = steps

    def start(self, keys: tf.Tensor) -> tf.Tensor:
        """Returns where an ascent begins, drawn by the keys (B, 2) of the images: on the sphere."""
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
        """Returns whether the iterate is an adversary (B,) if it fools the network: it is in the ball, always."""
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
        """Returns where to go on from, the gradient there, and the state, after the checkpoint of this step, if any."""
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


def _keep_best(x_adv: tf.Tensor, ascent: Any, gradient: tf.Tensor, loss: tf.Tensor) -> Any:
    """Returns the state with x_adv as the best iterate of the images whose loss is the largest there."""
    better = loss > ascent.best_loss
    return ascent._replace(
        best=choose(better, x_adv, ascent.best),
        best_gradient=choose(better, gradient, ascent.best_gradient),
        best_loss=tf.where(better, loss, ascent.best_loss),
    )


# By the name of the norm: what makes the steps from images, epsilon, the number of steps and that name.
STEPS: dict[str, Callable[..., Any]] = {"linf": HalvedSteps, "l2": HalvedSteps}
