"""Standard training, without an adversary: what every defense is compared with."""

import tensorflow as tf

from tf_nuat import norms
from tf_nuat.defenses.base import Defense
from tf_nuat.defenses.passes import Passes


class Standard(Defense):
    """Minimizes the cross-entropy of the clean images. Epsilon and norm are only what the network will be judged at.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.Standard(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    NORMS = tuple(norms.NORMS)
    CHOSEN_BY = "val_accuracy"  # nobody would choose it by its robustness
    MASKING_ALARM = False  # FGSM may fail on a network that was never trained on it

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        return x

    def passes(self, batch_size: int) -> Passes:
        return Passes()
