"""Transfer: an adversary that MI-FGSM (Dong et al., 2018) finds on another network (Papernot et al., 2016)."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.mifgsm import mifgsm
from tf_nuat.attacks.search import Search
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits


def _is_a_network(name: str, value: Any) -> None:
    if isinstance(value, keras.Model) or not callable(value):
        validation.classifier(name, value)


@attack(
    needs=("surrogate",),
    surrogate=_is_a_network,
    decay=lambda name, value: validation.number(name, value, at_least=0.0),
)
def transfer(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    surrogate: Logits | None = None,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    norm: str = "linf",
) -> Search:
    """Returns the last point of MI-FGSM on `surrogate` for each image where it fools `logits_fn`, else x.

    It takes no gradient of `logits_fn`, and goes on after the surrogate is fooled: an image deep in a wrong class of
    one network is more likely to be in a wrong class of another.

    Args:
        logits_fn: network or function to fool, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        surrogate: network or function of the same kind to attack; required. For several at once, a function that
            returns the mean of their logits.
        steps: number of steps, at least 1. With 1 the attack is FGSM.
        step_size: length of a step, above 0; default `epsilon / steps`.
        decay: of the momentum, at least 0. With 0 the attack is I-FGSM.
        norm: "linf" or "l2".

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> other = tf_nuat.networks.two_conv((8, 8, 1), 10, width=8)
        >>> x_adv = tf_nuat.attacks.transfer(network, x[:4], y[:4], epsilon=0.1, surrogate=other)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """

    _is_a_network("surrogate", surrogate)

    def first() -> _State:
        settings = {"epsilon": epsilon, "steps": steps, "step_size": step_size, "decay": decay, "norm": norm}
        nothing = tf.zeros(tf.shape(x)[:1], tf.bool)
        # A candidate: the caller of the search checks its logits.
        return _State(x_adv=mifgsm(surrogate, x, y, **settings), fooled=nothing, spent=~nothing)

    return Search(first, lambda state: state)


class _State(NamedTuple):
    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor
