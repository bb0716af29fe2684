"""The images that are still standing, and the attacks that are run on them within a time."""

import contextlib
import time
import typing
from collections.abc import Callable, Iterator

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

PASSES = 64  # of a network that draws random numbers, for a verdict
SHARE = 0.5  # of the time that is left, which an attempt may take, that others have their turn
BATCH = 128  # images at a time: the clock is looked at after a few steps


def pixel_epsilon(subject: Subject) -> float:
    """Returns how far a pixel goes where all go equally far."""
    return subject.epsilon / subject.largest


class Standing:
    """The images that nothing has fooled so far.

    Args:
        subject: the network, the sample and the threat model.
        settings: for the confidence of the intervals.
        is_random: whether the network draws random numbers: its answer is then that of the mean of many passes.
        until: when the time is over, by `time.monotonic`.
    """

    def __init__(self, subject: Subject, settings: Settings, *, is_random: bool, until: float) -> None:
        self._subject, self._settings, self._is_random = subject, settings, is_random
        self._until = until
        self._tried: list[Attempt] = []
        self._correct = subject.worst_case()
        if is_random:  # what single answers said of an image does not count
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
        """Whether nothing is left to do: no image, or no time."""
        return not np.any(self._correct) or self.seconds_left <= 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds until the time is over."""
        return self._until - time.monotonic()

    def answers(self, images: np.ndarray) -> np.ndarray:
        """Returns what the network says of images (n, H, W, C), integers (n,)."""
        parts = [np.zeros(0, np.int64)]
        for first in range(0, len(images), BATCH):
            rows = np.arange(first, min(first + BATCH, len(images)))
            x = tf.constant(images[np.resize(rows, BATCH)], tf.float32)
            answer = compiled_for(self._subject.network, _mean_answer if self._is_random else predict)
            parts.append(answer(x).numpy()[: len(rows)])
        return np.concatenate(parts)

    def attack(self, name: str, settings: dict[str, typing.Any], surface: Surface, why: str, *, cost: int = 1) -> None:
        """Runs an attack of `tf_nuat.ATTACKS` on a surface, on the images that are standing.

        Args:
            name: of the attack.
            settings: its keywords, without `epsilon`, `norm` and `seed`.
            surface: what it takes the gradients of.
            why: what speaks for it, in words.
            cost: gradients for one, of which fewer images are attacked at a time.
        """
        subject, attack = self._subject, ATTACKS[name]
        until = time.monotonic() + SHARE * self.seconds_left
        given = {"epsilon": subject.epsilon, **settings, **subject.threat(name)}
        if "seed" in attack.keywords:
            given["seed"] = subject.seed
        batch_size = max(16, BATCH // cost)
        options: dict[str, typing.Any] = {"batch_size": batch_size, "precision": "float32"}
        pool = Pool(attack, surface.logits, subject.images, subject.labels, self.rows, given, **options)
        with self.attempt(name, given, why, source=surface.name) as fool:
            for rows, fooled, x_adv in pool:
                fool(rows[fooled], x_adv[fooled])
                if time.monotonic() > until:
                    break

    @contextlib.contextmanager
    def attempt(
        self, attack: str, settings: dict[str, typing.Any], why: str, *, source: str | None = None
    ) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
        """A context that keeps what happens in it as an attempt; `source` is the name of the surface that is attacked.

        It gives `fool(rows, images)`, which looks at candidates (n, H, W, C) on the network itself.
        """
        rows, started = self.rows, time.monotonic()
        yield self.fool
        self._keep(attack, settings, why, source, rows, time.monotonic() - started)

    def fool(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Takes those of the rows whose images the network gets wrong from those that are standing."""
        if len(rows):
            self._correct[rows] &= self.answers(images) == self._subject.labels[rows]

    def _keep(
        self,
        attack: str,
        settings: dict[str, typing.Any],
        why: str,
        source: str | None,
        attacked: np.ndarray,
        seconds: float,
    ) -> None:
        """Keeps an attempt on the images `attacked`, integers (n,), in the list and in the subject."""
        left = int(np.sum(self._correct[attacked]))
        interval = statistics.wilson(left, len(attacked), confidence=self._settings.confidence)
        name = attack if source is None else f"{attack} on {source}"
        self._tried.append(Attempt(name, why, len(attacked), left / len(attacked), interval, round(seconds, 2)))
        among = np.isin(np.arange(len(self._correct)), attacked)
        correct = np.where(among, self._correct, self._subject.correct())
        numbers = {name: value for name, value in settings.items() if isinstance(value, (int, float, str, bool))}
        source = None if source == NETWORK else source
        if self._is_random:
            self._subject.record(None, {}, self._clean, answers=PASSES)
        answers = PASSES if self._is_random else 1
        self._subject.record(attack, numbers, correct, source, among=among, answers=answers)

    def outcome(self) -> Adaptive:
        """Returns what was tried, and what is standing."""
        best = max(self._tried, key=lambda each: each.fooled, default=None)
        return Adaptive(tuple(self._tried), best if best is not None and best.fooled else None, self._correct.copy())


def _mean_answer(network: keras.Model, x: tf.Tensor) -> tf.Tensor:
    """Returns the class (B,) of the largest mean logit of many passes."""
    logits_fn = inference(network)

    def added(taken: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return taken + 1, total + tf.cast(logits_fn(x), tf.float32)

    total = tf.zeros((tf.shape(x)[0], network.output_shape[-1]))
    return tf.argmax(tf.while_loop(lambda taken, _: taken < PASSES, added, (tf.constant(0), total))[1], axis=1)
