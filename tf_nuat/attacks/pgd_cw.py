"""PGD along the margin, the loss of Carlini and Wagner (2017)."""

from tf_nuat.attacks.attack import attack
from tf_nuat.attacks.pgd import pgd


@attack
def pgd_cw(
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
    """Returns what `pgd` does, with ascents along the largest wrong logit minus the true one.

    Args:
        logits_fn, x, y, epsilon, step_size, steps, random_start, restarts, seed, start, norm: as in `pgd`.

    Raises:
        ValueError: an argument is out of its range.
    """
    # The function that makes the search: the attack itself would run it.
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
