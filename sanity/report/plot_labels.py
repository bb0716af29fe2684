"""The labels of a Matplotlib scatter plot, with a line to each mark that is far away."""

import numpy as np
from matplotlib.transforms import Bbox

from sanity.report.label_places import DISTANCES, label_boxes, way_to


def write(axes, points, all_points, mark_size):
    """Writes the label of each of `points` beside its mark, where it covers the least.

    Args:
        axes: Matplotlib axes whose limits are final.
        points: list of `sanity.report.comparison.Point`, those in these axes.
        all_points: `points` and those in other parts of a broken axis, whose bars reach into these axes.
        mark_size: size of a mark, in points.
    """
    if not points:
        return
    pixels = axes.figure.dpi / 72
    style = {"textcoords": "offset points", "fontsize": 8.5, "ha": "center", "va": "center", "zorder": 4}
    texts = [axes.annotate(point.label, (point.x, point.y), xytext=(0, 0), **style) for point in points]
    sizes = np.array([text.get_window_extent().size for text in texts])
    others = [point for point in all_points if point not in points]
    places = [(point.x, point.y) for point in (*points, *others)] + [p.claimed for p in all_points if p.claimed]
    marks = np.array([_box(axes, (x, x), (y, y), mark_size / 2 * pixels) for x, y in places])
    bars = [_box(axes, (point.x, point.x), point.y_interval, pixels) for point in all_points]
    bars += [_box(axes, point.x_interval, (point.y, point.y), pixels) for point in all_points if point.x_interval]
    for x, y in (np.linspace((p.x, p.y), p.claimed, 12).T for p in all_points if p.claimed):
        bars += [_box(axes, x[i : i + 2], y[i : i + 2], pixels / 2) for i in range(11)]
    frame = axes.get_window_extent().padded(-2 * pixels).get_points()
    for text, mark, box in zip(texts, marks, label_boxes(sizes, marks, np.array(bars), frame, pixels)):
        text.set_position((box.mean(axis=0) - mark.mean(axis=0)) / pixels)
        text.set_in_layout(False)  # or the layout would move the axes after the places were chosen
        way = way_to(mark.mean(axis=0), box) / pixels
        nearest = sorted(np.hypot(*way_to(other.mean(axis=0), box)) / pixels for other in marks)[:2]
        if np.hypot(*way) > 1.5 * min(DISTANCES[0], nearest[-1]):  # far from its mark, or as near to another
            arrow = {"arrowstyle": "-", "color": "grey", "linewidth": 0.6, "shrinkA": 0, "shrinkB": mark_size / 2}
            leader = axes.annotate("", text.xy, xytext=way, textcoords="offset points", arrowprops=arrow)
            leader.set_in_layout(False)


def _box(axes, x, y, margin):
    """Returns the box in pixels, with a margin, that spans the data (low, high) of `x` and of `y`."""
    return Bbox(axes.transData.transform(list(zip(x, y)))).padded(margin).get_points()
