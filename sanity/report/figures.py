"""The figures of the report, drawn from the series of a result; they can be read without colour."""

import io
import textwrap

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by colour-blind readers too
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "//", "..", "xx", "--", "++")
WIDTH = 5.6  # inches
DOTS_PER_INCH = 160
NAME_LENGTH = 26  # characters of a line beside a bar: longer names leave no room for the bars


def png(result, *, confidence=0.95):
    """Returns the figure of a `sanity.result.Result` that has a series, as the bytes of a PNG.

    `confidence` is that of the intervals in the series, and named in the figure.
    """
    draw = {"curves": _curves, "bars": _bars}[result.series.kind]
    figure = draw(result.series, result.sample_size, f"{confidence:.0%} interval")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _curves(series, sample_size, interval):
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    ticks = series.curves[0].x
    places = range(len(ticks)) if series.x_scale == "ordinal" else ticks
    if series.x_scale == "log":
        axes.set_xscale("log")
    for number, curve in enumerate(series.curves):
        colour = COLOURS[number % len(COLOURS)]
        axes.fill_between(places, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(
            places,
            curve.y,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            linestyle=LINES[number % len(LINES)],
            label=curve.name,
        )
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
    axes.legend(title=f"{sample_size} images, band: {interval}", fontsize=9, title_fontsize=9)
    return figure


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
