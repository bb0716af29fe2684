"""Runs for the estimates of `critical_epsilon`: they train, or read what is trained, and measure losses."""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_nuat import data, evaluate, losses, norms, training
from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.core import files, json_input, validation
from tf_nuat.core.json_input import Field
from tf_nuat.critical_epsilon import variants
from tf_nuat.data.splits import EVALUATED, Splits
from tf_nuat.models.inference import inference
from tf_nuat.networks import adapt, by_name
from tf_nuat.training import Recipe

LOSS_STEPS = 10  # of the PGD under which losses are measured
AT_CHANCE = 0.99  # share of the loss of a uniform guess from which on a network counts as untrained


@dataclasses.dataclass(frozen=True)
class Clean:
    """The result of ordinary training.

    Attributes:
        network: path of the network.
        train_loss, test_loss: mean cross-entropy on training and on test images.
        test_accuracy: in [0, 1].
        test_images: number of those.
        seconds: time of training, 0 if the network was given.
    """

    network: str
    train_loss: float
    test_loss: float
    test_accuracy: float
    test_images: int
    seconds: float


def mean_loss(
    network: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilon: float = 0.0,
    norm: str = "linf",
    steps: int = LOSS_STEPS,
) -> float:
    """Returns the mean cross-entropy of images after PGD from a random start; with epsilon 0, of the images.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        images, labels: (N, H, W, C), integers (N,).
        epsilon: radius of the ball, at least 0.
        norm: name in `NORMS`.
        steps: of PGD, of length 2.5 epsilon / steps.
    """
    logits_fn = inference(network)

    @functools.partial(tf.function, autograph=False, reduce_retracing=True)
    def of_batch(x: tf.Tensor, y: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        if epsilon > 0.0:
            start = norms.of(norm).random_point(x, epsilon, tf.stack([0, number]))
            objective = cross_entropy_of(logits_fn, y)
            step_size = 2.5 * epsilon / steps
            x = ascend(objective, x, start, epsilon=epsilon, step_size=step_size, steps=steps, norm=norm)
        return losses.cross_entropy(logits_fn(x), y)

    parts = [
        of_batch(images[first : first + EVALUATED], labels[first : first + EVALUATED], tf.constant(first)).numpy()
        for first in range(0, len(images), EVALUATED)
    ]
    return float(np.concatenate(parts).mean(dtype=np.float64))


def clean_network(
    recipe: Recipe,
    out: pathlib.Path,
    clean: str | pathlib.Path | None,
    splits: Splits,
    loss_images: int,
    options: Mapping[str, Any],
) -> Clean:
    """Returns the `Clean` of the network at `clean`, or of one that it trains first.

    Raises:
        ValueError: it cannot be read, does not fit the data, or is not trained.
    """
    seconds, path = 0.0, clean
    if path is None:
        folder = out / f"clean_seed_{recipe.seed}"
        logging.info("ordinary training, seed %d", recipe.seed)
        seconds = training.run(variants.ordinary(recipe), folder, **options).training_seconds
        path = folder / "network.keras"
    network = adapt(path, input_shape=splits.input_shape, argument="clean").network  # fine-tuning starts with the same
    by_name.fitting("clean", network, input_shape=splits.input_shape, num_classes=splits.num_classes)
    x, y = splits.arrays("test")
    correct = evaluate.correct(network, (x, y))
    found = Clean(
        network=str(path),
        train_loss=mean_loss(network, *training_sample(splits, loss_images)),
        test_loss=mean_loss(network, x, y),
        test_accuracy=float(correct.mean()),
        test_images=len(y),
        seconds=seconds,
    )
    guess, chance = max(np.bincount(y)) / len(y), math.log(splits.num_classes)
    if evaluate.exceeds(correct.sum(), len(y), guess) > 0.01 or found.test_loss >= AT_CHANCE * chance:
        raise ValueError(
            f"clean is {found.network!r}, with an accuracy of {found.test_accuracy:.1%} and a loss of "
            f"{found.test_loss:.4g} on test images; allowed: a network that is trained (guessing: {guess:.1%} and "
            f"{chance:.4g})"
        )
    if found.train_loss >= found.test_loss:
        raise ValueError(
            f"clean is {found.network!r}, whose training loss {found.train_loss:.4g} is not below its test loss "
            f"{found.test_loss:.4g}; allowed: a network that is trained for longer"
        )
    return found


def training_sample(splits: Splits, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `count` training images (all, where there are fewer) and their labels, each class in proportion."""
    labels = splits.labels("train")
    return splits.take("train", data.stratified(labels, min(count, len(labels)), seed=0))


def _loss(path: pathlib.Path) -> dict[str, float]:
    """Returns what was measured before, with checked types."""
    checks: dict[str, json_input.Check] = {
        "images": json_input.count,
        "steps": json_input.count,
        "loss": json_input.logged,
        "seconds": json_input.number,
    }
    found = json_input.fields(checks, json_input.load("loss", path), Field("", path))
    return found if found.keys() == checks.keys() else {}


def train_and_measure(
    recipe: Recipe, folder: pathlib.Path, splits: Splits, loss_images: int, options: Mapping[str, Any]
) -> tuple[float, float]:
    """Returns the adversarial training loss and the seconds of a run; reads what was measured before."""
    card = training.run(recipe, folder, **options)
    path, conditions = folder / "loss.json", {"images": loss_images, "steps": LOSS_STEPS}
    found = _loss(path) if path.exists() else {}
    if {name: found.get(name) for name in conditions} != conditions:
        network = validation.load_network("network", folder / "network.keras")
        begun = time.perf_counter()
        sample = training_sample(splits, loss_images)
        loss = mean_loss(network, *sample, epsilon=recipe.epsilon, norm=recipe.norm)
        found = {**conditions, "loss": loss, "seconds": time.perf_counter() - begun}
        files.save_json(found, path)
    return found["loss"], card.training_seconds + found["seconds"]
