"""The critical epsilon: the largest at which adversarial training still fits as well as ordinary training."""

from tf_nuat.critical_epsilon.estimates import ATTACKS, DEFENSES, LOSS_IMAGES, exact, fast, single_step
from tf_nuat.critical_epsilon.results import Measured, SingleStep

__all__ = ["ATTACKS", "DEFENSES", "LOSS_IMAGES", "Measured", "SingleStep", "exact", "fast", "single_step"]
