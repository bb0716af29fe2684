"""The subject of a judgement: a network, a labelled sample and a threat model. It stores every evaluation."""

import dataclasses
import functools
import os
import typing
from collections.abc import Callable, Sequence

import keras
import numpy as np

from sanity import measure
from sanity.clock import Clock
from sanity.evaluation import Evaluation, Known, Surrogate, titled
from sanity.outcome_cache import OutcomeCache
from tf_nuat import draws, evaluate, norms
from tf_nuat.attacks import ATTACKS
from tf_nuat.core import files, validation
from tf_nuat.models.fingerprint import fingerprint

TRAINING = 0.25  # share of the remaining time for training a surrogate
TRAINED = "trained surrogate"  # the name of that surrogate


class NoVersionError(ValueError):
    """An attack has no version for the norm of the threat model; a check that needs it is skipped.

    Example:
        >>> Subject(network, images, labels, epsilon=1.0, norm="l1").has("fgsm")
        False
    """


class Subject:
    """A network that is judged on a sample, for perturbations of at most `epsilon` in a norm.

    At first all images of the sample are in use; `look_at` restricts it to the first ones. Outcomes are stored per
    image, and that of one image does not depend on the others.

    Args:
        network: a built `keras.Model`, images (B, H, W, C) in [0, 1] -> logits (B, K). It is never changed.
        images: (N, H, W, C), floating point in [0, 1].
        labels: integers (N,) below K, or one-hot (N, K).
        epsilon: radius of the threat model, above 0 and at most `largest` of the norm and the images.
        norm: norm of the threat model, a key of `tf_nuat.NORMS`.
        surrogates: networks as above, trained by other means, as sources of transfer attacks.
        training_data: (images, labels) to train a surrogate on if none is given; None for no surrogate.
        seed: whole number, at least 0 and below 2**31, that determines all random draws.
        batch_size: images in a batch, for attacks and for everything else.
        progress: whether to show progress bars.
        clock: the `Clock` that says whether there is time for an attack; None for no limit.
        kept_in: file (.npz) for the outcomes of the attacks; None to save none.
        made_of: JSON values that identify the network, beside its configuration: a file of another one is refused.
        resume: whether to load the outcomes in that file.

    Attributes:
        images, labels: the images in use and their labels, float32 (N, H, W, C) and integers (N,).
        norm: the `tf_nuat.norms.Norm` of the threat model.
        num_classes: number K of logits.

    Raises:
        ValueError: an argument is out of its range, a network does not return logits for the sample, or the file
            belongs to another network or sample.

    Example:
        >>> subject = Subject(network, images, labels, epsilon=0.02)
        >>> left = subject.correct("pgd", epsilon=0.02, steps=5)
        >>> len(subject), int(left.sum()), int(subject.worst_case().sum())
        (100, 71, 71)
    """

    def __init__(
        self,
        network: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        epsilon: float,
        norm: str | norms.Norm = "linf",
        surrogates: Sequence[keras.Model] = (),
        training_data: tuple | None = None,
        seed: int = 0,
        batch_size: int = 250,
        progress: bool = False,
        clock: Clock | None = None,
        kept_in: str | os.PathLike | None = None,
        made_of: Sequence[typing.Any] = (),
        resume: bool = False,
    ) -> None:
        self._images, self._labels = _sample("network", network, images, labels)
        self._size = len(self._labels)
        for number, given in enumerate(surrogates, start=1):
            _sample(f"surrogate {number}", given, images, labels)
        self.network = network
        self.norm = norms.of(norm)
        self.epsilon = float(validation.number("epsilon", epsilon, above=0.0, at_most=self.largest))
        self.seed = int(validation.whole_number("seed", seed, at_least=0, at_most=draws.LARGEST_SEED))
        self.num_classes = network.output_shape[-1]
        self._progress = progress
        self.batch_size = validation.whole_number("batch_size", batch_size, at_least=1)
        self._training_data = None if training_data is None else evaluate.arrays(training_data, network)
        self._given = tuple(surrogates)
        self._surrogates: tuple[Surrogate, ...] | None = None
        self._known: dict[tuple, Known] = {}
        self._measured: dict[typing.Any, list[np.ndarray]] = {}
        self._networks: dict[str | None, keras.Model] = {None: network}
        self.clock = clock or Clock()
        identity = {
            "network": [fingerprint(network), *made_of],
            "images": files.digest(self._images, self._labels),
            "norm": self.norm.name,
            "seed": self.seed,  # of the surrogate that is trained, too
            "surrogates": [fingerprint(each) for each in surrogates],
        }
        self._memory = OutcomeCache(kept_in, identity, resume=resume)

    def look_at(self, size: int) -> None:
        """Restricts the sample to its first `size` images from now on; outcomes of the others are kept."""
        self._size = validation.whole_number("size", size, at_least=1)

    @property
    def sample_size(self) -> int:
        """Number of images of the whole sample; `len` is the number in use."""
        return len(self._labels)

    @property
    def images(self) -> np.ndarray:
        return self._images[: self._size]

    @property
    def labels(self) -> np.ndarray:
        return self._labels[: self._size]

    def __len__(self) -> int:
        return min(self._size, len(self._labels))

    @property
    def chance(self) -> float:
        """The share of the commonest class in the sample: the accuracy of always answering that class."""
        return float(np.bincount(self.labels).max() / len(self))

    @property
    def largest(self) -> float:
        """The radius within which any image can become any other: 1 in L-infinity, sqrt(H W C) in L2, H W C in L1."""
        return self.norm.largest(self._images.shape[1:])

    @property
    def radius_label(self) -> str:
        """The label of an axis of radii."""
        return f"epsilon ({self.norm.label}, pixels in [0, 1])"

    def has(self, attack: str) -> bool:
        """Returns whether an attack, a key of `tf_nuat.ATTACKS`, has a version for the subject's norm."""
        return self.norm.name in ATTACKS[attack].norms

    def threat(self, attack: str | None) -> dict:
        """Returns the keywords that set the norm of an attack; none if it is the default of the attack.

        Raises:
            NoVersionError: the attack has no version for the norm.
        """
        if attack is None:
            return {}
        if not self.has(attack):
            raise NoVersionError(f"It needs the attack {attack}, which has no version for {self.norm.label}.")
        name = self.norm.name
        return {} if ATTACKS[attack].keywords.get("norm", name) == name else {"norm": name}

    def correct(
        self,
        attack: str | None = None,
        *,
        source: str | None = None,
        among: np.ndarray | None = None,
        **settings: typing.Any,
    ) -> np.ndarray:
        """Returns which images remain correctly classified, bool (N,); stored outcomes are reused.

        Args:
            attack: a key of `tf_nuat.attacks.ATTACKS`; None, or an epsilon of 0, for no attack.
            source: the name of the surrogate on which the attack is computed; None for the network itself.
            among: bool (N,), which images to attack; the result is False for the others. None for all.
            **settings: the attack's keywords. The subject adds its norm, and its seed if the attack takes one.

        Raises:
            NoVersionError: the attack, or its transfer from a surrogate, has no version for the norm.
        """
        if attack is None or settings.get("epsilon") == 0:
            attack, source, settings = None, None, {}
        else:
            settings = self._in_full(attack, source, settings)
        wanted = np.ones(len(self), bool) if among is None else among & self.correct()
        if not np.any(wanted):
            return wanted
        key = _key(attack, source, settings)
        known = self._of(key, settings)
        missing = wanted & ~known.attacked[: len(self)]
        if np.any(missing):
            title = titled(attack, source, settings) if self._progress else None
            known.correct[: len(self)][missing] = self._evaluated(attack, source, settings, missing, title)[missing]
            known.attacked[: len(self)] |= missing
            if self._is_repeatable(source):
                self._memory.keep(key, np.stack([known.correct, known.attacked]))
        return known.correct[: len(self)] & wanted

    def not_attacked(self, attack: str, *, among: np.ndarray, **settings: typing.Any) -> int:
        """Returns the number of images on which an attack on the network itself has not been run.

        Args:
            attack: a key of `tf_nuat.attacks.ATTACKS`.
            among: bool (N,), the images to count.
            **settings: the attack's keywords, as for `correct`.
        """
        settings = self._in_full(attack, None, settings)
        known = self._of(_key(attack, None, settings), settings)
        return int(np.sum(among & ~known.attacked[: len(self)]))

    def _in_full(self, attack: str, source: str | None, settings: dict) -> dict:
        """Returns the keywords of an attack, with the subject's seed and norm added."""
        if "seed" in ATTACKS[attack].keywords:
            settings = {"seed": self.seed, **settings}
        return {**settings, **self.threat(attack), **(self.threat("transfer") if source else {})}

    def _of(self, key: tuple, settings: dict) -> Known:
        """Returns what is known about an attack; `key` has its name and its source."""
        if key not in self._known:
            kept = self._memory.get(key) if self._is_repeatable(key[1]) else None
            correct, attacked = np.zeros((2, self.sample_size), bool) if kept is None else kept.copy()
            self._known[key] = Known(key[0], dict(settings), key[1], correct, attacked)
        return self._known[key]

    def _is_repeatable(self, source: str | None) -> bool:
        """Returns whether a judgement that resumes has the same source: not if the time limit ended its training."""
        return source != TRAINED or not getattr(self._networks[source], "stop_training", False)  # `fit` sets it

    def _evaluated(self, attack, source, settings, missing, title):
        """Returns which images remain correct, bool (N,); only the entries of `missing` images are valid."""
        options = {"batch_size": self.batch_size, "progress": title}
        if attack is None:
            outcome = np.zeros(len(self), bool)
            sample = self.images[missing], self.labels[missing]
            outcome[missing] = evaluate.correct(self.network, sample, **options)
            return outcome
        perturbation = self._perturbation(attack, source, settings)
        return evaluate.correct(self.network, (self.images, self.labels), perturbation, among=missing, **options)

    def per_image(
        self, key: typing.Any, measured: Callable[..., Sequence[np.ndarray]], *, most: int | None = None
    ) -> list[np.ndarray]:
        """Returns the results of `measured(images, labels, first)` for each image, a list of arrays (N, ...).

        `measured` is called for the images without a stored result under `key`; `first` is the number of the first of
        them. The result of an image must not depend on other images.

        Args:
            key: name of the measurement, or any other hashable value.
            measured: function that returns arrays with a row for each image.
            most: number of images to measure at most, the first ones; None for all.
        """
        size = len(self) if most is None else min(most, len(self))
        kept = self._measured.get(key)
        first = 0 if kept is None else len(kept[0])
        if first < size:
            found = measured(self._images[first:size], self._labels[first:size], first)
            kept = list(found) if kept is None else [np.concatenate(parts) for parts in zip(kept, found)]
            self._measured[key] = kept
        return [part[:size] for part in kept or []]

    def surrogates(self) -> tuple[Surrogate, ...]:
        """Returns the given surrogates, or else one that the first call trains, as a tuple of `Surrogate`.

        The tuple is empty if neither surrogates nor training data were given.
        """
        if self._surrogates is None:
            networks = {f"surrogate {number}": network for number, network in enumerate(self._given, start=1)}
            if not networks and self._training_data is not None:
                images, labels = self._training_data
                options: dict[str, typing.Any] = {"num_classes": self.num_classes, "seed": self.seed}
                seconds = TRAINING * self.clock.left
                trained = measure.surrogate.train(images, labels, seconds=seconds, **options)
                networks = {TRAINED: trained}
            sample = (self._images, self._labels)
            self._surrogates = tuple(
                Surrogate(name, network, evaluate.correct(network, sample, batch_size=self.batch_size))
                for name, network in networks.items()
            )
            self._networks.update(networks)
        return self.known_surrogates

    @property
    def known_surrogates(self) -> tuple[Surrogate, ...]:
        """The surrogates that were used so far: none before the first call of `surrogates`."""
        found = self._surrogates or ()
        return tuple(dataclasses.replace(each, correct=each.correct[: len(self)]) for each in found)

    @property
    def gradients(self) -> measure.gradients.Gradients:
        """The `sanity.measure.gradients.Gradients` at the images."""

        def measured(images: np.ndarray, labels: np.ndarray, first: int) -> Sequence[np.ndarray]:
            return dataclasses.astuple(measure.gradients.at(self.network, images, labels, batch_size=self.batch_size))

        return measure.gradients.Gradients(*self.per_image("gradients", measured))

    def trace(self, **attack: typing.Any) -> measure.trace.Trace:
        """Returns the `sanity.measure.trace.Trace` of PGD with these keywords, in the subject's norm, run once."""
        options: dict[str, typing.Any] = {"norm": self.norm, "seed": self.seed, "batch_size": self.batch_size}

        def measured(images: np.ndarray, labels: np.ndarray, first: int) -> Sequence[np.ndarray]:
            found = measure.trace.pgd(self.network, images, labels, first=first, **attack, **options)
            return *(curve.T for curve in found[:3]), *found[3:]

        found = self.per_image(("trace", *sorted(attack.items())), measured)
        return measure.trace.Trace(*(curve.T for curve in found[:3]), *found[3:])

    def record(
        self,
        attack: str | None,
        settings: dict,
        correct: np.ndarray,
        source: str | None = None,
        *,
        among: np.ndarray | None = None,
        answers: int = 1,
    ) -> None:
        """Stores the outcome of an attack that was run elsewhere; the worst case counts it from now on.

        Args:
            attack: its name, which need not be a key of `tf_nuat.attacks.ATTACKS`; None for no attack.
            settings: its keywords, strings and numbers, including `epsilon`.
            correct: which images remained correctly classified, bool (N,).
            source: the network on which it was computed; None for the network itself.
            among: bool (N,), which images were attacked; None for all.
            answers: number of network answers whose mean decides on an image. If above one, outcomes by single answers
                no longer count in the worst case.

        Raises:
            ValueError: `correct` does not have one entry per image.
        """
        correct = np.asarray(correct, bool)
        if correct.shape != (len(self),):
            raise ValueError(f"correct has shape {correct.shape}; allowed: ({len(self)},)")
        attacked = np.ones(len(self), bool) if among is None else among
        known = self._of(_key(attack, source, settings), settings)
        known.correct[: len(self)][attacked] = correct[attacked]
        known.attacked[: len(self)] |= attacked
        known.answers = answers

    def evaluations(self) -> tuple[Evaluation, ...]:
        """Returns every `Evaluation` so far, in the order in which they were run."""
        clean, found = self.correct(), []
        for known in self._known.values():
            attacked = known.attacked[: len(self)]
            if not np.any(attacked):  # it was run on other images only, or left out for lack of time
                continue
            correct = np.where(attacked, known.correct[: len(self)], clean)
            among = None if np.all(attacked) else attacked.copy()
            found.append(Evaluation(known.attack, known.settings, known.source, correct, among, known.answers))
        return tuple(found)

    def within_epsilon(self, evaluation: Evaluation) -> bool:
        """Returns whether an evaluation belongs to the threat model: its perturbations are no larger than epsilon."""
        return evaluation.settings.get("epsilon", 0.0) <= self.epsilon

    def counted(self) -> list[Evaluation]:
        """Returns the evaluations that count in the worst case: within epsilon, and with the largest number of answers.

        If the answers of a network are random, a single one says little.
        """
        evaluations = self.evaluations()
        answers = max(each.answers for each in evaluations)
        return [each for each in evaluations if each.answers == answers and self.within_epsilon(each)]

    def worst_case(self) -> np.ndarray:
        """Returns which images no attack within epsilon, run here or recorded, has fooled so far, bool (N,)."""
        return np.logical_and.reduce([self.correct(), *(each.correct for each in self.counted())])

    def _perturbation(self, attack, source, settings):
        if source is None:
            return functools.partial(ATTACKS[attack], **settings)
        # A search stops once the surrogate is fooled; a transfer attack must go on.
        taken = {name: settings[name] for name in ("epsilon", "steps", "step_size", "norm") if name in settings}
        taken.setdefault("steps", 1)  # FGSM
        decay = 1.0 if attack == "mifgsm" else 0.0
        return functools.partial(ATTACKS["transfer"], surrogate=self._networks[source], decay=decay, **taken)


def _key(attack: str | None, source: str | None, settings: dict) -> tuple:
    return attack, source, tuple(sorted(settings.items()))


def _sample(argument, network, images, labels):
    validation.classifier(argument, network)
    images, labels = evaluate.arrays((images, labels), network)
    validation.logits_on(argument, network, images)
    return images, labels
