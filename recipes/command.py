"""The command line that every recipe module shares."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import flags, logging

from tf_nuat import command_line, data, parallel, training
from tf_nuat.card import Card
from tf_nuat.core import validation
from tf_nuat.networks import by_name
from tf_nuat.norms import NORMS
from tf_nuat.parallel import tf_config, workers
from tf_nuat.training import Recipe, ScheduleSpec

# The flags that change a recipe, flag to field. The metadata of a field holds its flag and the help text.
FLAGS = {field.metadata["flag"]: field for field in dataclasses.fields(Recipe) if field.metadata["flag"]}
DEFINE: dict[type, Any] = {
    bool: flags.DEFINE_boolean,
    dict: flags.DEFINE_list,
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
}

# A paper's claim needs these settings. Shorter training keeps it: tables show the number of epochs beside it.
CLAIMED_OF = (
    *("network", "network_options", "defense_options", "stages", "epsilon", "norm"),
    *("sources", "images_per_class"),
)


def flag_values(recipes: Mapping[str, Recipe]) -> flags.FlagValues:
    """Returns the flags of a module whose recipes are `recipes`, a dict of defense to `Recipe`."""
    values = flags.FlagValues()
    named = f"what to train with: {', '.join(recipes)}"
    flags.DEFINE_string("defense", next(iter(recipes)), named, flag_values=values)
    return with_shared_flags(values)


def with_shared_flags(values: flags.FlagValues) -> flags.FlagValues:
    """Adds to `values` the flags that change a recipe, for `with_flags`, and those of a run; returns `values`."""

    def flag(define: Any, name: str, default: Any, help_text: str) -> None:
        define(name, default, help_text, flag_values=values)

    flag(flags.DEFINE_string, "out", None, "folder for the results; the same command continues a run that was killed")
    kinds = typing.get_type_hints(Recipe)
    for name, field in FLAGS.items():
        flag(DEFINE[_kind(kinds[field.name])], name, None, field.metadata["help"])
    flag(flags.DEFINE_integer, "width", None, "channels of the first layer of a ResNet or VGG, units of two_conv")
    flag(flags.DEFINE_string, "data_dir", None, "where the datasets are (default: TFDS_DATA_DIR, else that of TFDS)")
    flag(
        flags.DEFINE_string,
        "strategy",
        "auto",
        f"devices: {', '.join(parallel.STRATEGIES)}; multiworker is for all processes of TF_CONFIG",
    )
    flag(flags.DEFINE_float, "wait", tf_config.WAIT, tf_config.WAIT_HELP)
    flag(flags.DEFINE_float, "save_every", 600.0, "seconds of training that a kill may cost")
    flag(flags.DEFINE_boolean, "jit_compile", False, "XLA compiles the step: on one GPU, with --nodeterministic")
    flag(flags.DEFINE_boolean, "deterministic", True, "exact repeats on GPUs too, where they cost some speed")
    return values


def _kind(annotation: Any) -> type:
    """Returns the plain type of an annotation, the first of a union: int of `int | None`, dict of `dict[str, Any]`."""
    first = typing.get_args(annotation)[0] if isinstance(annotation, types.UnionType) else annotation
    return typing.get_origin(first) or first


def with_flags(recipe: Recipe, values: flags.FlagValues, *, without: Sequence[str] = ()) -> Recipe:
    """Returns `recipe` with the changes of the flags; drops the paper's claims if they no longer apply.

    The flags of the fields `without` change nothing.
    """
    given = {field.name: getattr(values, flag) for flag, field in FLAGS.items() if field.name not in without}
    given = {name: value for name, value in given.items() if value is not None}
    if "minutes" in given and "epochs" in given:
        raise ValueError(f"epochs is {given['epochs']}; allowed: not with --minutes, into which as many go as fit")
    if "epochs" in given:
        given["minutes"] = None
    norm = validation.one_of("norm", given.pop("norm", recipe.norm), tuple(NORMS))
    changed = recipe
    if norm != recipe.norm:
        if "epsilon" not in given:
            raise ValueError(f"epsilon is not given; allowed: with norm {norm}, a radius in that norm")
        changed = recipe.under_norm(norm, given["epsilon"])
    plain = {name: value for name, value in given.items() if name not in CHANGES}
    if "network" in plain:
        plain["network_options"] = _kept_options(recipe, plain["network"])
    changed = dataclasses.replace(changed, **plain)
    for name, change in CHANGES.items():
        if name in given:
            changed = change(changed, given[name])
    if values.width is not None:
        changed = _with_width(changed, values.width)
    same = all(getattr(changed, name) == getattr(recipe, name) for name in CLAIMED_OF)
    return changed if same else dataclasses.replace(changed, claimed={})


def _kept_options(recipe: Recipe, network: str) -> dict[str, Any]:
    """Returns the options of the recipe's network that `network` keeps: the stem, which depends on the image size."""
    taken = _options_of(network)
    return {name: value for name, value in recipe.network_options.items() if name == "stem" and name in taken}


def _options_of(network: str) -> Mapping[str, Any]:
    return inspect.signature(by_name.builder("network", network)).parameters


