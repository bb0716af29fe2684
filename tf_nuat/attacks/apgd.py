"""APGD, projected gradient descent that chooses its own step sizes (Croce and Hein, 2020).

Three attacks that differ in the loss they increase. The paper and its published code disagree in small things; where
they do this is the code's way: it halves the step where *at most* the share `RHO` of the steps increased the loss, not
at the first checkpoint for want of a new best loss, and what restarts from the best is the iterate of the checkpoint.
"""

import typing

import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.ascent import input_gradient
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.search import Search, choose

# Percentages of the steps at which the step size is reconsidered: p_1 = 22, p_{j+1} = p_j + max(p_j - p_{j-1} - 3, 6).
CHECKPOINTS = (22, 41, 57, 70, 80, 87, 93, 99)
MOMENTUM = 0.75  # the share of the new step; the rest is that of the change before
RHO = 0.75


@attack
def apgd_ce(logits_fn, x, y, *, epsilon, steps=100, restarts=1, eot_iterations=1, seed=0, norm="linf"):
    """Returns an adversary of each image that APGD finds along the cross-entropy, and x where it finds none.

    It is the first one that an ascent goes through.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, above 0.
        steps: number of steps of an ascent, at least 1. An ascent takes as many gradients, and one forward more.
        restarts: number of ascents at most, at least 1, each from a draw of its own.
        eot_iterations: number of times, at least 1, that a gradient, its loss and its logits are computed and averaged:
            more than 1 for a network that draws random numbers (expectation over transformations, Athalye et al.,
            2018).
        seed: whole number, at least 0; the same seed draws the same starts.
        norm: "linf" or "l2", the norm of the ball and of a step.

    Raises:
        ValueError: an argument is out of its range.
    """

    return _search(
        logits_fn, x, y, losses.cross_entropy, epsilon, steps, restarts, seed, norm, eot_iterations=eot_iterations
    )


@attack
def apgd_dlr(logits_fn, x, y, *, epsilon, steps=100, restarts=1, eot_iterations=1, seed=0, norm="linf"):
    """Returns what `apgd_ce` does, with the ascent along `losses.dlr`.

    Args:
        logits_fn: as in `apgd_ce`, of at least 3 classes.
        x, y, epsilon, steps, restarts, eot_iterations, seed, norm: as in `apgd_ce`.

    Raises:
        ValueError: an argument is out of its range, or there are fewer than 3 classes.
    """

    return _search(logits_fn, x, y, losses.dlr, epsilon, steps, restarts, seed, norm, eot_iterations=eot_iterations)


@attack
def apgd_t(logits_fn, x, y, *, epsilon, steps=100, restarts=1, targets=9, seed=0, norm="linf"):
    """Returns what `apgd_ce` does, with ascents along `losses.targeted_dlr`, towards one wrong class after the other.

    The targets are the wrong classes with the highest logits at x, the highest first.

    Args:
        logits_fn: as in `apgd_ce`, of at least 4 classes.
        x, y, epsilon, steps, seed, norm: as in `apgd_ce`.
        restarts: number of ascents towards a target.
        targets: number of targets, at least 1; all wrong classes where there are no more than that.

    Raises:
        ValueError: an argument is out of its range, or there are fewer than 4 classes.
    """
    return _search(logits_fn, x, y, None, epsilon, steps, restarts, seed, norm, targets=targets)


