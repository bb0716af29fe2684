"""Changes a recipe to another norm than the one that it was written for."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tf_nuat import attacks
from tf_nuat.training.parts import AttackSpec

if TYPE_CHECKING:
    from tf_nuat.training.recipe import Recipe

# Options of defenses, and settings of attacks, that are lengths in the norm of a recipe, or the norm itself.
OF_ONE_NORM = ("alpha", "epsilon", "norm", "step_size")
STEPS = 40  # of PGD if the attack that it replaces has none


def changes(recipe: "Recipe", norm: str) -> dict[str, Any]:
    """Returns the fields of a recipe that change under `norm`, a dict of name to value.

    Steps and noise become the defaults of the defense or attack, a share of epsilon. The best epoch is selected under
    PGD. Measures keep their attack; one without a version in that norm is replaced by PGD, and renamed.
    """
    measures: dict[str, AttackSpec] = {}
    for name, spec in recipe.measures.items():
        if norm in attacks.ATTACKS[spec.attack].norms:
            measures[name] = AttackSpec(spec.attack, **_of_any_norm(spec.settings))
        else:
            pgd = _as_pgd(spec)
            measures.setdefault(f"pgd_{pgd.settings['steps']}", pgd)
    return {
        "defense_options": _of_any_norm(recipe.defense_options),
        "stages": tuple(dataclasses.replace(each, options=_of_any_norm(each.options)) for each in recipe.stages),
        "selection": _as_pgd(recipe.selection),
        "measures": measures,
    }


def _of_any_norm(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in OF_ONE_NORM}


def _as_pgd(spec: AttackSpec) -> AttackSpec:
    return AttackSpec("pgd", steps=spec.settings.get("steps", STEPS))
