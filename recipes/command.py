"""The command line that every recipe module shares."""

import dataclasses
import inspect

from absl import flags, logging

from tf_nuat import command_line, distribute, networks, training, validation


def flag_values(recipes):
    """Returns the flags of a module whose recipes are `recipes`, a dict of defense to `Recipe`."""
    values = flags.FlagValues()

    def flag(define, name, default, help_text, **options):
        define(name, default, help_text, flag_values=values, **options)

    first = next(iter(recipes))
    flag(flags.DEFINE_string, "defense", first, f"what to train with: {', '.join(recipes)}")
    flag(flags.DEFINE_string, "out", None, "folder for the results; the same command continues a run that was killed")
    flag(flags.DEFINE_integer, "epochs", None, "length of training; all schedules stretch with it")
    flag(flags.DEFINE_string, "network", None, f"another network: {', '.join(networks.NETWORKS)}")
    flag(flags.DEFINE_integer, "width", None, "channels of a ResNet's first layer (64 as published)")
    flag(flags.DEFINE_float, "epsilon", None, "another radius of the threat model (L-infinity, pixels in [0, 1])")
    flag(flags.DEFINE_integer, "batch_size", None, "images per optimizer step, all devices together")
    flag(flags.DEFINE_float, "learning_rate", None, "another highest learning rate")
    flag(flags.DEFINE_float, "nuclear_weight", None, "another highest lambda (NuAT family only)")
    flag(flags.DEFINE_integer, "seed", None, "weights, data order and random starts follow from it")
    flag(flags.DEFINE_integer, "test_images", None, "number of test images for the final measurement (default: all)")
    flag(flags.DEFINE_string, "data_dir", None, "where the datasets are (default: TFDS_DATA_DIR, else that of TFDS)")
    flag(flags.DEFINE_string, "strategy", "auto", f"devices: {', '.join(distribute.STRATEGIES)}")
    return values


def with_flags(recipe, values):
    """Returns `recipe` with what the flags change."""
    for name in ("epochs", "network", "epsilon", "batch_size", "seed", "test_images"):
        if getattr(values, name) is not None:
            recipe = dataclasses.replace(recipe, **{name: getattr(values, name)})
    if values.network is not None:
        recipe = dataclasses.replace(recipe, network_options={})
    if values.width is not None:
        if "width" not in inspect.signature(networks.NETWORKS[recipe.network]).parameters:
            raise ValueError(f"width is given; allowed: with a ResNet, not with {recipe.network}")
        validation.whole_number("width", values.width, at_least=1)
        recipe = dataclasses.replace(recipe, network_options={"width": values.width})
    if values.learning_rate is not None:
        validation.number("learning_rate", values.learning_rate, above=0.0)
        recipe = dataclasses.replace(recipe, learning_rate=_with_peak(recipe.learning_rate, values.learning_rate))
    if values.nuclear_weight is not None:
        validation.number("nuclear_weight", values.nuclear_weight, at_least=0.0)
        if "nuclear_weight" not in recipe.defense_options:
            raise ValueError(f"nuclear_weight is given; allowed: with the NuAT family, not with {recipe.defense}")
        weight = _with_peak(recipe.defense_options["nuclear_weight"], values.nuclear_weight)
        recipe = dataclasses.replace(recipe, defense_options={**recipe.defense_options, "nuclear_weight": weight})
    return recipe


def _with_peak(schedule, peak):
    if not isinstance(schedule, tuple):
        return peak
    name, arguments = schedule
    return name, {**arguments, next(iter(arguments)): peak}  # the first argument of each schedule is its height


def main(recipes, usage):
    """Runs the recipe that the command line names. `recipes`: dict of defense to `Recipe`; `usage`: the help's text."""

    def command(arguments):
        values = flag_values(recipes)
        command_line.parse(values, arguments, usage)
        recipe = with_flags(validation.one_of("defense", values.defense, recipes), values)
        if not values.out:
            raise ValueError("out is not given; allowed: a folder for the results (--out DIR)")
        logging.set_verbosity(logging.INFO)
        card = training.run(recipe, values.out, data_dir=values.data_dir, strategy=values.strategy)
        print(summary(card))
        print(f"\n{values.out}/network.keras  {values.out}/card.json")
        print(f"Next: python -m sanity.run --checkpoint {values.out}/network.keras")
        return 0

    command_line.main(command)


def summary(card):
    """Returns the measured accuracies of a card, with their intervals and what was claimed, as lines of text."""
    lines = [
        f"{card['recipe']['defense']} on {card['recipe']['dataset']}, test split; "
        f"epoch {card['epoch_chosen']} was the best on the validation split, by {card['recipe']['chosen_by']}"
    ]
    for name, measured in card["measured"].items():
        low, high = measured["interval"]
        line = f"{name:>10}: {measured['accuracy']:7.2%}  (95 %: {low:.2%} to {high:.2%}, {measured['images']} images)"
        claimed = card["claimed"].get(name)
        lines.append(line if claimed is None else f"{line}  claimed {claimed:.2%}")
    return "\n".join(lines)
