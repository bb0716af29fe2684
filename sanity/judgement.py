"""The judgement: runs the checks on a subject and says in one sentence what follows from them."""

import dataclasses
import importlib.metadata
import math
import platform
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

import tf_nuat
from sanity import accuracies, adaptive, measure, verdict
from sanity.checks import CHECKS
from sanity.checks.network_is_deterministic import is_random
from sanity.clock import Clock
from sanity.looks import Looks
from sanity.result import SCHEMA, Verdict, skipped, to_json
from sanity.settings import Settings
from sanity.subject import Subject
from sanity.verdict import Accuracy, WorstCase
from tf_nuat import data, draws, norms
from tf_nuat.core import files, validation
from tf_nuat.evaluate import wiring

ADAPTIVE_SECONDS = 600.0  # for the adaptive stage, if there is no other limit
PACKAGES = ("tensorflow", "keras", "numpy", "scipy")


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the checks say together. Its JSON form is described in `sanity.result`.

    Attributes:
        verdict: "genuinely robust", "partly robust", "not robust", "masked gradients suspected", "undecided", or "not
            judged".
        masking: whether masked gradients are "suspected", "not seen", or "undecided".
        robustness: "genuinely robust", "partly robust" or "not robust", by the worst case alone.
        headline, accuracies, advice: the verdict in words with its reason, the accuracies behind it, and what to do.
        rule: how the verdict was reached.
        clean: `Accuracy` without attack.
        robust: `WorstCase` over every attack within epsilon that was run: the figure to publish. If the network's
            answers are random, only attacks count that were judged by the mean of many answers.
        reported_by_pgd: `Accuracy` under PGD alone, the white-box attack of the settings.
        adaptive: `sanity.adaptive.Adaptive`, the outcome of the adaptive stage; None if it was not run.
        results: tuple of `sanity.result.Result`, one per check.
        subject: dict of facts: network, whether its answers are random, sample, threat model, surrogates, versions.
        settings: the `Settings`.
        evaluations: list of the attacks that were run, with the accuracy that each left.
        provenance: dict of facts from the caller: checkpoint, dataset, command.
        schema: version of this structure.
        examples: tuple of `sanity.measure.examples.Example`, adversaries of PGD; not part of the JSON form.

    Example:
        >>> judgement.masking, judgement.verdict, judgement.robust.images
        ('not seen', 'genuinely robust', 100)
    """

    verdict: str
    masking: str
    robustness: str
    headline: str
    accuracies: str
    advice: str
    rule: str
    clean: Accuracy
    robust: WorstCase
    reported_by_pgd: Accuracy
    adaptive: adaptive.Adaptive | None
    results: tuple
    subject: dict
    settings: Settings
    evaluations: list
    provenance: dict
    schema: int = SCHEMA
    examples: tuple = dataclasses.field(default=(), metadata={"json": False}, repr=False, compare=False)

    @property
    def sentence(self) -> str:
        """The verdict in words, with the accuracies."""
        return f"{self.headline} {self.accuracies}"

    @property
    def is_upper_limit(self) -> bool:
        """Whether the worst case is only an upper limit: masking is not ruled out, or attacks were left out."""
        return verdict.is_upper_limit(self.masking, self.robust)

    @property
    def not_asked_for(self) -> tuple[str, ...]:
        """Names of the checks that were not asked for."""
        made = {result.name for result in self.results}
        return tuple(name for name in CHECKS if name not in made)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(result.name for result in self.results if result.verdict is Verdict.FAIL)

    def to_json(self) -> dict:
        """Returns the judgement as dicts, lists, strings and numbers."""
        return to_json(self)


def judge(
    network: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilon: float,
    norm: str | norms.Norm = "linf",
    surrogates: Sequence[keras.Model] = (),
    training_data: tuple | None = None,
    seed: int = 0,
    checks: Iterable[str] | None = None,
    minutes: float | None = None,
    progress: bool = True,
) -> Judgement:
    """Judges whether the robustness of `network` is real, for perturbations of at most `epsilon` in a norm.

    Args:
        network: a built `keras.Model`, images (B, H, W, C) in [0, 1] -> logits (B, K). It is not changed.
        images: (N, H, W, C), floating point in [0, 1], which the network was not trained on. Only a part of them is
            used if it decides.
        labels: whole numbers below K, (N,) or (N, 1), or one-hot (N, K).
        epsilon: radius of the threat model, above 0; at most 1 in L-infinity, sqrt(H W C) in L2, H W C in L1.
        norm: norm of the threat model, a key of `tf_nuat.NORMS`. A check whose attacks do not support it is skipped.
        surrogates: networks as above, trained by other means, as sources of transfer attacks.
        training_data: (images, labels) to train a surrogate on if none is given; None for no surrogate.
        seed: whole number, at least 0 and below 2**31, that determines all random draws.
        checks: names of the checks to run, keys of `sanity.checks.CHECKS`; default all.
        minutes: time limit, above 0; None for no limit.
        progress: whether to show progress bars.

    Returns:
        A `Judgement`. A network that is no better than always answering the commonest class is not judged: every check
        is skipped, and the sentence says what was found.

    Raises:
        ValueError: an argument is out of its range, there are fewer images than classes, or a network does not return
            logits for the sample.

    Source: Carlini et al., "On evaluating adversarial robustness", 2019.

    Example:
        >>> judgement = judge(network, images, labels, epsilon=0.02, checks=names, progress=False)
        >>> print(judgement.headline)
        At most genuinely robust, and no sign of masked gradients.
    """
    names = checked_names(checks)
    validation.whole_number("seed", seed, at_least=0, at_most=draws.LARGEST_SEED)
    seconds = None if minutes is None else 60.0 * validation.number("minutes", minutes, above=0.0)
    sample = in_order(images, labels, seed)
    given: dict[str, Any] = {"surrogates": surrogates, "training_data": training_data, "progress": progress}
    subject = Subject(network, *sample, epsilon=epsilon, norm=norm, seed=seed, clock=Clock(seconds), **given)
    check_size("images has", len(subject), subject.num_classes)
    found = wiring.look(subject.network, subject.images, subject.labels)
    if not found.is_right:
        return _not_judged(subject, names, found)
    return judge_subject(subject, checks=names, progress=progress)


def check_size(found: str, images: int, num_classes: int) -> None:
    """Raises `ValueError` if there are fewer images than classes; the message begins with `found`, "images has"."""
    if images < num_classes:
        allowed = f"at least as many as the network has classes, {num_classes}"
        raise ValueError(f"{found} {images} images; allowed: {allowed}")


def in_order(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sample in an order in which any number of first images has the classes in proportion.

    An invalid sample is returned unchanged: `Subject` raises the error.
    """
    classes = np.asarray(labels)
    is_one_hot = classes.ndim == 2 and classes.shape[1] > 1
    whole = classes.argmax(axis=-1) if is_one_hot else validation.whole_numbers(classes)
    if whole is None or len(images) != len(whole) or np.any(whole < 0):
        return images, labels
    order = data.stratified_order(whole, seed=seed)
    return np.asarray(images)[order], np.asarray(labels)[order]


