"""A Markdown table of the runs whose cards are given: what was measured, what was claimed, what it cost.

python -m recipes.table results/mnist/*/card.json
"""

import json
import pathlib

from absl import flags

from tf_nuat import command_line


def row(path):
    """Returns the cells of one card."""
    card = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    recipe, cells = card["recipe"], {"defense": card["recipe"]["defense"], "network": card["recipe"]["network"]}
    for name, measured in card["measured"].items():
        low, high = measured["interval"]
        claimed = f" (claimed {100 * card['claimed'][name]:.2f})" if name in card["claimed"] else ""
        cells[name] = f"{100 * measured['accuracy']:.2f} [{100 * low:.2f}, {100 * high:.2f}]{claimed}"
    cells["chosen epoch"] = f"{card['epoch_chosen']} of {recipe['epochs']}"
    cells["training images/s"] = f"{card['training_images_per_second']:.0f}"
    cells["command"] = f"`{card['command']}`"
    return cells


def markdown(rows):
    """Returns rows, dicts of column to cell, as a Markdown table; a cell that a row lacks is a dash."""
    columns = list(dict.fromkeys(column for cells in rows for column in cells))
    lines = [columns, ["---"] * len(columns), *([cells.get(column, "-") for column in columns] for cells in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def command(arguments):
    if not arguments or arguments[0].startswith("-"):
        command_line.parse(flags.FlagValues(), arguments, __doc__)
        raise ValueError("no card is given; allowed: paths of card.json files")
    missing = [path for path in arguments if not pathlib.Path(path).is_file()]
    if missing:
        raise ValueError(f"card is {missing[0]!r}, which is not a file; allowed: paths of card.json files")
    print(markdown([row(path) for path in arguments]))
    return 0


if __name__ == "__main__":
    command_line.main(command)
