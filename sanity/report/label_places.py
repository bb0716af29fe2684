"""Places the labels of a scatter plot near their marks, off other marks, error bars and each other."""

import numpy as np

DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
DISTANCES = (7, 13, 20, 29, 40, 52)  # points between a mark and its label
ROUNDS = 4  # of placing every label anew


def label_boxes(sizes, marks, bars, frame, pixels):
    """Returns the boxes of labels, near their marks and covering little; the labels are placed in turn, `ROUNDS` times.

    Args:
        sizes: (N, 2), widths and heights of the labels; all lengths are in pixels.
        marks: (M, 2, 2), boxes ((left, bottom), (right, top)) of marks; the first N are those of the labels.
        bars: (K, 2, 2), boxes of error bars and other thin lines; they take little area, and so are covered first.
        frame: (2, 2), the box to stay in.
        pixels: pixels per point.

    Returns:
        (N, 2, 2), a box for each label.
    """
    steps = np.array([(direction, distance) for distance in DISTANCES for direction in DIRECTIONS], dtype=object)
    directions, distances = np.array(list(steps[:, 0])), steps[:, 1].astype(float)[:, None]
    boxes = np.full((len(sizes), 2, 2), np.inf)  # not placed yet, so they share no area with anything
    for _ in range(ROUNDS):
        for number, size in enumerate(sizes):
            area, centre = np.prod(size), marks[number].mean(axis=0)
            middles = centre + directions * (size / 2 + distances * pixels)
            tried = np.stack([middles - size / 2, middles + size / 2], axis=1)
            others = np.delete(marks, number, axis=0)
            labels = np.delete(boxes, number, axis=0)
            way = way_to(centre, tried)
            length = np.hypot(*way.T)
            nearest = np.min([np.hypot(*way_to(mark.mean(axis=0), tried).T) for mark in others], axis=0, initial=np.inf)
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


def way_to(place, boxes):
    """Returns the way (..., 2) from `place` (2,) to the nearest place of each of `boxes` (..., 2, 2)."""
    return np.clip(place, boxes[..., 0, :], boxes[..., 1, :]) - place


def _shared(boxes, others):
    """Returns the total area (N,) that each of `boxes` (N, 2, 2) shares with `others` (M, 2, 2)."""
    low = np.maximum(boxes[:, None, 0], others[None, :, 0])
    high = np.minimum(boxes[:, None, 1], others[None, :, 1])
    return np.prod(np.clip(high - low, 0.0, None), axis=-1).sum(axis=-1)
