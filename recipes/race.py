"""A race: defenses on one network, each with the same minutes of training and validation, then attacked alike.

    python -m recipes.race --dataset digits --minutes 0.5 --defenses fgsm_at,n_fgsm,nuat --out runs/race
    python -m recipes.race --dataset cifar10 --minutes 45 --precision mixed_bfloat16 --out runs/race_cifar10 \\
        --defenses standard,fgsm_at,fbf,n_fgsm,grad_align,elle_a,gat,sat_r2,nuat,nuat_wa,free_at,pgd_at,trades

Trains the defenses one after the other, each in a folder of its own, out/DEFENSE. Let nothing else run: it would slow
them. Each defense has its recipe for the dataset, with the schedules stretched to as many epochs as fit into the
minutes. The network, the measures and the changes of the flags are the same for all. A killed command continues when
started again, and does not repeat finished trainings.

Writes race.md, race.png and race.csv, and updates them after each defense. race.md has a table, and the differences to
the winner, tested on the same images. race.png shows robust accuracy on validation images against minutes of training,
with a cross where the masking alarm rang. race.md also names a defense whose loss becomes NaN, or for which the minutes
are too few. AutoAttack takes longer than the training, so it is a command of its own for each network;
`recipes.leaderboard` shows the result:

    python -m tf_nuat.evaluate --checkpoint runs/race_cifar10/nuat_wa/network.keras --samples 1000
    python -m recipes.two_phase --card runs/race_cifar10/nuat_wa/card.json
"""

import dataclasses
import itertools
import pathlib

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from recipes import command, compare, orderings, table
from sanity import statistics
from sanity.report import figures
from sanity.report.figures import COLOURS, DOTS_PER_INCH, LINES
from tf_nuat import card, command_line
from tf_nuat.core import files, json_input, npz_input, validation
from tf_nuat.evaluate import runs
from tf_nuat.training import AttackSpec
from tf_nuat.training.experiment import OUTCOMES

MEASURE = "pgd_50"
ALIKE = ("dataset", "minutes", "network", "network_options", "norm", "epsilon")  # the same for all runs of a race
# The network of all defenses on a dataset: two processor cores train it for some epochs in 45 minutes.
SETTINGS = {
    "digits": {"network": "mnist_cnn", "network_options": {}},
    "mnist": {"network": "lenet_plus", "network_options": {}},
    "cifar10": {"network": "resnet18", "network_options": {"width": 16}},
    "svhn": {"network": "resnet18", "network_options": {"width": 16}},
}


def flag_values():
    """Returns the flags: those of every recipe, with `defenses` in place of `defense`."""
    values = command.with_shared_flags(flags.FlagValues())
    flags.DEFINE_string("dataset", None, f"whose recipes: {', '.join(SETTINGS)}; required", flag_values=values)
    flags.DEFINE_list("defenses", [], "what races, with commas between; required", flag_values=values)
    return values


