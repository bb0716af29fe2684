"""Reads the results that `recipes.phase_transition` wrote, to keep the ways that another command does not repeat."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from tf_nuat.core import json_input
from tf_nuat.core.json_input import Check, Field
from tf_nuat.critical_epsilon import Measured, SingleStep
from tf_nuat.critical_epsilon.intersection import Estimate
from tf_nuat.critical_epsilon.training_runs import Clean
from tf_nuat.training import Recipe


def load(path: pathlib.Path, recipe: Recipe) -> tuple[str | None, dict[str, Any]]:
    """Returns the attack of fine-tuning and a dict of way to result, from the results at `path`.

    Returns (None, {}) if there is no such file, or if it belongs to another recipe.

    Raises:
        ValueError: the file cannot be read.
    """
    if not path.exists():
        return None, {}
    content = json_input.named(json_input.load("results", path), Field("", path))
    if content.get("recipe") != recipe.to_json():
        return None, {}
    attack = json_input.text(content.get("attack"), Field("attack", path))
    return attack, json_input.fields(_WAYS, content, Field("", path))


def _record(kind: Callable[..., Any], checks: Mapping[str, Check]) -> Check:
    def checked(value: Any, field: Field) -> Any:
        return kind(**json_input.fields(checks, value, field, required=checks))

    return checked


def _tuple_of(check: Check) -> Check:
    def checked(value: Any, field: Field) -> tuple[Any, ...]:
        return tuple(json_input.list_of(check)(value, field)) or field.refuse(value, "a list of at least one")

    return checked


def _or_none(check: Check) -> Check:
    def checked(value: Any, field: Field) -> Any:
        return None if value is None else check(value, field)

    return checked


_NUMBERS = _tuple_of(json_input.number)
_ESTIMATE: dict[str, Check] = {
    "epsilon": json_input.number,
    "low": _or_none(json_input.number),
    "high": _or_none(json_input.number),
    "each": _NUMBERS,
    "lines": _or_none(_tuple_of(_tuple_of(json_input.logged))),
}
_CLEAN: dict[str, Check] = {
    "network": json_input.text,
    "train_loss": json_input.number,
    "test_loss": json_input.number,
    "test_accuracy": json_input.share,
    "test_images": json_input.count,
    "seconds": json_input.number,
}
_MEASURED: dict[str, Check] = {
    "way": json_input.text,
    "estimate": _record(Estimate, _ESTIMATE),
    "epsilons": _NUMBERS,
    "losses": _tuple_of(_NUMBERS),
    "clean": _tuple_of(_record(Clean, _CLEAN)),
    "loss_images": json_input.count,
    "seconds": json_input.number,
}
_SINGLE_STEP: dict[str, Check] = {
    "unstable": _or_none(json_input.number),
    "epsilons": _NUMBERS,
    "fgsm": _tuple_of(json_input.share),
    "pgd": _tuple_of(json_input.share),
    "test_images": json_input.count,
    "seconds": json_input.number,
}
_WAYS: dict[str, Check] = {
    "fast": _record(Measured, _MEASURED),
    "exact": _record(Measured, _MEASURED),
    "single_step": _record(SingleStep, _SINGLE_STEP),
}
