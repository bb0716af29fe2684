"""APGD, projected gradient descent that chooses its own step sizes (Croce and Hein, 2020).

The three attacks differ in the loss they increase. `tf_nuat.attacks.apgd_steps` has the steps of their ascents.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_nuat import draws, losses
from tf_nuat.attacks.apgd_steps import STEPS
from tf_nuat.attacks.ascent import input_gradient
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.search import Search, choose
from tf_nuat.models.inference import Logits

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # logits (B, K), labels -> values (B,)


@attack(norms=tuple(STEPS))
def apgd_ce(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: tf.Tensor | float,
    steps: tf.Tensor | int = 100,
    restarts: tf.Tensor | int = 1,
    eot_iterations: int = 1,
    seed: tf.Tensor | int = 0,
    norm: str = "linf",
) -> Search:
    """Returns the first adversary that APGD along the cross-entropy finds for each image, or x if it finds none.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        steps: number of steps per ascent, at least 1. An ascent computes one gradient per step, and one more forward
            pass; in L1, two more gradients.
        restarts: largest number of ascents, at least 1, each from its own random start.
        eot_iterations: number of passes, at least 1, over which each gradient, its loss and its logits are averaged.
            Use more than 1 for a network that draws random numbers (expectation over transformations, Athalye et al.,
            2018).
        seed: whole number, at least 0 and below 2**31; the same seed draws the same starts.
        norm: "linf", "l2" or "l1" (Croce and Hein, "Mind the box", 2021), the norm of the ball and of a step.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.apgd_ce(network, x[:4], y[:4], epsilon=0.1, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    return _search(
        logits_fn, x, y, losses.cross_entropy, epsilon, steps, restarts, seed, norm, eot_iterations=eot_iterations
    )


@attack(norms=tuple(STEPS))
def apgd_dlr(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: tf.Tensor | float,
    steps: tf.Tensor | int = 100,
    restarts: tf.Tensor | int = 1,
    eot_iterations: int = 1,
    seed: tf.Tensor | int = 0,
    norm: str = "linf",
) -> Search:
    """Returns what `apgd_ce` does, but increases `losses.dlr` instead of the cross-entropy.

    Args:
        logits_fn: as in `apgd_ce`, with at least 3 classes.
        x, y, epsilon, steps, restarts, eot_iterations, seed, norm: as in `apgd_ce`.

    Raises:
        ValueError: an argument is out of its range, or there are fewer than 3 classes.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.apgd_dlr(network, x[:4], y[:4], epsilon=0.1, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    return _search(logits_fn, x, y, losses.dlr, epsilon, steps, restarts, seed, norm, eot_iterations=eot_iterations)


@attack(norms=tuple(STEPS))
def apgd_t(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: tf.Tensor | float,
    steps: tf.Tensor | int = 100,
    restarts: tf.Tensor | int = 1,
    targets: tf.Tensor | int = 9,
    seed: tf.Tensor | int = 0,
    norm: str = "linf",
) -> Search:
    """Returns what `apgd_ce` does, but increases `losses.targeted_dlr`, towards one wrong class after another.

    The targets are the wrong classes with the highest logits at x, the highest first.

    Args:
        logits_fn: as in `apgd_ce`, with at least 4 classes.
        x, y, epsilon, steps, seed, norm: as in `apgd_ce`.
        restarts: largest number of ascents towards each target, at least 1.
        targets: largest number of targets, at least 1. If there are fewer wrong classes, all of them are targets.

    Raises:
        ValueError: an argument is out of its range, or there are fewer than 4 classes.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.apgd_t(network, x[:4], y[:4], epsilon=0.1, steps=3, targets=2)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    return _search(logits_fn, x, y, None, epsilon, steps, restarts, seed, norm, targets=targets)


class _State(NamedTuple):
    """The state of each image, with `run` ascents ended. Shapes are (B,), (B, H, W, C) for images, or as noted."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor
    run: tf.Tensor
    runs: tf.Tensor  # the largest number of ascents
    ranked: tf.Tensor  # (B, K - 1), the wrong classes, if the loss is targeted
    ascent: Any  # a `HalvedState` or a `SparseState`


def _search(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    loss: Loss | None,
    epsilon: tf.Tensor | float,
    steps: tf.Tensor | int,
    restarts: tf.Tensor | int,
    seed: tf.Tensor | int,
    norm: str,
    *,
    targets: tf.Tensor | int = 1,
    eot_iterations: int = 1,
) -> Search:
    """Returns a search: at most `restarts` ascents along `loss` or, if it is None, towards each of `targets` classes.

    Args:
        loss: function of logits (B, K) and labels that returns the values to increase (B,); None for
            `losses.targeted_dlr`.
    """
    ascents = STEPS[norm](x, epsilon, steps, norm)
    keys = draws.image_keys(seed, x)
    if loss is None:  # AutoAttack runs this after the cross-entropy: it should start elsewhere
        keys = draws.fold_in(keys, 1)

    def start_of(run: tf.Tensor) -> tf.Tensor:
        return ascents.start(draws.fold_in(keys, run))

    def first() -> _State:
        none = tf.zeros(tf.shape(x)[:1], tf.int32)
        start, fooled, runs, ranked = start_of(none), none > 0, none + restarts, none[:, None]
        if loss is None:
            clean = tf.cast(logits_fn(x), tf.float32)
            ranked = losses.wrong_classes(clean, y)
            runs *= tf.minimum(targets, tf.shape(ranked)[1])
            fooled = losses.fooled(clean, y)
        start = choose(fooled, x, start)
        return _State(start, fooled, none > 0, run=none, runs=runs, ranked=ranked, ascent=ascents.begin(start))

    def step(state: _State) -> _State:
        def loss_of(logits: tf.Tensor) -> tf.Tensor:
            if loss is not None:
                return loss(logits, y)
            target = tf.gather(state.ranked, tf.minimum(state.run, state.runs - 1) // restarts, batch_dims=1)
            return losses.targeted_dlr(logits, y, target)

        def objective(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = logits_fn(images)
            return loss_of(logits), logits

        gradient, logits, value = _averaged(objective, loss_of, state.x_adv, eot_iterations)
        found = ascents.is_candidate(state.ascent) & losses.fooled(logits, y)
        fooled = state.fooled | (~state.spent & found)
        x_adv, ascent = ascents.move(state.x_adv, state.ascent, gradient, value)

        # If another ascent follows, the gradient at the last point of this one was only computed for its logits.
        ends = (state.ascent.taken >= ascents.moves) & ~fooled & ~state.spent
        run = state.run + tf.cast(ends, tf.int32)
        x_adv, ascent = tf.cond(
            tf.reduce_any(ends),
            lambda: _begin_where(ends, ascents, start_of(run), x_adv, ascent),
            lambda: (x_adv, ascent),
        )
        return state._replace(
            x_adv=choose(fooled | state.spent, state.x_adv, x_adv),
            fooled=fooled,
            # The last point of the last ascent is a candidate: the caller of the search checks its logits.
            spent=state.spent | (~fooled & (ascent.taken >= ascents.moves) & (run + 1 >= state.runs)),
            run=run,
            ascent=ascent,
        )

    return Search(first, step)


def _begin_where(
    condition: tf.Tensor, ascents: Any, start: tf.Tensor, x_adv: tf.Tensor, ascent: Any
) -> tuple[tf.Tensor, Any]:
    """Returns `x_adv` and `ascent`, replaced by a new ascent from `start` where the condition (B,) holds."""
    begun = (start, ascents.begin(start))
    return tf.nest.map_structure(lambda new, old: choose(condition, new, old), begun, (x_adv, ascent))


def _averaged(
    objective: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    loss_of: Callable[[tf.Tensor], tf.Tensor],
    x_adv: tf.Tensor,
    eot_iterations: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns gradient, logits and loss at x_adv, each averaged over `eot_iterations` passes."""

    def one_pass() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        gradient, logits = input_gradient(objective, x_adv)
        return gradient, tf.cast(logits, tf.float32), loss_of(logits)

    if eot_iterations == 1:
        return one_pass()
    _, sums = tf.while_loop(
        lambda done, _: done < eot_iterations,
        lambda done, sums: (done + 1, tuple(one + other for one, other in zip(sums, one_pass()))),
        (tf.constant(1), one_pass()),
    )
    gradient, logits, loss = (each / eot_iterations for each in sums)
    return gradient, logits, loss
