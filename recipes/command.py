"""The command line that every recipe module shares."""

import dataclasses
import inspect
import pathlib
import shlex

import tensorflow as tf
from absl import flags, logging

from tf_nuat import card, command_line, data, networks, parallel, training
from tf_nuat.core import validation
from tf_nuat.models import precision
from tf_nuat.networks import by_name
from tf_nuat.norms import NORMS
from tf_nuat.parallel import workers

# The flags that are fields of a recipe by the same name.
FIELDS = (
    "epochs",
    "network",
    "epsilon",
    "images_per_class",
    "patience",
    "masking_alarm",
    "batch_size",
    "precision",
    "synchronized_batch_norm",
    "seed",
    "test_images",
)


def flag_values(recipes):
    """Returns the flags of a module whose recipes are `recipes`, a dict of defense to `Recipe`."""
    values = flags.FlagValues()
    named = f"what to train with: {', '.join(recipes)}"
    flags.DEFINE_string("defense", next(iter(recipes)), named, flag_values=values)
    return with_shared_flags(values)


def with_shared_flags(values):
    """Adds to `values` the flags that change a recipe, for `with_flags`, and those of a run; returns `values`."""

    def flag(define, name, default, help_text, **options):
        define(name, default, help_text, flag_values=values, **options)

    flag(flags.DEFINE_string, "out", None, "folder for the results; the same command continues a run that was killed")
    flag(flags.DEFINE_integer, "epochs", None, "length of training; all schedules stretch with it")
    flag(
        flags.DEFINE_string,
        "network",
        None,
        f"another network: {', '.join(networks.NETWORKS)}; module:function, a function (input_shape, num_classes) of "
        "your own that returns a Keras model; or a .keras file, which is trained further",
    )
    flag(
        flags.DEFINE_list,
        "network_options",
        [],
        "options of the network, name=value with commas between: stem=imagenet; for application, name=MobileNetV2",
    )
    flag(flags.DEFINE_integer, "width", None, "channels of the first layer of a ResNet or VGG, units of two_conv")
    flag(flags.DEFINE_float, "epsilon", None, "another radius of the threat model (pixels in [0, 1])")
    flag(flags.DEFINE_string, "norm", None, f"norm of the threat model: {', '.join(NORMS)}")
    flag(flags.DEFINE_list, "sources", None, "source networks of eat: names of networks or .keras files")
    flag(flags.DEFINE_integer, "images_per_class", None, "number of training images of each class (default: all)")
    flag(flags.DEFINE_integer, "patience", None, "epochs without a better one after which training ends early")
    flag(flags.DEFINE_string, "masking_alarm", None, "what catastrophic overfitting does: warn or stop (default: warn)")
    flag(flags.DEFINE_integer, "batch_size", None, "images per optimizer step, all devices together")
    flag(flags.DEFINE_string, "precision", None, f"what training computes in: {', '.join(precision.POLICIES)}")
    flag(
        flags.DEFINE_boolean,
        "synchronized_batch_norm",
        None,
        "BatchNorm with the statistics of the whole batch, not of each device's share",
    )
    flag(flags.DEFINE_float, "learning_rate", None, "another highest learning rate")
    flag(
        flags.DEFINE_list,
        "options",
        [],
        "options of the defense, name=value: nuclear_weight=2 for another highest lambda, "
        "ema_decay=0.9998 to average the weights of any defense",
    )
    flag(flags.DEFINE_integer, "seed", None, "weights, data order and random starts follow from it")
    flag(flags.DEFINE_integer, "test_images", None, "number of test images for the final measurement (default: all)")
    flag(
        flags.DEFINE_list,
        "measures",
        None,
        "which of the recipe's attacks the final measurement has, by their names in the card with commas between "
        "(default: all; clean alone for none); tf_nuat.evaluate can run them, and more, another day",
    )
    flag(flags.DEFINE_string, "data_dir", None, "where the datasets are (default: TFDS_DATA_DIR, else that of TFDS)")
    flag(
        flags.DEFINE_string,
        "strategy",
        "auto",
        f"devices: {', '.join(parallel.STRATEGIES)}; multiworker is for all processes of TF_CONFIG",
    )
    flag(flags.DEFINE_float, "save_every", 600.0, "seconds of training that a kill may cost")
    flag(flags.DEFINE_boolean, "deterministic", True, "exact repeats on GPUs too, where they cost some speed")
    return values


