"""Figures of the critical epsilon and of the simulation behind it; they can be read without colour."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sanity.report.figures import COLOURS, DOTS_PER_INCH, LINES, MARKERS, literal
from tf_nuat import norms
from tf_nuat.critical_epsilon import Measured
from tf_nuat.training import Recipe


def estimates(measured: Sequence[Measured], recipe: Recipe) -> Figure:
    """Returns the figure of `critical_epsilon.Measured`: losses by epsilon, the fitted lines, and where they cross."""
    figure = Figure(figsize=(6.4, 4.6), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    test_losses = [clean.test_loss for each in measured for clean in each.clean]
    clean = measured[0].clean[0]
    for number, each in enumerate(measured):
        colour, marker = COLOURS[number], MARKERS[number]
        epsilons, runs = 255 * np.array(each.epsilons), len(each.losses)
        lines = each.estimate.lines
        for run, losses in enumerate(each.losses):
            drawn = "none" if lines else LINES[0]
            label = None if run else f"{each.way}: {runs} run{'s' * (runs > 1)}, {each.loss_images} training images"
            axes.plot(epsilons, losses, color=colour, marker=marker, linestyle=drawn, linewidth=1, label=label)
            if lines:
                ends = np.array([0.0, 1.05 * each.estimate.each[run]])
                axes.plot(255 * ends, lines[run][0] + lines[run][1] * ends, color=colour, linestyle=LINES[1])
        _mark(axes, each, np.mean([clean.test_loss for clean in each.clean]), number)
    axes.plot(0.0, clean.train_loss, marker="x", color="black", linestyle="none", label="ordinary training")
    for number, loss in enumerate(dict.fromkeys(test_losses)):
        label = None if number else f"clean test loss of ordinary training, {clean.test_images} images"
        axes.axhline(loss, color="black", linestyle=LINES[3], linewidth=1, label=label)
    axes.set_xlim(left=0.0 - 0.02 * axes.get_xlim()[1])
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel(f"epsilon, {norms.of(recipe.norm).label}, in 1/255 of the range of a pixel")
    axes.set_ylabel("cross-entropy of training images under PGD")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")
    options = "".join(f", {name} {value}" for name, value in recipe.network_options.items())
    title = literal(f"{recipe.dataset}, {recipe.network}{options}, {recipe.defense}")
    axes.set_title(title, fontsize="medium")
    return figure


def _mark(axes: Axes, measured: Measured, height: float, number: int) -> None:
    estimate = measured.estimate
    interval = None
    if estimate.low is not None and estimate.high is not None:
        interval = [[255 * (estimate.epsilon - estimate.low)], [255 * (estimate.high - estimate.epsilon)]]
    interval_text = "" if interval is None else ", bar: 95 % interval"
    axes.errorbar(
        255 * estimate.epsilon,
        height,
        xerr=interval,
        marker=MARKERS[number],
        markersize=11,
        markerfacecolor="white",
        color=COLOURS[number],
        ecolor="black",
        capsize=3,
        linestyle="none",
        zorder=4,
        label=f"{measured.way}: epsilon* {255 * estimate.epsilon:.3g}/255{interval_text}",
    )


def paths(n: int, ratios: Sequence[float], differences: Mapping[int, np.ndarray]) -> Figure:
    """Returns the left of figure 2: distances of the paths of theta from the clean paths, with a panel for each d.

    Args:
        n: images of a sample.
        ratios: epsilon over sqrt(d / n).
        differences: dict of d to the means (ratios, steps) of `theory.relative_differences`.
    """
    figure = Figure(figsize=(9.6, 3.6), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(1, len(differences), sharey=True, squeeze=False)[0]
    for axes, (d, rows) in zip(panels, differences.items()):
        for number, (ratio, row) in enumerate(zip(ratios, rows)):
            steps = np.arange(1, len(row) + 1)
            style = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": LINES[number]}
            axes.plot(steps, row, **style, markevery=20, label=f"{ratio:g} sqrt(d/n)")
        axes.set_title(f"d = {d}, n = {n}", fontsize="medium")
        axes.set_xlabel("step of gradient descent")
        axes.set_yscale("log")
        axes.set_ylim(1e-3, 5.0)  # the first step equals that of the clean path, up to rounding
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("distance to the clean path,\nover the length of theta")
    panels[-1].legend(title="epsilon (means of 100 samples)", fontsize=8, title_fontsize=8)
    return figure


def p_values(n: int, logs: np.ndarray, found: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Returns the right of figure 2, and figure 3: p-values of theta and of the training loss by log(epsilon/epsilon*).

    Args:
        n: images of a sample.
        logs: log of epsilon over sqrt(d / n).
        found: dict of d to the pair of mean p-values of `theory.mean_p_values`.
    """
    figure = Figure(figsize=(8.4, 3.6), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, which in zip(panels, ("theta", "the training loss"), (0, 1)):
        for number, (d, rows) in enumerate(found.items()):
            style = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": LINES[number]}
            axes.plot(logs, rows[which], **style, markersize=4, label=f"d = {d}")
        axes.axvline(0.0, color="black", linestyle=LINES[3], linewidth=1)
        axes.set_title(f"is {name} that of clean training?", fontsize="medium")
        axes.set_xlabel("log(epsilon / epsilon*), epsilon* = sqrt(d/n)")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("p-value")
    panels[1].legend(title=f"n = {n}; means of 100 samples\nagainst 300 clean ones", fontsize=8, title_fontsize=8)
    return figure
