"""The parts of a `Recipe`: `AttackSpec`, `ScheduleSpec` and `Stage`.

Each is frozen plain data. It checks itself when it is made, and turns into JSON and back.
"""

import dataclasses
import functools
import inspect
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from tf_nuat import attacks, defenses, norms, schedules
from tf_nuat.core import validation
from tf_nuat.networks import adapt

# Arguments that the trainer passes to every defense; they are not options of a recipe.
SUPPLIED = ("network", "epsilon", "norm", "seed")
_NOT_GIVEN: Any = None  # default of what must be given: a check says so in one line, instead of Python's TypeError


def plain(argument: str, value: Any) -> Any:
    """Returns `value` in the types of JSON: numbers, text, booleans, None, lists and dicts; parts by their `to_json`.

    Raises:
        ValueError: it is, or holds, anything else. The error names `argument`.
    """
    if isinstance(value, (AttackSpec, ScheduleSpec, Stage)):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(name): plain(str(name), each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(argument, each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{argument} is a {type(value).__name__}; allowed: numbers, text, true, false, null, schedules")


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class AttackSpec:
    """An attack and its settings: `AttackSpec("pgd", steps=40)`.

    Args:
        attack: name in `ATTACKS`.
        **settings: keywords of the attack. `epsilon` and `norm` are the recipe's unless given. A network that the
            attack needs, for instance the surrogate of "transfer", is given by the path of its `.keras` file.

    Raises:
        ValueError: there is no such attack, or a setting is unknown, missing or out of its range.

    Example:
        >>> from tf_nuat.training import AttackSpec
        >>> AttackSpec("pgd", steps=40, step_size=0.01)
        AttackSpec('pgd', steps=40, step_size=0.01)
    """

    attack: str
    settings: dict[str, Any]

    def __init__(self, attack: str, /, **settings: Any) -> None:
        kind = _named("attack", attack, attacks.ATTACKS)
        kind.check_complete(settings)
        networks = {name: _network_file(name, settings[name]) for name in kind.needs}
        kind.check_settings({name: value for name, value in settings.items() if name not in networks})
        object.__setattr__(self, "attack", attack)
        object.__setattr__(self, "settings", {**settings, **networks})
        plain("settings", self.settings)

    def __repr__(self) -> str:
        return _call("AttackSpec", self.attack, self.settings)

    def check_norm(self, norm: str) -> None:
        """Raises a `ValueError` if the attack has no version for the recipe's `norm`."""
        attacks.ATTACKS[self.attack].check_norm(self.settings.get("norm", norm))

    def check_data(self, *, input_shape: tuple[int, ...], num_classes: int, norm: str) -> None:
        """Raises a `ValueError` if the attack cannot run on images of this shape (H, W, C) and of K classes."""
        kind = attacks.ATTACKS[self.attack]
        settings = {name: value for name, value in self.loaded().items() if name not in ("epsilon", "norm", "seed")}
        kind.stages(settings, num_classes=num_classes, norm=self.settings.get("norm", norm))
        for name in kind.needs:
            network = validation.classifier(name, settings[name])
            if network.input_shape[1:] != input_shape or network.output_shape[1:] != (num_classes,):
                raise ValueError(
                    f"{name} takes images of {network.input_shape[1:]} to {network.output_shape[1]} outputs; "
                    f"allowed: {input_shape} to {num_classes}, as the data"
                )

    def loaded(self) -> dict[str, Any]:
        """Returns the settings with the networks that the attack needs in place of their paths."""
        needs = attacks.ATTACKS[self.attack].needs
        return {**self.settings, **{name: adapt(self.settings[name], argument=name).network for name in needs}}

    def bound(self, *, epsilon: float, norm: str) -> Callable[..., Any]:
        """Returns the function `(network, x, y) -> x_adv` for the epsilon and the norm of a recipe."""
        kind = attacks.ATTACKS[self.attack]
        settings = {"epsilon": epsilon, "norm": norm, **self.loaded()}
        return functools.partial(kind, **{name: value for name, value in settings.items() if name in kind.keywords})

    def to_json(self) -> dict[str, Any]:
        """Returns it as a dict: "attack", and the settings."""
        return {"attack": self.attack, **plain("settings", self.settings)}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Returns the attack from what `to_json` returned."""
        if not isinstance(content, Mapping) or "attack" not in content:
            validation.refuse("attack", content, 'a dict as {"attack": "pgd", "steps": 40}')
        settings = dict(content)
        return cls(settings.pop("attack"), **settings)


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class ScheduleSpec:
    """A schedule of a learning rate or of a weight: `ScheduleSpec("ramp", peak=4.0, epochs=30)`.

    Args:
        name: name in `schedules.SCHEDULES`.
        **arguments: those of the schedule, all at least 0, times in epochs.

    Raises:
        ValueError: there is no such schedule, or an argument is unknown, missing or out of its range.

    Example:
        >>> from tf_nuat.training import ScheduleSpec
        >>> ScheduleSpec("triangle", peak=0.05, up=10, down=20).with_peak(0.1)
        ScheduleSpec('triangle', peak=0.1, up=10, down=20)
    """

    name: str
    arguments: dict[str, Any]

    def __init__(self, name: str, /, **arguments: Any) -> None:
        function = _named("schedule", name, schedules.SCHEDULES)
        taken = _defaults(function)
        del taken["steps_per_epoch"]  # the trainer knows it
        for argument, value in arguments.items():
            validation.one_of(f"argument of {name}", argument, taken)
            for number in value if isinstance(value, (tuple, list)) else (value,):
                validation.number(f"{argument} of {name}", number, at_least=0.0)
        missing = _not_given(taken, arguments)
        if missing:
            raise ValueError(f"{missing[0]} of {name} is not given; allowed: {', '.join(taken)}")
        frozen = {each: tuple(value) if isinstance(value, list) else value for each, value in arguments.items()}
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "arguments", frozen)
        try:
            self.build(steps_per_epoch=1)
        except (TypeError, ArithmeticError) as error:  # a list where a number is needed, or the other way round
            allowed = f"the arguments of schedules.{name}"
            raise ValueError(f"{self!r} is no schedule ({error}); allowed: {allowed}") from error

    def __repr__(self) -> str:
        return _call("ScheduleSpec", self.name, self.arguments)

    def build(self, *, steps_per_epoch: Any) -> schedules.Piecewise:
        """Returns the schedule, a function of the step."""
        return schedules.SCHEDULES[self.name](**self.arguments, steps_per_epoch=steps_per_epoch)

    @property
    def peak(self) -> float:
        """The height of the schedule: its first argument."""
        return self.arguments[self._height]

    def with_peak(self, peak: float) -> "ScheduleSpec":
        """Returns the schedule with another height."""
        return ScheduleSpec(self.name, **{**self.arguments, self._height: peak})

    @property
    def _height(self) -> str:
        return next(iter(_defaults(schedules.SCHEDULES[self.name])))

    def to_json(self) -> list[Any]:
        """Returns it as a pair of the name and the arguments."""
        return [self.name, plain("arguments", self.arguments)]

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Returns the schedule from what `to_json` returned."""
        if not is_schedule(content):
            validation.refuse("schedule", content, 'a pair as ["ramp", {"peak": 4.0, "epochs": 30}]')
        name, arguments = content
        return cls(name, **arguments)


def is_schedule(content: Any) -> bool:
    """Returns whether `content` has the form of a schedule in JSON: a pair of a name and a dict."""
    return (
        isinstance(content, (tuple, list))
        and len(content) == 2
        and isinstance(content[0], str)
        and isinstance(content[1], Mapping)
    )


def options_from_json(content: Any) -> Any:
    """Returns options of a defense, or one value, from JSON; pairs that describe schedules become `ScheduleSpec`s."""
    if isinstance(content, Mapping):
        return {name: options_from_json(value) for name, value in content.items()}
    return ScheduleSpec.from_json(content) if is_schedule(content) else content


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of training with a defense of its own: `Stage("sat_r1", epochs=5, options={"pairs": 1})`.

    Args:
        defense: name in `defenses.DEFENSES`.
        epochs: number of epochs, at least 1; required.
        options: keywords of the defense; a weight may be a `ScheduleSpec`.

    Raises:
        ValueError: there is no such defense, it does not take one of the options, or `epochs` is no such number.

    Example:
        >>> from tf_nuat.training import Stage
        >>> Stage("sat_r1", 5, {"regularizer_weight": 0.2}).epochs
        5
    """

    defense: str
    epochs: int = _NOT_GIVEN
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _named("stages: defense", self.defense, defenses.DEFENSES)
        validation.whole_number("stages: epochs", self.epochs, at_least=1)
        check_options(self.defense, self.options)

    @property
    def kind(self) -> type[defenses.Defense]:
        """The class of the defense."""
        return defenses.DEFENSES[self.defense]

    def to_json(self) -> dict[str, Any]:
        """Returns it as a dict: "defense", "epochs", "defense_options"."""
        return {"defense": self.defense, "epochs": self.epochs, "defense_options": plain("options", self.options)}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Returns the stage from what `to_json` returned."""
        if not isinstance(content, Mapping) or set(content) - {"defense", "epochs", "defense_options"}:
            validation.refuse("stages", content, "dicts of defense, epochs and defense_options")
        options = options_from_json(content.get("defense_options", {}))
        return cls(content.get("defense", ""), content.get("epochs", _NOT_GIVEN), options)


def check_options(defense: str, options: Any) -> None:
    """Raises a `ValueError` if `options` has a name that the defense does not take, or lacks one that it needs."""
    kind = defenses.DEFENSES[defense]
    if not isinstance(options, Mapping):
        raise ValueError(f"options of {kind.__name__} are {options!r}; allowed: a dict of keywords")
    taken = {
        name: default for name, default in _defaults(kind).items() if name not in SUPPLIED and name not in kind.NEEDS
    }
    missing = _not_given(taken, options)
    if missing or set(options) - set(taken):
        allowed = f"{', '.join(missing)}, which it needs" if missing else ", ".join(sorted(taken))
        raise ValueError(f"options of {kind.__name__} are {dict(options)!r}; allowed: {allowed}")
    for name, value in options.items():
        if is_schedule(value):
            schedule, arguments = value
            validation.refuse(name, value, f"a number, or {_call('ScheduleSpec', schedule, arguments)}")
        plain(name, value)


def largest_epsilon(norm: str) -> float | None:
    """Returns the largest meaningful radius in a norm, for images of any size; None without a limit."""
    of_any_size: tuple[Any, ...] = (math.inf, 1, 1)
    largest = norms.of(norm).largest(of_any_size)
    return None if math.isinf(largest) else largest


def epochs_of(lengths: Sequence[int], total: int, steps_per_epoch: int) -> list[list[int]]:
    """Returns for each stage the number of batches in each epoch: `steps_per_epoch`, or the rest in its last one.

    Args:
        lengths: of the stages; they share `total` batches in this proportion.
        total: batches of the whole training.
        steps_per_epoch: batches in an epoch.
    """
    ends = [round(total * done / sum(lengths)) for done in itertools.accumulate(lengths, initial=0)]
    whole = [divmod(end - begin, steps_per_epoch) for begin, end in itertools.pairwise(ends)]
    return [[steps_per_epoch] * epochs + [rest] * (rest > 0) for epochs, rest in whole]


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the parameters of a function or a class, name to default; `inspect.Parameter.empty` stands for none."""
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}


def _not_given(parameters: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Returns the names of the parameters without a default that are not given."""
    return [name for name, default in parameters.items() if default is inspect.Parameter.empty and name not in given]


def _named(argument: str, name: Any, table: Mapping[str, Any]) -> Any:
    """Returns the entry `name` of `table`; refuses a name that is not text, for instance a dict of the old form."""
    if not isinstance(name, str):
        validation.refuse(argument, name, ", ".join(sorted(table)))
    return validation.one_of(argument, name, table)


def _network_file(argument: str, path: Any) -> str:
    path = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not (isinstance(path, str) and path.endswith(".keras") and os.path.isfile(path)):
        given = repr(path) if isinstance(path, str) else f"a {type(path).__name__}"
        raise ValueError(f"{argument} is {given}; allowed: the path of a network that Keras saved (.keras)")
    return path


def _call(name: str, first: str, keywords: Mapping[str, Any]) -> str:
    """Returns the Python text of a call."""
    return f"{name}({', '.join([repr(first), *(f'{key}={value!r}' for key, value in keywords.items())])})"
