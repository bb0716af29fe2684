"""The checks that a recipe makes of itself: of each field alone, and of those that have to go together."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tf_nuat import defenses, draws, networks
from tf_nuat.core import validation
from tf_nuat.models import precision
from tf_nuat.training.parts import AttackSpec, ScheduleSpec, Stage, check_options

if TYPE_CHECKING:
    from tf_nuat.training.recipe import Recipe

MOST_EPOCHS = 10**6  # the batches of each are listed
MOST_MINUTES = 60 * 24 * 30  # a month: epochs are counted one by one to see how many fit


def check_types(recipe: "Recipe") -> None:
    """Checks what nothing else checks before training ends; then the card could not be read any more."""
    for name in ("defense", "norm", "source"):
        if not isinstance(getattr(recipe, name), str):
            validation.refuse(name, getattr(recipe, name), "text")
    for name in ("network_options", "data_options", "claimed"):
        if not isinstance(getattr(recipe, name), Mapping):
            validation.refuse(name, getattr(recipe, name), "a dict of names and values")
    for name, share in recipe.claimed.items():
        validation.number(f"{name} of claimed", share, at_least=0.0, at_most=1.0)
    validation.one_of("synchronized_batch_norm", recipe.synchronized_batch_norm, (False, True))


def check_numbers(recipe: "Recipe") -> None:
    """Checks the ranges of the numbers, and the precision."""
    for name in ("batch_size", "selection_images", "source_epochs"):
        validation.whole_number(name, getattr(recipe, name), at_least=1)
    if recipe.minutes is None:
        validation.whole_number("epochs", recipe.epochs, at_least=1, at_most=MOST_EPOCHS)
    else:
        validation.number("minutes", recipe.minutes, above=0.0, at_most=MOST_MINUTES)
        validation.number("epochs", recipe.epochs, above=0.0)
    for name in ("images_per_class", "patience", "test_images", "schedule_epochs"):
        if getattr(recipe, name) is not None:
            validation.whole_number(name, getattr(recipe, name), at_least=1)
    validation.whole_number("seed", recipe.seed, at_least=0, at_most=draws.LARGEST_SEED)
    validation.one_of("precision", recipe.precision, precision.POLICIES)
    validation.number("momentum", recipe.momentum, at_least=0.0, below=1.0)
    validation.number("weight_decay", recipe.weight_decay, at_least=0.0)
    if not isinstance(recipe.learning_rate, ScheduleSpec):
        allowed = "a number above 0, or ScheduleSpec(name, ...)"
        if isinstance(recipe.learning_rate, (tuple, list)):
            validation.refuse("learning_rate", recipe.learning_rate, allowed)
        validation.number("learning_rate", recipe.learning_rate, above=0.0)


def check_attacks(recipe: "Recipe") -> None:
    """Checks the attacks of selection and measures, and the names of these."""
    for name, spec in {"selection": recipe.selection, **recipe.measures}.items():
        if not isinstance(spec, AttackSpec):
            validation.refuse(name, spec, 'an attack as AttackSpec("pgd", steps=40)')
        spec.check_norm(recipe.norm)
    for name in recipe.measures:  # they name files, and arrays in a file
        if name in ("clean", "file") or not re.fullmatch(r"\w[\w.+-]*", name):
            validation.refuse("measures", name, "names of letters, digits and _, but clean and file")


def check_stages(recipe: "Recipe") -> None:
    """Checks the defense with its options, or the stages, which have to add up to the whole."""
    if not recipe.stages:
        validation.one_of("defense", recipe.defense, defenses.DEFENSES)
        check_options(recipe.defense, recipe.defense_options)
        return
    for stage in recipe.stages:
        if not isinstance(stage, Stage):
            validation.refuse("stages", stage, 'stages as Stage("sat_r1", epochs=5)')
    lengths = [stage.epochs for stage in recipe.stages]
    names, written = "+".join(stage.defense for stage in recipe.stages), " + ".join(map(str, lengths))
    if recipe.defense != names:
        validation.refuse("defense", recipe.defense, f"{names}, the names of the stages")
    if recipe.defense_options:
        raise ValueError("defense_options is given; allowed: with stages, each has its own")
    if sum(lengths) != recipe.schedule_epochs:
        raise ValueError(f"stages take {written} epochs; allowed: {recipe.schedule_epochs} in sum")
    if recipe.minutes is None and any(length * recipe.epochs % recipe.schedule_epochs for length in lengths):
        raise ValueError(f"epochs is {recipe.epochs}; allowed: a number to which stages of {written} epochs stretch")


def check_sources(recipe: "Recipe", kinds: list[type[defenses.Defense]]) -> None:
    """Checks that there are source networks if, and only if, one of the defenses, `kinds`, needs them."""
    if any("sources" in kind.NEEDS for kind in kinds) != bool(recipe.sources):
        takers = [name for name, kind in defenses.DEFENSES.items() if "sources" in kind.NEEDS]
        allowed = f"() for all but {', '.join(takers)}" if recipe.sources else "names of networks or .keras files"
        raise ValueError(f"sources is {recipe.sources!r} for {recipe.defense}; allowed: {allowed}")
    for source in recipe.sources:
        if source not in networks.NETWORKS and not os.path.isfile(source):
            raise ValueError(
                f"sources has {source!r}, which is no file; allowed: {', '.join(networks.NETWORKS)}, .keras files"
            )