def _with_width(recipe: Recipe, width: int) -> Recipe:
    if "width" not in _options_of(recipe.network):
        raise ValueError(f"width is given; allowed: with a ResNet, a VGG or two_conv, not with {recipe.network}")
    validation.whole_number("width", width, at_least=1)
    return dataclasses.replace(recipe, network_options={**recipe.network_options, "width": width})


def _with_network_options(recipe: Recipe, given: Sequence[str]) -> Recipe:
    options = dict(command_line.option(text, "network_options") for text in given)
    return dataclasses.replace(recipe, network_options={**recipe.network_options, **options})


def _with_defense_options(recipe: Recipe, given: Sequence[str]) -> Recipe:
    options, before = dict(map(command_line.option, given)), recipe.defense_options
    return recipe.with_options(
        **{name: _with_peak(name, before[name], value) if name in before else value for name, value in options.items()}
    )


def _with_learning_rate(recipe: Recipe, given: float) -> Recipe:
    validation.number("learning_rate", given, above=0.0)
    return dataclasses.replace(recipe, learning_rate=_with_peak("learning_rate", recipe.learning_rate, given))


def _with_measures(recipe: Recipe, given: Sequence[str]) -> Recipe:
    named = [validation.one_of("measures", name, ("clean", *recipe.measures)) for name in given]
    measures = {name: spec for name, spec in recipe.measures.items() if name in named}
    return dataclasses.replace(recipe, measures=measures)


def _with_peak(argument: str, before: Any, peak: Any) -> Any:
    if not isinstance(before, ScheduleSpec):
        return peak
    return before.with_peak(validation.number(argument, peak, at_least=0.0))


# The functions for fields that their flag changes and does not simply replace.
CHANGES: dict[str, Callable[[Recipe, Any], Recipe]] = {
    "network_options": _with_network_options,
    "defense_options": _with_defense_options,
    "learning_rate": _with_learning_rate,
    "measures": _with_measures,
}


def refuse_several_workers(values: flags.FlagValues) -> None:
    """Raises a `ValueError` if the strategy uses several workers, for commands that run on one machine.

    "auto" uses several workers if TF_CONFIG names several, see `parallel.strategy`.
    """
    count = tf_config.count_named() if values.strategy == "auto" else 1
    if count > 1 or values.strategy == "multiworker":
        why = f", and TF_CONFIG names {count} workers" if count > 1 else ""
        raise ValueError(
            f"strategy is {values.strategy!r}{why}; allowed: one, mirrored, or auto without TF_CONFIG, as this command "
            "runs on one machine"
        )


def run_options(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the keywords of `training.run` that the flags set.

    Also switches on determinism for the whole process, and waits for the other workers.
    """
    if values.jit_compile and values.deterministic:
        validation.refuse("jit_compile", True, "with --nodeterministic; Keras leaves XLA out of exact repeats")
    if values.deterministic:
        tf.config.experimental.enable_op_determinism()
    parallel.strategy(values.strategy, wait=values.wait)
    return {name: getattr(values, name) for name in ("data_dir", "strategy", "save_every", "jit_compile")}


def main(recipes: Mapping[str, Recipe], usage: str) -> None:
    """Runs the recipe that the command line names. `recipes`: dict of defense to `Recipe`; `usage`: the help's text."""

    def command(arguments: Sequence[str]) -> int:
        values = flag_values(recipes)
        command_line.parse(values, arguments, usage)
        return run(with_flags(validation.one_of("defense", values.defense, recipes), values), values)

    command_line.main(command)


def run(recipe: Recipe, values: flags.FlagValues) -> int:
    """Trains and measures `recipe` with the flags of a run, prints the accuracies, and returns the exit status."""
    command_line.require(values, out="a folder for the results (--out DIR)")
    logging.set_verbosity(logging.INFO)
    card = training.run(recipe, values.out, **run_options(values))
    if workers.is_chief(parallel.strategy(values.strategy)):
        print(summary(card))
        print(f"\n{values.out}/network.keras  {values.out}/card.json")
        print(f"Next: {_command_to_judge(recipe, values)}")
    return 0


def _command_to_judge(recipe: Recipe, values: flags.FlagValues) -> str:
    """Returns the command that judges the network of a finished run, with the flags that its card cannot replace."""
    given = {
        "checkpoint": f"{values.out}/network.keras",
        # A card names no code, and no path elsewhere.
        "dataset": "" if recipe.dataset in data.DATASETS else recipe.dataset,
        "data_dir": values.data_dir,
        "import": ",".join(getattr(values, "import", None) or ()),  # a flag of `recipes.custom` alone
    }
    arguments = [part for name, value in given.items() if value for part in (f"--{name}", value)]
    return command_line.typed("sanity.run", arguments)


def summary(card: Card) -> str:
    """Returns the measured accuracies of a card as lines of text, with their intervals and the paper's claims."""
    why = f" was the best on the validation split, by {card.chosen_by}"
    if card.chosen_by == "last":
        why = ", the last, is kept"
    lines = [f"{card.defense} on {card.dataset}, test split; epoch {card.epoch_chosen}{why}"]
    for name, measured in card.measured.items():
        low, high = measured.interval
        line = f"{name:>10}: {measured.accuracy:7.2%}  (95 %: {low:.2%} to {high:.2%}, {measured.images} images)"
        claimed = card.claimed.get(name)
        lines.append(line if claimed is None else f"{line}  claimed {claimed:.2%}")
    return "\n".join(lines)
