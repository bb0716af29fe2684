"""What became of each test image of finished runs, and what `tf_nuat.evaluate` found of them: AutoAttack, for instance.

What it found lies in the folder of the run's card, as `evaluation/results.json` or `evaluation/NAME/results.json`:

    python -m tf_nuat.evaluate --checkpoint runs/mnist_nuat/network.keras --out runs/mnist_nuat/evaluation/autoattack
"""

import dataclasses
import json
import pathlib
import zipfile

import numpy as np

from recipes import table
from tf_nuat.evaluate.record import ROBUST
from tf_nuat.training.experiment import OUTCOMES

ESTIMATE = "two_phase.json"  # of `recipes.two_phase`, beside the results of a sample


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of a run's network on images of the test split, in the run's threat model.

    Attributes:
        name: what to call it: the attacks with their steps, or the version of AutoAttack.
        attack: what was run, as an attack in a recipe.
        measured: as in a card: "accuracy" under the worst of the attacks for each image, "interval" and "images".
        sample: what says which images these are, equal for equal images; None where the results do not say it.
        folder: where the results are.
        estimate: as `measured`, what they say of all images of the split; None where `recipes.two_phase` was not run.
    """

    name: str
    attack: dict
    measured: dict
    sample: tuple | None
    folder: pathlib.Path
    estimate: dict | None = None

    def robust(self):
        """Returns which images withstood all attacks, bool (N,), or None where the record of each image is not kept."""
        path = self.folder / "record.npz"
        if not path.is_file():
            return None
        with np.load(path) as record:
            return record["fooled_by"] == ROBUST


def beside(path, card):
    """Returns the evaluations beside the card at `path`, a list of `Evaluation`.

    Those of another split, dataset, norm or epsilon answer another question, and are left out.

    Raises:
        ValueError: results cannot be read, are not those of an evaluation, or belong to another network.
    """
    found = []
    for results in sorted(pathlib.Path(path).parent.glob("evaluation/**/results.json")):
        try:
            content = json.loads(results.read_text(encoding="utf-8"))
            if _is_of(content, card["recipe"]):
                found.append(_evaluation(content, results.parent))
                clean = content["stages"][0]["accuracy"]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # JSON, but of another shape
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"results are {str(results)!r}, which are not those of an evaluation ({reason}); "
                "allowed: what tf_nuat.evaluate writes"
            ) from error
        ours = card["measured"]["clean"]
        if found and found[-1].measured["images"] == ours["images"] and abs(clean - ours["accuracy"]) > 1e-9:
            raise ValueError(
                f"results are {str(results)!r}, with {clean:.2%} of {ours['images']} clean images correct; "
                f"allowed: {ours['accuracy']:.2%}, those of the network of {path}"
            )
    return found


def card_with(path, *views):
    """Returns a card with the evaluations beside it as measures, and what became of each image.

    An estimate for all images beside an evaluation of a sample is a measure, too, and takes over what is claimed.

    Returns:
        the card at `path`, read as by `table.read`; and a dict of measure to (which images these are, equal for equal
        images; which of them are classified correctly, bool (N,)), of those measures of which it is known.

    Raises:
        ValueError: there is no such card, or what lies beside it cannot be read or belongs to another network.
    """
    card = table.read(path, table.conditions, *views)
    outcomes = {name: (("test", None, len(correct)), correct) for name, correct in _outcomes(path, card).items()}
    for each in beside(path, card):
        if each.name not in card["measured"]:
            card["measured"][each.name] = each.measured
            card["recipe"]["measures"][each.name] = each.attack
            robust = each.robust()
            if each.sample is not None and robust is not None:
                outcomes[each.name] = (each.sample, robust)
        if each.estimate is not None:
            name = f"{each.name}, estimated"
            card["measured"][name] = {**each.estimate, "estimated": True}
            card["recipe"]["measures"][name] = {"attack": f"for all images, by recipes.two_phase from {each.name}"}
            if each.name in card["claimed"]:
                card["claimed"][name] = card["claimed"].pop(each.name)
    return card, outcomes


def _outcomes(path, card):
    """Returns what the run at `path` kept of each image, a dict of measure to bool (N,); {} where it kept nothing."""
    path = pathlib.Path(path).parent / OUTCOMES
    if not path.is_file():
        return {}
    try:
        with np.load(path) as file:
            found = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"outcomes are {str(path)!r}, which cannot be read ({type(error).__name__}); allowed: what the run wrote"
        ) from error
    for name, correct in found.items():
        measured = card["measured"].get(name, {})
        if len(correct) != measured.get("images") or abs(np.mean(correct) - measured["accuracy"]) > 1e-9:
            raise ValueError(f"outcomes are {str(path)!r}, of another {name} than the card; allowed: those of its run")
    return found


def _is_of(content, recipe):
    """Returns whether results are of the recipe's test images and threat model; those of before do not say all."""
    asked = {"dataset": recipe["dataset"], "split": "test"}
    threat = {"norm": recipe.get("norm", "linf"), "epsilon": recipe["epsilon"]}
    return all(content.get(name, value) == value for name, value in asked.items()) and all(
        content[name] == value for name, value in threat.items()
    )


def _evaluation(content, folder):
    last = content["stages"][-1]
    ran = content.get("attacks") or [(stage["name"], stage["settings"]) for stage in content["stages"][1:]]
    attacks = [
        (name, {key: value for key, value in settings.items() if key not in ("epsilon", "norm")})
        for name, settings in ran
    ]
    # What runs after another gets what withstood that one.
    described = [table.described({"attack": name, **settings}) for name, settings in attacks]
    return Evaluation(
        name="+".join(_short(name, settings) for name, settings in attacks),
        attack={"attack": ", then ".join(described)},
        measured={"accuracy": last["accuracy"], "interval": last["interval"], "images": content["images"]},
        sample=(content["split"], content["seed"], content["images"]) if "seed" in content else None,
        folder=folder,
        estimate=_estimate(folder / ESTIMATE),
    )


def _estimate(path):
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: content[name] for name in ("accuracy", "interval", "images")}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} beside it is not what recipes.two_phase writes: delete it") from error


def _short(name, settings):
    told_by = settings.get("version", settings.get("steps"))
    return name if told_by in (None, "standard") else f"{name}_{told_by}"
