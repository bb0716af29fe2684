"""The card of a run, `card.json`: what was trained and measured, with one reader and one writer.

It lies beside the networks of the run. A card may come from someone else, so the reader checks the type of each value,
and every error is one line that names the file.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tf_nuat.core import files, json_input
from tf_nuat.core.json_input import Field

SCHEMA = 2  # of cards that are written now; cards without a number have schema 1
NAME = "card.json"
MOST_TEXT = 300  # characters that are shown of a value

_SHOWN = ("defense", "defense_options", "epochs", "seed")  # fields of the recipe in `Card.facts`


@dataclasses.dataclass(frozen=True)
class Measured:
    """An accuracy on test images.

    Attributes:
        accuracy: share of the images that are classified correctly, in [0, 1].
        interval: (low, high), its 95 % interval.
        images: number of images, at least 1.
        estimated: whether it estimates the accuracy on all images from a sample of them (`recipes.two_phase`).
    """

    accuracy: float
    interval: tuple[float, float]
    images: int
    estimated: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", tuple(self.interval))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a run did and found: the content of `card.json`, and `missing`.

    Attributes:
        schema: version of the card's format; 1 for cards without a number.
        recipe: `tf_nuat.training.Recipe` as JSON, a dict.
        command: the command line that ran it.
        parameters: number of weights of the network.
        epoch_chosen: epoch, from 1, whose network was kept.
        measured: dict of the measure's name ("clean" and those of the recipe) to `Measured`, on the test split.
        claimed: dict of the measure's name to the accuracy that the recipe's source claims, in [0, 1].
        passes: dict of "input_gradient", "training", "forward" and "forward_backward" to passes per training image and
            epoch, see `defenses.Passes`; {} if unknown.
        training_seconds: seconds of all epochs, without validation.
        training_images_per_second: trained images divided by `training_seconds`.
        history: the logs of Keras, a dict of name to number for each trained epoch.
        replicas: devices that trained.
        workers: processes that trained.
        machine: dict of "processor" to its architecture, and of "devices" to the names of all devices.
        versions: dict of a package's name ("python" included) to its version, None if it is not installed.
        source_training_seconds: seconds of training the source networks (EAT); None without source networks.
        adapted: changes that `tf_nuat.networks.adapt` made to a network from a file, in words; [] for other networks.
        defense_facts: numbers that the defense adds under its own names, for instance "extra_epochs" of NuAT-H.
        missing: names of required entries that this card lacks; () for the card of a run.
    """

    recipe: dict[str, Any]
    command: str = ""
    parameters: int | None = None
    epoch_chosen: int = 0
    measured: dict[str, Measured] = dataclasses.field(default_factory=dict)
    claimed: dict[str, float] = dataclasses.field(default_factory=dict)
    passes: dict[str, float] = dataclasses.field(default_factory=dict)
    training_seconds: float = 0.0
    training_images_per_second: float = 0.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    replicas: int | None = None
    workers: int | None = None
    machine: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str | None] = dataclasses.field(default_factory=dict)
    source_training_seconds: float | None = None
    adapted: list[str] = dataclasses.field(default_factory=list)
    defense_facts: dict[str, float] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA
    missing: tuple[str, ...] = dataclasses.field(default=(), repr=False, compare=False)

    @property
    def dataset(self) -> str:
        """Name or path of the recipe's dataset, or the name of a function."""
        return self.recipe["dataset"]

    @property
    def network(self) -> str:
        """Name or path of the recipe's network, or the name of a function."""
        return self.recipe["network"]

    @property
    def network_options(self) -> dict[str, Any]:
        """Options of the network."""
        return self.recipe.get("network_options", {})

    @property
    def defense(self) -> str:
        """Name of the defense."""
        return self.recipe["defense"]

    @property
    def epsilon(self) -> float:
        """Radius of the threat model, pixels in [0, 1]."""
        return self.recipe["epsilon"]

    @property
    def norm(self) -> str:
        """Name of the threat model's norm; "linf" for older cards, which do not name it."""
        return self.recipe.get("norm", "linf")

    @property
    def epochs(self) -> float:
        """Number of epochs of the recipe; it may be a fraction if the recipe has `minutes`."""
        return self.recipe["epochs"]

    @property
    def seed(self) -> int:
        """Seed of the recipe."""
        return self.recipe["seed"]

    @property
    def precision(self) -> str:
        """Precision of training; "float32" for older cards, which do not name it."""
        return self.recipe.get("precision", "float32")

    @property
    def chosen_by(self) -> str:
        """The entry of `history` by which the best epoch was chosen, or "last"."""
        return self.recipe.get("chosen_by", "val_robust_accuracy")

    @property
    def source(self) -> str:
        """Where the recipe's settings and claims come from; "" if it does not say."""
        return self.recipe.get("source") or ""

    @property
    def data_options(self) -> dict[str, Any]:
        """How the images were prepared: further arguments of `tf_nuat.data.load`."""
        return self.recipe.get("data_options", {})

    @property
    def measures(self) -> dict[str, dict[str, Any]]:
        """Attacks of the final measurement, a dict of names to dicts of the attack's name and its settings."""
        return self.recipe.get("measures", {})

    def says(self, name: str) -> Any:
        """Returns the recipe's field `name`; None if a partial card lacks it."""
        return self.recipe.get(name)

    @property
    def facts(self) -> dict[str, str]:
        """Facts about the training, a dict of name to text: settings, the command, the measured accuracies."""
        shown: dict[str, Any] = {name: self.recipe.get(name) for name in _SHOWN}
        shown["epoch chosen"], shown["command"] = self.epoch_chosen or None, self.command or None
        shown["network adapted"] = "; ".join(self.adapted) or None
        for name, each in self.measured.items():
            shown[f"accuracy, {name}"] = f"{each.accuracy:.2%} of {each.images:,} images"
        return {name[:MOST_TEXT]: str(value)[:MOST_TEXT] for name, value in shown.items() if value is not None}

    def with_measure(self, name: str, attack: Mapping[str, Any], measured: Measured) -> "Card":
        """Returns the card with one more measure; `attack` is a dict of the attack's name and its settings."""
        recipe = {**self.recipe, "measures": {**self.measures, name: dict(attack)}}
        return dataclasses.replace(self, recipe=recipe, measured={**self.measured, name: measured})

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `card.json`, of plain types."""
        content = dataclasses.asdict(self)
        del content["missing"]
        for each in content["measured"].values():
            each["interval"] = list(each["interval"])
            if not each["estimated"]:
                del each["estimated"]
        return {name: value for name, value in content.items() if value not in (None, "", [])}


def read(path: str | os.PathLike, *, partial: bool = False) -> Card:
    """Returns the card at `path`.

    Args:
        path: path of the card.
        partial: whether the card may lack entries that every run writes, like a card that was written by hand.

    Raises:
        ValueError: it is not JSON, a value has another type than in `Card`, the schema is newer, or a field is missing.
    """
    return from_json(json_input.load("card", path), path, partial=partial)


def beside(checkpoint: str | os.PathLike) -> Card | None:
    """Returns the card beside a checkpoint, None if there is none; the card may be partial.

    Raises:
        ValueError: the card cannot be read.
    """
    path = place(checkpoint)
    return read(path, partial=True) if os.path.lexists(path) else None


def place(checkpoint: str | os.PathLike) -> pathlib.Path:
    """Returns the path of the card beside a checkpoint."""
    return pathlib.Path(checkpoint).with_name(NAME)


def write(card: Card, path: str | os.PathLike) -> None:
    """Replaces the file at `path` by the card.

    Raises:
        files.NotSavedError: the file cannot be written.
    """
    files.save_json(card.to_json(), path)


def from_json(content: Any, path: str | os.PathLike, *, partial: bool = False) -> Card:
    """Returns the card from the JSON `content` of the file `path`; arguments and errors are those of `read`."""
    if not isinstance(content, dict):
        raise _refused(path, f"it is a {type(content).__name__}")
    schema = content.get("schema", 1)
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise ValueError(
            f"card is {str(path)!r}, of schema {json_input.shown(schema)}; "
            f"allowed: 1 to {SCHEMA} (a later one is for a later version of tf_nuat)"
        )
    top = Field("", path)
    found = {"schema": 1, "recipe": {}, **json_input.fields(_FIELDS, content, top)}
    recipe, measured = found["recipe"], found.get("measured", {})
    json_input.fields(_RECIPE, recipe, top / "recipe")
    if "extra_epochs" in content:  # schema 1
        found["defense_facts"] = {"extra_epochs": json_input.number(content["extra_epochs"], top / "extra_epochs")}
    missing = [name for name in _OF_A_RUN if name not in content]
    missing += [f"recipe.{name}" for name in _OF_A_RECIPE if name not in recipe]
    missing += ["measured.clean"] if "clean" not in measured else []
    missing += [f"recipe.measures.{name}" for name in measured if name not in ("clean", *recipe.get("measures", ()))]
    if missing and not partial:
        raise _refused(path, f"{missing[0]} is missing")
    return Card(**found, missing=tuple(missing))


def _refused(path: str | os.PathLike, reason: str) -> ValueError:
    return ValueError(
        f"card is {str(path)!r}, which is not the card of a run ({reason[:MOST_TEXT]}); "
        "allowed: the card.json of a finished run"
    )


def checked_measure(value: Any, field: Field) -> Measured:
    """Returns the `Measured` that a JSON value describes; a check as in `json_input`."""
    return Measured(**json_input.fields(_MEASURED, value, field, required=("accuracy", "interval", "images")))


def _checked_attack(value: Any, field: Field) -> dict[str, Any]:
    json_input.fields({"attack": json_input.text}, value, field, required=("attack",))
    return value


_MEASURED: dict[str, json_input.Check] = {
    "accuracy": json_input.share,
    "interval": json_input.interval,
    "images": json_input.count,
    "estimated": json_input.flag,
}
_FIELDS: dict[str, json_input.Check] = {
    "schema": json_input.count,
    "recipe": json_input.named,
    "command": json_input.text,
    "parameters": json_input.whole,
    "epoch_chosen": json_input.count,
    "measured": json_input.dict_of(checked_measure),
    "claimed": json_input.dict_of(json_input.share),
    "passes": json_input.dict_of(json_input.number),
    "training_seconds": json_input.number,
    "training_images_per_second": json_input.number,
    "history": json_input.list_of(json_input.dict_of(json_input.logged)),
    "replicas": json_input.count,
    "workers": json_input.count,
    "machine": json_input.named,
    "versions": json_input.dict_of(json_input.text_or_none),
    "source_training_seconds": json_input.number,
    "adapted": json_input.list_of(json_input.text),
    "defense_facts": json_input.dict_of(json_input.logged),
}
# The fields of a recipe that `Card` reads; `tf_nuat.training.Recipe` checks the rest.
_RECIPE: dict[str, json_input.Check] = {
    "dataset": json_input.text,
    "network": json_input.text,
    "network_options": json_input.named,
    "defense": json_input.text,
    "epsilon": json_input.number,
    "norm": json_input.text,
    "epochs": json_input.number,
    "seed": json_input.whole,
    "precision": json_input.text,
    "chosen_by": json_input.text,
    "source": json_input.text_or_none,
    "data_options": json_input.named,
    "measures": json_input.dict_of(_checked_attack),
}
_OF_A_RUN = (
    "recipe",
    "command",
    "epoch_chosen",
    "measured",
    "claimed",
    "training_seconds",
    "training_images_per_second",
    "history",
)
_OF_A_RECIPE = ("dataset", "network", "defense", "epsilon", "epochs", "seed", "measures")
