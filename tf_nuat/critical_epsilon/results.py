"""What `tf_nuat.critical_epsilon` returns."""

import dataclasses

from tf_nuat.critical_epsilon import intersection


@dataclasses.dataclass(frozen=True)
class Measured:
    """An estimate, and the measurements behind it.

    Attributes:
        way: "exact" or "fast".
        estimate: an `intersection.Estimate`.
        epsilons: in increasing order (E,).
        losses: adversarial training losses, a tuple of E for each run.
        clean: `Clean`, one for each run of `exact`, one for `fast`.
        loss_images: number of training images in the mean of a loss.
        seconds: of adversarial training and measuring, all epsilons and runs together, without the ordinary training.

    Example:
        >>> from tf_nuat.critical_epsilon import Measured, intersection
        >>> line = intersection.interpolated([0.1, 0.3], [[0.2, 0.6]], [0.4])
        >>> round(Measured("exact", line, (0.1, 0.3), ((0.2, 0.6),), (), 1000, 60.0).estimate.epsilon, 3)
        0.2
    """

    way: str
    estimate: intersection.Estimate
    epsilons: tuple
    losses: tuple
    clean: tuple
    loss_images: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class SingleStep:
    """At which epsilons training against one step overfits catastrophically.

    Attributes:
        unstable: the smallest such epsilon that was tried; None where none did.
        epsilons: those that were tried, in increasing order; none above `unstable`.
        fgsm, pgd: accuracies on the test images under FGSM and under 20 steps of PGD.
        test_images: number of those.
        seconds: of training.

    Example:
        >>> import tf_nuat
        >>> accuracies = {"fgsm": (0.8, 0.9), "pgd": (0.7, 0.0)}
        >>> found = tf_nuat.critical_epsilon.SingleStep(0.3, (0.1, 0.3), **accuracies, test_images=353, seconds=60.0)
        >>> found.unstable
        0.3
    """

    unstable: float | None
    epsilons: tuple
    fgsm: tuple
    pgd: tuple
    test_images: int
    seconds: float
