"""The figure of a comparison: robust accuracy against clean accuracy and training cost. Readable without colour."""

import dataclasses

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sanity.report import plot_labels
from sanity.report.figures import COLOURS, DOTS_PER_INCH, MARKERS, literal
from tf_nuat.evaluate import runs

MARK = 7  # size in points
WIDE = 0.4  # share of the range of accuracies; the axis is broken at an empty stretch of more than this length
LOGARITHMIC = 10.0  # ratio of largest to smallest cost from which its axis is logarithmic


@dataclasses.dataclass(frozen=True)
class Point:
    """A run in a panel: where its mark is, the 95 % intervals (low, high) around it, and where the paper's mark is."""

    number: int
    label: str
    x: float
    y: float
    x_interval: tuple | None
    y_interval: tuple
    claimed: tuple | None


@dataclasses.dataclass(frozen=True)
class Panel:
    """Points, the text of their horizontal axis, and whether that axis is a cost, above 0, or an accuracy."""

    text: str
    points: list
    is_cost: bool


def comparison(records, conditions):
    """Returns the figure of `records`, those of `runs.record`, all measured under `conditions`, a `runs.Conditions`.

    The vertical axis of all panels is the accuracy under the strongest attack: that with the lowest mean accuracy.
    """
    attack = strongest(records, conditions)
    panels = [panel for panel in _panels(records, conditions, attack) if panel.points]
    points = panels[0].points
    ranges = _ranges(points)
    counts = [max(1, sum(low <= point.y <= high for point in points)) for low, high in ranges]
    figure = Figure(figsize=(4.2 * len(panels), 4.6), dpi=DOTS_PER_INCH, layout="constrained")
    grid = figure.subplots(
        len(ranges),
        len(panels),
        squeeze=False,
        sharex="col",
        sharey="row",
        height_ratios=[min(count, 4 * min(counts)) for count in counts],
    )
    for column, panel in zip(grid.T, panels):
        for axes, (low, high) in zip(column, ranges):
            axes.set_ylim(low, high)
            _share_ticks(axes.yaxis, count=max(2, round(7 * axes.get_position().height)))
            axes.grid(alpha=0.3)
            for point in panel.points:
                _draw(axes, point)
        column[-1].set_xlabel(panel.text)
        (_cost_axis if panel.is_cost else _accuracy_axis)(column[0], panel.points)
        _mark_break(column)
    images = conditions.images[attack]
    figure.supylabel(literal(f"accuracy under {attack} ({images} test images)"), fontsize="medium")
    heading = _heading(conditions, attack, any(point.claimed for point in points))
    figure.suptitle(literal(heading), fontsize="medium")
    figure.draw_without_rendering()  # fixes the places of the axes, which the labels need
    for column, panel in zip(grid.T, panels):
        for axes, (low, high) in zip(column, ranges):
            plot_labels.write(axes, [point for point in panel.points if low <= point.y <= high], panel.points, MARK)
    return figure


def strongest(records, conditions):
    """Returns the name of the attack under which the mean accuracy is lowest."""
    return min(conditions.measures, key=lambda name: sum(record[name] for record in records))


def labels(records):
    """Returns a short name for each record, `literal`: its defense, and what else tells it from the others."""

    def label(record):
        alike = [other for other in records if other["defense"] == record["defense"]]
        parts = [record["defense"]]
        if len({other["network"] for other in records}) > 1:
            parts.append(record["network"])
        for name in "epochs", "seed", "precision":
            if len({other.get(name) for other in alike}) > 1:
                parts.append(f"{name} {record[name]}")
        return literal(", ".join(parts))

    return [label(record) for record in records]


def _panels(records, conditions, attack):
    """Yields the panels, each without the records whose cost is not known."""
    unit, seconds = _unit([record["training_seconds"] for record in records])

    def claimed(record, x):
        y = record[f"{attack}_claimed"]
        return None if x is None or y is None else (x, y)

    def panel(text, x, cost=True):
        points = [
            Point(
                number=number,
                label=label,
                x=x(record),
                y=record[attack],
                x_interval=None if cost else (record["clean_low"], record["clean_high"]),
                y_interval=(record[f"{attack}_low"], record[f"{attack}_high"]),
                claimed=claimed(record, x(record) if cost else record["clean_claimed"]),
            )
            for number, (record, label) in enumerate(zip(records, labels(records)))
            if x(record) is not None
        ]
        if len(points) < len(records):
            shown = {point.label for point in points}
            text += f"\n(not known: {', '.join(label for label in labels(records) if label not in shown)})"
        return Panel(text, points, cost)

    def passes(record):
        each = record["forward_backward_passes"]
        return None if each is None else each * record["epochs"]

    yield panel(f"clean accuracy ({conditions.images['clean']} test images)", lambda r: r["clean"], cost=False)
    yield panel(f"training time in {unit}, all epochs", lambda record: record["training_seconds"] / seconds)
    yield panel("forward-backward passes per training image,\nattack and training, all epochs", passes)