def with_flags(recipe, values):
    """Returns `recipe` with what the flags change."""
    if values.norm is not None and validation.one_of("norm", values.norm, NORMS) != recipe.norm:
        if values.epsilon is None:
            raise ValueError(f"epsilon is not given; allowed: with norm {values.norm}, a radius in that norm")
        recipe = dataclasses.replace(recipe.under_norm(values.norm), epsilon=values.epsilon)
    changes = {name: getattr(values, name) for name in FIELDS if getattr(values, name) is not None}
    if values.measures is not None:
        named = [validation.one_of("measures", name, ("clean", *recipe.measures)) for name in values.measures]
        changes["measures"] = {name: attack for name, attack in recipe.measures.items() if name in named}
    if values.sources is not None:
        changes["sources"] = tuple(values.sources)
    recipe = dataclasses.replace(recipe, **changes)
    if values.network is not None:
        taken = _options_of_network(recipe)
        kept = {name: value for name, value in recipe.network_options.items() if name == "stem" and name in taken}
        recipe = dataclasses.replace(recipe, network_options=kept)
    options = dict(command_line.option(text, "network_options") for text in values.network_options)
    if values.width is not None:
        if "width" not in _options_of_network(recipe):
            raise ValueError(f"width is given; allowed: with a ResNet, a VGG or two_conv, not with {recipe.network}")
        options["width"] = validation.whole_number("width", values.width, at_least=1)
    recipe = dataclasses.replace(recipe, network_options={**recipe.network_options, **options})
    if values.learning_rate is not None:
        validation.number("learning_rate", values.learning_rate, above=0.0)
        recipe = dataclasses.replace(
            recipe, learning_rate=_with_peak("learning_rate", recipe.learning_rate, values.learning_rate)
        )
    options = dict(map(command_line.option, values.options))
    before = recipe.defense_options
    return recipe.with_options(
        **{name: _with_peak(name, before[name], value) if name in before else value for name, value in options.items()}
    )


def _options_of_network(recipe):
    return inspect.signature(by_name.builder("network", recipe.network)).parameters


def run_options(values):
    """Returns the keywords of `training.run` that the flags name, and sets what belongs to the whole process."""
    if values.deterministic:
        tf.config.experimental.enable_op_determinism()
    return {name: getattr(values, name) for name in ("data_dir", "strategy", "save_every")}


def _with_peak(argument, schedule, peak):
    if not isinstance(schedule, tuple):
        return peak
    validation.number(argument, peak, at_least=0.0)
    name, arguments = schedule
    return name, {**arguments, next(iter(arguments)): peak}  # the first argument of each schedule is its height


def main(recipes, usage):
    """Runs the recipe that the command line names. `recipes`: dict of defense to `Recipe`; `usage`: the help's text."""

    def command(arguments):
        values = flag_values(recipes)
        command_line.parse(values, arguments, usage)
        return run(with_flags(validation.one_of("defense", values.defense, recipes), values), values)

    command_line.main(command)


def run(recipe, values):
    """Trains and measures `recipe` as the flags of a run say, prints what was measured; returns the exit status."""
    command_line.require(values, out="a folder for the results (--out DIR)")
    logging.set_verbosity(logging.INFO)
    training.run(recipe, values.out, **run_options(values))
    if workers.is_chief(parallel.strategy(values.strategy)):
        print(summary(card.read(pathlib.Path(values.out) / card.NAME)))
        print(f"\n{values.out}/network.keras  {values.out}/card.json")
        # A card names no code, and no path elsewhere.
        own = "" if recipe.dataset in data.DATASETS else f" --dataset {shlex.quote(recipe.dataset)}"
        print(f"Next: python -m sanity.run --checkpoint {values.out}/network.keras{own}")
    return 0


def summary(run):
    """Returns the measured accuracies of a `Card`, with their intervals and what was claimed, as lines of text."""
    lines = [
        f"{run.defense} on {run.dataset}, test split; "
        f"epoch {run.epoch_chosen} was the best on the validation split, by {run.chosen_by}"
    ]
    for name, measured in run.measured.items():
        low, high = measured.interval
        line = f"{name:>10}: {measured.accuracy:7.2%}  (95 %: {low:.2%} to {high:.2%}, {measured.images} images)"
        claimed = run.claimed.get(name)
        lines.append(line if claimed is None else f"{line}  claimed {claimed:.2%}")
    return "\n".join(lines)
