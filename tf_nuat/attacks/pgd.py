"""PGD, projected gradient descent (Madry et al., 2018), along any of several losses."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.ascent import input_gradient
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.search import Search, choose
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits

# What to increase: functions of logits (B, K), labels, and the logits at x.
LOSSES = {
    "ce": lambda logits, y, _: losses.cross_entropy(logits, y),
    "margin": lambda logits, y, _: losses.margin(logits, y),
    "dlr": lambda logits, y, _: losses.dlr(logits, y),
    "kl": lambda logits, _, clean: losses.kl_divergence(clean, logits),
}


@attack(norms=tuple(norms.NORMS), loss=lambda name, value: validation.one_of(name, value, LOSSES))
def pgd(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: tf.Tensor | float,
    step_size: tf.Tensor | float | None = None,
    steps: tf.Tensor | int = 40,
    random_start: bool = True,
    restarts: tf.Tensor | int = 1,
    loss: str = "ce",
    target: tf.Tensor | None = None,
    seed: tf.Tensor | int = 0,
    start: tf.Tensor | None = None,
    norm: str = "linf",
) -> Search:
    """Returns the first adversary that `restarts` ascents of `steps` steps find for each image, or x if they find none.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        step_size: length of a step, above 0; default `2.5 * epsilon / steps`, in L1 `10 * epsilon / steps`.
        steps: number of steps, at least 1.
        random_start: whether ascents start from a uniform draw from the ball, or from x.
        restarts: largest number of ascents, at least 1, each from its own random start.
        loss: what an ascent increases: "ce", the cross-entropy; "margin", the largest wrong logit minus the true one
            (Carlini and Wagner, 2017); "dlr", the margin over a spread of logits (Croce and Hein, 2020); or "kl", the
            divergence from the prediction at x, the loss of TRADES, which is flat at x itself: use a random start.
        target: class to move each image towards, integers (B,): ascents decrease the cross-entropy with it, whatever
            `loss` is. None for any class but y. Either way, an adversary is an image that is not classified as y.
        seed: whole number, at least 0 and below 2**31; the same seed draws the same starts.
        start: images to begin the first ascent at.
        norm: the norm of the ball and of a step. In "linf" steps go along the sign of the gradient, in "l2" along the
            gradient, and in "l1" along the signs of its largest entries (SLIDE, Tramer and Boneh, 2019).

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.pgd(network, x[:4], y[:4], epsilon=0.1, step_size=0.02, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    step_size = norms.of(norm).way * epsilon / tf.cast(steps, tf.float32) if step_size is None else step_size
    project = norms.of(norm).projection(x, epsilon)
    keys = draws.image_keys(seed, x)

    def loss_of(logits: tf.Tensor, clean: tf.Tensor, taken: tf.Tensor) -> tf.Tensor:
        return LOSSES[loss](logits, y, clean) if target is None else -losses.cross_entropy(logits, target)

    return ascents(
        logits_fn,
        x,
        y,
        loss_of,
        lambda x_adv, gradient, taken: project(x_adv + norms.of(norm).step(x_adv, gradient, step_size)),
        lambda restart: norms.of(norm).random_point(x, epsilon, draws.fold_in(keys, restart)) if random_start else x,
        steps=steps,
        restarts=restarts,
        clean_of=(lambda logits: logits) if loss == "kl" and target is None else None,
        start=None if start is None else project(start),
    )


def ascents(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    loss_of: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    move: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    start_of: Callable[[tf.Tensor], tf.Tensor],
    *,
    steps: tf.Tensor | int,
    restarts: tf.Tensor | int,
    clean_of: Callable[[tf.Tensor], tf.Tensor] | None = None,
    start: tf.Tensor | None = None,
) -> Search:
    """Returns a search of at most `restarts` ascents, of `steps` steps each.

    Args:
        logits_fn, x, y: as in `pgd`.
        loss_of: function of logits (B, K), the result of `clean_of`, and the number of steps taken (B,), that returns
            the values to increase (B,).
        move: function of images, the gradient there, and the number of steps taken (B,), that returns the images after
            a step.
        start_of: function of the number of an ascent (B,) that returns its start.
        steps, restarts: scalar tensors.
        clean_of: function of the logits at x, float32 (B, K), whose result (B, ...) the loss needs. None if it needs
            none, which saves a forward pass.
        start: start of the first ascent; None for that of `start_of`.
    """

    def first() -> _State:
        restart = tf.zeros(tf.shape(x)[:1], tf.int32)
        return _State(
            x_adv=start_of(restart) if start is None else start,
            fooled=restart > 0,
            spent=restart > 0,
            restart=restart,
            taken=restart,
            clean=restart if clean_of is None else clean_of(tf.cast(logits_fn(x), tf.float32)),
        )

    def climb(state: _State) -> tuple[tf.Tensor, tf.Tensor]:
        def objective(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = logits_fn(images)
            return loss_of(logits, state.clean, state.taken), logits

        gradient, logits = input_gradient(objective, state.x_adv)
        return move(state.x_adv, gradient, state.taken), logits

    def step(state: _State) -> _State:
        moved, logits = climb(state)
        fooled = state.fooled | (~state.spent & losses.fooled(logits, y))
        ends = (state.taken >= steps) & ~fooled & ~state.spent  # this gradient was only for the last point's logits
        restart = state.restart + tf.cast(ends, tf.int32)
        moved = tf.cond(tf.reduce_any(ends), lambda: choose(ends, start_of(restart), moved), lambda: moved)
        taken = tf.where(ends, 0, state.taken + 1)
        return state._replace(
            x_adv=choose(fooled | state.spent, state.x_adv, moved),
            fooled=fooled,
            # The last point of the last ascent is a candidate: the caller of the search checks its logits.
            spent=state.spent | (~fooled & (taken >= steps) & (restart + 1 >= restarts)),
            restart=restart,
            taken=taken,
        )

    return Search(first, step, climb)


class _State(NamedTuple):
    """An ascent of each image: its number, the steps it has taken, and what the loss needs of the logits at x."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor
    restart: tf.Tensor
    taken: tf.Tensor
    clean: tf.Tensor
