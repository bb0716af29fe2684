"""`Passes`: what a training step costs, in passes through the network."""

import typing


class Passes(typing.NamedTuple):
    """Passes through the network for an image in a training step, averaged over a long run.

    Attributes:
        input_gradient: forward-backward passes to the image, in the attack: FBP in table 8 of Vivek and Babu (2020).
        training: forward-backward passes to the weights; one through a gradient of the image counts twice.
        forward: forward passes without a backward pass.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.PGDAT(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, steps=7)
        >>> model.passes(batch_size=64)
        Passes(input_gradient=7, training=1.0, forward=0.0)
    """

    input_gradient: float = 0.0
    training: float = 1.0
    forward: float = 0.0

    @property
    def forward_backward(self) -> float:
        """Forward-backward passes, of attack and training together."""
        return self.input_gradient + self.training
