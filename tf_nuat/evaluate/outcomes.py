"""Accuracy of a network, clean or under an attack."""

import functools

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from tqdm import tqdm

from tf_nuat import losses
from tf_nuat.attacks.pool import Pool
from tf_nuat.core import validation
from tf_nuat.models.inference import compiled_for, inference
from tf_nuat.parallel import workers


def arrays(images_and_labels, network):
    """Returns the checked images (N, H, W, C) and integer labels (N,) of a pair of arrays or a dataset of batches."""
    if isinstance(images_and_labels, tf.data.Dataset):
        batches = list(images_and_labels.as_numpy_iterator())
        images_and_labels = [np.concatenate(parts) for parts in zip(*batches)]
    if not (isinstance(images_and_labels, (tuple, list)) and len(images_and_labels) == 2):
        raise ValueError("data is not a pair; allowed: (images, labels), or a tf.data.Dataset of such batches")
    shape, classes = (None, None, None), None
    if isinstance(network, keras.Model):
        shape, classes = network.input_shape[1:], network.output_shape[-1]
    images = validation.images("images", images_and_labels[0], input_shape=shape)
    classes = classes or int(np.max(images_and_labels[1])) + 1
    labels = validation.labels("labels", images_and_labels[1], num_classes=classes, num_images=len(images))
    return images.astype(np.float32, copy=False), labels.argmax(axis=-1) if labels.ndim == 2 else labels


def correct(
    network,
    images_and_labels,
    attack=None,
    *,
    among=None,
    batch_size=250,
    precision="auto",
    strategy=None,
    progress=None,
) -> np.ndarray:
    """Returns which images are classified correctly, bool (N,), in their order.

    Args:
        network: a Keras network, or any function of images (B, H, W, C) that returns logits (B, K).
        images_and_labels: arrays (images, labels), or a dataset of batches of them, in an order that does not change.
        attack: None for the images as they are, or `attack(network, x, y) -> x_adv`, for example
            `functools.partial(tf_nuat.attacks.pgd, epsilon=0.3)`. Under an attack of this package, what the network
            gets wrong without it is wrong; the others leave the batch as soon as they are fooled.
        among: bool (N,), which images to attack, where the attack is one of this package; None for all. What becomes of
            the others is what they are without it.
        batch_size: whole number, at least 1.
        precision: of the gradients of an attack of this package, see `tf_nuat.models.precision.attacked`.
        strategy: a `tf.distribute.Strategy` under which the network was built, whose replicas share the batches of
            such an attack; None for one device. Several workers share the images: each attacks its own on one device,
            and learns what became of all.
        progress: what to call the work in a progress bar, which only a terminal shows; None for no bar.

    Raises:
        ValueError: images or labels are not what the network takes.
    """
    validation.whole_number("batch_size", batch_size, at_least=1)
    images, labels = arrays(images_and_labels, network)
    ours = _settings_of(attack)
    if ours is None:
        return _correct_by_batches(network, images, labels, attack, batch_size, progress)
    outcomes = _correct_by_batches(network, images, labels, None, batch_size, None)
    rows = np.flatnonzero(outcomes if among is None else outcomes & among)
    several = workers.count(strategy) > 1
    if several:
        rows = rows[workers.index(strategy) :: workers.count(strategy)]
    options = {"batch_size": batch_size, "precision": precision, "strategy": None if several else strategy}
    pool = Pool(ours[0], network, images, labels, rows, ours[1], **options)
    with tqdm(total=len(rows), desc=progress, unit="image", disable=progress is None or None, leave=False) as bar:
        for rows, fooled, _ in pool:
            outcomes[rows] = ~fooled
            bar.update(len(rows))
            bar.set_postfix_str(f"accuracy at most {outcomes.mean():.1%}")
    return workers.true_on_all(outcomes, strategy) if several else outcomes


def _settings_of(attack):
    """Returns (attack, settings) where it is one of this package, with keywords or without, else None."""
    function, settings = attack, {}
    if isinstance(attack, functools.partial) and not attack.args:
        function, settings = attack.func, attack.keywords
    if not hasattr(function, "prepared") or any(np.ndim(value) for value in settings.values()):
        return None  # what belongs to single images cannot go through the pool
    return function, settings


def _correct_by_batches(network, images, labels, attack, batch_size, progress):
    """Each batch has the same shape: the last one is filled up."""
    outcomes = np.zeros(len(images), bool)
    batch_size = min(batch_size, len(images))
    with tqdm(total=len(images), desc=progress, unit="image", disable=progress is None or None, leave=False) as bar:
        for first in range(0, len(images), batch_size):
            rows = np.arange(first, min(first + batch_size, len(images)))
            filled = np.resize(rows, batch_size)
            x, y = tf.constant(images[filled]), tf.constant(labels[filled])
            x_adv = x if attack is None else attack(network, x, y)
            outcomes[rows] = (compiled_for(network, _predict)(x_adv).numpy() == labels[filled])[: len(rows)]
            bar.update(len(rows))
            bar.set_postfix_str(f"accuracy {outcomes[: rows[-1] + 1].mean():.1%}")
    return outcomes


def wilson(successes, images, *, confidence=0.95) -> tuple[float, float]:
    """Returns the Wilson score interval (low, high) of the proportion `successes / images`, within [0, 1].

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    interval = scipy.stats.binomtest(int(successes), int(images)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def share(outcomes, name="accuracy") -> dict:
    """Returns, as a card has it, the share of images of which `outcomes`, bool (N,), is true.

    That is a dict of the share, in [0, 1], under `name`, its 95 % Wilson "interval", and the number of "images".
    """
    interval = list(wilson(outcomes.sum(), len(outcomes)))
    return {name: float(outcomes.mean()), "interval": interval, "images": len(outcomes)}


def exceeds(successes, images, proportion):
    """Returns the p-value of "the proportion is at most `proportion`", exact binomial, one-sided."""
    return float(scipy.stats.binomtest(int(successes), int(images), proportion, alternative="greater").pvalue)


def accuracy(network, images_and_labels, attack=None, **options) -> float:
    """Returns the fraction of images that are classified correctly, in [0, 1]; the arguments are those of `correct`."""
    return float(np.mean(correct(network, images_and_labels, attack, **options)))


def _predict(network, x):
    return losses.true_class(inference(network)(x))
