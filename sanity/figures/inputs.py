"""From the flags of the command line to models, with everything checked before any work."""

import json
import pathlib

from sanity.figures import FIGURES
from sanity.figures.models import Model, Options
from sanity.settings import BUDGETS
from sanity.subject import Subject
from tf_nuat import checkpoint, data, norms
from tf_nuat.core import validation

MOST_TRAINING = 2000  # images that the bend of a path is trained on


def collect(flags):
    """Returns (models, options, names of the figures) that `flags` (see `sanity.figures.__main__`) describe.

    Raises:
        ValueError: a flag is wrong, or does not fit the others; the message names it.
    """
    if not flags.checkpoint:
        raise ValueError("--checkpoint is not given; allowed: networks saved by Keras (.keras), one or several")
    names = list(FIGURES) if flags.only == ["all"] else flags.only
    for name in names:
        validation.one_of("--only", name, [*FIGURES, "all"])
    if "all" in names or not names:
        raise ValueError(f"--only is {','.join(names)!r}; allowed: all alone, or names of figures")
    settings, samples = validation.one_of("--budget", flags.budget, BUDGETS)
    samples = samples if flags.samples is None else validation.whole_number("--samples", flags.samples, at_least=1)
    validation.whole_number("--seed", flags.seed, at_least=0)
    validation.whole_number("--resolution", flags.resolution, at_least=2)
    validation.whole_number("--epochs", flags.epochs, at_least=1)

    paths = list(map(pathlib.Path, flags.checkpoint))
    networks = [
        validation.classifier(f"--checkpoint {path}", validation.load_network("--checkpoint", path)) for path in paths
    ]
    cards = [checkpoint.Card(path) for path in paths]
    dataset, dataset_from = _agreed("dataset", flags.dataset, cards)
    data.check_name(dataset_from, dataset)
    epsilon, epsilon_from = _agreed("epsilon", flags.epsilon, cards)
    norm, norm_from = _agreed("norm", flags.norm, cards, otherwise="linf")
    validation.one_of(norm_from, norm, norms.NORMS)
    validation.number(epsilon_from, epsilon, above=0.0, at_most=1.0 if norm == "linf" else None)
    loaded = {"seed": flags.seed, "data_dir": flags.data_dir}
    images, labels, class_names = checkpoint.sample(networks[0], cards[0], dataset, samples=samples, **loaded)
    for path, network in zip(paths, networks):
        checkpoint.fits(f"--checkpoint {path}", network, images, len(class_names), f"--dataset {dataset}")
    facts = [_card(path) for path in paths]
    models = [
        Model(name, Subject(network, images, labels, epsilon=epsilon, norm=norm, seed=flags.seed), card)
        for name, network, card in zip(names_of(paths, facts), networks, facts)
    ]
    training_data = None
    if "connectivity" in names and len(models) > 1:
        try:
            training_data = checkpoint.sample(
                networks[0], cards[0], dataset, split="train", samples=MOST_TRAINING, **loaded
            )[:2]
        except ValueError:  # a file of test images alone: the figure says that it needs more
            training_data = None
    options = Options(
        settings=settings,
        dataset=dataset,
        resolution=flags.resolution,
        training_data=training_data,
        epochs=flags.epochs,
        distances=tuple(flags.distances),
    )
    return models, options, names


def names_of(paths, cards):
    """Returns a name for each checkpoint: its defense, or its file, and its folder where that is not enough."""
    names = [
        str(card["recipe"]["defense"]) if card is not None and "defense" in card["recipe"] else path.stem
        for path, card in zip(paths, cards)
    ]
    twice = {name for name in names if names.count(name) > 1}
    names = [f"{name} ({path.parent.name})" if name in twice else name for name, path in zip(names, paths)]
    twice = {name for name in names if names.count(name) > 1}
    return [f"{name} {number}" if name in twice else name for number, name in enumerate(names, start=1)]


def _agreed(name, given, cards, **otherwise):
    """Returns what `Card.default` does, where all cards say the same."""
    found = [card.default(name, given, **otherwise) for card in cards]
    for value, place in found[1:]:
        if value != found[0][0]:
            raise ValueError(
                f"{place} is {value!r}, and {found[0][1]} is {found[0][0]!r}; allowed: the same for all, or --{name}"
            )
    return found[0]


def _card(path):
    """Returns the card beside a checkpoint, a dict with a recipe; None where there is none."""
    try:
        card = json.loads(path.with_name("card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) and isinstance(card.get("recipe"), dict) else None
