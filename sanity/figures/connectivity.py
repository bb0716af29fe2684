"""Figure: paths from a clean network to robust ones, and the loss in their planes (Xing et al., 2022, figure 4)."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from sanity.figures import models as compared
from sanity.measure import path
from sanity.report.figures import COLOURS, LINES, MARKERS, literal

TITLE = "Mode connectivity"
POINTS = 21  # of a path
MARGIN = 0.25  # of the plane, around the three points, as a share of their extent
COLUMNS = 4
LEVELS = 9
FLOOR = 1e-4  # nats: smaller losses are drawn as this one
STRAIGHT, CURVE = "straight line", "Bezier curve"


def check(models, options):
    """Raises `NotShownError` if the first network cannot be joined with the others."""
    if len(models) < 2:
        raise compared.NotShownError("there is one checkpoint; allowed: a clean network and at least one other")
    first, *others = models
    for model in models:
        if path.has_statistics(model.subject.network):
            raise compared.NotShownError(
                f"{model.name} has weights that are not trained (the statistics of BatchNormalization, for instance), "
                "which a path between networks does not have; allowed: networks without"
            )
    for model in others:
        if path.architecture(first.subject.network) != path.architecture(model.subject.network):
            raise compared.NotShownError(
                f"{first.name} and {model.name} have different architectures; allowed: checkpoints of one architecture"
            )
    if options.training_data is None:
        raise compared.NotShownError("the dataset has no training images to train the bend of a path on")


def measure(models, options):
    """Returns losses and accuracies on the paths from the first model to each other one, on test images without attack.

    Each path has the loss and the accuracy along it, and the loss in the plane of the two networks and the bend.
    """
    first, *others = models
    images, labels = options.training_data
    found = []
    for model in others:
        network, subject = first.subject.network, first.subject
        start, end = path.weights_of(network), path.weights_of(model.subject.network)
        bend = path.trained_bend(network, start, end, images, labels, epochs=options.epochs, seed=subject.seed)
        losses = path.Losses(network, subject.images, subject.labels, batch_size=subject.batch_size)
        parts = np.linspace(0.0, 1.0, POINTS)
        paths = {
            CURVE: [losses.at(path.point(start, bend, end, part)) for part in parts],
            STRAIGHT: [losses.at(path.straight(start, end, part)) for part in parts],
        }
        plane = path.Plane(start, end, bend)
        corners = [plane.coordinates(weights) for weights in (start, end, bend)]
        x, y = (_axis([corner[axis] for corner in corners], options.resolution) for axis in (0, 1))
        found.append(
            {
                "start": first.name,
                "end": model.name,
                "parts": parts.tolist(),
                "paths": {name: dict(zip(("loss", "accuracy"), map(list, zip(*each)))) for name, each in paths.items()},
                "x": x,
                "y": y,
                "corners": corners,
                "curve": [plane.coordinates(path.point(start, bend, end, part)) for part in parts],
                "loss": [[round(losses.at(plane.weights(one, other))[0], 4) for one in x] for other in y],
            }
        )
    return {
        "sample": compared.about(models, options),
        "training_images": len(images),
        "epochs": options.epochs,
        "paths": found,
    }


def _axis(values, resolution):
    extent = max(max(values) - min(values), 1e-6)
    return np.linspace(min(values) - MARGIN * extent, max(values) + MARGIN * extent, resolution).tolist()


def draw(data):
    """Returns the figure of what `measure` returns: for each path the plane, and below it the loss along the path."""
    paths = data["paths"]
    columns = min(COLUMNS, len(paths))
    rows = -(-len(paths) // columns)
    figure = Figure(figsize=(max(5.2, 1.2 + 2.9 * columns), 0.8 + 4.8 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1.2, 1.0] * rows)
    heights = np.concatenate([np.ravel(each["loss"]) for each in paths])
    low = max(FLOOR, heights.min())
    high = max(min(heights.max(), 10.0), 2.0 * low)
    levels = np.geomspace(low, high, LEVELS)
    for number, each in enumerate(paths):
        row, column = divmod(number, columns)
        filled = _plane(grid[2 * row, column], each, levels)
        _along(grid[2 * row + 1, column], each)
    for unused in range(len(paths), rows * columns):
        row, column = divmod(unused, columns)
        for axes in grid[2 * row : 2 * row + 2, column]:
            axes.set_axis_off()
    for row in range(rows):
        grid[2 * row, 0].set_ylabel("towards the bend\n(distance of weights)", fontsize=9)
        grid[2 * row + 1, 0].set_ylabel("mean cross-entropy in nats", fontsize=9)
    figure.colorbar(
        filled, ax=grid[::2], label="mean cross-entropy in nats", format="%.2g", ticks=levels, shrink=0.9, pad=0.01
    )
    handles, labels = grid[0, 0].get_legend_handles_labels()
    more, names = grid[1, 0].get_legend_handles_labels()
    title = f"{data['sample']['images']} test images, no attack; bend: {data['training_images']} training images"
    figure.legend(
        [*handles, *more],
        [*labels, *names],
        loc="outside upper center",
        ncols=5 if columns > 1 else 3,
        fontsize=8,
        title=title,
        title_fontsize=9,
    )
    return figure


def _plane(axes, each, levels):
    heights = np.clip(each["loss"], levels[0], levels[-1])
    norm = LogNorm(levels[0], levels[-1])
    filled = axes.contourf(each["x"], each["y"], heights, levels=levels, cmap="cividis_r", norm=norm)
    lines = axes.contour(each["x"], each["y"], heights, levels=levels[1:-1], colors="black", linewidths=0.6)
    axes.clabel(lines, lines.levels[::2], fontsize=7, fmt=lambda level: f"{level:.2g}")
    axes.plot(*zip(*each["curve"]), color="black", linewidth=1.6)
    corners = zip(each["corners"], ("first checkpoint", "other checkpoint", "bend"), MARKERS)
    for (x, y), name, marker in corners:
        axes.plot(x, y, marker=marker, color="white", markeredgecolor="black", markersize=8, linestyle="", label=name)
    axes.set_title(literal(f"{each['start']} to {each['end']}"), fontsize=10)
    axes.set_xlabel("along the two networks (distance of weights)", fontsize=8)
    return filled


def _along(axes, each):
    for number, (name, walked) in enumerate(each["paths"].items()):
        style = {"color": COLOURS[number], "linestyle": LINES[number], "marker": MARKERS[number], "markersize": 3}
        axes.plot(each["parts"], np.maximum(walked["loss"], FLOOR), **style, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("part of the path", fontsize=8)
    axes.grid(alpha=0.3)


def caption(data):
    """Returns the caption, with the numbers."""
    numbers = "; ".join(
        f"to {each['end']} {max(each['paths'][CURVE]['loss']):.3g} along the curve and "
        f"{max(each['paths'][STRAIGHT]['loss']):.3g} along the line"
        for each in data["paths"]
    )
    return (
        "Loss without attack in the plane of weights through two networks (circle: the first checkpoint; square: the "
        f"other) and the bend (triangle), which was trained for {data['epochs']} epochs on "
        f"{data['training_images']} training images so that the Bezier curve (black) has a small loss; below, the loss "
        f"along that curve and along the straight line. Highest loss from {data['paths'][0]['start']}, in nats: "
        f"{numbers}. {compared.threat(data)}."
    )
