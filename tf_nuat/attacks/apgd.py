"""APGD, projected gradient descent that chooses its own step sizes (Croce and Hein, 2020).

Three attacks that differ in the loss they increase. The paper and its published code disagree in small things; where
they do this is the code's way: it halves the step where *at most* the share `RHO` of the steps increased the loss, not
at the first checkpoint for want of a new best loss, and what restarts from the best is the iterate of the checkpoint.
"""

import typing

import tensorflow as tf

from tf_nuat import losses
from tf_nuat.attacks import base

# Percentages of the steps at which the step size is reconsidered: p_1 = 22, p_{j+1} = p_j + max(p_j - p_{j-1} - 3, 6).
CHECKPOINTS = (22, 41, 57, 70, 80, 87, 93, 99)
MOMENTUM = 0.75  # the share of the new step; the rest is that of the change before
RHO = 0.75


@base.attack
def apgd_ce(logits_fn, x, y, *, epsilon, steps=100, restarts=1, seed=0, norm="linf"):
    """Returns an adversary of each image that APGD finds along the cross-entropy, and x where it finds none.

    Of the points that the first ascent with an adversary went through it is the one with the largest margin.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, above 0.
        steps: number of steps of an ascent, at least 1. An ascent takes as many gradients, and one forward more.
        restarts: number of ascents at most, at least 1, each from a draw of its own; none is begun for a batch that is
            fooled already.
        seed: whole number, at least 0; the same seed draws the same starts.
        norm: "linf" or "l2", the norm of the ball and of a step.

    Raises:
        ValueError: an argument is out of its range.
    """

    def loss_of_run(run):
        return lambda logits: losses.cross_entropy(logits, y)

    nobody = tf.zeros(tf.shape(x)[:1], tf.bool)
    return _search(logits_fn, x, y, nobody, loss_of_run, restarts, epsilon, steps, seed, norm)


@base.attack
def apgd_dlr(logits_fn, x, y, *, epsilon, steps=100, restarts=1, seed=0, norm="linf"):
    """Returns what `apgd_ce` does, with the ascent along `losses.dlr`.

    Args:
        logits_fn: as in `apgd_ce`, of at least 3 classes.
        x, y, epsilon, steps, restarts, seed, norm: as in `apgd_ce`.

    Raises:
        ValueError: an argument is out of its range, or there are fewer than 3 classes.
    """

    def loss_of_run(run):
        return lambda logits: losses.dlr(logits, y)

    nobody = tf.zeros(tf.shape(x)[:1], tf.bool)
    return _search(logits_fn, x, y, nobody, loss_of_run, restarts, epsilon, steps, seed, norm)


