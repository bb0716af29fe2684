"""The subject of a judgement: a network, a labelled sample and a threat model, with every evaluation kept."""

import dataclasses
import functools
import os
import typing
from collections.abc import Sequence

import keras
import numpy as np

from sanity import measure
from sanity.outcome_cache import OutcomeCache
from tf_nuat import evaluate, norms
from tf_nuat.attacks import ATTACKS
from tf_nuat.core import files, validation


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A network whose adversaries are transferred: its name, and which images of the sample it classifies correctly."""

    name: str
    network: keras.Model = dataclasses.field(repr=False)
    correct: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One attack that was run: its name (None: no attack), its settings, the surrogate it came from (None: white box),
    and which images remained correctly classified, bool (N,); of those that were not among the attacked, `among` (N,),
    that is what they are without attack (None: all were attacked)."""

    attack: str | None
    settings: dict
    source: str | None
    correct: np.ndarray = dataclasses.field(repr=False)
    among: np.ndarray | None = dataclasses.field(default=None, repr=False)


class NoVersionError(ValueError):
    """An attack has no version for the norm of the threat model: the check that needs it is skipped."""


class Subject:
    """A network that is judged on a sample, for perturbations of at most `epsilon` in a norm.

    Args:
        network: a built `keras.Model`, images (B, H, W, C) in [0, 1] -> logits (B, K). It is never changed.
        images: (N, H, W, C), floating point in [0, 1].
        labels: integers (N,) below K, or one-hot (N, K).
        epsilon: radius of the threat model, above 0 and at most `largest` of the norm and the images.
        norm: of the threat model, a key of `tf_nuat.NORMS`.
        surrogates: networks as above, trained by other means, for attacks by transfer.
        training_data: (images, labels) to train a surrogate on where none is given; None for no surrogate.
        seed: whole number, at least 0, from which all random draws follow.
        batch_size: images in a batch of an attack, or of whatever else looks at the network.
        progress: whether to show progress bars.
        kept_in: file (.npz) for the outcomes of the attacks, or None to keep none.
        resume: whether to take from that file what it has.

    Attributes:
        images, labels: the sample, float32 (N, H, W, C) and integers (N,).
        norm: the `tf_nuat.norms.Norm` of the threat model.
        num_classes: number K of logits.

    Raises:
        ValueError: an argument is out of its range, a network does not return logits for the sample, or the file is
            not one of this network and sample.
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
        kept_in: str | os.PathLike | None = None,
        resume: bool = False,
    ) -> None:
        self.images, self.labels = _sample("network", network, images, labels)
        for number, given in enumerate(surrogates, start=1):
            _sample(f"surrogate {number}", given, images, labels)
        self.network = network
        self.norm = norms.of(norm)
        self.epsilon = float(validation.number("epsilon", epsilon, above=0.0, at_most=self.largest))
        self.seed = int(validation.whole_number("seed", seed, at_least=0))
        self.num_classes = network.output_shape[-1]
        self._progress = progress
        self.batch_size = validation.whole_number("batch_size", batch_size, at_least=1)
        self._training_data = None if training_data is None else evaluate.arrays(training_data, network)
        self._given = tuple(surrogates)
        self._surrogates: tuple[Surrogate, ...] | None = None
        self._evaluations: dict[tuple, Evaluation] = {}
        self._traces: dict[tuple, measure.trace.Trace] = {}
        self._networks: dict[str | None, keras.Model] = {None: network}
        identity = {
            "network": files.digest(*network.get_weights()),
            "images": files.digest(self.images, self.labels),
            "norm": self.norm.name,
            "seed": self.seed,  # of the surrogate that is trained, too
            "surrogates": [files.digest(*each.get_weights()) for each in surrogates],
        }
        self._memory = OutcomeCache(kept_in, identity, resume=resume)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def chance(self) -> float:
        """The share of the commonest class in the sample: what always answering that class is right on."""
        return float(np.bincount(self.labels).max() / len(self))

    @property
    def largest(self) -> float:
        """The radius within which any image can become any other: 1, or the diagonal of the cube in L2."""
        return self.norm.largest(self.images.shape[1:])

    @property
    def radius_label(self) -> str:
        """What an axis of radii shows."""
        return f"epsilon ({self.norm.label}, pixels in [0, 1])"

    def has(self, attack: str) -> bool:
        """Returns whether an attack, a key of `tf_nuat.ATTACKS`, has a version for the subject's norm."""
        return self.norm.name in ATTACKS[attack].norms

    def threat(self, attack: str | None) -> dict:
        """Returns the keywords that tell an attack of the norm: none where that is what the attack takes by itself.

        Raises:
            NoVersionError: it has no version for the norm.
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
        """Returns which images remain correctly classified, bool (N,); what was run before is not run again.

        Args:
            attack: a key of `tf_nuat.attacks.ATTACKS`; None for the images as they are, as is an epsilon of 0.
            source: the name of the surrogate on which the attack is computed; None for the network itself.
            among: bool (N,), which images to attack, of the network itself; of the others the result is False.
            **settings: the attack's keywords. Its norm, and its seed where it takes one, are the subject's.

        Raises:
            NoVersionError: the attack, or its transfer from a surrogate, has no version for the norm.
        """
        if attack is None or settings.get("epsilon") == 0:
            attack, source, settings = None, None, {}
        else:
            if "seed" in ATTACKS[attack].keywords:
                settings = {"seed": self.seed, **settings}
            settings = {**settings, **self.threat(attack), **(self.threat("transfer") if source else {})}
        if among is not None and not np.any(among & self.correct()):
            return np.zeros(len(self), bool)
        chosen = None if among is None else files.digest(among)
        key = (attack, source, tuple(sorted(settings.items())), chosen)
        if key not in self._evaluations:
            outcome = self._memory.get(key)
            if outcome is None:
                outcome = evaluate.correct(
                    self.network,
                    (self.images, self.labels),
                    None if attack is None else self._perturbation(attack, source, settings),
                    among=among,
                    batch_size=self.batch_size,
                    progress=_title(attack, source, settings) if self._progress else None,
                )
                self._memory.keep(key, outcome)
            self._evaluations[key] = Evaluation(attack, settings, source, outcome, among)
        outcome = self._evaluations[key].correct
        return outcome if among is None else outcome & among

    def surrogates(self) -> tuple[Surrogate, ...]:
        """Returns the given surrogates, else one that is trained at the first call, as a tuple of `Surrogate`.

        It is empty where neither surrogates nor training data were given.
        """
        if self._surrogates is None:
            networks = {f"surrogate {number}": network for number, network in enumerate(self._given, start=1)}
            if not networks and self._training_data is not None:
                images, labels = self._training_data
                trained = measure.surrogate.train(images, labels, num_classes=self.num_classes, seed=self.seed)
                networks = {"trained surrogate": trained}
            sample = (self.images, self.labels)
            self._surrogates = tuple(
                Surrogate(name, network, evaluate.correct(network, sample, batch_size=self.batch_size))
                for name, network in networks.items()
            )
            self._networks.update(networks)
        return self._surrogates

    @property
    def known_surrogates(self) -> tuple[Surrogate, ...]:
        """The surrogates that were used so far: none before the first call of `surrogates`."""
        return self._surrogates or ()

    @functools.cached_property
    def gradients(self) -> measure.gradients.Gradients:
        """The `sanity.measure.gradients.Gradients` at the images."""
        return measure.gradients.at(self.network, self.images, self.labels, batch_size=self.batch_size)

    def trace(self, **attack: typing.Any) -> measure.trace.Trace:
        """Returns the `sanity.measure.trace.Trace` of PGD with these keywords, in the subject's norm, run once."""
        key = tuple(sorted(attack.items()))
        if key not in self._traces:
            options: dict[str, typing.Any] = {"norm": self.norm, "seed": self.seed, "batch_size": self.batch_size}
            self._traces[key] = measure.trace.pgd(self.network, self.images, self.labels, **attack, **options)
        return self._traces[key]

    def record(
        self,
        attack: str,
        settings: dict,
        correct: np.ndarray,
        source: str | None = None,
        *,
        among: np.ndarray | None = None,
    ) -> None:
        """Keeps what an attack left that was run elsewhere, as an `Evaluation`: the worst case counts it from now on.

        Args:
            attack: its name, which need not be a key of `tf_nuat.attacks.ATTACKS`.
            settings: its keywords, strings and numbers, `epsilon` among them.
            correct: which images remained correctly classified, bool (N,).
            source: the network on which it was computed; None for the network itself.
            among: bool (N,), which images were attacked; None for all.

        Raises:
            ValueError: `correct` has not an entry for each image.
        """
        correct = np.asarray(correct, bool)
        if correct.shape != (len(self),):
            raise ValueError(f"correct has shape {correct.shape}; allowed: ({len(self)},)")
        key = (attack, source, tuple(sorted(settings.items())), None if among is None else files.digest(among))
        self._evaluations[key] = Evaluation(attack, dict(settings), source, correct, among)

    def evaluations(self) -> tuple[Evaluation, ...]:
        """Returns every `Evaluation` so far, in the order in which they were run."""
        return tuple(self._evaluations.values())

    def within_epsilon(self, evaluation: Evaluation) -> bool:
        """Returns whether an evaluation belongs to the threat model: its perturbations are no larger than epsilon."""
        return evaluation.settings.get("epsilon", 0.0) <= self.epsilon

    def worst_case(self) -> np.ndarray:
        """Returns which images no attack within epsilon has fooled so far, bool (N,)."""
        return np.logical_and.reduce(
            [self.correct(), *(each.correct for each in self.evaluations() if self.within_epsilon(each))]
        )

    def _perturbation(self, attack, source, settings):
        if source is None:
            return functools.partial(ATTACKS[attack], **settings)
        # A search would stop where the surrogate is fooled; what transfers goes on.
        taken = {name: settings[name] for name in ("epsilon", "steps", "step_size", "norm") if name in settings}
        taken.setdefault("steps", 1)  # FGSM
        decay = 1.0 if attack == "mifgsm" else 0.0
        return functools.partial(ATTACKS["transfer"], surrogate=self._networks[source], decay=decay, **taken)


def _sample(argument, network, images, labels):
    validation.classifier(argument, network)
    images, labels = evaluate.arrays((images, labels), network)
    validation.logits_on(argument, network, images)
    return images, labels


def _title(attack, source, settings):
    if attack is None:
        return "clean"
    shown = {name: value if isinstance(value, str) else f"{value:g}" for name, value in settings.items()}
    numbers = ", ".join(f"{name} {value}" for name, value in shown.items() if name != "seed")
    return f"{attack} ({numbers})" + (f" from {source}" if source else "")