def _search(logits_fn, x, y, loss, epsilon, steps, restarts, seed, norm, *, targets=1, eot_iterations=1):
    """Returns the search of `restarts` ascents at most along `loss`, or towards each of `targets` classes without one.

    Args:
        loss: function of logits (B, K) and labels, what to increase (B,); None for `losses.targeted_dlr`.
    """
    project = norms.of(norm).projection(x, epsilon)
    keys = draws.image_keys(seed, x)

    def start_of(run):
        return tf.clip_by_value(x + epsilon * norms.of(norm).random_direction(x, draws.fold_in(keys, run)), 0.0, 1.0)

    def first():
        none = tf.zeros(tf.shape(x)[:1], tf.int32)
        start, fooled, runs, ranked = start_of(none), none > 0, none + restarts, none[:, None]
        if loss is None:
            clean = tf.cast(logits_fn(x), tf.float32)
            ranked = losses.wrong_classes(clean, y)
            runs *= tf.minimum(targets, tf.shape(ranked)[1])
            fooled = losses.margin(clean, y) > 0.0
        ascent = _ascent(choose(fooled, x, start), epsilon)
        return _State(fooled=fooled, spent=none > 0, run=none, runs=runs, ranked=ranked, **ascent)

    def step(state):
        def loss_of(logits):
            if loss is not None:
                return loss(logits, y)
            target = tf.gather(state.ranked, tf.minimum(state.run, state.runs - 1) // restarts, batch_dims=1)
            return losses.targeted_dlr(logits, y, target)

        def objective(images):
            logits = logits_fn(images)
            return loss_of(logits), logits

        gradient, logits, value = _averaged(objective, loss_of, state.x_adv, eot_iterations)
        fooled = state.fooled | (~state.spent & (losses.margin(logits, y) > 0.0))
        origin, gradient, moved = _check(_keep_best(state, gradient, value), gradient, steps)
        new = project(origin + moved.step_size * norms.of(norm).steepest(gradient)) - origin
        share = tf.where(tf.equal(state.taken, 0), 1.0, MOMENTUM)[:, None, None, None]
        x_adv = project(origin + share * new + (1.0 - share) * (origin - state.previous))
        moved = moved._replace(x_adv=x_adv, previous=origin, taken=state.taken + 1)

        # The gradient of an ascent's last point was for its logits, where another ascent follows.
        ends = (state.taken >= steps) & ~fooled & ~state.spent
        moved = moved._replace(run=state.run + tf.cast(ends, tf.int32))
        moved = tf.cond(
            tf.reduce_any(ends),
            lambda: _replace_where(ends, moved, _ascent(start_of(moved.run), epsilon)),
            lambda: moved,
        )
        return moved._replace(
            x_adv=choose(fooled | state.spent, state.x_adv, moved.x_adv),
            fooled=fooled,
            # The last point of the last ascent is a candidate: whoever runs the search looks at its logits.
            spent=state.spent | (~fooled & (moved.taken >= steps) & (moved.run + 1 >= state.runs)),
        )

    return Search(first, step)


def _averaged(objective, loss_of, x_adv, eot_iterations):
    """Returns gradient, logits and loss at x_adv, each the mean of so many eot_iterations."""

    def one_pass():
        gradient, logits = input_gradient(objective, x_adv)
        return gradient, tf.cast(logits, tf.float32), loss_of(logits)

    if eot_iterations == 1:
        return one_pass()
    _, sums = tf.while_loop(
        lambda done, _: done < eot_iterations,
        lambda done, sums: (done + 1, tuple(one + other for one, other in zip(sums, one_pass()))),
        (tf.constant(1), one_pass()),
    )
    return tuple(each / eot_iterations for each in sums)


class _State(typing.NamedTuple):
    """An ascent of each image after `taken` steps; all are (B,) but images (B, H, W, C) and what says otherwise."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor
    run: tf.Tensor  # number of the ascent
    runs: tf.Tensor  # of ascents at most
    ranked: tf.Tensor  # (B, K - 1), the wrong classes, where they are targets
    taken: tf.Tensor
    checked: tf.Tensor  # the step of the last checkpoint
    previous: tf.Tensor  # the iterate before x_adv
    loss: tf.Tensor  # of the iterate before x_adv
    step_size: tf.Tensor  # (B, 1, 1, 1)
    best: tf.Tensor  # the iterate with the largest loss
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    increases: tf.Tensor  # steps since the last checkpoint that increased the loss
    loss_when_checked: tf.Tensor  # best_loss at the last checkpoint
    halved: tf.Tensor  # whether the last checkpoint halved the step size


def _ascent(start, epsilon):
    """Returns the fields of the state that belong to an ascent which begins at `start`, as a dict."""
    per_image = tf.zeros(tf.shape(start)[:1])
    unknown = per_image - tf.float32.max
    nothing = tf.cast(per_image, tf.int32)
    return {
        "x_adv": start,
        "taken": nothing,
        "checked": nothing,
        "previous": start,
        "loss": -unknown,
        "step_size": 2.0 * epsilon * tf.ones_like(per_image)[:, None, None, None],
        "best": start,
        "best_gradient": tf.zeros_like(start),
        "best_loss": unknown,
        "increases": nothing,
        "loss_when_checked": unknown,
        "halved": nothing == 0,
    }


def _replace_where(condition, state, fields):
    changed = {name: choose(condition, value, getattr(state, name)) for name, value in fields.items()}
    return state._replace(**changed)


def _keep_best(state, gradient, loss):
    better = loss > state.best_loss
    return state._replace(
        loss=loss,
        increases=state.increases + tf.cast(loss > state.loss, tf.int32),
        best=choose(better, state.x_adv, state.best),
        best_gradient=choose(better, gradient, state.best_gradient),
        best_loss=tf.where(better, loss, state.best_loss),
    )


def _check(state, gradient, steps):
    """Returns where to go on from, the gradient there, and the state, after the checkpoint of this step, if any."""
    checkpoints = (tf.constant(CHECKPOINTS) * steps + 99) // 100
    due = tf.reduce_any(tf.equal(state.taken[:, None], checkpoints), axis=1)
    since = tf.cast(state.taken - state.checked, tf.float32)
    too_few = tf.cast(state.increases, tf.float32) <= RHO * since
    no_better = ~state.halved & (state.best_loss <= state.loss_when_checked)
    halve = due & (too_few | no_better)
    checked = state._replace(
        checked=tf.where(due, state.taken, state.checked),
        step_size=choose(halve, 0.5 * state.step_size, state.step_size),
        increases=tf.where(due, 0, state.increases),
        loss_when_checked=tf.where(due, state.best_loss, state.loss_when_checked),
        halved=tf.where(due, halve, state.halved),
    )
    return choose(halve, state.best, state.x_adv), choose(halve, state.best_gradient, gradient), checked
