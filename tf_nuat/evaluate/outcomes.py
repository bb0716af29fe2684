"""Accuracy of a network, clean or under an attack."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from tqdm import tqdm

from tf_nuat import losses, norms
from tf_nuat.attacks.attack import Attack
from tf_nuat.attacks.batch import num_classes_of
from tf_nuat.attacks.pool import Pool
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits, compiled_for, graph_of
from tf_nuat.parallel import workers

# Arrays (images, labels), or a dataset of batches of them.
Examples: TypeAlias = Any


def arrays(images_and_labels: Examples, network: Logits) -> tuple[np.ndarray, np.ndarray]:
    """Returns the checked images (N, H, W, C) and integer labels (N,) of a pair of arrays or a dataset of batches.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> images, labels = tf_nuat.evaluate.arrays((x, y), network)
        >>> images.dtype.name
        'float32'
    """
    is_dataset = isinstance(images_and_labels, tf.data.Dataset)
    parts = images_and_labels.element_spec if is_dataset else images_and_labels
    is_pair = isinstance(parts, (tuple, list)) and len(parts) == 2
    if not is_pair or (is_dataset and not all(isinstance(each, tf.TensorSpec) for each in parts)):
        raise ValueError("data is not a pair; allowed: (images, labels), or a tf.data.Dataset of such batches")
    if is_dataset:
        images_and_labels = _read(images_and_labels)
    shape, classes = (None, None, None), None
    if isinstance(network, keras.Model):
        shape, classes = network.input_shape[1:], network.output_shape[-1]
    images = validation.images("images", images_and_labels[0], input_shape=shape)
    classes = classes or _classes_in(np.asarray(images_and_labels[1]))
    labels = validation.labels("labels", images_and_labels[1], num_classes=classes, num_images=len(images))
    return images.astype(np.float32, copy=False), labels.argmax(axis=-1) if labels.ndim == 2 else labels


def _read(dataset: tf.data.Dataset) -> list[np.ndarray]:
    """Returns the images and the labels of a dataset of batches of them."""
    if dataset.element_spec[0].shape.rank == 3:
        raise ValueError("data has single images; allowed: batches of them, as dataset.batch(250) makes")
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("data has no end; allowed: a dataset without repeat()")
    batches = list(dataset.as_numpy_iterator())
    if not batches:
        raise ValueError("data is empty; allowed: at least one image")
    return [np.concatenate(each) for each in zip(*batches)]


def _classes_in(labels: np.ndarray) -> int:
    """Returns a number of classes that labels may have: their columns, or one more than the largest."""
    return labels.shape[1] if labels.ndim == 2 and labels.shape[1] > 1 else int(np.max(labels)) + 1


def correct(
    network: Logits,
    images_and_labels: Examples,
    attack: Callable[..., Any] | None = None,
    *,
    among: np.ndarray | None = None,
    batch_size: int = 250,
    precision: str = "auto",
    strategy: tf.distribute.Strategy | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Returns which images are classified correctly, bool (N,), in their order.

    Args:
        network: a Keras network, or any function of images (B, H, W, C) that returns logits (B, K).
        images_and_labels: arrays (images, labels), or a dataset of batches of them, in an order that does not change.
        attack: None for the images as they are, or `attack(network, x, y) -> x_adv`, for example
            `functools.partial(tf_nuat.attacks.pgd, epsilon=0.3)`. An attack of this package skips images that the
            network gets wrong without it, which count as wrong; others leave the batch as soon as they are fooled.
        among: bool (N,), which images an attack of this package attacks; None for all. The others keep their outcome
            without attack.
        batch_size: whole number, at least 1.
        precision: of the gradients of an attack of this package, see `tf_nuat.models.precision.attacked`.
        strategy: a `tf.distribute.Strategy` under which the network was built, whose replicas share the batches of
            such an attack; None for one device. Several workers share the images: each attacks its own on one device,
            and returns the outcomes of all.
        progress: what to call the work in a progress bar, which only a terminal shows; None for no bar.

    Raises:
        ValueError: images or labels are not what the network takes; or, under an attack of this package, a Keras
            network does not return logits.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> tf_nuat.evaluate.correct(network, (x[:20], y[:20])).shape
        (20,)
    """
    validation.whole_number("batch_size", batch_size, at_least=1)
    check_attack(attack)
    own = _of_this_package(attack)
    if own is not None and isinstance(network, keras.Model):
        validation.classifier("network", network)
    images, labels = arrays(images_and_labels, network)
    if own is None:
        return _correct_by_batches(network, images, labels, attack, batch_size, progress)
    function, settings = own
    if (epsilon := settings.get("epsilon")) is not None:
        norm = settings.get("norm") or function.keywords.get("norm", function.norms[0])
        check_radius(epsilon.numpy() if tf.is_tensor(epsilon) else epsilon, norm, images)
    stages = _stages_of(*own, network, images)
    outcomes = _correct_by_batches(network, images, labels, None, batch_size, None)
    several = workers.count(strategy) > 1
    shared = None if several else strategy
    for each, settings in stages:
        rows = np.flatnonzero(outcomes if among is None else outcomes & among)
        if several:
            rows = rows[workers.index(strategy) :: workers.count(strategy)]
        pool = Pool(
            each, network, images, labels, rows, settings, batch_size=batch_size, precision=precision, strategy=shared
        )
        _take_to_its_end(pool, outcomes, progress)
        if several:
            outcomes = workers.true_on_all(outcomes, strategy)
    return outcomes


