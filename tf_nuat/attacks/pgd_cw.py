"""PGD along the margin, the loss of Carlini and Wagner (2017)."""

from typing import Any

import tensorflow as tf

from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.pgd import pgd
from tf_nuat.attacks.search import Search
from tf_nuat.models.inference import Logits


@attack
def pgd_cw(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    step_size: float | None = None,
    steps: int = 40,
    random_start: bool = True,
    restarts: int = 1,
    seed: Any = 0,
    start: tf.Tensor | None = None,
    norm: str = "linf",
) -> Search:
    """Returns what `pgd` does, but increases the largest wrong logit minus the true one.

    Args:
        logits_fn, x, y, epsilon, step_size, steps, random_start, restarts, seed, start, norm: as in `pgd`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> x_adv = tf_nuat.attacks.pgd_cw(network, x[:4], y[:4], epsilon=0.1, steps=3)
        >>> x_adv.shape
        TensorShape([4, 8, 8, 1])
    """
    # `pgd.function` returns the search; `pgd` itself would run it.
    return pgd.function(
        logits_fn,
        x,
        y,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        random_start=random_start,
        restarts=restarts,
        loss="margin",
        seed=seed,
        start=start,
        norm=norm,
    )
