"""DeepFool, the walk to the nearest decision boundary in L2 (Moosavi-Dezfooli et al., 2016)."""

from typing import NamedTuple

import tensorflow as tf

from tf_nuat import losses, norms
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.search import Search, choose
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits

# The shortest step towards a boundary: a point on the boundary, or within rounding of it, has to cross it.
SHORTEST = 1e-4


@attack(
    overshoot=lambda name, value: validation.number(name, value, at_least=0.0),
    classes=lambda name, value: validation.whole_number(name, value, at_least=2),
    norms=("l2",),
)
def deepfool(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float | None = None,
    steps: int = 50,
    overshoot: float = 0.005,
    classes: int = 10,
    norm: str = "l2",
) -> Search:
    """Returns the adversary that DeepFool finds for each image, or x if it finds none.

    A step linearizes the network at the current point and goes to the nearest boundary with another class. The paper
    ignores [0, 1]. Here a pixel stops at 0 or 1, and the others make up for it. On a linear network with two classes
    this leads to the nearest point of the boundary within [0, 1].

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0: an adversary farther from x does not count. None for any distance.
        steps: largest number of steps, at least 1; a step takes a forward pass and a gradient for each wrong class.
        overshoot: how far beyond the boundary an image goes, as a share of its distance from x, at least 0. The paper's
            0.02 makes the result 2 % farther than necessary; 0.005 is still well beyond rounding.
        classes: how many classes are considered, at least 2: the true one and the wrong ones with the highest logits.
        norm: "l2", the only one.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.deepfool(network, x[:4], y[:4], epsilon=0.1, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """

    def beyond(change: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(x + (1.0 + overshoot) * change, 0.0, 1.0)

    def within(images: tf.Tensor) -> tf.Tensor:
        if epsilon is None:
            return tf.ones(tf.shape(images)[:1], tf.bool)
        return norms.of(norm).length(images - x) <= epsilon

    def first() -> _State:
        nothing = tf.zeros(tf.shape(x)[:1], tf.int32)
        return _State(x_adv=x, fooled=nothing > 0, spent=nothing > 0, taken=nothing, change=tf.zeros_like(x))

    def step(state: _State) -> _State:
        images = beyond(state.change)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = tf.cast(logits_fn(images), tf.float32)
        todo = ~(state.fooled | state.spent)
        found = todo & losses.fooled(logits, y)
        goes_on = todo & ~found
        considered = tf.where(tf.reduce_any(goes_on), classes, 1)
        distance, _, towards = nearest_boundary(tape, logits, images, y, considered)
        in_sight = tf.math.is_finite(distance)
        size = tf.where(in_sight, tf.maximum(distance, SHORTEST), 0.0)[:, None, None, None]
        change = tf.clip_by_value(x + state.change + size * towards, 0.0, 1.0) - x

        # The last point is a candidate: the caller of the search checks its logits.
        ends = goes_on & (state.taken + 1 >= steps)
        candidate = choose(ends, beyond(change), images)
        candidate_within = within(candidate)
        return _State(
            x_adv=choose((found | ends) & candidate_within, candidate, state.x_adv),
            fooled=state.fooled | (found & candidate_within),
            spent=state.spent | (found & ~candidate_within) | ends | (goes_on & ~in_sight),
            taken=state.taken + 1,
            change=change,
        )

    return Search(first, step)


class _State(NamedTuple):
    """Images that are `(1 + overshoot) * change` away from x after `taken` steps."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor
    taken: tf.Tensor
    change: tf.Tensor


def nearest_boundary(
    tape: tf.GradientTape, logits: tf.Tensor, images: tf.Tensor, y: tf.Tensor, classes: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the distance (B,) of the nearest linearized boundary, the class beyond it, and the direction to it.

    The direction (B, H, W, C) has length 1, not counting pixels that cannot move because of [0, 1]. If there is no
    boundary in sight, the distance is infinite, the direction 0, and the class the wrong one with the highest logit.

    Args:
        tape: a persistent tape that has recorded how `logits` (B, K) follow from `images`.
        classes: how many classes to consider, the true one included; a scalar.
    """
    num_classes = tf.shape(logits)[-1]
    true = tf.one_hot(losses.true_class(y), num_classes)
    gaps = logits - tf.reduce_sum(tf.where(true > 0.0, logits, 0.0), axis=-1, keepdims=True)
    wrong = tf.where(true > 0.0, -float("inf"), gaps)
    gaps, ranked = tf.math.top_k(wrong, tf.minimum(classes, num_classes) - 1)

    def consider(number: tf.Tensor, nearest: tf.Tensor, beyond: tf.Tensor, towards: tf.Tensor) -> tuple[tf.Tensor, ...]:
        gradient = tape.gradient(
            logits,
            images,
            output_gradients=tf.one_hot(ranked[:, number], num_classes) - true,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        # Squares of small gradients underflow; squares of gradients divided by their largest entry do not.
        largest = tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3))
        scaled = tf.math.divide_no_nan(gradient, largest[:, None, None, None])
        moves = tf.where(scaled > 0.0, images < 1.0, images > 0.0)
        length = tf.sqrt(tf.reduce_sum(tf.where(moves, tf.square(scaled), 0.0), axis=(1, 2, 3)))
        distance = tf.abs(gaps[:, number]) / (largest * length)
        nearer = distance < nearest  # false for NaN
        scaled = tf.math.divide_no_nan(scaled, length[:, None, None, None])
        return (
            number + 1,
            tf.where(nearer, distance, nearest),
            tf.where(nearer, ranked[:, number], beyond),
            choose(nearer, scaled, towards),
        )

    unseen = tf.fill(tf.shape(images)[:1], float("inf"))
    highest = tf.argmax(wrong, axis=-1, output_type=tf.int32)
    _, *nearest = tf.while_loop(
        lambda number, *_: number < tf.shape(ranked)[1],
        consider,
        (tf.constant(0), unseen, highest, tf.zeros_like(images)),
    )
    return nearest
