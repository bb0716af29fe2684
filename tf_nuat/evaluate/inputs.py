"""Turns the flags of a command into what is asked, a dataset and a threat model, and checks it before any work.

`tf_nuat.evaluate`, `sanity.run` and `sanity.figures` take a network that anyone may have saved. The card beside it says
what the flags leave out. A card is data: it names no code, and no path elsewhere on the machine.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import keras
from absl import flags

from tf_nuat import card, data, norms
from tf_nuat.card import Card
from tf_nuat.core import functions, json_input, validation
from tf_nuat.data import image_lists

_CARD = "Default: that of card.json beside the checkpoint; of several, the cards have to agree"
# Of a flag: its type, its default and its help.
FLAGS: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "dataset": (
        flags.DEFINE_string,
        None,
        f"whose images to look at: {', '.join(data.DATASETS)}, a folder of class folders, a folder that TensorFlow "
        f"Datasets prepared, a .csv file of paths and labels, an .npz file, or module:function. {_CARD}",
    ),
    "class_names": (
        flags.DEFINE_string,
        None,
        "file with the names of the classes in the order of the network's outputs: one a line, a JSON list, or a JSON "
        "dict of indices and names. Class folders get this order; labels that are numbers get these names. Default: "
        "those of the card, else the order of the dataset",
    ),
    "data_dir": (
        flags.DEFINE_string,
        None,
        "where the datasets are (default: TFDS_DATA_DIR, else that of TFDS)",
    ),
    "epsilon": (
        flags.DEFINE_float,
        None,
        "radius of the threat model: the largest change that the network should withstand, in the norm; usually 0.3 "
        f"for MNIST and 0.031 (8/255) for CIFAR-10 in linf, 0.5 for CIFAR-10 in l2. {_CARD}",
    ),
    "norm": (
        flags.DEFINE_string,
        None,
        f"norm of the threat model: {', '.join(norms.NORMS)}. {_CARD}, else linf",
    ),
    "samples": (
        flags.DEFINE_integer,
        None,
        "number of images, each class in proportion. Fewer are faster, and leave more undecided",
    ),
    "seed": (flags.DEFINE_integer, 0, "the sample and all random draws follow from it"),
}


class Flags(Protocol):
    """The values of `FLAGS`, as absl has them."""

    dataset: str | None
    class_names: str | None
    data_dir: str | None
    epsilon: float | None
    norm: str | None
    samples: int | None
    seed: int


def define(values: flags.FlagValues, **more: str) -> None:
    """Adds `FLAGS` to `values`; `more` is added to the help of some of them."""
    for name, (kind, default, text) in FLAGS.items():
        kind(name, default, f"{text}. {more[name]}" if name in more else text, flag_values=values)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked of networks: to withstand every change within a ball, on images of a dataset.

    Attributes:
        dataset: its name, its path, or `module:function`.
        epsilon: radius of the ball, pixels in [0, 1].
        norm: name of its norm.
        cards: the card beside each network; None if there is none.
        class_names: names of the classes in the order of the outputs; None: as the dataset has them.
    """

    dataset: str
    epsilon: float
    norm: str
    cards: tuple[Card | None, ...]
    class_names: tuple[str, ...] | None = None


def check_sample(values: Flags) -> None:
    """Raises a `ValueError` where `samples` or `seed` is wrong."""
    if values.samples is not None:
        validation.whole_number("--samples", values.samples, at_least=1)
    validation.whole_number("--seed", values.seed, at_least=0)


def asked(
    values: Flags,
    networks: Sequence[tuple[pathlib.Path, keras.Model]],
    *,
    zero: bool = False,
    say: Callable[[str], None] = print,
) -> Asked:
    """Returns what is asked of networks, by the flags or, where they leave something out, by the cards.

    Args:
        values: flags, which include those of `FLAGS`.
        networks: pairs of a checkpoint's path and the network that was loaded from it.
        zero: whether epsilon may be 0.
        say: gets one line that names what comes from a card, before any of it is used.

    Raises:
        ValueError: a flag or a value in a card is wrong, is missing, or cards disagree.
    """
    cards = [(card.place(path), _card_beside(path, values, say)) for path, _ in networks]
    taken = {
        "dataset": _agreed("dataset", values.dataset, cards),
        "epsilon": _agreed("epsilon", values.epsilon, cards),
        "norm": _agreed("norm", values.norm, cards, otherwise="linf"),
    }
    dataset, epsilon, norm = (each.value for each in taken.values())
    if taken["dataset"].card is not None:
        check_dataset_of_card(taken["dataset"].name, dataset, taken["dataset"].card)
    validation.one_of(taken["norm"].name, norm, norms.NORMS)
    if taken["epsilon"].card is not None:
        _check_radius(epsilon, norm, cards)
    at_most = _largest(norm, [network for _, network in networks])
    bounds = {"at_least": 0.0} if zero else {"above": 0.0}
    validation.number(taken["epsilon"].name, epsilon, **bounds, at_most=at_most)
    said = [f"{name} {each.value}" for name, each in taken.items() if each.card is not None]
    class_names = _class_names(values.class_names, cards)
    if class_names is not None and values.class_names is None:
        said.append("class_names")
    if said:
        say(f"from card.json: {', '.join(said)}")
    data.check_name(taken["dataset"].name, dataset)  # which imports the module of a function
    return Asked(dataset, epsilon, norm, tuple(beside for _, beside in cards), class_names)


