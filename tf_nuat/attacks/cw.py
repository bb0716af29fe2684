"""The attack of Carlini and Wagner in L2 (2017): Adam looks for the nearest adversary, for one weight after another."""

from typing import NamedTuple

import tensorflow as tf

from tf_nuat import losses
from tf_nuat.attacks.ascent import input_gradient
from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.deepfool import nearest_boundary
from tf_nuat.attacks.search import Search, choose
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits

# As in the authors' code.
INSIDE = 0.999999  # pulls images towards gray before the inverse of tanh, which is infinite at black and white
BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8  # Adam
PARTS = 10  # how often a descent checks whether the loss still decreases
DECREASE = 0.9999
LARGEST = 1e10  # of the weights

# The lead of an adversary's logit, as a share of the largest logit, that survives rounding in another forward pass.
ROUNDING = 1e-5

CLASSES = 10  # considered for the nearest boundary, the true one included


@attack(
    searches=lambda name, value: validation.whole_number(name, value, at_least=1),
    initial_weight=lambda name, value: validation.number(name, value, above=0.0),
    confidence=lambda name, value: validation.number(name, value, at_least=0.0),
    norms=("l2",),
)
def cw(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float | None = None,
    steps: int = 1000,
    searches: int = 9,
    step_size: float = 0.01,
    initial_weight: float = 1e-3,
    confidence: float = 0.0,
    target: tf.Tensor | None = None,
    norm: str = "l2",
) -> Search:
    """Returns the nearest adversary that the Carlini-Wagner attack finds for each image, or x if it finds none.

    Adam decreases `|x_adv - x|^2 + weight * max(confidence + logits[y] - logits[k], 0)` over the inverse of tanh of the
    pixels, which keeps them in [0, 1]. The weight of an image is multiplied by 10 until a descent finds an adversary;
    bisection then looks for the smallest weight that does. A descent ends early if a tenth of its steps does not
    decrease the loss.

    The class k is the one with the nearest linearized boundary, as DeepFool estimates it. The authors attack one class
    after another and keep the nearest result. Their code follows the highest wrong logit, which may miss the nearest
    boundary even of a linear network. The adversary may be of any wrong class.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0: the search stops at the first adversary within it. None for the nearest
            adversary, at any distance.
        steps: largest number of steps of a descent, at least 1; a step takes one gradient. The authors' code has
            10,000, and 1,000 in its example.
        searches: number of descents, at least 1, each with a weight of its own.
        step_size: of Adam, above 0.
        initial_weight: the weight of the first descent, above 0.
        confidence: how far the highest wrong logit must exceed the true one, at least 0.
        target: class that the network should predict, integers (B,); None for any but y.
        norm: "l2", the only one.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.cw(network, x[:4], y[:4], epsilon=0.5, steps=3, searches=1)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    goal = _Goal(y, target, confidence)

    def first() -> _State:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = tf.cast(logits_fn(x), tf.float32)
        if target is None:
            _, towards, _ = nearest_boundary(tape, logits, x, y, CLASSES)
        else:
            towards = tf.cast(target, tf.int32)
        per_image = tf.zeros(tf.shape(x)[:1])
        farthest = per_image + (float("inf") if epsilon is None else tf.square(epsilon))
        return _State(
            x_adv=x,
            fooled=goal.is_reached(logits),
            spent=tf.equal(farthest, 0.0),
            shortest=farthest,
            towards=towards,
            search=tf.cast(per_image, tf.int32),
            weight=per_image + initial_weight,
            low=per_image,
            high=per_image + LARGEST,
            **_descent(x),
        )

    return Search(
        first,
        lambda state: _step(logits_fn, x, goal, state, epsilon=epsilon, steps=steps, searches=searches, size=step_size),
    )


class _Goal:
    """The condition that an adversary's logits have to meet; the arguments are those of the attack."""

    def __init__(self, y: tf.Tensor, target: tf.Tensor | None, confidence: float) -> None:
        self.y, self.target, self.confidence = y, target, confidence
        self.true = tf.cast(losses.true_class(y), tf.int32)

    def needed(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the lead that the class of an adversary needs, (B,)."""
        highest = tf.reduce_max(tf.abs(tf.cast(logits, tf.float32)), axis=-1)
        return self.confidence + ROUNDING * tf.stop_gradient(highest)

    def missing(self, logits: tf.Tensor, towards: tf.Tensor) -> tf.Tensor:
        """Returns how much the class `towards` (B,) lacks to that lead, (B,)."""
        if self.target is None:
            ahead = _logit(logits, towards) - _logit(logits, self.true)
        else:
            ahead = -losses.margin(logits, towards)
        lacking = self.needed(logits) - ahead
        return tf.where(lacking < 0.0, 0.0, lacking)  # NaN stays NaN, and ends a descent

    def is_reached(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns whether the logits are those of an adversary, (B,)."""
        ahead = losses.margin(logits, self.y)
        if self.target is not None:
            ahead = tf.minimum(ahead, -losses.margin(logits, self.target))
        return ahead > self.needed(logits)


def _logit(logits: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.cast(logits, tf.float32), number, batch_dims=1)


class _State(NamedTuple):
    """A descent of each image after `taken` steps. The first four are images (B, H, W, C), all others (B,)."""

    x_adv: tf.Tensor
    place: tf.Tensor  # the inverse of tanh of the current point
    mean: tf.Tensor  # Adam's, of the gradients
    square: tf.Tensor  # and of their squares
    fooled: tf.Tensor
    spent: tf.Tensor
    taken: tf.Tensor
    loss: tf.Tensor  # at the last check whether it decreases
    found: tf.Tensor  # whether this descent has found an adversary
    shortest: tf.Tensor  # the square of the distance that an adversary must not exceed
    towards: tf.Tensor  # the class that a descent goes to
    search: tf.Tensor  # number of the descent
    weight: tf.Tensor
    low: tf.Tensor  # the largest weight that has failed
    high: tf.Tensor  # the smallest one that has not


def _descent(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the fields of the state that belong to a descent which begins at images x."""
    per_image = tf.zeros(tf.shape(x)[:1])
    return {
        "place": tf.atanh((2.0 * x - 1.0) * INSIDE),
        "mean": tf.zeros_like(x),
        "square": tf.zeros_like(x),
        "taken": tf.cast(per_image, tf.int32),
        "loss": per_image + float("inf"),
        "found": per_image > 0.0,
    }


def _step(
    logits_fn: Logits,
    x: tf.Tensor,
    goal: _Goal,
    state: _State,
    *,
    epsilon: float | None,
    steps: int,
    searches: int,
    size: float,
) -> _State:
    """Returns the state after a step of Adam of length `size`; images whose descent ends get the next weight."""
    todo = ~(state.fooled | state.spent)
    images = 0.5 + 0.5 * tf.tanh(state.place)

    def objective(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = logits_fn(images)
        return goal.missing(logits, state.towards), logits

    gradient, logits = input_gradient(objective, images)
    difference = images - x
    distance = tf.reduce_sum(tf.square(difference), axis=(1, 2, 3))
    found = todo & goal.is_reached(logits)
    nearer = found & (distance <= state.shortest)
    moved = _adam(state, state.weight[:, None, None, None] * gradient + 2.0 * difference, images, size)
    moved = moved._replace(found=state.found | found)

    loss = distance + state.weight * goal.missing(logits, state.towards)
    due = tf.equal(moved.taken % tf.maximum(steps // PARTS, 1), 0)
    # Not `~(loss < ...)`: TensorFlow would turn it into `loss >= ...`, which differs for NaN.
    stalls = (loss >= DECREASE * state.loss) | tf.math.is_nan(loss)
    ends = todo & ((due & stalls) | (moved.taken >= steps))
    moved = moved._replace(loss=tf.where(due, loss, state.loss))
    moved = tf.cond(tf.reduce_any(ends), lambda: _next_weight(moved, ends, _descent(x)), lambda: moved)

    spent = todo & (moved.search >= searches)
    fooled = nearer
    if epsilon is None:
        moved = moved._replace(shortest=tf.where(nearer, distance, state.shortest))
        fooled = spent & (moved.shortest < float("inf"))
    return moved._replace(
        x_adv=choose(nearer, images, state.x_adv),
        fooled=state.fooled | fooled,
        spent=state.spent | (spent & ~fooled),
    )


def _adam(state: _State, gradient: tf.Tensor, images: tf.Tensor, step_size: float) -> _State:
    """Returns the state after a step of Adam; `gradient` is with respect to the images."""
    gradient = 2.0 * images * (1.0 - images) * gradient  # the derivative of (1 + tanh) / 2
    taken = state.taken + 1
    mean = BETA_1 * state.mean + (1.0 - BETA_1) * gradient
    square = BETA_2 * state.square + (1.0 - BETA_2) * tf.square(gradient)
    number = tf.cast(taken, tf.float32)[:, None, None, None]
    size = step_size * tf.sqrt(1.0 - BETA_2**number) / (1.0 - BETA_1**number)
    place = state.place - size * mean / (tf.sqrt(square) + TINY)
    return state._replace(place=place, mean=mean, square=square, taken=taken)


def _next_weight(state: _State, ends: tf.Tensor, descent: dict[str, tf.Tensor]) -> _State:
    """Returns the state in which the images whose descent `ends` (B,) begin another, with the next weight."""
    low = tf.where(state.found, state.low, tf.maximum(state.low, state.weight))
    high = tf.where(state.found, tf.minimum(state.high, state.weight), state.high)
    weight = tf.where(high < LARGEST, 0.5 * (low + high), tf.minimum(10.0 * state.weight, LARGEST))
    fields = {**descent, "low": low, "high": high, "weight": weight, "search": state.search + 1}
    return state._replace(**{name: choose(ends, value, getattr(state, name)) for name, value in fields.items()})
