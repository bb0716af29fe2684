"""Prints a Markdown table of runs from their cards: measured accuracies, claims and costs.

python -m recipes.table results/mnist/*/card.json
"""

import csv
import io
import re

from absl import flags

from tf_nuat import card, command_line
from tf_nuat.core import files
from tf_nuat.evaluate import runs

# The costs of training in a `runs.record`, with their columns.
COSTS = {
    "input_gradient_passes": "attack FBP",
    "forward_backward_passes": "total FBP",
    "training_seconds": "training s",
}


def row(path):
    """Returns the cells of the card at `path`."""
    return cells(card.read(path))


def cells(run):
    """Returns a summary of a `Card`, a dict of column to text."""
    cells = {"defense": run.defense, "network": run.network}
    for name, measured in run.measured.items():
        claimed = f" (claimed {100 * run.claimed[name]:.2f})" if name in run.claimed else ""
        cells[name] = f"{percent(measured.accuracy, measured.interval)}{claimed}"
    cells["chosen epoch"] = f"{run.epoch_chosen} of {run.epochs:.4g}"
    cells["training images/s"] = f"{run.training_images_per_second:.0f}"
    cells["command"] = code(run.command)
    return cells


def percent(share, interval):
    """Returns a share in [0, 1] with its interval (low, high) as text, in percent."""
    low, high = interval
    return f"{100 * share:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def cells_with_costs(run):
    """Returns `cells` and, before the command, `costs` and the seed."""
    short = cells(run)
    command = short.pop("command")
    return {**short, **costs(runs.record(run)), "seed": str(run.seed), "command": command}


def costs(values):
    """Returns the `COSTS` of a `runs.record` as a dict of column to text, without passes that are not known."""
    *passes, (seconds, column) = COSTS.items()
    known = {column: f"{values[name]:.3g}" for name, column in passes if values[name] is not None}
    return {**known, column: f"{values[seconds]:.0f}"}


def caption(cards, conditions):
    """Returns an explanation of the columns of `cells_with_costs`, for cards that were measured under `conditions`."""
    attacks = [f"{name}: {runs.described(attack)}" for name, attack in conditions.measures.items()]
    counted = sorted({f"{count} test images" for count in conditions.images.values()})
    if len(counted) > 1:
        counted = [f"{name}: {count} test images" for name, count in conditions.images.items()]
    lines = [
        f"{conditions.threat}. Accuracies in percent, with 95 % Wilson intervals, of the network of the chosen epoch.",
        f"{'; '.join([*counted, *attacks])}.",
        "Training seconds: all epochs, with the building of graphs, without validation.",
    ]
    if any(run.passes for run in cards):
        passes = "forward-backward passes per training image and epoch"
        lines.insert(2, f"FBP: {passes}, of the attack alone, and of attack and training.")
    machines = [(run.machine, run.replicas) for run in cards]
    if any(machine != machines[0] for machine in machines):
        lines.append("The runs were made on different devices: their times are not to be compared.")
    return "\n".join(lines)


def markdown(rows, links=()):
    """Returns rows, dicts of column to cell, as a Markdown table; a cell that a row lacks is a dash.

    Cells are escaped, because their text may come from anyone's card. Columns in `links` are Markdown already.
    """
    every = columns(rows)
    lines = [[escaped(column) for column in every], ["---"] * len(every)]
    lines += [
        [cells.get(column, "-") if column in links else escaped(cells.get(column, "-")) for column in every]
        for cells in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text):
    """Returns text in one line that Markdown shows as it is, without HTML, links or cells of a table."""
    text = " ".join(text.split())
    if not _CODE.fullmatch(text):  # in code, HTML is text
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")
    return text.replace("|", "\\|")


def code(text):
    """Returns text as Markdown's code; a backtick, which would end it, becomes an apostrophe."""
    return "`" + text.replace("`", "'") + "`"


_CODE = re.compile("`[^`]*`")


def write_csv(rows, path):
    """Writes rows, dicts of column to value, to a file; a value that is None or missing is left empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.save_text(file.getvalue(), path)


def columns(rows):
    """Returns the columns of all rows; a new column comes after the one before it in its row."""
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
