"""Several defenses side by side: trained alike, attacked alike, in one table and one figure.

    python -m recipes.compare --dataset mnist --network lenet_plus --defenses nuat,sat_r2,pgd_at --out runs/compare
    python -m recipes.compare --cards results/mnist/nuat/card.json,results/mnist/standard/card.json --out runs/compare

Trains each defense in a folder of its own, out/DEFENSE, with its recipe for the dataset and the changes of the flags. A
killed command continues when started again, and does not repeat finished trainings. `--cards` adds runs that were made
elsewhere; they must have been measured by the same attacks on as many images.

Writes table.md, table.csv (accuracies in [0, 1]) and comparison.png, and updates them after each defense. If the loss
of a run becomes NaN, or `--minutes` are too few for it, the command names the run at the end and exits with 1.
"""

import pathlib
from collections.abc import Iterator

from absl import flags

from recipes import cifar10, cifar100, command, digits, imagenet, imagenet100, mnist, svhn, table
from sanity.report import comparison, figures
from tf_nuat import card, command_line, training
from tf_nuat.core import files, validation
from tf_nuat.evaluate import runs
from tf_nuat.training import minutes

DATASETS = {
    "digits": digits,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "imagenet100": imagenet100,
    "imagenet2012": imagenet,
}


def flag_values():
    """Returns the flags: those of every recipe, with `defenses` in place of `defense`."""
    recipes = dict.fromkeys(name for module in DATASETS.values() for name in module.RECIPES)
    values = command.with_shared_flags(flags.FlagValues())
    flags.DEFINE_string("dataset", None, f"whose recipes: {', '.join(DATASETS)}", flag_values=values)
    flags.DEFINE_list("defenses", [], f"what to train, by commas: {', '.join(recipes)}", flag_values=values)
    flags.DEFINE_list("cards", [], "card.json files of runs made elsewhere, by commas", flag_values=values)
    return values


def main(arguments):
    """Trains the unfinished runs and writes the comparison; returns the exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    command_line.require(values, out="a folder for the results (--out DIR)")
    if not values.defenses and not values.cards:
        raise ValueError("neither defenses nor cards are given; allowed: --defenses NAME,NAME or --cards PATH,PATH")
    out = pathlib.Path(values.out)
    command.refuse_several_workers(values)
    recipes, options = _recipes(values), command.run_options(values)
    folders = {name: out / name for name in recipes}
    paths = list(map(pathlib.Path, values.cards))
    refuse_twice("cards", [path.resolve() for path in (*(folder / card.NAME for folder in folders.values()), *paths)])
    cards = {str(path): card.read(path) for path in paths}
    conditions = same_conditions(
        {
            **conditions_of_runs(recipes, folders, options),
            **{path: runs.conditions(run) for path, run in cards.items()},
        }
    )
    if not conditions.measures:
        first = next(iter([*folders.values(), *paths]))
        raise ValueError(
            f"cards has {str(first)!r}, which was not attacked; allowed: runs with an accuracy under attack"
        )
    if values.dataset not in (None, conditions.dataset):
        validation.refuse("dataset", values.dataset, f"{conditions.dataset}, that of the cards")
    for folder in (out, *folders.values()):
        validation.output_folder("out", folder)

    for trained, failed in train(recipes, folders, options):
        compared = [*trained, *cards.values()]
        if compared:
            _write(out, compared, conditions, failed)
    if compared:
        print(f"\n{(out / 'table.md').read_text(encoding='utf-8')}")
        print(f"{out}/table.md  {out}/table.csv  {out}/comparison.png")
    for line in failed:
        print(line)
    return 1 if failed else 0


def _recipes(values):
    """Returns the recipes to train, a dict of name to `Recipe`."""
    if values.dataset is None and not values.defenses:
        return {}
    module = validation.one_of("dataset", values.dataset, DATASETS)
    refuse_twice("defenses", values.defenses)
    chosen = {name: validation.one_of("defenses", name, module.RECIPES) for name in values.defenses}
    return {name: with_flags(recipe, values) for name, recipe in chosen.items()}


def with_flags(recipe, values):
    """Returns `recipe` with the changes of the flags; `--patience` only changes a recipe that keeps the best epoch."""
    return command.with_flags(recipe, values, without=("patience",) if recipe.chosen_by == "last" else ())


def refuse_twice(argument, entries):
    twice = [str(entry) for entry in entries if entries.count(entry) > 1]
    if twice:
        raise ValueError(f"{argument} has {twice[0]!r} twice; allowed: each once")


def conditions_of_runs(recipes, folders, options):
    """Checks the recipes; returns a dict of folder to the conditions under which its recipe is measured."""
    conditions = {}
    for name, recipe in recipes.items():
        finished, splits = training.check(recipe, folders[name], **options)
        if finished is not None:
            found = runs.conditions(finished)
        else:
            images = dict.fromkeys(("clean", *recipe.measures), len(splits.labels("test")[: recipe.test_images]))
            measures = recipe.to_json()["measures"]
            found = runs.Conditions(recipe.dataset, recipe.norm, recipe.epsilon, measures, images)
        conditions[str(folders[name])] = found
    return conditions


def same_conditions(conditions):
    """Returns the `runs.Conditions` that all runs share; `conditions` is a dict of run name to `runs.Conditions`."""
    (first, expected), *others = conditions.items()
    named = expected.to_json()
    for other, found in others:
        for name, value in found.to_json().items():
            if value != named[name]:
                raise ValueError(
                    f"cards are {first!r} and {other!r}, with {name} {named[name]!r} and {value!r}; "
                    f"allowed: runs that agree on {', '.join(named)}"
                )
    return expected


def train(recipes, folders, options) -> Iterator[tuple[list[card.Card], list[str]]]:
    """Yields the cards so far and a line for each failure, before the first recipe and after each recipe."""
    cards, failed = [], []
    yield cards, failed
    for number, (name, recipe) in enumerate(recipes.items(), start=1):
        finished = (folders[name] / card.NAME).exists()
        length = f"{recipe.epochs} epochs" if recipe.minutes is None else f"{recipe.minutes:g} minutes"
        doing = "finished before" if finished else f"{length} of {recipe.network} on {recipe.dataset}"
        print(f"{name} ({number} of {len(recipes)}): {doing}", flush=True)
        try:
            cards.append(training.run(recipe, folders[name], **options))
        except (FloatingPointError, minutes.TooFewError) as error:
            failed.append(f"failed: {name}: {error}")
        yield cards, failed


def _write(out, cards, conditions, failed):
    records = list(map(runs.record, cards))
    text = [table.caption(cards, conditions), table.markdown(list(map(table.cells_with_costs, cards))), *failed]
    files.save_text("\n\n".join([*text, "![Comparison](comparison.png)"]) + "\n", out / "table.md")
    table.write_csv(records, out / "table.csv")
    figures.save(comparison.comparison(records, conditions), out / "comparison.png")


if __name__ == "__main__":
    command_line.main(main)
