"""The figures of the report, drawn from the series of a result; they can be read without colour."""

import io
import re
import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from tf_nuat.core import files

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # colour-blind readers can tell them apart
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "//", "..", "xx", "--", "++")
WIDTH = 5.6  # inches
DOTS_PER_INCH = 160
PANELS_PER_ROW = 2
MOST_INSIDE = 3  # curves with a legend that fits inside the axes
NAME_LENGTH = 26  # characters of a line beside a bar: longer names leave no room for the bars


def png(result, *, confidence=0.95):
    """Returns the figure of a `sanity.result.Result` that has a series, as the bytes of a PNG.

    `confidence` is that of the intervals in the series, and named in the figure.
    """
    draw = {"curves": curves, "bars": _bars, "surface": _surface, "histogram": _histogram}[result.series.kind]
    figure = draw(result.series, result.sample_size, f"{confidence:.0%} interval")
    return as_png(figure)


def as_png(figure):
    """Returns a Matplotlib figure as the bytes of a PNG; the same figure always gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def save(figure, path):
    """Replaces the PNG at `path` by a Matplotlib figure; raises `files.NotSavedError` if it cannot be written."""
    files.save_bytes(as_png(figure), path)


def literal(text):
    """Returns a name that someone gave, as Matplotlib draws it as text.

    Between dollars it would see a formula, and what begins with an underscore it would leave out of a legend.
    """
    return re.sub("^_", " _", text.replace("$", r"\$"))


def curves(series, sample_size, interval):
    """Returns the figure of `sanity.series.Curves` of `sample_size` images; `interval` says what their bands are."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    ticks = series.curves[0].x
    places = range(len(ticks)) if series.x_scale == "ordinal" else ticks
    if series.x_scale == "log":
        axes.set_xscale("log")
    for number, curve in enumerate(series.curves):
        line(axes, places, curve, number)
    for name, level in series.levels:
        axes.axhline(level, color="black", linestyle=":", linewidth=1)
        axes.text(places[0], level, name, va="bottom", fontsize=9)
    axes.set_xticks(list(places), [f"{value:.3g}" for value in ticks])
    axes.minorticks_off()
    axes.set_xlabel(series.x_label)
    axes.set_ylabel(series.y_label)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    words = {"title": f"{sample_size} images, band: {interval}", "fontsize": 9, "title_fontsize": 9}
    if len(series.curves) <= MOST_INSIDE:
        axes.legend(**words)
    else:
        figure.legend(loc="outside upper center", ncols=MOST_INSIDE, **words)
    return figure


def line(axes, places, curve, number):
    """Draws a `sanity.series.Curve` at `places`, with the band of its intervals; `number` chooses the style."""
    colour, marker, dashes = (styles[number % len(styles)] for styles in (COLOURS, MARKERS, LINES))
    axes.fill_between(places, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(places, curve.y, color=colour, marker=marker, linestyle=dashes, label=literal(curve.name))


def _bars(series, sample_size, interval):
    figure = Figure(figsize=(WIDTH, 1.35 + 0.42 * len(series.bars)), layout="constrained")
    axes = figure.add_subplot()
    groups = list(dict.fromkeys(bar.group for bar in series.bars))
    for place, bar in enumerate(series.bars):
        group = groups.index(bar.group)
        first = bar.group not in [before.group for before in series.bars[:place]]
        axes.barh(
            place,
            bar.y,
            xerr=[[max(0.0, bar.y - bar.low)], [max(0.0, bar.high - bar.y)]],
            color=COLOURS[group % len(COLOURS)],
            hatch=HATCHES[group % len(HATCHES)],
            edgecolor="white",
            alpha=0.85,
            error_kw={"ecolor": "black", "capsize": 3},
            label=bar.group if first else None,
        )
        axes.text(min(bar.high + 0.015, 1.02), place, f"{bar.y:.1%}", va="center", fontsize=9)
    for name, level in series.levels:
        axes.axvline(level, color="black", linestyle=":", linewidth=1.2, label=f"{name}: {level:.1%}")
    axes.set_yticks(range(len(series.bars)), [textwrap.fill(bar.name, NAME_LENGTH) for bar in series.bars])
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.2)  # beyond 1 there is room for the number
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}" if share <= 1.0 else ""))
    axes.set_xlabel(f"{series.label}\n({sample_size} images, lines: {interval})")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=4, fontsize=9, frameon=False)
    return figure


def _surface(series, sample_size, interval):
    return surface(series)


def surface(series, *, columns=PANELS_PER_ROW, width=WIDTH):
    """Returns the figure of a `sanity.series.Surface`, with `columns` panels in a row, `width` inches wide.

    Contour lines are labelled with their heights. A flat panel has none, and its title says so.
    """
    panels = series.panels
    columns = min(len(panels), columns)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(width, 0.45 + rows * (0.5 + 0.68 * width / columns)), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    heights = np.array([panel.z for panel in panels])
    levels = MaxNLocator(7).tick_values(heights.min(), max(heights.max(), heights.min() + 0.01))
    for axes, panel in zip(grid.flat, panels):
        z = np.asarray(panel.z)
        filled = axes.contourf(series.x, series.y, z, levels=levels, cmap="cividis")
        lines = axes.contour(series.x, series.y, z, levels=levels, colors="white", linewidths=0.8)
        labels = axes.clabel(lines, lines.levels[1::2], fontsize=7, fmt=lambda level: f"{level:.2g}")
        for label in labels:
            label.set_bbox({"facecolor": "black", "alpha": 0.55, "pad": 0.8, "linewidth": 0})
        axes.plot(0.0, 0.0, marker="+", color="white", markersize=9)
        low, high = f"{z.min():.2g}", f"{z.max():.2g}"
        reach = f"from {low} to {high}" if low != high else f"{low} everywhere"
        axes.set_title(f"{literal(textwrap.fill(panel.name, NAME_LENGTH))}\n{reach}", fontsize=9)
        axes.set_aspect("equal")
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(series.x_label, fontsize=9)
    figure.supylabel(series.y_label, fontsize=9)
    figure.colorbar(filled, ax=grid, label=series.z_label, shrink=0.75)
    return figure


def _histogram(series, sample_size, interval):
    """Returns the histogram; values that have no place on its axis get bars at its left, labelled with their share."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    widths = [max(1.0, 1.2 * len(series.apart)), 6.0]
    apart, axes = figure.subplots(1, 2, sharey=True, width_ratios=widths) if series.apart else (None, None)
    if axes is None:
        axes = figure.add_subplot()
    if series.counts:
        axes.stairs(series.counts, series.edges, fill=True, color=COLOURS[0], alpha=0.85)
        axes.stairs(series.counts, series.edges, color="black", linewidth=0.8)
        axes.set_xscale("log")
    else:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
    axes.set_xlabel(f"{series.x_label}\n({sample_size} images)")
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    if apart is not None:
        names, counts = zip(*series.apart)
        bars = apart.bar(range(len(names)), counts, color=COLOURS[1], hatch=HATCHES[1], edgecolor="white", width=0.7)
        apart.bar_label(bars, [f"{count / sample_size:.1%}" for count in counts], fontsize=9, padding=2)
        apart.set_xticks(range(len(names)), [textwrap.fill(name, 9) for name in names])
        apart.set_xlim(-0.6, len(names) - 0.4)
        apart.grid(axis="y", alpha=0.3)
        apart.set_axisbelow(True)
    (apart or axes).set_ylabel("images")
    axes.set_ylim(0.0, 1.12 * max([1, *series.counts, *(count for _, count in series.apart)]))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure
