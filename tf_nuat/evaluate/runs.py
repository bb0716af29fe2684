"""The contents of cards as numbers and as text, for tables, pages and figures that compare runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from tf_nuat import norms
from tf_nuat.card import Card

PASSES = ("input_gradient", "training", "forward", "forward_backward")  # of a card's `passes`


@dataclasses.dataclass(frozen=True)
class Conditions:
    """The conditions of measured accuracies; accuracies with equal conditions can be compared.

    Attributes:
        dataset: its name, its path or `module:function`.
        norm: name of the threat model's norm.
        epsilon: its radius, pixels in [0, 1].
        measures: dict of a measure's name to its attack, {"attack": name, **settings}; without "clean".
        images: dict of a measure's name to the number of test images; with "clean".
    """

    dataset: str
    norm: str
    epsilon: float
    measures: dict[str, dict[str, Any]]
    images: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Returns the conditions as a dict of name to value, which `from_json` reads."""
        return {{"images": "test images"}.get(name, name): value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Returns the conditions that `to_json` has described."""
        return cls(**{{"test images": "images"}.get(name, name): value for name, value in content.items()})

    @property
    def threat(self) -> str:
        """The dataset and the threat model as text."""
        return f"{self.dataset}, {norms.label(self.norm)}, epsilon {self.epsilon:.4g}"


def conditions(card: Card) -> Conditions:
    """Returns the conditions under which the accuracies of a run's card were measured."""
    measures = {name: card.measures[name] for name in card.measured if name != "clean"}
    images = {name: each.images for name, each in card.measured.items()}
    return Conditions(card.dataset, card.norm, card.epsilon, measures, images)


def described(attack: Mapping[str, Any]) -> str:
    """Returns the settings of an attack, {"attack": name, **settings}, as text."""
    settings = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in attack.items()}
    return ", ".join([settings.pop("attack"), *(f"{name} {value}" for name, value in settings.items())])


def record(card: Card) -> dict[str, Any]:
    """Returns the numbers of a run's card, a flat dict of column to value; None where the card says nothing.

    Accuracies are in [0, 1]. `epochs` is the number of epochs that were trained, the last one perhaps in part. Passes
    are those of `defenses.Passes`, per training image and epoch.
    """
    values: dict[str, Any] = {
        "defense": card.defense,
        "network": card.network,
        "epochs": min(len(card.history), card.epochs),  # fewer than planned where training ended early
        "chosen_epoch": card.epoch_chosen,
    }
    for name, measured in card.measured.items():
        values[name] = measured.accuracy
        values[f"{name}_low"], values[f"{name}_high"] = measured.interval
        values[f"{name}_claimed"] = card.claimed.get(name)
    for kind in PASSES:
        values[f"{kind}_passes"] = card.passes.get(kind)
    values["training_seconds"] = card.training_seconds
    values["training_images_per_second"] = card.training_images_per_second
    values["seed"] = card.seed
    values["precision"] = card.precision
    values["command"] = card.command
    return values
