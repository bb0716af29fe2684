"""Measures a trained network: its accuracy on the test split, clean and under the measures of its recipe."""

import pathlib
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_nuat import evaluate
from tf_nuat.data.splits import EVALUATED, Splits
from tf_nuat.parallel import workers
from tf_nuat.training.recipe import Recipe

LARGE = 96 * 96  # pixels of an image


def measure(
    network: keras.Model, recipe: Recipe, splits: Splits, strategy: tf.distribute.Strategy, folder: pathlib.Path
) -> dict[str, np.ndarray]:
    """Returns which test images are classified correctly, a dict of measure, "clean" the first, to bool (N,).

    Several workers share the images; otherwise one device takes them all. Results so far are kept in `folder`, but not
    with several workers, of which only one has that folder.
    """
    several = workers.several(strategy)
    options: dict[str, Any] = {"batch_size": batch_of_attacks(recipe, splits), "strategy": several}
    correct = {
        "clean": [evaluate.correct(network, chunk, **options) for chunk in splits.chunks("test", recipe.test_images)]
    }
    for name, spec in recipe.measures.items():
        settings = {"epsilon": recipe.epsilon, "norm": recipe.norm, **spec.loaded()}
        epsilon, norm = settings.pop("epsilon"), settings.pop("norm")
        correct[name] = [
            evaluate.worst_case(
                network,
                chunk,
                [(spec.attack, settings)],
                epsilon=epsilon,
                norm=norm,
                folder=None if several else folder / f"{name}-{number}",
                progress=sys.stderr.isatty() and f"test split, {name}",
                **options,
            ).robust
            for number, chunk in enumerate(splits.chunks("test", recipe.test_images))
        ]
    return {name: np.concatenate(chunks) for name, chunks in correct.items()}


def batch_of_attacks(recipe: Recipe, splits: Splits) -> int:
    """Returns the batch size of an attack; for large images at most that of training, for lack of memory."""
    height, width, _ = splits.input_shape
    return EVALUATED if height * width <= LARGE else min(EVALUATED, recipe.batch_size)
