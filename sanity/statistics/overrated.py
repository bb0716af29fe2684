"""Whether an attack leaves anything that masked gradients could make look better than it is."""

import typing

import numpy as np

from sanity.settings import Settings
from tf_nuat.evaluate import exceeds


class Judged(typing.Protocol):
    """What is needed of a `sanity.subject.Subject`."""

    @property
    def chance(self) -> float: ...

    def __len__(self) -> int: ...


def is_overratable(correct: np.ndarray, subject: Judged, settings: Settings) -> bool:
    """Returns whether `correct`, bool (N,), what an attack leaves, is significantly more than chance.

    Where it is not, no sign of masking counts: nobody would report such an accuracy. The level is that of the
    intervals, `1 - settings.confidence`.

    Example:
        >>> [is_overratable(np.arange(100) < left, subject, settings) for left in (50, 5)]
        [True, False]
    """
    return exceeds(int(np.sum(correct)), len(subject), subject.chance) < 1.0 - settings.confidence


def nothing_to_overrate(label: str, correct: np.ndarray, subject: Judged, settings: Settings) -> str:
    """Returns, as a sentence that follows another, that the attack `label` leaves no more than chance; "" where it does
    leave more. `correct`, bool (N,), is what it leaves.

    Example:
        >>> nothing_to_overrate("PGD", np.arange(100) < 50, subject, settings)
        ''
    """
    if is_overratable(correct, subject, settings):
        return ""
    return (
        f" {label} leaves {np.mean(correct):.1%} of the images, no more than chance ({subject.chance:.1%}): there is "
        "nothing that masked gradients could make look better than it is."
    )
