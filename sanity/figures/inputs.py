"""Turns command-line flags into models, and checks everything before any work starts."""

import dataclasses
import pathlib

from sanity.figures import FIGURES
from sanity.figures.models import Model, Options
from sanity.settings import BUDGETS
from sanity.subject import Subject
from tf_nuat.core import validation
from tf_nuat.evaluate import inputs, networks, sampling, wiring

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
        validation.refuse("--only", ",".join(names), "all alone, or names of figures")
    settings, samples, *_ = validation.one_of("--budget", flags.budget, BUDGETS)
    inputs.check_sample(flags)
    samples = samples if flags.samples is None else flags.samples
    validation.whole_number("--resolution", flags.resolution, at_least=2)
    validation.whole_number("--epochs", flags.epochs, at_least=1)

    paths = list(map(pathlib.Path, flags.checkpoint))
    loaded = [(path, networks.read("--checkpoint", path, flags).network) for path in paths]
    asked = inputs.asked(flags, loaded)
    first = loaded[0][1]
    given = {"seed": flags.seed, "data_dir": flags.data_dir, "class_names": asked.class_names}
    images, labels, class_names = sampling.sample(
        first, asked.cards[0], asked.dataset, samples=samples, at_most=flags.samples is None, **given
    )
    for path, network in loaded:
        sampling.fits(f"--checkpoint {path}", network, images, class_names, asked.dataset)
        remedy = wiring.OF_SEVERAL if len(loaded) > 1 else ""
        wiring.check(f"--checkpoint {path}", network, images, labels, class_names, pixels=flags.pixels, remedy=remedy)
    models = [
        Model(name, Subject(network, images, labels, epsilon=asked.epsilon, norm=asked.norm, seed=flags.seed), card)
        for name, (_, network), card in zip(names_of(paths, asked.cards), loaded, asked.cards)
    ]
    training_data = None
    if "connectivity" in names and len(models) > 1:  # without training images, the figure says that it needs them
        given["samples"] = MOST_TRAINING
        training_data = sampling.training_sample(first, asked.cards[0], asked.dataset, **given)
    options = Options(
        settings=dataclasses.replace(settings, way=models[0].subject.norm.way),
        dataset=asked.dataset,
        resolution=flags.resolution,
        training_data=training_data,
        epochs=flags.epochs,
        distances=tuple(flags.distances),
    )
    return models, options, names


def names_of(paths, cards):
    """Returns a name for each checkpoint: its defense or file, and its folder or a number if that is not unique."""
    names = [
        path.stem if card is None or card.says("defense") is None else card.defense for path, card in zip(paths, cards)
    ]
    twice = {name for name in names if names.count(name) > 1}
    names = [f"{name} ({path.parent.name})" if name in twice else name for name, path in zip(names, paths)]
    twice = {name for name in names if names.count(name) > 1}
    return [f"{name} {number}" if name in twice else name for number, name in enumerate(names, start=1)]