def _not_judged(subject: Subject, names: Sequence[str], found: wiring.Wiring) -> Judgement:
    """Returns the `Judgement` on a network that is fed wrongly or has learned nothing: no check is run."""
    settings, remedy = Settings(), "Feed the network as it was trained."
    clean = verdict.accuracy(subject.correct(), settings)
    reason = "The network is no better than always answering the commonest class."
    return Judgement(
        verdict=verdict.NOT_JUDGED,
        masking=verdict.UNSURE,
        robustness=verdict.NOT,
        headline=f"Not judged: {found.sentence}.",
        accuracies=f"{clean.accuracy:.1%} of {clean.images} images are classified correctly without attack.",
        advice=remedy,
        rule=verdict.RULE,
        clean=clean,
        robust=WorstCase(**dataclasses.asdict(clean), attacks=0, attack="no attack"),
        reported_by_pgd=clean,
        adaptive=None,
        results=tuple(skipped(name, reason, sample_size=len(subject), remedy=remedy, reference="") for name in names),
        subject=_facts(subject),
        settings=settings,
        evaluations=accuracies.described(subject, settings),
        provenance={},
    )


def checked_names(checks: Iterable[str] | None, argument: str = "checks") -> tuple[str, ...]:
    """Returns the names of the checks to run as a tuple, in the order of `CHECKS`; all for None, none or "all"."""
    checks = () if list(checks or ()) == ["all"] else checks
    for name in checks or ():
        validation.one_of(argument, name, CHECKS)
    return tuple(name for name in CHECKS if not checks or name in checks)


