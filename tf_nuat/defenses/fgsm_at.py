"""FGSM-AT and R-FGSM-AT: training on images after one step (Kurakin et al., 2017; Tramer et al., 2018)."""

import typing

import keras
import tensorflow as tf

from tf_nuat import attacks
from tf_nuat.core import validation
from tf_nuat.defenses.base import Defense
from tf_nuat.defenses.passes import Passes


class FGSMAT(Defense):
    """FGSM-AT: minimizes the cross-entropy of a batch of which half are FGSM images, the others clean.

    The baseline of section 3.2 of Vivek and Babu (2020). Networks trained this way learn to mask their gradients.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model, above 0.
        every: replace one out of so many images by its FGSM image, at least 1: 2 is half of the batch, 1 all of it.
            Each of several devices counts from the first image of its share.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.FGSMAT(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(self, network: keras.Model, *, epsilon: float, every: int = 2, **options: typing.Any) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.every = validation.whole_number("every", every, at_least=1)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the batch (B, H, W, C) with image 0, `every`, 2 `every`, ... attacked; `start` is such a batch."""
        if self.every == 1:
            return self.attack(x, y, start)
        # Not the first half: the shares of two replicas have other first halves than the batch. If the size of a share
        # is no multiple of `every`, other images are attacked than on one device, or one more.
        attacked = self.attack(x[:: self.every], y[:: self.every], None if start is None else start[:: self.every])
        return tf.tensor_scatter_nd_update(x, tf.range(0, tf.shape(x)[0], self.every)[:, None], attacked)

    def attack(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the adversarial images of the chosen images x; FGSM does not use `start`."""
        return attacks.fgsm(self.attacked, x, y, epsilon=self.epsilon)

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=-(-batch_size // self.every) / batch_size)


class RFGSMAT(FGSMAT):
    """R-FGSM-AT: minimizes the cross-entropy of R-FGSM images, all of the batch unless told otherwise.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model, above 0.
        alpha: length of the random step, in [0, epsilon]; default `epsilon / 2`.
        every: as in `FGSMAT`.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.RFGSMAT(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, alpha=0.05)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, epsilon: float, alpha: float | None = None, every: int = 1, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, every=every, **options)
        self.alpha = epsilon / 2 if alpha is None else alpha
        validation.number("alpha", self.alpha, at_least=0.0, at_most=epsilon)

    def attack(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the R-FGSM images of x; `start`: where to take the gradient, instead of after a random step."""
        return attacks.rfgsm(
            self.attacked, x, y, epsilon=self.epsilon, alpha=self.alpha, seed=self.draw_seed, start=start
        )