@dataclasses.dataclass(frozen=True)
class _Value:
    """A value, what an error calls it, and the path of the card that it comes from; None for a flag or a default."""

    value: Any
    name: str
    card: pathlib.Path | None = None


def _card_beside(path: pathlib.Path, values: Flags, say: Callable[[str], None]) -> Card | None:
    """Returns the card beside a checkpoint. A card that cannot be read is left out if the flags say everything."""
    try:
        return card.beside(path)
    except ValueError as error:
        lacking = [f"--{name}" for name in ("dataset", "epsilon") if getattr(values, name) is None]
        if lacking:
            raise ValueError(f"{error}; or give {' and '.join(lacking)}") from error
        say(f"not used: {error}")
        return None


def _agreed(
    name: str, given: Any, cards: Sequence[tuple[pathlib.Path, Card | None]], *, otherwise: str | None = None
) -> _Value:
    """Returns the value of a flag or, if it is not given, of all cards; cards without it have the value `otherwise`."""
    if given is not None:
        return _Value(given, f"--{name}")
    found = [_said(name, place, beside, otherwise) for place, beside in cards]
    for each in found[1:]:
        if each.value != found[0].value:
            raise ValueError(
                f"{each.name} is {each.value!r}, and {found[0].name} is {found[0].value!r}; "
                f"allowed: the same for all, or --{name}"
            )
    return found[0]


def _said(name: str, place: pathlib.Path, beside: Card | None, otherwise: str | None) -> _Value:
    if beside is not None and beside.says(name) is not None:
        return _Value(beside.says(name), f"{name} in {place}", place)
    if otherwise is None:
        raise ValueError(f"--{name} is not given, and {place} does not name it; give --{name}")
    return _Value(otherwise, f"--{name}")


def _check_radius(epsilon: float, norm: str, cards: Sequence[tuple[pathlib.Path, Card | None]]) -> None:
    """Raises a `ValueError` where a card gives `epsilon` as a radius in another norm."""
    for place, beside in cards:
        own = "linf" if beside is None else beside.says("norm") or "linf"
        if own != norm:
            raise ValueError(
                f"epsilon in {place} is {epsilon!r}, a radius in {own}; allowed with --norm {norm}: --epsilon"
            )


def _class_names(given: str | None, cards: Sequence[tuple[pathlib.Path, Card | None]]) -> tuple[str, ...] | None:
    """Returns the names of the classes in the file that the flag gives or, without it, those of all cards."""
    if given is not None:
        return data.read_class_names("--class_names", given)
    found = [(place, class_names_of(beside, place)) for place, beside in cards if beside is not None]
    for place, names in found[1:]:
        if names != found[0][1]:
            raise ValueError(
                f"class_names in {place} and in {found[0][0]} differ; allowed: the same for all, or --class_names"
            )
    return found[0][1] if found else None


def class_names_of(beside: Card, place: str | os.PathLike) -> tuple[str, ...] | None:
    """Returns the names of the classes that a card has; None where it has none. A path is not allowed there."""
    names = beside.data_options.get("class_names")
    if names is None:
        return None
    field = json_input.Field("class_names", place)
    return data.read_class_names(f"class_names in {place}", json_input.list_of(json_input.text)(names, field))


def dataset_of_run(given: str | None, run: Card, path: str | os.PathLike) -> str:
    """Returns the dataset `given` or, without it, that which the card at `path` names.

    Raises:
        ValueError: as `check_dataset_of_card`, and as `tf_nuat.data.check_name`.
    """
    return data.check_name("dataset", given or check_dataset_of_card(f"dataset in {path}", run.dataset, path))


def check_dataset_of_card(argument: str, name: str, place: str | os.PathLike) -> str:
    """Returns `name`, the dataset that the card at `place` names.

    Raises:
        ValueError: it is a function, or a path outside of the card's folder and the current one. It names `argument`.
    """
    if name in data.DATASETS:
        return name
    folders = (pathlib.Path(place).parent.resolve(), pathlib.Path.cwd())
    if (
        functions.is_name(name)
        or not (os.path.exists(name) and any(pathlib.Path(name).resolve().is_relative_to(folder) for folder in folders))
        or (
            name.lower().endswith(".csv")
            and os.path.isfile(name)
            and not image_lists.are_within(argument, name, folders)
        )
    ):
        raise ValueError(
            f"{argument} is {json_input.shown(name)}; allowed in a card: {', '.join(sorted(data.DATASETS))}, or a "
            "path within its folder or the current one (or a list of such); give --dataset on the command line for any "
            "other, a function for instance, whose code is run"
        )
    return name


def _largest(norm: str, networks: Iterable[keras.Model]) -> float | None:
    """Returns the largest radius that means anything for the images of the networks; None where there is no bound."""
    shapes: list[Any] = [[size or math.inf for size in each.input_shape[1:]] for each in networks]
    largest = max(norms.NORMS[norm].largest(shape) for shape in shapes)
    return largest if math.isfinite(largest) else None