def main(arguments):
    """Trains the unfinished runs and writes the page; returns the exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    command_line.require(
        values,
        dataset=f"whose recipes race (--dataset {next(iter(SETTINGS))})",
        minutes="how long each is trained (--minutes 45)",
        out="a folder for the results (--out DIR)",
    )
    command.refuse_several_workers(values)
    recipes, options = _recipes(values), command.run_options(values)
    out = pathlib.Path(values.out)
    folders = {name: out / name for name in recipes}
    _refuse_another_race(out, recipes)
    conditions = compare.same_conditions(compare.conditions_of_runs(recipes, folders, options))
    for folder in (out, *folders.values()):
        validation.output_folder("out", folder)
        if (folder / card.NAME).exists():
            _outcomes(folder)  # if they are missing, refuse now, not after training all others
    for cards, failed in compare.train(recipes, folders, options):
        if cards:
            outcomes = {run.defense: _outcomes(folders[run.defense]) for run in cards}
            files.save_text(page(cards, outcomes, conditions, failed), out / "race.md")
            table.write_csv(list(map(runs.record, cards)), out / "race.csv")
            figures.save(draw(cards), out / "race.png")
    if cards:
        print(f"\n{(out / 'race.md').read_text(encoding='utf-8')}")
        print(f"{out}/race.md  {out}/race.csv  {out}/race.png")
    for line in failed:
        print(line)
    return 1 if failed else 0


def _recipes(values):
    """Returns the recipes that race, a dict of name to `Recipe`."""
    settings = validation.one_of("dataset", values.dataset, SETTINGS)
    module = compare.DATASETS[values.dataset]
    if not values.defenses:
        raise ValueError(f"defenses is not given; allowed: --defenses {','.join(itertools.islice(module.RECIPES, 3))}")
    if values.measures is not None:
        raise ValueError(f"measures is given; allowed: nothing, as all are measured by {MEASURE}")
    compare.refuse_twice("defenses", values.defenses)
    measures = {MEASURE: AttackSpec("pgd", steps=50)}
    chosen = {name: validation.one_of("defenses", name, module.RECIPES) for name in values.defenses}
    for name, recipe in chosen.items():
        if recipe.sources:
            validation.refuse("defenses", name, "defenses without source networks, whose training has no minutes")
    alike = {
        name: dataclasses.replace(recipe, **settings, measures=measures, claimed={}) for name, recipe in chosen.items()
    }
    return {name: compare.with_flags(recipe, values) for name, recipe in alike.items()}


def _refuse_another_race(out, recipes):
    """Raises a `ValueError` if `out` holds runs of another race, whose page would be lost."""
    now = alike(next(iter(recipes.values())).to_json())
    for path in sorted(out.glob("*/recipe.json")):
        for name, before in alike(json_input.load("recipe", path)).items():
            if before != now[name]:
                raise ValueError(
                    f"out is {str(out)!r}, where {path.parent.name} ran with {name} {before!r}, not {now[name]!r}; "
                    "allowed: a new folder for another race"
                )


def alike(recipe):
    """Returns the settings that all recipes of a race share; `recipe` is one of them as JSON."""
    return {name: recipe.get(name) for name in ALIKE}


def _outcomes(folder):
    """Returns which test images the network in a folder classified correctly under the attack, bool (N,)."""
    path = folder / OUTCOMES
    if not path.is_file():
        raise ValueError(f"out has no {path}; allowed: a folder in which {folder.name} was trained")
    return npz_input.load("outcomes", path)[MEASURE]


def page(cards, outcomes, conditions, failed=()):
    """Returns race.md.

    Args:
        cards: of the runs.
        outcomes: dict of defense to whether each test image withstood the attack, bool (N,).
        conditions: a `runs.Conditions`, those of all runs.
        failed: a line for each defense whose training failed.
    """
    ranked = sorted(cards, key=lambda run: -run.measured[MEASURE].accuracy)
    parts = [
        f"# {cards[0].recipe['minutes']:g} minutes each",
        f"{table.caption(ranked, conditions)} Minutes: training and validation. Alarm: epochs after which the masking "
        "alarm rang, by FGSM and PGD on validation images.",
        table.markdown([_row(run) for run in ranked]),
        "![Robust accuracy against minutes](race.png)",
    ]
    if len(ranked) > 1:
        parts += [
            f"Accuracy under {MEASURE} below that of {ranked[0].defense}, in points, with the interval of each alone "
            "(95 %, Bonett and Price); McNemar's exact test on the same images, with Holm's correction for all pairs "
            "of defenses, as the first was not known before. That is the noise of drawing test images: there is one "
            "training of each, and how trainings differ is not in it.",
            table.markdown(differences([run.defense for run in ranked], outcomes)),
        ]
    return "\n\n".join([*parts, *failed]) + "\n"


def _row(run):
    """Returns the cells of a run."""
    cells = table.cells_with_costs(run)
    rang = [str(epoch) for epoch, logs in enumerate(run.history, start=1) if logs.get("masking_alarm")]
    watched = any("masking_alarm" in logs for logs in run.history)
    return {
        "defense": cells.pop("defense"),
        "alarm": (", ".join(rang) or "silent") if watched else "-",
        **{name: text for name, text in cells.items() if name not in ("network", "seed", "command")},
    }


def differences(ranked, outcomes):
    """Returns a row for each defense but the first: how far below the first it is, and whether that may be chance."""
    first, *others = ranked
    pairs = itertools.combinations(ranked, 2)  # those with the first come first
    p_values = statistics.holm_adjusted(
        [statistics.mcnemar_two_sided(outcomes[one], outcomes[other]) for one, other in pairs]
    )
    rows = []
    for name, p_value in zip(others, p_values):
        difference, low, high = statistics.paired_difference(outcomes[name], outcomes[first])
        verdict = "within noise" if p_value >= orderings.LEVEL else "below"
        below = table.percent(difference, (low, high))
        rows.append({"defense": name, f"below {first} by": below, "p (Holm)": f"{p_value:.2g}", "verdict": verdict})
    return rows


def draw(cards):
    """Returns the figure: robust accuracy on validation images, after each epoch, against minutes of training."""
    figure = Figure(figsize=(7.2, 4.2), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    styles = itertools.cycle(itertools.product(LINES, COLOURS))
    for run, (line, colour) in zip(cards, styles):
        minutes = np.cumsum([logs["seconds"] for logs in run.history]) / 60.0
        robust = np.array([logs["val_robust_accuracy"] for logs in run.history])
        rang = np.array([bool(logs.get("masking_alarm")) for logs in run.history])
        axes.plot(minutes, robust, linestyle=line, color=colour, marker=".", label=run.defense)
        axes.plot(minutes[rang], robust[rang], "x", color=colour, markersize=9, markeredgewidth=2)
    axes.set(
        xlabel="minutes of training, without validation (cross: the masking alarm rang)",
        ylabel="robust accuracy, validation images",
        ylim=(-0.02, None),
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


if __name__ == "__main__":
    command_line.main(main)
