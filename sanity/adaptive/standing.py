"""The images that are not fooled yet, and the attacks that are run on them within a time limit."""

import contextlib
import time
import typing
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from sanity import statistics
from sanity.adaptive.outcome import Adaptive, Attempt
from sanity.adaptive.surfaces import NETWORK, Surface
from sanity.settings import Settings
from sanity.subject import Subject
from tf_nuat.attacks import ATTACKS
from tf_nuat.attacks.pool import Pool
from tf_nuat.evaluate.outcomes import predict
from tf_nuat.models.inference import compiled_for, inference

PASSES = 64  # of a random network; their mean decides on an image
SHARE = 0.5  # share of the remaining time for one attempt, so that others have their turn
BATCH = 128  # images at a time: the clock is checked after a few steps


def pixel_epsilon(subject: Subject) -> float:
    """Returns the largest change of each pixel if all pixels change equally."""
    return subject.epsilon / subject.largest


class Standing:
    """The images that no attack has fooled so far.

    Args:
        subject: the network, the sample and the threat model.
        settings: for the confidence of the intervals.
        is_random: whether the network draws random numbers: its answer is then that of the mean logits of many passes.
        until: when the time is over, by `time.monotonic`.
    """

    def __init__(self, subject: Subject, settings: Settings, *, is_random: bool, until: float) -> None:
        self._subject, self._settings, self._is_random = subject, settings, is_random
        self._until = until
        self._tried: list[Attempt] = []
        self._missed: dict[str, np.ndarray] = {}  # images that an attempt had no time for, bool (N,)
        self._correct = subject.worst_case()
        if is_random:  # outcomes by single answers do not count
            self._correct = self.answers(subject.images) == subject.labels
        self._clean = self._correct.copy()

    @property
    def rows(self) -> np.ndarray:
        """Numbers of the images, integers (n,)."""
        return np.flatnonzero(self._correct)

    @property
    def fooled(self) -> int:
        """Number of images that the attempts have fooled so far."""
        return sum(each.fooled for each in self._tried)

    @property
    def is_over(self) -> bool:
        """Whether no image or no time is left."""
        return not np.any(self._correct) or self.seconds_left <= 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds until the time is over."""
        return self._until - time.monotonic()

    def answers(self, images: np.ndarray) -> np.ndarray:
        """Returns the classes that the network predicts for images (n, H, W, C), integers (n,)."""
        parts = [np.zeros(0, np.int64)]
        for first in range(0, len(images), BATCH):
            rows = np.arange(first, min(first + BATCH, len(images)))
            x = tf.constant(images[np.resize(rows, BATCH)], tf.float32)
            answer = compiled_for(self._subject.network, _mean_answer if self._is_random else predict)
            parts.append(answer(x).numpy()[: len(rows)])
        return np.concatenate(parts)

    def attack(self, name: str, settings: dict[str, typing.Any], surface: Surface, why: str, *, cost: int = 1) -> None:
        """Runs an attack of `tf_nuat.ATTACKS` on a surface, on the images that are still standing.

        Args:
            name: name of the attack.
            settings: its keywords, without `epsilon`, `norm` and `seed`.
            surface: the function whose gradients it follows.
            why: the reason for it, in words.
            cost: network gradients per gradient of the surface; the larger it is, the smaller the batches.
        """
        subject, attack = self._subject, ATTACKS[name]
        until = time.monotonic() + SHARE * self.seconds_left
        given = {"epsilon": subject.epsilon, **settings, **subject.threat(name)}
        if "seed" in attack.keywords:
            given["seed"] = subject.seed
        batch_size = max(16, BATCH // cost)
        options: dict[str, typing.Any] = {"batch_size": batch_size, "precision": "float32"}
        pool = Pool(attack, surface.logits, subject.images, subject.labels, self.rows, given, **options)
        ended = np.zeros_like(self._correct)
        with self.attempt(name, given, why, source=surface.name) as attacked:
            for rows, fooled, x_adv in pool:
                ended[rows] = True
                self.fool(rows[fooled], x_adv[fooled])
                if time.monotonic() > until:
                    break
            attacked[pool.begun] = True  # the fooled end first: without the others they would pass for all
        self._missed[f"{name} on {surface.name}"] |= attacked & ~ended

    def leave_out(self, name: str, surface: Surface) -> None:
        """Records that there was no time for an attack on a surface."""
        self._missed.setdefault(f"{name} on {surface.name}", np.zeros_like(self._correct))[self._correct] = True

    @contextlib.contextmanager
    def attempt(
        self, attack: str, settings: dict[str, typing.Any], why: str, *, source: str | None = None
    ) -> Iterator[np.ndarray]:
        """A context that records the attack in it as an `Attempt`; `source` is the name of the attacked surface.

        It yields an array of False, bool (N,), in which the attack marks the images that it was run on. An attack that
        was run on none has no `Attempt`; `Adaptive.cut_short` names it.
        """
        stood, started = self._correct.copy(), time.monotonic()
        attacked = np.zeros_like(stood)
        yield attacked
        seconds = time.monotonic() - started
        name = attack if source is None else f"{attack} on {source}"
        self._missed.setdefault(name, np.zeros_like(stood))[stood & ~attacked] = True
        size, left = int(np.sum(attacked)), int(np.sum(attacked & self._correct))
        if not size:
            return
        interval = statistics.wilson(left, size, confidence=self._settings.confidence)
        self._tried.append(Attempt(name, why, size, left / size, interval, round(seconds, 2)))
        numbers = {name: value for name, value in settings.items() if isinstance(value, (int, float, str, bool))}
        source = None if source == NETWORK else source
        answers = PASSES if self._is_random else 1
        if self._is_random:
            self._subject.record(None, {}, self._clean, answers=answers)
        self._subject.record(attack, numbers, self._correct, source, among=attacked, answers=answers)

    def fool(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Marks rows as fooled if the network misclassifies their images."""
        if len(rows):
            self._correct[rows] &= self.answers(images) == self._subject.labels[rows]

    def outcome(self) -> Adaptive:
        """Returns the attempts so far, and the images still standing."""
        best = max(self._tried, key=lambda each: each.fooled, default=None)
        best = best if best is not None and best.fooled else None
        cut_short = tuple(name for name, missed in self._missed.items() if np.any(missed & self._correct))
        return Adaptive(tuple(self._tried), best, self._correct.copy(), cut_short)


def _mean_answer(network: keras.Model, x: tf.Tensor) -> tf.Tensor:
    """Returns the class (B,) of the largest mean logit of many passes."""
    logits_fn = inference(network)

    def added(taken: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return taken + 1, total + tf.cast(logits_fn(x), tf.float32)

    total = tf.zeros((tf.shape(x)[0], network.output_shape[-1]))
    return tf.argmax(tf.while_loop(lambda taken, _: taken < PASSES, added, (tf.constant(0), total))[1], axis=1)
