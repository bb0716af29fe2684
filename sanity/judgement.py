"""The judgement: runs the checks on a subject and says in one sentence what follows from them."""

import dataclasses
import importlib.metadata
import platform
import time
import typing
from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

import tf_nuat
from sanity import measure, statistics
from sanity.checks import CHECKS
from sanity.result import SCHEMA, Result, Verdict, skipped, to_json
from sanity.settings import Settings
from sanity.subject import NoVersionError, Subject
from tf_nuat import norms
from tf_nuat.core import validation
from tf_nuat.evaluate import wiring

ROBUST, PARTLY, NOT = "genuinely robust", "partly robust", "not robust"
MASKED, TOO_WEAK, INCONCLUSIVE = "masked gradients suspected", "attack too weak", "inconclusive"
NOT_JUDGED = "not judged"
REPORTED = ("nuclear_norm_separates",)  # which can only pass, and is no evidence

RULE = (
    "Masked gradients are suspected if any check failed, unless it only found a stronger attack along the gradients: "
    "where that is all, the attack was too weak. The judgement is inconclusive if any check was, or if none passed; "
    "checks that only report count for nothing. Otherwise the lower limit of the interval of the robust accuracy "
    "decides: above chance (the share of the commonest class) and above half of the clean accuracy the network "
    "is genuinely robust, above chance alone it "
    "is partly robust, else it is not robust."
)
PACKAGES = ("tensorflow", "keras", "numpy", "scipy")


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """How many of `images` are classified correctly, that as a fraction, and its interval (low, high)."""

    correct: int
    images: int
    accuracy: float
    interval: tuple


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the checks say together. Its JSON form is described in `sanity.result`.

    Attributes:
        verdict: "genuinely robust", "partly robust", "not robust", "masked gradients suspected", "attack too weak",
            "inconclusive", or "not judged".
        headline, accuracies: the verdict in words, and the accuracies behind it, a sentence each.
        rule: how the verdict was reached.
        clean: `Accuracy` without attack.
        robust: `Accuracy` in the worst case over every attack within epsilon that was run.
        results: tuple of `sanity.result.Result`, one per check.
        subject: dict of facts: network, sample, threat model, surrogates, versions.
        settings: the `Settings`.
        evaluations: list of what was run, with the accuracy that each attack left.
        provenance: dict of facts that the caller knows: checkpoint, dataset, command.
        schema: version of this structure.
        examples: tuple of `sanity.measure.examples.Example`, adversaries of PGD; not part of the JSON form.
    """

    verdict: str
    headline: str
    accuracies: str
    rule: str
    clean: Accuracy
    robust: Accuracy
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
    progress: bool = True,
) -> Judgement:
    """Judges whether the robustness of `network` is real; for perturbations of at most `epsilon` in a norm.

    Args:
        network: a built `keras.Model`, images (B, H, W, C) in [0, 1] -> logits (B, K). It is not changed.
        images: (N, H, W, C), floating point in [0, 1], which the network was not trained on.
        labels: integers (N,) below K, or one-hot (N, K).
        epsilon: radius of the threat model, above 0; at most 1 in L-infinity, sqrt(H W C) in L2.
        norm: of the threat model, a key of `tf_nuat.NORMS`. A check whose attacks have no version for it is skipped.
        surrogates: networks as above, trained by other means, for attacks by transfer.
        training_data: (images, labels) to train a surrogate on where none is given; None for no surrogate.
        seed: whole number, at least 0, from which all random draws follow.
        checks: names of the checks to run, keys of `sanity.checks.CHECKS`; default all.
        progress: whether to show progress bars.

    Returns:
        A `Judgement`. A network that is no better than always answering the commonest class is not judged: every check
        is skipped, and the sentence says what was found.

    Raises:
        ValueError: an argument is out of its range, or a network does not return logits for the sample.

    Source: Carlini et al., "On evaluating adversarial robustness", 2019.
    """
    names = checked_names(checks)
    subject = Subject(
        network,
        images,
        labels,
        epsilon=epsilon,
        norm=norm,
        surrogates=surrogates,
        training_data=training_data,
        seed=seed,
        progress=progress,
    )
    found = wiring.look(subject.network, subject.images, subject.labels)
    if not found.is_right:
        return _not_judged(subject, names, found)
    return judge_subject(subject, checks=names, progress=progress)


def _not_judged(subject: Subject, names: Sequence[str], found: wiring.Wiring) -> Judgement:
    """Returns the `Judgement` on a network that is fed wrongly or has learned nothing: no check is run."""
    settings, remedy = Settings(), "Feed the network as it was trained."
    clean = _accuracy(subject.correct(), settings)
    reason = "The network is no better than always answering the commonest class."
    return Judgement(
        verdict=NOT_JUDGED,
        headline=f"Not judged: {found.sentence}.",
        accuracies=f"{clean.accuracy:.1%} of {clean.images} images are classified correctly without attack.",
        rule=RULE,
        clean=clean,
        robust=clean,
        results=tuple(skipped(name, reason, sample_size=len(subject), remedy=remedy, reference="") for name in names),
        subject=_facts(subject),
        settings=settings,
        evaluations=[_described(each, subject, settings) for each in subject.evaluations()],
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
    provenance: dict | None = None,
) -> Judgement:
    """Returns the `Judgement` on a `Subject`, with `provenance`, a dict of facts, kept in it; otherwise see `judge`."""
    settings = settings or Settings()
    names = checked_names(checks)
    results = []
    with tqdm(names, disable=not progress, unit="check") as bar:
        for position, name in enumerate(bar):
            bar.set_description(name)
            bar.set_postfix_str(f"left: {', '.join(names[position + 1 :]) or 'none'}")
            started = time.perf_counter()
            result = _checked(name, subject, settings)
            results.append(dataclasses.replace(result, seconds=round(time.perf_counter() - started, 2)))
    shown = measure.examples.found_by_pgd(subject, settings)
    clean, robust = _accuracy(subject.correct(), settings), _accuracy(subject.worst_case(), settings)
    verdict = overall(results, clean, robust, subject.chance)
    return Judgement(
        verdict=verdict,
        headline=_headline(verdict, results),
        accuracies=_accuracies(clean, robust, subject, settings),
        rule=RULE,
        clean=clean,
        robust=robust,
        results=tuple(results),
        subject=_facts(subject),
        settings=settings,
        evaluations=[_described(each, subject, settings) for each in subject.evaluations()],
        provenance=dict(provenance or {}),
        examples=shown,
    )


def _checked(name, subject, settings):
    """Returns the result of a check.

    It is skipped where an attack that it needs has no version for the norm, and inconclusive where it breaks: a network
    of any kind may do that to a check, and the others are worth having.
    """
    about: dict[str, typing.Any] = {"sample_size": len(subject), "remedy": "Rely on the other checks."}
    about["reference"] = CHECKS[name].__globals__.get("REFERENCE", "")
    try:
        return CHECKS[name](subject, settings)
    except NoVersionError as error:
        return skipped(name, str(error), **about)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        reason = f"The check ended with {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        logging.error("%s: %s", name, reason)
        return dataclasses.replace(skipped(name, reason, **about), verdict=Verdict.INCONCLUSIVE)


def overall(results: Sequence[Result], clean: Accuracy, robust: Accuracy, chance: float) -> str:
    """Returns the verdict that follows from the results of the checks and the two accuracies, by `RULE`."""
    results = [result for result in results if result.name not in REPORTED]
    verdicts = [result.verdict for result in results]
    if any(result.verdict is Verdict.FAIL and result.masking for result in results):
        return MASKED
    if Verdict.FAIL in verdicts:
        return TOO_WEAK
    if Verdict.INCONCLUSIVE in verdicts or Verdict.PASS not in verdicts:
        return INCONCLUSIVE
    low = robust.interval[0]
    if low <= chance:
        return NOT
    return ROBUST if low > clean.accuracy / 2 else PARTLY


def _headline(verdict, results):
    results = [result for result in results if result.name not in REPORTED]
    named = {kind: [f'"{result.title}"' for result in results if result.verdict is kind] for kind in Verdict}
    words = {
        MASKED: f"Masked gradients suspected: {_and(named[Verdict.FAIL])} failed, so the accuracy under attack is only "
        "an upper limit.",
        TOO_WEAK: f"The attack is too weak: {_and(named[Verdict.FAIL])} failed, so the accuracy under PGD is only an "
        "upper limit; report the attack that is named there.",
        INCONCLUSIVE: f"Inconclusive: {_and(named[Verdict.INCONCLUSIVE]) or 'every check'} could not be judged.",
        ROBUST: "Genuinely robust, as far as these checks can see.",
        PARTLY: "Partly robust, and honestly so: no sign of masked gradients.",
        NOT: "Not robust, and honestly so: no sign of masked gradients.",
    }[verdict]
    return f"{words} Skipped: {_and(named[Verdict.SKIPPED])}." if named[Verdict.SKIPPED] else words


def _accuracies(clean, robust, subject, settings):
    low, high = robust.interval
    attacks = sum(each.attack is not None and subject.within_epsilon(each) for each in subject.evaluations())
    return (
        f"{robust.accuracy:.1%} of {robust.images} images withstand the worst of {attacks} attacks within epsilon "
        f"{subject.epsilon:.4g} in {subject.norm.label} ({settings.confidence:.0%} interval {low:.1%} to {high:.1%}); "
        f"{clean.accuracy:.1%} are classified correctly without attack."
    )


def _and(names):
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _accuracy(correct, settings):
    count, size = int(np.sum(correct)), len(correct)
    return Accuracy(count, size, count / size, statistics.wilson(count, size, confidence=settings.confidence))


def _described(evaluation, subject, settings):
    among = slice(None) if evaluation.among is None else evaluation.among
    accuracy = _accuracy(evaluation.correct[among], settings)
    return {
        "attack": evaluation.attack,
        "settings": evaluation.settings,
        "source": evaluation.source,
        "images": accuracy.images,
        "accuracy": accuracy.accuracy,
        "interval": accuracy.interval,
        "within_epsilon": subject.within_epsilon(evaluation),
    }


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
        "images_per_class": np.bincount(subject.labels, minlength=subject.num_classes).tolist(),
        "seed": subject.seed,
        "surrogates": [
            {"name": each.name, "parameters": each.network.count_params(), "accuracy": float(np.mean(each.correct))}
            for each in subject.known_surrogates
        ],
        "versions": {"python": platform.python_version(), "tf_nuat": tf_nuat.__version__, **versions},
    }
