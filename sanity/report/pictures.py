"""Pictures of adversarial examples: the image, its perturbation and the adversary, side by side."""

import warnings

import numpy as np
from matplotlib.figure import Figure

from sanity.report import figures

MOST = 8
MOST_PER_COLUMN = 4
PICTURE = 1.15  # inches
NAME_LENGTH = 13  # characters: as many as fit above a picture beside "seen as"
SHARP = 96  # sides below which pixels are drawn as squares


def png(examples, class_names=()):
    """Returns the pictures of at most `MOST` examples as the bytes of a PNG.

    Perturbations are on one scale: grey is no change, black and white are the largest change of any example. The title
    of an image has its class and the predicted class, the title of an adversary the predicted class. Long names are
    cut.

    Args:
        examples: sequence of `sanity.measure.examples.Example`, at least one.
        class_names: names of the classes; a class beyond them is shown by its number.

    Raises:
        ValueError: there is no example.
    """
    if not examples:
        raise ValueError("examples is empty; allowed: at least one")
    examples = tuple(examples)[:MOST]
    changes = [np.asarray(each.adversary, np.float64) - np.asarray(each.image, np.float64) for each in examples]
    largest = max(float(np.max(np.abs(change))) for change in changes)
    sets = -(-len(examples) // MOST_PER_COLUMN)
    rows = -(-len(examples) // sets)
    figure = Figure(figsize=(3 * sets * PICTURE + 0.3, rows * (PICTURE + 0.42) + 0.3), layout="constrained")
    grid = figure.subplots(rows, 3 * sets, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for place, (each, change) in enumerate(zip(examples, changes)):
        column, row = divmod(place, rows)
        predicted, label, attacked_as = (
            shortened(class_names[number] if number < len(class_names) else number)
            for number in (each.predicted, each.label, each.attacked_as)
        )
        drawn = (
            (each.image, f"is {label}\nseen as {predicted}"),
            (
                0.5 + 0.5 * change / largest if largest else change + 0.5,
                f"perturbation\nat most {np.abs(change).max():.2g}",
            ),
            (each.adversary, f"adversary\nseen as {attacked_as}"),
        )
        for axes, (picture, title) in zip(grid[row, 3 * column : 3 * column + 3], drawn):
            sharp = max(picture.shape[:2]) < SHARP
            axes.imshow(
                in_colours(picture),
                cmap="gray",
                vmin=0.0,
                vmax=1.0,
                interpolation="nearest" if sharp else "antialiased",
            )
            axes.set_title(title, fontsize=7, parse_math=False)
    figure.supxlabel(f"perturbation: grey is no change, black and white are {largest:.2g}", fontsize=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a missing character of a name becomes a box
        return figures.as_png(figure)


def shortened(name):
    """Returns a name on one line, in at most `NAME_LENGTH` characters, all of which can be drawn."""
    name = "".join(each if each.isprintable() else " " for each in str(name)).strip()
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def in_colours(picture):
    """Returns a picture (H, W, C) in a form that can be drawn: (H, W, 3), or the mean of any other channels, (H, W)."""
    picture = np.clip(picture, 0.0, 1.0)
    return picture if picture.shape[-1] == 3 else np.mean(picture, axis=-1)
