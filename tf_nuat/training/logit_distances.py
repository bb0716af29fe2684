"""How far apart the logits of single-step, iterative and randomized adversaries are, also during training."""

import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_nuat import attacks, evaluate
from tf_nuat.core import files, validation
from tf_nuat.models import precision
from tf_nuat.models.inference import inference

PAIRS = {"fgsm_ifgsm": "I-FGSM", "fgsm_rfgsm": "R-FGSM"}


def logit_distances(
    network: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilon: float,
    steps: int = 7,
    alpha: float | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> dict[str, np.ndarray]:
    """Returns the Euclidean distances from the logits of FGSM's adversaries to those of I-FGSM's and of R-FGSM's.

    A robust network has similar logits for all three. If gradients are masked, the distances grow.

    Args:
        network: images (B, H, W, C) -> logits (B, K).
        images, labels: (N, H, W, C) in [0, 1] and integers (N,).
        epsilon: radius of the L-infinity ball of all attacks, above 0.
        steps: of I-FGSM.
        alpha, seed: of R-FGSM.
        batch_size: images at a time.

    Returns:
        A dict of "fgsm_ifgsm" and "fgsm_rfgsm" to distances, float64 (N,).

    Raises:
        ValueError: an argument is out of its range.

    Source: Vivek and Babu, 2020, section 4.3, figures 1 and 2.
    """
    found = {name: [] for name in PAIRS}
    for first in range(0, len(images), batch_size):
        x, y = images[first : first + batch_size], labels[first : first + batch_size]
        adversaries = (
            attacks.fgsm(network, x, y, epsilon=epsilon),
            attacks.ifgsm(network, x, y, epsilon=epsilon, steps=steps),
            attacks.rfgsm(network, x, y, epsilon=epsilon, alpha=alpha, seed=seed),
        )
        single, iterative, randomized = (_logits(network, x_adv) for x_adv in adversaries)
        for name, other in zip(PAIRS, (iterative, randomized)):
            found[name].append(np.linalg.norm(single - other, axis=1))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _logits(network: keras.Model, x: tf.Tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(inference(network)(tf.convert_to_tensor(x))).astype(np.float64)


class LogitDistances(keras.callbacks.Callback):
    """Measures `logit_distances` of the trained network before training and once in `every` optimizer steps.

    `history` has the results, a dict of lists: "iteration", and for each pair the mean, as "fgsm_ifgsm" and
    "fgsm_rfgsm", and its standard error, as "fgsm_ifgsm_error" and "fgsm_rfgsm_error".

    Args:
        images, labels: validation images (N, H, W, C) in [0, 1] and their labels, a few hundred.
        epsilon: radius of the attacks, in (0, 1].
        every: optimizer steps between two measurements, at least 1.
        path: JSON file for `history` and the settings, which `sanity.figures` draws; None for no file.
        **settings: further keywords of `logit_distances`.

    Raises:
        ValueError: an argument is out of its range; when training begins, also if the network does not take the images
            or the labels.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        epsilon: float,
        every: int = 100,
        path: str | pathlib.Path | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.data = (validation.images("images", images), labels)
        self.epsilon = validation.number("epsilon", epsilon, above=0.0, at_most=1.0)
        self.every = validation.whole_number("every", every, at_least=1)
        self.path = path
        self.settings = settings
        self.history = {"iteration": [], **{name: [] for pair in PAIRS for name in (pair, f"{pair}_error")}}

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.data = evaluate.arrays(self.data, self.model.trained_network)
        self._measure()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if int(self.model.optimizer.iterations) - self.history["iteration"][-1] >= self.every:
            self._measure()

    def _measure(self) -> None:
        network = precision.computing_in(self.model.trained_network, "float32")
        found = logit_distances(network, *self.data, epsilon=self.epsilon, **self.settings)
        self.history["iteration"].append(int(self.model.optimizer.iterations))
        for name, distances in found.items():
            self.history[name].append(float(np.mean(distances)))
            self.history[f"{name}_error"].append(float(np.std(distances) / np.sqrt(len(distances))))
        if self.path is not None:
            about = {"defense": type(self.model).__name__, "epsilon": self.epsilon, "images": len(self.data[1])}
            files.save_json({**about, "history": self.history}, self.path)
