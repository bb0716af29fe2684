"""Standard training, without an adversary: what every defense is compared with."""

from tf_nuat import norms
from tf_nuat.defenses.base import Defense, Passes


class Standard(Defense):
    """Minimizes the cross-entropy of the clean images. Epsilon and norm are only what the network will be judged at."""

    NORMS = norms.NORMS

    def perturb(self, x, y, start=None):
        return x

    def passes(self, batch_size):
        return Passes()