def _unit(times):
    """Returns the name and the seconds of a unit in which these times, in seconds, are easy to read."""
    longest = max(times)
    return ("seconds", 1) if longest < 120 else ("minutes", 60) if longest < 7200 else ("hours", 3600)


def _heading(conditions, attack, claims):
    settings = runs.described(conditions.measures[attack])
    hollow = "; hollow: as claimed by the paper" if claims else ""
    return f"{conditions.threat}; {attack}: {settings}\nbars: 95 % intervals{hollow}"


def _draw(axes, point):
    # When the colours repeat, the markers differ.
    colour = COLOURS[point.number % len(COLOURS)]
    marker = MARKERS[(point.number + point.number // len(COLOURS)) % len(MARKERS)]
    bars = {"yerr": _lengths(point.y, point.y_interval)}
    if point.x_interval:
        bars["xerr"] = _lengths(point.x, point.x_interval)
    style = {"marker": marker, "markersize": MARK, "linestyle": "none", "color": colour}
    axes.errorbar(point.x, point.y, **bars, **style, ecolor="black", elinewidth=0.8, capsize=2, zorder=3)
    if point.claimed:
        axes.plot(*zip((point.x, point.y), point.claimed), color=colour, linestyle=":", linewidth=1, zorder=2)
        axes.plot(*point.claimed, **style, markerfacecolor="white", zorder=3)


def _lengths(value, interval):
    low, high = interval
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def _share_ticks(axis, count):
    low, high = axis.get_view_interval()
    ticks = [
        tick
        for tick in MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(max(low, 0.0), min(high, 1.0))
        if 0.0 <= tick <= 1.0
    ]
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))


def _padded(low, high, share=0.1, at_least=0.01):
    margin = share * max(high - low, at_least)
    return low - margin, high + margin


def _ranges(points):
    """Returns the ranges (low, high) of accuracy in which `points` lie, upper first: two if the axis is broken.

    The axis is broken at a stretch of more than `WIDE` of the whole that has neither marks nor bars.
    """
    spans = []
    for low, high in sorted((min(heights), max(heights)) for heights in map(_heights, points)):
        if spans and low <= spans[-1][1]:
            spans[-1][1] = max(high, spans[-1][1])
        else:
            spans.append([low, high])
    lowest, highest = spans[0][0], spans[-1][1]
    gaps = [above[0] - below[1] for below, above in zip(spans, spans[1:])]
    if not gaps or max(gaps) <= max(WIDE * (highest - lowest), 0.05):
        return [_padded(lowest, highest, share=0.12)]
    cut = int(np.argmax(gaps))
    return [_padded(spans[cut + 1][0], highest, 0.15, 0.05), _padded(lowest, spans[cut][1], 0.3, 0.05)]


def _heights(point):
    return [*point.y_interval, *(point.claimed or ())[1:]]


def _mark_break(column):
    for upper, lower in zip(column, column[1:]):
        upper.spines.bottom.set_visible(False)
        lower.spines.top.set_visible(False)
        upper.tick_params(axis="x", which="both", bottom=False)
        slash = {"marker": [(-1, -0.5), (1, 0.5)], "markersize": 9, "linestyle": "none", "color": "black"}
        upper.plot([0, 1], [0, 0], transform=upper.transAxes, clip_on=False, **slash)
        lower.plot([0, 1], [1, 1], transform=lower.transAxes, clip_on=False, **slash)


def _accuracy_axis(axes, points):
    values = [value for point in points for value in (*point.x_interval, *(point.claimed or ())[:1])]
    axes.set_xlim(*_padded(min(values), max(values), share=0.25))
    _share_ticks(axes.xaxis, count=5)


def _cost_axis(axes, points):
    values = [point.x for point in points]
    if max(values) < LOGARITHMIC * min(values):
        axes.set_xlim(0.0, 1.2 * max(values))
        return
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
