"""`Passes`: what a training step costs, in passes through the network."""

import typing


class Passes(typing.NamedTuple):
    """What a training step does to an image of its batch, in passes through the network, averaged over a long run.

    Attributes:
        input_gradient: forwards and backwards to the image, in the attack: the FBP of table 8 of Vivek and Babu (2020).
        training: forwards and backwards to the weights; one that goes through a gradient to the image counts twice.
        forward: forwards without a backward.

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
