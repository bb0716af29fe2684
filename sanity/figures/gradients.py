"""Figure: the table of gradient magnitudes (Wang and Zhang, 2019, supplement, table 4)."""

import numpy as np
from matplotlib.figure import Figure

from sanity.checks.gradient_magnitude import LEVELS
from sanity.figures import models as compared
from sanity.report.figures import literal

TITLE = "Gradient magnitude"
COLUMNS = ("network", "mean", "median", "largest", f"mean, pixels\nin [0, {LEVELS}]", "exactly\nzero", "not\nfinite")


def measure(models, options):
    """Returns the mean, median and largest squared L2 norm of the loss gradient at the images, of each model."""
    return {
        "sample": compared.about(models, options),
        "models": [{"name": model.name, **_numbers(model.subject.gradients)} for model in models],
    }


def _numbers(found):
    squares = found.squared_norm[found.finite]
    counts = {"zero": int(np.sum(found.zero)), "not_finite": int(np.sum(~found.finite))}
    if not len(squares):
        return {"mean": None, "median": None, "largest": None, **counts}
    return {
        "mean": float(np.mean(squares)),
        "median": float(np.median(squares)),
        "largest": float(np.max(squares)),
        **counts,
    }


def draw(data):
    """Returns the table as a figure."""
    rows = [
        [
            literal(each["name"]),
            *(_shown(each[name]) for name in ("mean", "median", "largest")),
            _shown(None if each["mean"] is None else each["mean"] / LEVELS**2),
            str(each["zero"]),
            str(each["not_finite"]),
        ]
        for each in data["models"]
    ]
    figure = Figure(figsize=(7.4, 1.15 + 0.28 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_title(
        f"squared L2 norm of the gradient of the cross-entropy, pixels in [0, 1] ({data['sample']['images']} images)",
        fontsize=9,
    )
    widths = [0.22, *[0.13] * 6]
    table = axes.table(cellText=rows, colLabels=COLUMNS, colWidths=widths, loc="center", cellLoc="right")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    height = 1.0 / (len(rows) + 2)
    for (row, column), cell in table.get_celld().items():
        cell.set_height(height * (2 if row == 0 else 1))
        cell.visible_edges = "B"
        if column == 0:
            cell.set_text_props(ha="left")
    return figure


def _shown(value):
    return "-" if value is None else f"{value:.2g}"


def caption(data):
    """Returns the caption."""
    return (
        "Squared L2 norm of the gradient of the cross-entropy at the clean images. Small gradients prove nothing: a "
        "network that is sure of an image has them whether it is robust or not. Exact zeros, or values that are no "
        "numbers, are a sign of masking. "
        f"{data['sample']['images']} test images of {data['sample']['dataset']}."
    )
