"""Where the labels of a scatter plot go: near their marks, off other marks, error bars and each other."""

import numpy as np
from matplotlib.transforms import Bbox

DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
DISTANCES = (7, 13, 20, 29, 40, 52)  # points between a mark and its label
ROUNDS = 4  # of looking for a better place for each label


def write(axes, points, all_points, mark_size):
    """Writes the label of each of `points` beside its mark, where it covers the least of what is there.

    Args:
        axes: matplotlib axes whose limits are final.
        points: list of `sanity.report.comparison.Point`, those in these axes.
        all_points: those and the ones in other parts of a broken axis, whose bars reach in here.
        mark_size: of a mark, in points.
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
    for text, mark, box in zip(texts, marks, _places(sizes, marks, np.array(bars), frame, pixels)):
        text.set_position((box.mean(axis=0) - mark.mean(axis=0)) / pixels)
        text.set_in_layout(False)  # the axes stay where they were when the places were chosen
        way = _way(mark.mean(axis=0), box) / pixels
        nearest = sorted(np.hypot(*_way(other.mean(axis=0), box)) / pixels for other in marks)[:2]
        if np.hypot(*way) > 1.5 * min(DISTANCES[0], nearest[-1]):  # far from its mark, or as near to another
            arrow = {"arrowstyle": "-", "color": "grey", "linewidth": 0.6, "shrinkA": 0, "shrinkB": mark_size / 2}
            leader = axes.annotate("", text.xy, xytext=way, textcoords="offset points", arrowprops=arrow)
            leader.set_in_layout(False)


def _places(sizes, marks, bars, frame, pixels):
    """Returns where labels go: near their marks and covering little, each chosen in turn, again and again.

    Args:
        sizes: (N, 2), widths and heights of the labels; this and all else in pixels.
        marks: (M, 2, 2), boxes ((left, bottom), (right, top)) of marks; the first N are those of the labels.
        bars: (K, 2, 2), boxes of error bars and other thin lines; they take little area, and so are covered first.
        frame: (2, 2), the box to stay in.
        pixels: how many make a point.

    Returns:
        (N, 2, 2), a box for each label.
    """
    steps = np.array([(direction, distance) for distance in DISTANCES for direction in DIRECTIONS], dtype=object)
    directions, distances = np.array(list(steps[:, 0])), steps[:, 1].astype(float)[:, None]
    boxes = np.full((len(sizes), 2, 2), np.inf)  # shares no area with anything
    for _ in range(ROUNDS):
        for number, size in enumerate(sizes):
            area, centre = np.prod(size), marks[number].mean(axis=0)
            middles = centre + directions * (size / 2 + distances * pixels)
            tried = np.stack([middles - size / 2, middles + size / 2], axis=1)
            others = np.delete(marks, number, axis=0)
            labels = np.delete(boxes, number, axis=0)
            way = _way(centre, tried)
            length = np.hypot(*way.T)
            nearest = np.min([np.hypot(*_way(mark.mean(axis=0), tried).T) for mark in others], axis=0, initial=np.inf)
            leader = sum(
                _shared(np.stack([centre + part * way - pixels, centre + part * way + pixels], axis=1), crossed)
                for part in (0.3, 0.5, 0.7, 0.9)
                for crossed in (labels, others)
            )
            cost = 8 * _shared(tried, labels) + 4 * (_shared(tried, others) + _shared(tried, bars) + leader)
            cost += 8 * (area - _shared(tried, frame[None]))
            cost += 0.5 * area * (nearest < length)  # it would be read as the label of another mark
            cost += area * (0.05 * length / (DISTANCES[0] * pixels) + 0.001 * np.arange(len(tried)))
            boxes[number] = tried[np.argmin(cost)]
    return boxes


def _way(place, boxes):
    """Returns the way (..., 2) from `place` (2,) to the nearest place of each of `boxes` (..., 2, 2)."""
    return np.clip(place, boxes[..., 0, :], boxes[..., 1, :]) - place


def _box(axes, x, y, margin):
    """Returns the box in pixels, with a margin, that spans the data (low, high) of `x` and of `y`."""
    return Bbox(axes.transData.transform(list(zip(x, y)))).padded(margin).get_points()


def _shared(boxes, others):
    """Returns the area (N,) that each of `boxes` (N, 2, 2) shares with `others` (M, 2, 2), in sum."""
    low = np.maximum(boxes[:, None, 0], others[None, :, 0])
    high = np.minimum(boxes[:, None, 1], others[None, :, 1])
    return np.prod(np.clip(high - low, 0.0, None), axis=-1).sum(axis=-1)
