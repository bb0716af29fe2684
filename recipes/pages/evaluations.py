"""Reads the per-image outcomes of finished runs, and their evaluations by `tf_nuat.evaluate`, for example AutoAttack.

An evaluation lies in the folder of the run's card, as `evaluation/results.json` or `evaluation/NAME/results.json`:

    python -m tf_nuat.evaluate --checkpoint runs/mnist_nuat/network.keras --out runs/mnist_nuat/evaluation/autoattack
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_nuat import card, norms
from tf_nuat.card import Card, Measured
from tf_nuat.core import json_input, npz_input
from tf_nuat.core.json_input import Field
from tf_nuat.core.npz_input import Shape
from tf_nuat.evaluate import networks, runs
from tf_nuat.evaluate.record import ROBUST
from tf_nuat.training.experiment import OUTCOMES

ESTIMATE = "two_phase.json"  # of `recipes.two_phase`, beside the results of a sample
JUDGED = pathlib.Path("sanity", "results.json")  # of `sanity.run`, beside the card of the network
THEN = ", then "  # between attacks; each gets the images that withstood those before it
STANDARD = ("version", "standard")  # the default of AutoAttack

# (a key that identifies the images, which of them are classified correctly: bool (N,)).
Outcomes = tuple[tuple[Any, ...], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of a run's network on images of the test split, in the run's threat model.

    Attributes:
        name: the attacks with their steps, or the version of AutoAttack. Other evaluations may have the same name.
        attack: the attacks, in the form of an attack in a recipe.
        measured: the accuracy under the worst of the attacks for each image.
        sample: key that identifies the images; None if the results do not have it.
        folder: where the results are.
        estimate: the estimate for all images of the split; None if `recipes.two_phase` was not run.
    """

    name: str
    attack: dict[str, Any]
    measured: Measured
    sample: tuple[str, int, int] | None
    folder: pathlib.Path
    estimate: Measured | None = None

    def robust(self) -> np.ndarray | None:
        """Returns which images withstood all attacks, bool (N,), or None if there is no record of each image."""
        path = self.folder / "record.npz"
        if not path.is_file():
            return None
        where = f"record is {str(path)!r}, which"
        record = npz_input.load(where, path, ["fooled_by"])
        npz_input.check(where, record, {"fooled_by": Shape("iu", (None,))})
        return record["fooled_by"] == ROBUST


def beside(path: str | os.PathLike, run: Card) -> list[Evaluation]:
    """Returns the evaluations beside the card `run`, which is at `path`.

    Leaves out evaluations on another split, dataset, norm or epsilon, which answer another question.

    Raises:
        ValueError: results cannot be read, are not those of an evaluation, or belong to another network.
    """
    found = []
    for results in sorted(pathlib.Path(path).parent.glob("evaluation/**/results.json")):
        try:
            content = _content(results)
            if not _is_of(content, run):
                continue
            found.append(_evaluation(content, results.parent))
        except ValueError as error:
            raise ValueError(
                f"results are {str(results)!r}, which are not those of an evaluation ({error}); "
                "allowed: what tf_nuat.evaluate writes"
            ) from error
        ours, clean = run.measured["clean"], content["stages"][0]["accuracy"]
        # If not all test images are used, a run takes the first ones, an evaluation a sample of each class.
        is_part = run.says("test_images") == ours.images
        if not is_part and found[-1].measured.images == ours.images and abs(clean - ours.accuracy) > 1e-9:
            raise ValueError(
                f"results are {str(results)!r}, with {clean:.2%} of {ours.images} clean images correct; "
                f"allowed: {ours.accuracy:.2%}, those of the network of {path}"
            )
    return found


def card_with(path: str | os.PathLike) -> tuple[Card, dict[str, Outcomes]]:
    """Returns a card with the evaluations beside it as measures, and the outcome of each image.

    If an attack was run several times, the run on the most images counts. If different attacks have one name, the first
    keeps it (the card's own come before those of evaluations), and the others are `told_apart`.

    An estimate for all images beside an evaluation of a sample is a measure, too, and takes over the claim.

    Returns:
        the card at `path`; and a dict of measure to its `Outcomes`, for the measures whose outcomes are known.

    Raises:
        ValueError: there is no such card, or what lies beside it cannot be read or belongs to another network.
    """
    run = card.read(path)
    outcomes: dict[str, Outcomes] = {
        name: (("test", None, len(correct)), correct) for name, correct in _outcomes(path, run).items()
    }
    for each in _of_most_images(beside(path, run)):
        name, text = each.name, runs.described(each.attack)
        if name in run.measured and runs.described(run.measures[name]) != text:
            name = told_apart(name, text)
        if name not in run.measured or run.measured[name].images < each.measured.images:
            run = run.with_measure(name, each.attack, each.measured)
            outcomes.pop(name, None)
            robust = each.robust()
            if each.sample is not None and robust is not None:
                outcomes[name] = (each.sample, robust)
        if each.estimate is not None and each.estimate.images > run.measured[name].images:
            estimated = f"{name}, estimated"
            attack = {"attack": f"for all images, by recipes.two_phase from {text}"}
            run = run.with_measure(estimated, attack, dataclasses.replace(each.estimate, estimated=True))
            claimed = {estimated if known == name else known: value for known, value in run.claimed.items()}
            run = dataclasses.replace(run, claimed=claimed)
    return run, outcomes


def told_apart(name: str, text: str) -> str:
    """Returns a name for a measure if `name` stands for another attack; `text` is its own attack with settings."""
    return f"{name} ({text})"


def _of_most_images(found: Sequence[Evaluation]) -> list[Evaluation]:
    """Returns one evaluation per attack: the one on the most images, or the first of several."""
    largest: dict[str, Evaluation] = {}
    for each in found:
        known = largest.setdefault(runs.described(each.attack), each)
        if each.measured.images > known.measured.images:
            largest[runs.described(each.attack)] = each
    return [each for each in found if largest[runs.described(each.attack)] is each]