def _take_to_its_end(pool: Pool, outcomes: np.ndarray, progress: str | None) -> None:
    """Runs an attack, and makes `outcomes`, bool (N,), false for images that are fooled; `progress`: see `correct`."""
    with tqdm(total=pool.size, desc=progress, unit="image", disable=progress is None or None, leave=False) as bar:
        for ended, fooled, _ in pool:
            outcomes[ended] = ~fooled
            bar.update(len(ended))
            bar.set_postfix_str(f"accuracy at most {outcomes.mean():.1%}")


def check_attack(attack: Callable[..., Any] | None) -> None:
    """Raises a `ValueError` if `correct` does not take this attack, or the attack its settings."""
    if attack is not None and not callable(attack):
        allowed = "None, or a function of network, x and y, as functools.partial(tf_nuat.attacks.pgd, epsilon=0.1)"
        validation.refuse("attack", attack, allowed)
    if (own := _of_this_package(attack)) is not None:
        function, settings = own
        function.check_epsilon(settings)
        if function.is_single:  # the stages of others are checked when their number of classes is known
            function.check_settings(settings)


def check_radius(epsilon: float, norm: str | norms.Norm, images: np.ndarray) -> None:
    """Raises a `ValueError` if no two images are as far apart as `epsilon`: it is one of pixels in 0..255."""
    validation.number("epsilon", epsilon, at_least=0.0, at_most=norms.of(norm).largest(images.shape[1:]))


def _of_this_package(attack: Callable[..., Any] | None) -> tuple[Attack, dict[str, Any]] | None:
    """Returns an attack of this package, given with keywords or without, and its settings; None for anything else."""
    function, settings = attack, {}
    if isinstance(attack, functools.partial) and not attack.args:
        function, settings = attack.func, attack.keywords
    if not isinstance(function, Attack) or any(np.ndim(value) for value in settings.values()):
        return None  # the pool takes no settings that differ between images
    return function, settings


def _stages_of(
    function: Attack, settings: dict[str, Any], network: Logits, images: np.ndarray
) -> list[tuple[Attack, dict[str, Any]]]:
    """Returns the stages of an attack of this package, each with its settings."""
    if function.is_single:
        return [(function, settings)]
    of_all = {name: value for name, value in settings.items() if name in ("epsilon", "seed")}
    own = {name: value for name, value in settings.items() if name not in ("epsilon", "seed", "norm")}
    norm = str(settings.get("norm", function.norms[0]))
    stages = function.stages(own, num_classes=num_classes_of(network, images), norm=norm)
    return [(each, {**own, **of_all}) for _, each, own in stages]


def _correct_by_batches(
    network: Logits,
    images: np.ndarray,
    labels: np.ndarray,
    attack: Callable[..., Any] | None,
    batch_size: int,
    progress: str | None,
) -> np.ndarray:
    """Returns what `correct` does, batch by batch. All batches have the same shape: the last one is filled up."""
    outcomes = np.zeros(len(images), bool)
    batch_size = min(batch_size, len(images))
    with tqdm(total=len(images), desc=progress, unit="image", disable=progress is None or None, leave=False) as bar:
        for first in range(0, len(images), batch_size):
            rows = np.arange(first, min(first + batch_size, len(images)))
            filled = np.resize(rows, batch_size)
            x, y = tf.constant(images[filled]), tf.constant(labels[filled])
            x_adv = x if attack is None else attack(network, x, y)
            outcomes[rows] = (compiled_for(network, predict)(x_adv).numpy() == labels[filled])[: len(rows)]
            bar.update(len(rows))
            bar.set_postfix_str(f"accuracy {outcomes[: rows[-1] + 1].mean():.1%}")
    return outcomes


def wilson(successes: int, images: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the Wilson score interval (low, high) of the proportion `successes / images`, within [0, 1].

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Example:
        >>> from tf_nuat import evaluate
        >>> [round(limit, 3) for limit in evaluate.wilson(90, 100)]
        [0.826, 0.945]
    """
    interval = scipy.stats.binomtest(int(successes), int(images)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def share(outcomes: np.ndarray, name: str = "accuracy") -> dict[str, Any]:
    """Returns the share of images for which `outcomes`, bool (N,), is true, in the form that cards have.

    It is a dict of the share, in [0, 1], under `name`, its 95 % Wilson "interval", and the number of "images".

    Example:
        >>> import numpy as np
        >>> from tf_nuat import evaluate
        >>> evaluate.share(np.array([True] * 9 + [False]))["accuracy"]
        0.9
    """
    interval = list(wilson(outcomes.sum(), len(outcomes)))
    return {name: float(outcomes.mean()), "interval": interval, "images": len(outcomes)}


def exceeds(successes: int, images: int, proportion: float) -> float:
    """Returns the p-value of "the proportion is at most `proportion`", exact binomial, one-sided.

    Example:
        >>> from tf_nuat import evaluate
        >>> round(evaluate.exceeds(20, 100, 0.1), 4)
        0.002
    """
    return float(scipy.stats.binomtest(int(successes), int(images), proportion, alternative="greater").pvalue)


def accuracy(
    network: Logits, images_and_labels: Examples, attack: Callable[..., Any] | None = None, **options: Any
) -> float:
    """Returns the fraction of images that are classified correctly, in [0, 1]; the arguments are those of `correct`.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> attack = lambda network, x, y: tf_nuat.attacks.fgsm(network, x, y, epsilon=0.1)
        >>> 0.0 <= tf_nuat.evaluate.accuracy(network, (x[:20], y[:20]), attack) <= 1.0
        True
    """
    return float(np.mean(correct(network, images_and_labels, attack, **options)))


def predict(network: Logits, x: tf.Tensor) -> tf.Tensor:
    """Returns the classes (B,) that a network gives for images (B, H, W, C); to be compiled by `compiled_for`."""
    return losses.true_class(graph_of(network)(x))
