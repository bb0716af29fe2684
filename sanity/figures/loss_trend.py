"""Figure: the mean loss under FGSM and PGD against epsilon (Vivek and Babu, 2020, figures 1, 2, 5 and 9)."""

import functools
import math

import numpy as np
from matplotlib.figure import Figure

from sanity.figures import models as compared
from sanity.measure import losses as loss_curves
from sanity.report import figures
from sanity.series import Curve

TITLE = "Loss trend"
PARTS = (0.25, 0.5, 0.75, 1.0, 1.5)  # of epsilon
COLUMNS = 3
FLOOR = 1e-4  # nats: smaller losses are drawn as this one


def check(models, options):
    """Raises `NotShownError` if FGSM has no version for the norm."""
    subject = models[0].subject
    if not subject.has("fgsm"):
        raise compared.NotShownError(f"FGSM has no version for {subject.norm.label}")


def measure(models, options):
    """Returns the mean cross-entropy of each model, in nats, with Student's intervals, at parts of epsilon."""
    return {
        "sample": compared.about(models, options),
        "steps": options.settings.steps,
        "models": [{"name": model.name, "curves": _curves(model.subject, options.settings)} for model in models],
    }


def _curves(subject, settings):
    sample = subject.network, subject.images, subject.labels
    under = functools.partial(loss_curves.under, *sample, batch_size=subject.batch_size)
    clean = under().loss
    radii = [part * subject.epsilon for part in PARTS if part * subject.epsilon <= subject.largest]
    single = [under("fgsm", epsilon=radius, **subject.threat("fgsm")).loss for radius in radii]
    iterative = [subject.trace(**settings.pgd(radius)).losses[-1] for radius in radii]
    curves = {"FGSM": [clean, *single], "PGD": [clean, *iterative]}
    return [{"name": name, "x": [0.0, *radii], **_means(losses)} for name, losses in curves.items()]


def _means(losses):
    losses = [np.nan_to_num(each.astype(np.float64), nan=np.inf) for each in losses]
    losses = [np.minimum(each, loss_curves.MOST) for each in losses]
    means = [float(np.mean(each)) for each in losses]
    limits = [loss_curves.interval(each) if len(each) > 1 else (mean, mean) for each, mean in zip(losses, means)]
    return {"y": means, "low": [low for low, _ in limits], "high": [high for _, high in limits]}


def draw(data):
    """Returns the figure of what `measure` returns: a panel for each model, all on one logarithmic scale."""
    columns = min(COLUMNS, len(data["models"]))
    rows = -(-len(data["models"]) // columns)
    figure = Figure(figsize=(1.0 + 2.6 * columns, 0.8 + 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    sample = data["sample"]
    for axes, each in zip(grid.flat, data["models"]):
        for number, curve in enumerate(each["curves"]):
            shown = {name: np.maximum(curve[name], FLOOR) for name in ("y", "low", "high")}
            figures.line(axes, curve["x"], Curve(curve["name"], curve["x"], **shown), number)
        level = math.log(sample["num_classes"])
        axes.axhline(level, color="black", linestyle=":", linewidth=1, label="ln K: knows nothing")
        axes.axvline(sample["epsilon"], color="grey", linewidth=0.8)
        axes.set_title(figures.literal(each["name"]), fontsize=10)
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    for axes in list(grid.flat)[len(data["models"]) :]:
        axes.set_axis_off()
    figure.supxlabel(f"{compared.radius(sample)}; line: {sample['epsilon']:.4g}", fontsize=9)
    figure.supylabel(f"mean cross-entropy in nats ({sample['images']} images)", fontsize=9)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    title = f"bands: 95% intervals; PGD: {data['steps']} steps"
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, title=title, title_fontsize=8)
    return figure


def caption(data):
    """Returns the caption, with the numbers."""
    sample = data["sample"]

    def at_epsilon(curve):
        return curve["y"][curve["x"].index(sample["epsilon"])]

    numbers = "; ".join(
        "{}: {:.3g} and {:.3g}".format(each["name"], *(at_epsilon(curve) for curve in each["curves"]))
        for each in data["models"]
    )
    return (
        "Mean cross-entropy where FGSM and PGD end (neither stops at an image that is fooled), against epsilon. Where "
        "gradients are masked FGSM stays far below PGD, or falls as epsilon grows. In nats at epsilon, under FGSM and "
        f"PGD ({data['steps']} steps): {numbers}. {compared.threat(data)}."
    )
