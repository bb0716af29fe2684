"""Keras callbacks: robust validation that keeps the best network, and an alarm for masked gradients."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from absl import logging

from tf_nuat import attacks, evaluate
from tf_nuat.core import files, validation
from tf_nuat.evaluate.outcomes import check_attack
from tf_nuat.models import precision
from tf_nuat.networks.adapt import adapt
from tf_nuat.parallel import workers


def _network(model: keras.Model, which: str) -> keras.Model:
    """Returns the `network` or `trained_network` of a defense; any other model adapted to return logits.

    Adapts the model anew each time, because a layer whose activation was removed has a copy of the weights.
    """
    found = getattr(model, which, None)
    return adapt(model, argument="the model").network if found is None else found


class RobustValidation(keras.callbacks.Callback):
    """Measures robust accuracy after each epoch, shows it as `val_robust_accuracy`, and keeps the best network.

    It evaluates `model.network` of a defense: the averaged network, if the defense averages weights. It evaluates the
    logits of any other model, which must take images in [0, 1]. It evaluates and saves in float32, whatever the
    precision of training.

    Args:
        images, labels: validation images (N, H, W, C) in [0, 1] and their labels.
        attack: function `(network, x, y) -> x_adv`, see `tf_nuat.evaluate.accuracy`.
        path: where to save the best network (.keras); None to save nothing. Its folder is made.
        monitor: the entry of the logs that decides which network is best (highest); None keeps the latest network.
        best: value of this entry to exceed, for a run that continues.
        batch_size: images in a batch.

    Raises:
        ValueError: an argument is wrong; when training begins, also if the network does not take the images or the
            labels, or the folder cannot be written.

    Example:
        >>> import functools
        >>> import keras
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("validation")
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> attack = functools.partial(tf_nuat.attacks.fgsm, epsilon=0.1)
        >>> robust = tf_nuat.callbacks.RobustValidation(x, y, attack, path="best.keras")
        >>> fitted = model.fit(x, y, epochs=1, verbose=0, callbacks=[robust])
        >>> sorted(fitted.history)
        ['loss', 'val_robust_accuracy']
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        attack: Callable[..., Any] | None,
        *,
        path: str | pathlib.Path | None = None,
        monitor: str | None = "val_robust_accuracy",
        best: float = -1.0,
        batch_size: int = 250,
    ) -> None:
        super().__init__()
        self.data = (validation.images("images", images), labels)
        check_attack(attack)
        self.attack = attack
        self.path = None if path is None else pathlib.Path(path)
        if self.path is not None and self.path.suffix not in (".keras", ".h5"):
            validation.refuse("path", str(path), "None, or a name that ends in .keras")
        self.monitor = monitor
        self.best = validation.number("best", best)
        self.batch_size = validation.whole_number("batch_size", batch_size, at_least=1)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        evaluate.arrays(self.data, _network(self.model, "network"))
        if self.path is not None:
            validation.output_folder("folder of path", self.path.parent)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        network = precision.computing_in(_network(self.model, "network"), "float32")
        robust = evaluate.accuracy(
            network,
            self.data,
            self.attack,
            batch_size=self.batch_size,
            strategy=workers.several(self.model.distribute_strategy),
        )
        logs = {} if logs is None else logs
        logs["val_robust_accuracy"] = robust  # seen by the callbacks after this one: progress bar, history, TensorBoard
        if self.monitor is not None:
            if self.monitor not in logs:
                validation.refuse("monitor", self.monitor, f"None, {', '.join(sorted(logs))}")
            if logs[self.monitor] <= self.best:
                return
            self.best = logs[self.monitor]
        if self.path is not None:
            files.save_network(network, self.path)


def overfits_catastrophically(
    fgsm_correct: np.ndarray,
    pgd_correct: np.ndarray,
    clean_correct: np.ndarray,
    *,
    fgsm_share: float = 0.4,
    pgd_share: float = 1 / 3,
    significance: float = 0.01,
) -> bool:
    """Returns whether a network withstands FGSM but not PGD, as one does after catastrophic overfitting.

    Two conditions must hold. Significantly more than `fgsm_share` of the correctly classified images stay correct under
    FGSM: this excludes undefended networks, which FGSM fools too. Significantly fewer than `pgd_share` of the images
    that are correct under FGSM are correct under PGD: this excludes robust networks. The limits lie between the
    published networks (tables 3, 4, 5, 7 and 9 of Vivek and Babu):

    - pseudo-robust (FGSM-AT, EAT): at least 0.51 under FGSM, and at most 0.12 of those under PGD;
    - undefended: at most 0.30 under FGSM;
    - weak (R-FGSM adversarial training on MNIST): at least 0.50 of those under FGSM are correct under PGD, too;
    - robust (PGD-AT, TRADES, SAT): at least 0.71 of them.

    If epsilon is so small that FGSM fools only half of the images, an undefended network may look overfitted.

    Args:
        fgsm_correct, pgd_correct, clean_correct: bool (N,), which of the same images are classified correctly under
            FGSM, under PGD, and as they are.
        fgsm_share, pgd_share: limits of the two shares, in (0, 1).
        significance: level of the binomial tests, exact and one-sided, in (0, 1): both must reject their limit.

    Raises:
        ValueError: an argument is out of its range, or the outcomes are not of the same images.

    Source: Wong et al., "Fast is better than free: revisiting adversarial training", 2020; Vivek and Babu,
    "Regularizers for single-step adversarial training", 2020, section 4.2.

    Example:
        >>> import numpy as np
        >>> import tf_nuat
        >>> clean, fgsm, pgd = (np.arange(300) < number for number in (290, 200, 3))
        >>> tf_nuat.callbacks.overfits_catastrophically(fgsm, pgd, clean)
        True
    """
    for name, value in {"fgsm_share": fgsm_share, "pgd_share": pgd_share, "significance": significance}.items():
        validation.number(name, value, above=0.0, below=1.0)
    fgsm, pgd, clean = (np.asarray(outcomes) for outcomes in (fgsm_correct, pgd_correct, clean_correct))
    for name, outcomes in {"fgsm_correct": fgsm, "pgd_correct": pgd, "clean_correct": clean}.items():
        if outcomes.dtype != bool or outcomes.ndim != 1 or outcomes.shape != clean.shape:
            raise ValueError(
                f"{name} has dtype {outcomes.dtype} and shape {outcomes.shape}; "
                f"allowed: bool, one per image of clean_correct, {clean.shape[:1]}"
            )
    if not (clean.any() and fgsm.any()):
        return False
    kept = evaluate.exceeds((fgsm & clean).sum(), clean.sum(), fgsm_share)
    lost = evaluate.exceeds((fgsm & ~pgd).sum(), fgsm.sum(), 1.0 - pgd_share)
    return max(kept, lost) < significance


