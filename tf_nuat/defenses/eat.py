"""EAT: ensemble adversarial training (Tramer et al., 2018)."""

import os
import typing
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tf_nuat import attacks
from tf_nuat.core import validation
from tf_nuat.defenses.fgsm_at import FGSMAT
from tf_nuat.models.inference import inference
from tf_nuat.networks import adapt


class EAT(FGSMAT):
    """EAT: FGSM-AT whose FGSM images are made on the network itself or on one of its pre-trained sources.

    Each batch draws one of these networks, all with the same probability. The sources do not change.

    A pass through a source counts as one through the network in `passes`, whatever the source's size.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model, above 0.
        sources: list of at least one classifier of the same images and classes; or of paths of saved ones (.keras).
        every: as in `FGSMAT`.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network or a source ends in softmax.

    Example:
        >>> import tf_nuat
        >>> source = tf_nuat.networks.ensemble_d((8, 8, 1), 10)  # trained before
        >>> model = tf_nuat.EAT(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, sources=[source])
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    NEEDS = ("sources",)

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        sources: Sequence[keras.Model | str | os.PathLike],
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        if not isinstance(sources, (list, tuple)) or not sources:
            validation.refuse("sources", sources, "a list of networks or paths of .keras files")
        loaded = tuple(_source(f"sources[{index}]", source, network) for index, source in enumerate(sources))
        # A function hides them from Keras: they are not part of the defense's weights, nor of what it saves.
        self._sources = lambda: loaded

    def attack(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the FGSM images of x, made on the network that this step draws; `start` is not used."""
        networks = [self.attacked, *map(inference, self._sources())]
        drawn = tf.random.stateless_uniform((), self.draw_seed, 0, len(networks), tf.int32)
        return tf.switch_case(drawn, [self._fgsm_on(network, x, y) for network in networks])

    def _fgsm_on(
        self, logits_fn: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, y: tf.Tensor
    ) -> Callable[[], tf.Tensor]:
        return lambda: attacks.fgsm(logits_fn, x, y, epsilon=self.epsilon)


def _source(argument: str, source: keras.Model | str | os.PathLike, network: keras.Model) -> keras.Model:
    if isinstance(source, (str, os.PathLike)):
        source = adapt(source, argument=argument).network
    validation.classifier(argument, source)
    for what in ("input_shape", "output_shape"):
        shape, expected = getattr(source, what)[1:], getattr(network, what)[1:]
        if shape != expected:
            raise ValueError(f"{argument} has {what.replace('_', ' ')} {shape}; allowed: the network's, {expected}")
    return source
