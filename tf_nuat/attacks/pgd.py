"""PGD, projected gradient descent (Madry et al., 2018)."""

import tensorflow as tf

from tf_nuat import losses
from tf_nuat.attacks import base


@base.attack
def pgd(
    logits_fn,
    x,
    y,
    *,
    epsilon,
    step_size=None,
    steps=40,
    random_start=True,
    restarts=1,
    seed=0,
    start=None,
    norm="linf",
):
    """Returns, for each image, the best of all the points that `restarts` ascents of `steps` steps went through.

    Each ascent follows the gradient of the cross-entropy, in L-infinity its sign. The best point is the one with the
    largest margin (largest wrong logit minus the true one): an adversary that was found on the way is never lost again.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, above 0.
        step_size: length of a step, above 0; default `2.5 * epsilon / steps`.
        steps: number of steps, at least 1.
        random_start: start from a uniform draw from the ball, else from x.
        restarts: number of ascents, at least 1, each from a draw of its own.
        seed: whole number, at least 0; the same seed draws the same starts.
        start: images to begin the first ascent at.
        norm: "linf" or "l2", the norm of the ball and of a step.

    Raises:
        ValueError: an argument is out of its range.
    """
    step_size = 2.5 * epsilon / tf.cast(steps, tf.float32) if step_size is None else step_size
    project = base.projection(x, epsilon, norm)
    objective = base.cross_entropy_of(logits_fn, y)

    def keep_best(x_adv, margin, best, best_margin):
        better = margin > best_margin
        return tf.where(better[:, None, None, None], x_adv, best), tf.where(better, margin, best_margin)

    def step(taken, x_adv, best, best_margin):
        gradient, logits = base.input_gradient(objective, x_adv)
        best, best_margin = keep_best(x_adv, losses.margin(logits, y), best, best_margin)
        return taken + 1, project(x_adv + step_size * base.direction(gradient, norm)), best, best_margin

    def ascent(restart, best, best_margin):
        first = x
        if random_start:
            own_seed = tf.random.experimental.stateless_fold_in(base.seed_pair(seed), restart)
            first = base.random_point(x, epsilon, own_seed, norm)
        if start is not None:
            first = tf.where(tf.equal(restart, 0), project(start), first)
        _, x_adv, best, best_margin = tf.while_loop(
            lambda taken, *_: taken < steps, step, (tf.constant(0), first, best, best_margin)
        )
        best, best_margin = keep_best(x_adv, losses.margin(logits_fn(x_adv), y), best, best_margin)
        return restart + 1, best, best_margin

    nothing_yet = tf.fill(tf.shape(x)[:1], -tf.float32.max)
    _, best, _ = tf.while_loop(lambda restart, *_: restart < restarts, ascent, (tf.constant(0), x, nothing_yet))
    return best
