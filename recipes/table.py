"""A Markdown table of the runs whose cards are given: what was measured, what was claimed, what it cost.

python -m recipes.table results/mnist/*/card.json
"""

import csv
import json
import pathlib

from absl import flags

from tf_nuat import command_line

# Of the numbers of a `record`, what training took, with their columns.
COSTS = {
    "input_gradient_passes": "attack FBP",
    "forward_backward_passes": "total FBP",
    "training_seconds": "training s",
}


def read(path, *views):
    """Returns the card at `path`, which has all that `cells` and the functions of a card `views` need.

    Raises:
        ValueError: there is no such file, or it is not the card of a run.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"card is {str(path)!r}, which is not a file; allowed: paths of card.json files")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        for view in (cells, *views):
            view(card)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # JSON, but of another shape
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"card is {str(path)!r}, which is not the card of a run ({reason}); allowed: paths of card.json files"
        ) from error
    return card


def row(path):
    """Returns the cells of the card at `path`."""
    return cells(read(path))


def cells(card):
    """Returns what a card says in short, a dict of column to text."""
    recipe, cells = card["recipe"], {"defense": card["recipe"]["defense"], "network": card["recipe"]["network"]}
    for name, measured in card["measured"].items():
        claimed = f" (claimed {100 * card['claimed'][name]:.2f})" if name in card["claimed"] else ""
        cells[name] = f"{percent(measured['accuracy'], measured['interval'])}{claimed}"
    cells["chosen epoch"] = f"{card['epoch_chosen']} of {recipe['epochs']}"
    cells["training images/s"] = f"{card['training_images_per_second']:.0f}"
    cells["command"] = f"`{card['command']}`"
    return cells


def percent(share, interval):
    """Returns a share in [0, 1] with its interval (low, high) as text, in percent."""
    low, high = interval
    return f"{100 * share:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def cells_with_costs(card):
    """Returns `cells` and, before the command, `costs` and the seed."""
    short = cells(card)
    command = short.pop("command")
    return {**short, **costs(record(card)), "seed": str(card["recipe"]["seed"]), "command": command}


def costs(values):
    """Returns what training took, as text, of the `COSTS` of a `record`; without passes where they are not known."""
    *passes, (seconds, column) = COSTS.items()
    known = {column: f"{values[name]:.3g}" for name, column in passes if values[name] is not None}
    return {**known, column: f"{values[seconds]:.0f}"}


def record(card):
    """Returns the numbers of a card, a flat dict of column to value; None where a card says nothing.

    Accuracies are in [0, 1], and `epochs` is the number of those that were trained. The passes, of `defenses.Passes`,
    are per training image and epoch.
    """
    recipe, passes = card["recipe"], card.get("passes") or {}  # cards of before have no passes
    values = {
        "defense": recipe["defense"],
        "network": recipe["network"],
        "epochs": len(card["history"]),
        "chosen_epoch": card["epoch_chosen"],
    }
    for name, measured in card["measured"].items():
        values[name] = measured["accuracy"]
        values[f"{name}_low"], values[f"{name}_high"] = measured["interval"]
        values[f"{name}_claimed"] = card["claimed"].get(name)
    for kind in ("input_gradient", "training", "forward", "forward_backward"):
        values[f"{kind}_passes"] = passes.get(kind)
    values["training_seconds"] = card["training_seconds"]
    values["training_images_per_second"] = card["training_images_per_second"]
    values["seed"] = recipe["seed"]
    values["precision"] = recipe.get("precision", "float32")  # all that was there before
    values["command"] = card["command"]
    return values


def conditions(card):
    """Returns under what a card's accuracies were measured: they can be compared with those of the same conditions."""
    recipe, measured = card["recipe"], card["measured"]
    return {
        "dataset": recipe["dataset"],
        "norm": recipe.get("norm", "linf"),
        "epsilon": recipe["epsilon"],
        "measures": {name: recipe["measures"][name] for name in measured if name != "clean"},
        "test images": {name: outcome["images"] for name, outcome in measured.items()},
    }


def threat(conditions):
    """Returns the dataset and the threat model of `conditions` as text."""
    norm = {"linf": "L-infinity", "l2": "L2"}.get(conditions["norm"], conditions["norm"])
    return f"{conditions['dataset']}, {norm}, epsilon {conditions['epsilon']:.4g}"


def described(attack):
    """Returns the settings of an attack, a dict as in a recipe, as text."""
    settings = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in attack.items()}
    return ", ".join([settings.pop("attack"), *(f"{name} {value}" for name, value in settings.items())])


def caption(cards, conditions):
    """Returns what the columns of `cells_with_costs` are, for cards that were all measured under `conditions`."""
    attacks = [f"{name}: {described(attack)}" for name, attack in conditions["measures"].items()]
    images = conditions["test images"]
    counted = sorted({f"{count} test images" for count in images.values()})
    if len(counted) > 1:
        counted = [f"{name}: {count} test images" for name, count in images.items()]
    lines = [
        f"{threat(conditions)}. Accuracies in percent, with 95 % Wilson intervals, of the network of the chosen epoch.",
        f"{'; '.join([*counted, *attacks])}.",
        "Training seconds: all epochs, with the building of graphs, without validation.",
    ]
    if any(card.get("passes") for card in cards):
        passes = "forward-backward passes per training image and epoch"
        lines.insert(2, f"FBP: {passes}, of the attack alone, and of attack and training.")
    machines = [(card.get("machine"), card.get("replicas")) for card in cards]
    if any(machine != machines[0] for machine in machines):
        lines.append("The runs were made on different devices: their times are not to be compared.")
    return "\n".join(lines)


def markdown(rows):
    """Returns rows, dicts of column to cell, as a Markdown table; a cell that a row lacks is a dash."""
    every = columns(rows)
    lines = [every, ["---"] * len(every), *([cells.get(column, "-") for column in every] for cells in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_csv(rows, path):
    """Writes rows, dicts of column to value, to a file; a value that is None or missing is left empty."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def columns(rows):
    """Returns the columns of all rows, each after those that it follows in a row that has it."""
    found = []
    for cells in rows:
        place = 0
        for column in cells:
            if column in found:
                place = found.index(column) + 1
            else:
                found.insert(place, column)
                place += 1
    return found


def command(arguments):
    if not arguments or arguments[0].startswith("-"):
        command_line.parse(flags.FlagValues(), arguments, __doc__)
        raise ValueError("no card is given; allowed: paths of card.json files")
    print(markdown([row(path) for path in arguments]))
    return 0


if __name__ == "__main__":
    command_line.main(command)
