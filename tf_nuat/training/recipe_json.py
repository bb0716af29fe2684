"""Reads a recipe from JSON: from a card, or from `recipe.json` in the folder of a run."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_nuat.training.parts import AttackSpec, Stage, options_from_json, plain

SCHEMA = 1  # of a recipe as JSON; older recipes, without a number, have the same form


def fields_from_json(recipe: type, content: Any, source: str) -> dict[str, Any]:
    """Returns the fields of a recipe from JSON, a dict of name to value, with its parts as objects.

    Args:
        recipe: the class `Recipe`.
        content, source: as for `Recipe.from_json`.

    Raises:
        ValueError: it is not a recipe, or one of a later schema.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} is no recipe; allowed: a dict of its fields")
    values = dict(content)
    schema = values.pop("schema", SCHEMA)
    if schema not in range(1, SCHEMA + 1):
        raise ValueError(f"{source} is a recipe of schema {schema!r}; allowed: up to {SCHEMA}, that of this version")
    unknown = set(values) - {field.name for field in dataclasses.fields(recipe)}
    if unknown:
        raise ValueError(f"{source} has {', '.join(sorted(unknown))}; allowed: the fields of a recipe")
    try:
        return {name: _READERS.get(name, lambda value: value)(value) for name, value in values.items()}
    except (AttributeError, TypeError) as error:  # a list where a dict has to be, or the other way round
        raise ValueError(f"{source} is no recipe ({error}); allowed: a recipe, as a card has it") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def whole_from_json(recipe: type, content: Any, source: str) -> dict[str, Any]:
    """Returns what `fields_from_json` does, and checks that no required field is missing.

    Raises:
        ValueError: a required field is missing, or see `fields_from_json`.
    """
    values = fields_from_json(recipe, content, source)
    lacking = [each.name for each in dataclasses.fields(recipe) if _is_required(each) and each.name not in values]
    if lacking:
        raise ValueError(f"{source} has no {lacking[0]}; allowed: a recipe, as a card has it")
    return values


def differences(recipe: type, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Returns the sorted names of the fields by which two recipes, as JSON, are different runs.

    `source` and `claimed` do not affect a run, so they are ignored. So are the epochs if both recipes have `minutes`:
    they depend on the machine. A missing field did not exist in the recipe's version: it counts as its default or, if
    the default depends on the defense, as equal to the other recipe's.

    Args:
        recipe: the class `Recipe`.
        one, other: what `Recipe.to_json`, of this version or an earlier one, returned.
    """
    ignored = {"schema", "source", "claimed"}
    ignored |= {name for name in _FILLED_IN if name not in one or name not in other}
    if one.get("minutes") and other.get("minutes"):
        ignored.add("epochs")
    defaults = {each.name: plain(each.name, _default(each)) for each in dataclasses.fields(recipe)}
    first, second = {**defaults, **one}, {**defaults, **other}
    return sorted(name for name in {*first, *second} - ignored if first.get(name) != second.get(name))


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field) -> Any:
    """Returns the default of a field; None where there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


_FILLED_IN = ("schedule_epochs", "chosen_by", "masking_alarm")  # by `Recipe`, where they are not given
_READERS = {
    "learning_rate": options_from_json,
    "defense_options": options_from_json,
    "selection": AttackSpec.from_json,
    "measures": lambda value: {name: AttackSpec.from_json(spec) for name, spec in value.items()},
    "stages": lambda value: tuple(map(Stage.from_json, value)),
    "sources": tuple,
}