def judge_subject(
    subject: Subject,
    *,
    checks: Iterable[str] | None = None,
    settings: Settings | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
    provenance: dict | None = None,
) -> Judgement:
    """Returns the `Judgement` on a `Subject` whose sample is in the order of `in_order`; otherwise see `judge`.

    `say` is called with a line for each intermediate answer. `provenance`, a dict of facts, is kept in the judgement.
    """
    settings = dataclasses.replace(settings or Settings(), way=subject.norm.way)
    looks = Looks(subject, checked_names(checks), settings, progress=progress, say=say)
    results = looks.results()
    random_answers, way_round = _way_round(subject, results, settings)
    pgd = verdict.accuracy(subject.correct("pgd", **settings.pgd(subject.epsilon)), settings)
    shown = measure.examples.found_by_pgd(subject, settings)
    clean = verdict.accuracy(subject.correct(), settings)
    cut_short = ("the adaptive stage",) if way_round is None else way_round.cut_short
    robust = accuracies.worst_case(subject, settings, looks.left_out(), cut_short)
    found = verdict.overall(results, clean, robust, subject.chance)
    robustness = verdict.robustness(clean, robust, subject.chance)
    masking = verdict.masking(results)
    is_upper_limit = verdict.is_upper_limit(masking, robust)
    flags = {"is_random": random_answers, "is_upper_limit": is_upper_limit}
    said = accuracies.sentence(clean, robust, pgd, way_round, subject, settings, **flags)
    return Judgement(
        verdict=found,
        masking=masking,
        robustness=robustness,
        headline=verdict.headline(found, results, is_upper_limit=is_upper_limit),
        accuracies=said,
        advice=verdict.advice(results, robust, robustness, confidence=settings.confidence),
        rule=verdict.RULE,
        clean=clean,
        robust=robust,
        reported_by_pgd=pgd,
        adaptive=way_round,
        results=results,
        subject={**_facts(subject), "random_answers": random_answers},
        settings=settings,
        evaluations=accuracies.described(subject, settings),
        provenance=dict(provenance or {}),
        examples=shown,
    )


def _way_round(subject, results, settings):
    """Returns whether the network's answers are random, and the outcome of the adaptive stage.

    The stage runs if gradients may be masked or answers are random, and time is left. Otherwise, and if it fails with
    an error, the outcome is None.
    """
    subject.clock.reserved = 0.0
    random_answers = False
    outcome = None
    try:
        random_answers = is_random(subject, results)
        seconds = subject.clock.left if math.isfinite(subject.clock.left) else ADAPTIVE_SECONDS
        if seconds > 0.0 and (random_answers or verdict.masking(results) != verdict.NOT_SEEN):
            outcome = adaptive.find_way_round(subject, results, settings, seconds=seconds)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        logging.error("the adaptive stage ended with %s: %s", type(error).__name__, files.in_one_line(str(error)))
    return random_answers, outcome


def _facts(subject):
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "network": subject.network.name,
        "parameters": subject.network.count_params(),
        "input_shape": subject.network.input_shape[1:],
        "num_classes": subject.num_classes,
        "norm": subject.norm.label,
        "epsilon": subject.epsilon,
        "images": len(subject),
        "chance": subject.chance,
        "images_per_class": np.bincount(subject.labels, minlength=subject.num_classes).tolist(),
        "seed": subject.seed,
        "surrogates": [
            {"name": each.name, "parameters": each.network.count_params(), "accuracy": float(np.mean(each.correct))}
            for each in subject.known_surrogates
        ],
        "versions": {"python": platform.python_version(), "tf_nuat": tf_nuat.__version__, **versions},
    }
