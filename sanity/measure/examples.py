"""Adversarial examples of a judgement, for the pictures of its report."""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_nuat.attacks import ATTACKS

MOST = 8


@dataclasses.dataclass(frozen=True)
class Example:
    """An adversarial example for the report's pictures; it is not part of `results.json`.

    Attributes:
        image, adversary: arrays (H, W, C) in [0, 1].
        label: the true class.
        predicted, attacked_as: the classes that the network predicts for the image and for the adversary.
    """

    image: np.ndarray
    adversary: np.ndarray
    label: int
    predicted: int
    attacked_as: int


def found_by_pgd(subject, settings):
    """Returns a tuple of at most `MOST` `Example`, evenly spaced among the images that PGD at epsilon fools.

    The attack is that of `subject.correct("pgd", **settings.pgd(epsilon))`, run again on these images alone.
    """
    attack = settings.pgd(subject.epsilon)
    (fooled,) = np.nonzero(subject.correct() & ~subject.correct("pgd", **attack))
    if not len(fooled):
        return ()
    rows = fooled[np.unique(np.linspace(0, len(fooled) - 1, min(len(fooled), MOST)).astype(int))]
    images, labels = subject.images[rows], subject.labels[rows]
    index = tf.constant(rows, tf.int32)
    attack |= {"seed": subject.seed, **subject.threat("pgd")}
    x_adv = ATTACKS["pgd"](subject.network, images, labels, index=index, **attack)
    predicted, attacked_as = (
        np.argmax(subject.network(tf.constant(each), training=False), axis=1).tolist() for each in (images, x_adv)
    )
    found = zip(images, np.asarray(x_adv), labels.tolist(), predicted, attacked_as)
    return tuple(Example(*each) for each in found if each[2] != each[4])  # a network that is random may be right again
