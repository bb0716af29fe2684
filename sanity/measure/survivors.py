"""The accuracy that a second attack takes away; it is run only on the images that withstood the first one."""

import dataclasses

import numpy as np

from sanity.settings import Settings
from sanity.statistics.tolerance import Share


@dataclasses.dataclass(frozen=True)
class Loss(Share):
    """The accuracy that a second attack takes away after a first one, compared with a tolerance.

    The share is that of all images, not of those that were left: if the first attack leaves five images and the
    second fools two of them, no accuracy worth reporting was too high. If the share of all images is significantly
    above the tolerance, so is the share of those that were left.

    Attributes:
        count, images: number of images that the second attack fools, and number of all images.
        left: number of images that the first attack left.
        tolerance, low, high, p_value, verdict, decisive: see `Share`.
    """

    left: int

    @property
    def fooled(self) -> int:
        """Number of images that the second attack fools and the first did not."""
        return self.count


def loss(before: np.ndarray, after: np.ndarray, settings: Settings, *, tolerance: float, tests: int = 1) -> Loss:
    """Returns the `Loss` from `before` to `after`, outcomes of the same images, bool (N,).

    Args:
        before: which images withstand the first attack.
        after: which of them withstand the second as well.
        settings: `sanity.settings.Settings`.
        tolerance: the share of all images that the second may fool.
        tests: number of such comparisons in the check; they divide alpha (Bonferroni).
    """
    fooled, left = int(np.sum(before & ~after)), int(np.sum(before))
    return Loss.of(fooled, len(before), tolerance, settings, tests=tests, left=left)
