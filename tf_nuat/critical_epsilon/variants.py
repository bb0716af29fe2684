"""The variants of a recipe that the estimates of `critical_epsilon` train."""

import dataclasses
from typing import Any

from tf_nuat import defenses
from tf_nuat.core import validation
from tf_nuat.training import AttackSpec, Recipe, ScheduleSpec, Stage


def ordinary(recipe: Recipe) -> Recipe:
    """Returns the recipe of ordinary training, which all epsilons share."""
    return dataclasses.replace(
        _cheaply_selected(recipe),
        defense=defenses.WITHOUT_ADVERSARY,
        defense_options={},
        epsilon=1.0,  # any fixed number: a folder takes no run with another one
        chosen_by="last" if recipe.chosen_by == "last" else defenses.Standard.CHOSEN_BY,
    )


def fine_tuned(recipe: Recipe, network: str, epochs: int, learning_rate: float) -> Recipe:
    """Returns the recipe that trains the network at the path `network` further."""
    return dataclasses.replace(
        _cheaply_selected(recipe),
        network=network,
        network_options={},
        epochs=epochs,
        schedule_epochs=epochs,
        learning_rate=ScheduleSpec("triangle", peak=learning_rate, up=epochs / 4, down=epochs * 3 / 4),
        chosen_by="last",
        patience=None,
        masking_alarm=None,
    )


def on_fgsm_alone(recipe: Recipe, epsilon: float) -> Recipe:
    """Returns the recipe that trains on FGSM images alone, until the end, and measures FGSM and PGD."""
    return dataclasses.replace(
        recipe,
        defense="fgsm_at",
        defense_options={"every": 1},
        epsilon=epsilon,
        chosen_by="last",
        patience=None,
        masking_alarm="warn",
        measures={"fgsm": AttackSpec("fgsm"), "pgd_20": AttackSpec("pgd", steps=20)},
        claimed={},
    )


def after(recipe: Recipe, warm_up: int) -> Recipe:
    """Returns the recipe with ordinary training in its first `warm_up` epochs.

    Raises:
        ValueError: `warm_up` is out of range, or the epochs of the recipe cannot be divided as those of its schedule.
    """
    validation.whole_number("warm_up", warm_up, at_least=0)
    validation.number("warm_up", warm_up, below=recipe.schedule_epochs)
    if warm_up == 0:
        return recipe
    first = Stage(defenses.WITHOUT_ADVERSARY, warm_up)
    rest = Stage(recipe.defense, recipe.schedule_epochs - warm_up, recipe.defense_options)
    names = f"{first.defense}+{rest.defense}"
    return dataclasses.replace(recipe, defense=names, defense_options={}, stages=(first, rest))


def of_one_step(recipe: Recipe) -> Recipe:
    """Returns the recipe whose defense trains on images of the fast gradient method, one step of length epsilon."""
    options: dict[str, Any] = {"steps": 1, "step_size": recipe.epsilon}
    if recipe.defense == "pgd_at":
        options["random_start"] = False
    return recipe.with_options(**options)


def _cheaply_selected(recipe: Recipe) -> Recipe:
    """Returns the recipe with a cheap selection and no measures, for runs that do not use their results."""
    return dataclasses.replace(
        recipe, selection=AttackSpec("pgd", steps=1), selection_images=100, measures={}, claimed={}
    )
