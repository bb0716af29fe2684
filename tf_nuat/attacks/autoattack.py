"""AutoAttack, a fixed list of attacks, each on the images that withstood those before it (Croce and Hein, 2020)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_nuat.attacks.apgd import apgd_ce, apgd_dlr, apgd_t
from tf_nuat.attacks.attack import AttackStage, attack
from tf_nuat.attacks.batch import checked_batch, image_numbers
from tf_nuat.attacks.fab import fab, fab_t
from tf_nuat.attacks.pool import Pool
from tf_nuat.attacks.square import square
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits

VERSIONS = ("standard", "plus", "rand", "v1")


def stages(settings: Mapping[str, Any], *, num_classes: int, norm: str) -> list[AttackStage]:
    """Returns the list of (name, attack, settings) of a version, in the order in which they are run.

    - "standard": APGD-CE; APGD-T and FAB-T, each towards 9 classes; Square with 5,000 queries, whose windows shrink as
      if it had 10,000.
    - "plus": APGD-CE, APGD-DLR and FAB with 5 restarts each, Square, APGD-T and FAB-T.
    - "rand", for networks that draw random numbers: APGD-CE and APGD-DLR, whose gradients are means of 20 iterations.
    - "v1", of the first publication and of the tables of NuAT: APGD-CE, APGD-DLR and FAB with 5 restarts each, Square.

    All take 100 steps. With fewer than 10 classes there are fewer targets. The DLR loss needs 3 classes, its targeted
    variant 4: with fewer classes, the attacks that use it are left out.

    Args:
        settings: a dict that may have "version", one of `VERSIONS` (default "standard"), and "seed", for all attacks.
        num_classes: number K of logits, at least 2.
        norm: "linf" or "l2".

    Raises:
        ValueError: an argument is out of its range.

    Source: the published configuration, https://github.com/fra31/auto-attack.
    """
    version = validation.one_of("version", settings.get("version", VERSIONS[0]), VERSIONS)
    validation.whole_number("number of classes", num_classes, at_least=2)
    few, targets = {"steps": 100, "restarts": 1}, min(9, num_classes - 1)
    once = {
        "apgd_ce": (apgd_ce, few),
        "apgd_t": (apgd_t, {**few, "targets": targets}),
        "fab_t": (fab_t, {**few, "targets": targets}),
        "square": (square, {"queries": 5000, "rescaled": False}),
    }
    many = {**few, "restarts": 5}
    five = {"apgd_ce": (apgd_ce, many), "apgd_dlr": (apgd_dlr, many), "fab": (fab, many)}
    chosen = {
        "standard": once,
        "plus": {**five, **{name: once[name] for name in ("square", "apgd_t", "fab_t")}},
        "rand": {
            "apgd_ce": (apgd_ce, {**few, "eot_iterations": 20}),
            "apgd_dlr": (apgd_dlr, {**few, "eot_iterations": 20}),
        },
        "v1": {**five, "square": once["square"]},
    }[version]
    needed = {"apgd_dlr": 3, "apgd_t": 4}
    seed = {"seed": settings["seed"]} if "seed" in settings else {}
    return [
        (name, attack, {**own, **seed, "norm": norm})
        for name, (attack, own) in chosen.items()
        if num_classes >= needed.get(name, 2)
    ]


@attack(norms=("linf", "l2"), stages=stages, version=lambda name, value: validation.one_of(name, value, VERSIONS))
def autoattack(
    logits_fn: Logits,
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    epsilon: float,
    version: str = "standard",
    seed: int = 0,
    norm: str = "linf",
    index: Any = None,
    batch_size: int = 250,
    precision: str = "auto",
) -> tf.Tensor:
    """Returns the first adversary that AutoAttack finds for each image, or x if it finds none.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1], any number of them.
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the ball, at least 0.
        version: "standard", "plus", "rand" or "v1", see `stages`.
        seed: whole number, at least 0 and below 2**31; the same seed draws the same starts.
        norm: "linf" or "l2".
        index: numbers of the images (B,), which determine their draws; None for their places.
        batch_size: number of images attacked at a time.
        precision: of the gradients, see `tf_nuat.models.precision.attacked`.

    Raises:
        ValueError: an argument is out of its range, or it is called inside a compiled function.

    Example:
        >>> import tf_nuat
        >>> [name for name, *_ in tf_nuat.ATTACKS["autoattack"].stages({}, num_classes=10, norm="linf")]
        ['apgd_ce', 'apgd_t', 'fab_t', 'square']
    """
    if tf.inside_function():
        raise ValueError("autoattack is called inside a compiled function; allowed: eager calls")
    x, y, num_classes = checked_batch(logits_fn, x, y)
    x, y = x.astype(np.float32), y.argmax(axis=-1) if y.ndim == 2 else y
    x_adv, left, index = x.copy(), np.arange(len(x)), image_numbers(index, len(x))
    for stage in stages({"version": version}, num_classes=num_classes, norm=norm):
        settings = {**stage[2], "epsilon": epsilon, "seed": seed}
        robust = []
        for rows, fooled, found in Pool(
            stage[1], logits_fn, x, y, left, settings, index=index, batch_size=batch_size, precision=precision
        ):
            x_adv[rows] = found
            robust.append(rows[~fooled])
        left = np.sort(np.concatenate(robust)) if robust else left[:0]
    return tf.constant(x_adv)