def verdict(path: str | os.PathLike, run: Card) -> str | None:
    """Returns the verdict that `sanity.run` left beside the card `run`, which is at `path`; None if it left none.

    Leaves out a verdict on another dataset, norm, epsilon or network than `network.keras` beside the card: it answers
    another question.

    Raises:
        ValueError: what lies there cannot be read, or is no judgement.
    """
    judged = pathlib.Path(path).parent / JUDGED
    if not judged.is_file():
        return None
    content = json_input.load("judgement", judged)
    found = json_input.fields(_JUDGEMENT, content, Field("", judged.name), required=["verdict"])
    says = {**found.get("subject", {}), **found.get("provenance", {})}
    asked = {"dataset": run.dataset, "norm": norms.label(run.norm), "epsilon": run.epsilon}
    network = pathlib.Path(path).with_name("network.keras")
    if network.is_file():
        asked["checkpoint_sha256"] = networks.sha256(network)
    return found["verdict"] if all(says.get(name, value) == value for name, value in asked.items()) else None


def _outcomes(path: str | os.PathLike, run: Card) -> dict[str, np.ndarray]:
    """Returns the outcomes that the run at `path` kept, a dict of measure to bool (N,); {} if it kept none."""
    path = pathlib.Path(path).parent / OUTCOMES
    if not path.is_file():
        return {}
    where, allowed = f"outcomes are {str(path)!r}, which", "what the run wrote"
    found = npz_input.load(where, path, allowed=allowed)
    npz_input.check(where, found, {name: Shape("b", (None,)) for name in found}, allowed=allowed)
    for name, correct in found.items():
        measured = run.measured.get(name)
        if (
            measured is None
            or len(correct) != measured.images
            or abs(float(np.mean(correct)) - measured.accuracy) > 1e-9
        ):
            raise ValueError(f"outcomes are {str(path)!r}, of another {name} than the card; allowed: those of its run")
    return found


def _subject(value: Any, field: Field) -> dict[str, Any]:
    return json_input.fields({"norm": json_input.text, "epsilon": json_input.number}, value, field)


def _provenance(value: Any, field: Field) -> dict[str, Any]:
    return json_input.fields({"dataset": json_input.text, "checkpoint_sha256": json_input.text}, value, field)


def _stage(value: Any, field: Field) -> dict[str, Any]:
    return json_input.fields(_STAGE, value, field, required=_STAGE)


def _content(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of results, with checked types.

    Raises:
        ValueError: they are not those of an evaluation.
    """
    required = ("norm", "epsilon", "images", "stages")
    return json_input.fields(_RESULTS, json_input.load("it", path), Field("", path.name), required=required)


def _is_of(content: Mapping[str, Any], run: Card) -> bool:
    """Returns whether results are of the run's test images and threat model; older results lack some fields."""
    asked = {"dataset": run.dataset, "split": "test"}
    threat = {"norm": run.norm, "epsilon": run.epsilon}
    return all(content.get(name, value) == value for name, value in asked.items()) and all(
        content[name] == value for name, value in threat.items()
    )


def _evaluation(content: Mapping[str, Any], folder: pathlib.Path) -> Evaluation:
    last = content["stages"][-1]
    ran = content.get("attacks") or [(stage["name"], stage["settings"]) for stage in content["stages"][1:]]
    attacks = [
        (name, {key: value for key, value in settings.items() if key not in _IMPLIED and (key, value) != STANDARD})
        for name, settings in ran
    ]
    described = [runs.described({"attack": name, **settings}) for name, settings in attacks]
    return Evaluation(
        name="+".join(_short(name, settings) for name, settings in attacks),
        attack={"attack": THEN.join(described)},
        measured=Measured(last["accuracy"], last["interval"], content["images"]),
        sample=(content.get("split", ""), content["seed"], content["images"]) if "seed" in content else None,
        folder=folder,
        estimate=_estimate(folder / ESTIMATE),
    )


def _estimate(path: pathlib.Path) -> Measured | None:
    if not path.is_file():
        return None
    try:
        return card.checked_measure(json_input.load("estimate", path), Field("estimate", path))
    except ValueError as error:
        raise ValueError(f"{path.name} beside it is not what recipes.two_phase writes: delete it") from error


def _short(name: str, settings: Mapping[str, Any]) -> str:
    told_by = settings.get("version", settings.get("steps"))
    return name if told_by is None else f"{name}_{told_by}"


def _stages(value: Any, field: Field) -> list[dict[str, Any]]:
    stages = json_input.list_of(_stage)(value, field)
    return stages or field.refuse(value, "the clean images, and a stage for each attack")


def _attack(value: Any, field: Field) -> tuple[str, dict[str, Any]]:
    name, settings = json_input.pair(value, field)
    return json_input.text(name, field / "0"), json_input.named(settings, field / "1")


_JUDGEMENT: dict[str, json_input.Check] = {
    "verdict": json_input.text,
    "subject": _subject,
    "provenance": _provenance,
}
_IMPLIED = ("epsilon", "norm")  # settings that are those of the threat model
_STAGE: dict[str, json_input.Check] = {
    "name": json_input.text,
    "settings": json_input.named,
    "accuracy": json_input.share,
    "interval": json_input.interval,
}
_RESULTS: dict[str, json_input.Check] = {
    "norm": json_input.text,
    "epsilon": json_input.number,
    "images": json_input.count,
    "stages": _stages,
    "attacks": json_input.list_of(_attack),
    "precision": json_input.text,
    "dataset": json_input.text,
    "split": json_input.text,
    "seed": json_input.whole,
}