@base.attack
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
    clean = tf.cast(logits_fn(x), tf.float32)
    num_classes = tf.shape(clean)[-1]
    wrong = tf.where(losses.one_hot(losses.true_class(y), num_classes) > 0.0, -float("inf"), clean)
    ranked = tf.argsort(wrong, direction="DESCENDING", stable=True)

    def loss_of_run(run):
        target = tf.gather(ranked, run // restarts, axis=1)
        return lambda logits: losses.targeted_dlr(logits, y, target)

    runs = restarts * tf.minimum(targets, num_classes - 1)
    fooled = losses.margin(clean, y) > 0.0
    return _search(logits_fn, x, y, fooled, loss_of_run, runs, epsilon, steps, seed, norm)


def _search(logits_fn, x, y, fooled, loss_of_run, runs, epsilon, steps, seed, norm):
    """Returns the adversaries that up to `runs` ascents find, x for those images that are `fooled` before the first.

    An image keeps what its first successful ascent has found, whatever others in the batch still need.

    Args:
        fooled: (B,), true for images that need no ascent.
        loss_of_run: function of the number of the ascent that returns the loss to increase, (B, K) -> (B,).
    """

    def ascent(run, adversary, fooled):
        own_seed = tf.random.experimental.stateless_fold_in(base.seed_pair(seed), run)
        start = tf.clip_by_value(x + epsilon * _random_on_the_sphere(x, own_seed, norm), 0.0, 1.0)
        found, margin = _ascend(logits_fn, x, y, start, loss_of_run(run), epsilon, steps, norm)
        return run + 1, _choose(fooled, adversary, found), fooled | (margin > 0.0)

    _, adversary, _ = tf.while_loop(
        lambda run, _, fooled: (run < runs) & ~tf.reduce_all(fooled), ascent, (tf.constant(0), x, fooled)
    )
    return adversary


def _random_on_the_sphere(x, seed, norm):
    """Returns a random change of each image of length 1: uniform draws over the largest, or a uniform direction."""
    if norm == "l2":
        return base.direction(base.random_normal(x, seed), norm)
    draws = base.random_point(0.5 * tf.ones_like(x), 0.5, seed) - 0.5
    return tf.math.divide_no_nan(draws, tf.reduce_max(tf.abs(draws), axis=(1, 2, 3), keepdims=True))


class _State(typing.NamedTuple):
    """An ascent after `taken` steps. All but the two numbers of steps are per image, (B,) or (B, H, W, C)."""

    taken: tf.Tensor
    checked: tf.Tensor  # the step of the last checkpoint
    x_adv: tf.Tensor
    previous: tf.Tensor  # the iterate before x_adv
    loss: tf.Tensor  # of the iterate before x_adv
    step_size: tf.Tensor  # (B, 1, 1, 1)
    best: tf.Tensor  # the iterate with the largest loss
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    increases: tf.Tensor  # steps since the last checkpoint that increased the loss
    loss_when_checked: tf.Tensor  # best_loss at the last checkpoint
    halved: tf.Tensor  # whether the last checkpoint halved the step size
    adversary: tf.Tensor  # the iterate with the largest margin above 0, x where there is none
    margin: tf.Tensor  # of the adversary, 0 where there is none


def _ascend(logits_fn, x, y, start, loss_of, epsilon, steps, norm):
    """Returns the iterate with the largest margin above 0, x where there is none, and that margin (B,) or 0."""
    project = base.projection(x, epsilon, norm)
    checkpoints = (tf.constant(CHECKPOINTS) * steps + 99) // 100

    def objective(images):
        logits = logits_fn(images)
        return loss_of(logits), logits

    def keep_adversary(state, logits):
        margin = losses.margin(logits, y)
        better = margin > state.margin
        return state._replace(
            adversary=_choose(better, state.x_adv, state.adversary), margin=tf.where(better, margin, state.margin)
        )

    def keep_best(state, gradient, loss):
        better = loss > state.best_loss
        return state._replace(
            loss=loss,
            increases=state.increases + tf.cast(loss > state.loss, tf.int32),
            best=_choose(better, state.x_adv, state.best),
            best_gradient=_choose(better, gradient, state.best_gradient),
            best_loss=tf.where(better, loss, state.best_loss),
        )

    def check(state, gradient):
        """Returns the state, and the gradient at its iterate, after the checkpoint at this step, where there is one."""
        due = tf.reduce_any(tf.equal(state.taken, checkpoints))
        since = tf.cast(state.taken - state.checked, tf.float32)
        too_few = tf.cast(state.increases, tf.float32) <= RHO * since
        no_better = ~state.halved & (state.best_loss <= state.loss_when_checked)
        halve = due & (too_few | no_better)
        checked = state._replace(
            checked=tf.where(due, state.taken, state.checked),
            x_adv=_choose(halve, state.best, state.x_adv),
            step_size=_choose(halve, 0.5 * state.step_size, state.step_size),
            increases=tf.where(due, 0, state.increases),
            loss_when_checked=tf.where(due, state.best_loss, state.loss_when_checked),
            halved=tf.where(due, halve, state.halved),
        )
        return checked, _choose(halve, state.best_gradient, gradient)

    def step(state):
        gradient, logits = base.input_gradient(objective, state.x_adv)
        state = keep_best(keep_adversary(state, logits), gradient, loss_of(logits))
        state, gradient = check(state, gradient)
        x_adv = state.x_adv
        new = project(x_adv + state.step_size * base.direction(gradient, norm)) - x_adv
        share = tf.where(tf.equal(state.taken, 0), 1.0, MOMENTUM)
        moved = project(x_adv + share * new + (1.0 - share) * (x_adv - state.previous))
        return (state._replace(taken=state.taken + 1, x_adv=moved, previous=x_adv),)

    per_image = tf.zeros(tf.shape(x)[:1])
    unknown = per_image - tf.float32.max
    first = _State(
        taken=tf.constant(0),
        checked=tf.constant(0),
        x_adv=start,
        previous=start,
        loss=-unknown,
        step_size=2.0 * epsilon * tf.ones_like(per_image)[:, None, None, None],
        best=start,
        best_gradient=tf.zeros_like(start),
        best_loss=unknown,
        increases=tf.zeros_like(per_image, tf.int32),
        loss_when_checked=unknown,
        halved=tf.ones_like(per_image, tf.bool),
        adversary=x,
        margin=per_image,
    )
    (last,) = tf.while_loop(lambda state: state.taken < steps, step, (first,))
    last = keep_adversary(last, logits_fn(last.x_adv))
    return last.adversary, last.margin


def _choose(condition, one, other):
    """Returns for each image (B, ...) `one` where the condition (B,) holds, else `other`."""
    return tf.where(condition[:, None, None, None], one, other)