class MaskingAlarm(keras.callbacks.Callback):
    """Warns after an epoch in which the network masks its gradients: FGSM cannot fool it any longer, PGD can.

    It evaluates `model.trained_network` of a defense, since masking begins there and an average follows epochs later;
    any other model itself. It adds to the logs, for the callbacks after it, the accuracies `val_fgsm_accuracy` and
    `val_pgd_accuracy` of that network, and `masking_alarm`: 1.0 if it rang, else 0.0. It rings if
    `overfits_catastrophically` is true.

    Args:
        images, labels: validation images (N, H, W, C) in [0, 1] and their labels, a few hundred.
        epsilon: radius of the ball of both attacks, in (0, 1].
        steps, step_size: of PGD, see `tf_nuat.attacks.pgd`; the step size is 2.5 epsilon / steps unless given.
        action: "warn", or "stop" to end training, too.
        fgsm_share, pgd_share, significance: those of `overfits_catastrophically`.
        batch_size: images in a batch.

    Raises:
        ValueError: an argument is out of its range, or the images are too few for the alarm to ever ring; when training
            begins, also if the network does not take the images or the labels.

    Example:
        >>> import keras
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("validation")
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> alarm = tf_nuat.callbacks.MaskingAlarm(x, y, epsilon=0.1, steps=2)
        >>> model.fit(x, y, epochs=1, verbose=0, callbacks=[alarm]).history["masking_alarm"]
        [0.0]
    """

    ACTIONS = ("warn", "stop")
    NORMS = ("linf",)  # its limits were found in this norm, and not tried in others

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        epsilon: float,
        steps: int = 10,
        step_size: float | None = None,
        action: str = "warn",
        fgsm_share: float = 0.4,
        pgd_share: float = 1 / 3,
        significance: float = 0.01,
        batch_size: int = 250,
    ) -> None:
        super().__init__()
        validation.number("epsilon", epsilon, above=0.0, at_most=1.0)
        pgd = {"epsilon": epsilon, "steps": steps, "step_size": step_size}
        attacks.pgd.check_settings(pgd)
        self.data = (validation.images("images", images), labels)
        self.attacks = {
            "clean": None,
            "fgsm": functools.partial(attacks.fgsm, epsilon=epsilon),
            "pgd": functools.partial(attacks.pgd, **pgd),
        }
        self.steps = steps
        self.action = validation.one_of("action", action, self.ACTIONS)
        self.batch_size = validation.whole_number("batch_size", batch_size, at_least=1)
        self.criterion = functools.partial(
            overfits_catastrophically, fgsm_share=fgsm_share, pgd_share=pgd_share, significance=significance
        )
        if not self.can_ring(len(images), fgsm_share=fgsm_share, pgd_share=pgd_share, significance=significance):
            raise ValueError(
                f"images has {len(images)} entries; allowed: so many that the alarm can ring, a few hundred at best"
            )

    @staticmethod
    def can_ring(count: int, **limits: float) -> bool:
        """Returns whether `count` images can show overfitting, by the `limits` of `overfits_catastrophically`."""
        all_images = np.ones(count, bool)
        return overfits_catastrophically(all_images, ~all_images, all_images, **limits)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        evaluate.arrays(self.data, _network(self.model, "trained_network"))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        network = _network(self.model, "trained_network")
        correct = {
            name: evaluate.correct(
                network,
                self.data,
                attack,
                batch_size=self.batch_size,
                strategy=workers.several(self.model.distribute_strategy),
            )
            for name, attack in self.attacks.items()
        }
        fgsm, pgd = float(correct["fgsm"].mean()), float(correct["pgd"].mean())
        rings = self.criterion(correct["fgsm"], correct["pgd"], correct["clean"])
        if logs is not None:
            logs.update(val_fgsm_accuracy=fgsm, val_pgd_accuracy=pgd, masking_alarm=float(rings))
        if rings:
            logging.warning(
                "epoch %d: catastrophic overfitting: accuracy of the trained network is %.1f%% under FGSM but %.1f%% "
                "under PGD-%d; train with a regularizer (NuAT, SAT-R1, SAT-R2, SAT-R3), or keep the network of the "
                "epoch with the best robust accuracy and end training there%s",
                epoch + 1,
                100 * fgsm,
                100 * pgd,
                self.steps,
                "; training stops" if self.action == "stop" else "",
            )
            if self.action == "stop":
                self.model.stop_training = True
