"""Standard training, without an adversary: what every defense is compared with."""

from tf_nuat import distribute, losses
from tf_nuat.defenses.base import Defense, Passes


class Standard(Defense):
    """Minimizes the cross-entropy of the clean images. Epsilon is only what the network will be judged at."""

    def perturb(self, x, y, start=None):
        return x

    def objective(self, x, x_adv, y):
        logits = self.trained_network(x, training=True)
        return distribute.share_of_mean(losses.cross_entropy(logits, y)), logits

    def passes(self, batch_size):
        return Passes()
