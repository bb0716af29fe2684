"""Computes the coordinates of a scatter plot of clean and robust accuracy in SVG: marks, their ranks, ticks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sanity.report.label_places import label_boxes

SIZE = (520, 340)  # units of the drawing
FRAME = {"left": 52, "right": 504, "top": 12, "bottom": 300}  # of the axes
LABEL, GAP, MARK = (16, 12), 6, 4  # largest size of a rank; gap between ranks; radius of a mark
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # between ticks


def drawn(points: Sequence[tuple[int, float, float, bool]]) -> dict[str, Any] | None:
    """Returns the numbers for an SVG of `SIZE`, or None for fewer than two points.

    Args:
        points: (rank, clean accuracy, robust accuracy, whether that is only an upper limit), accuracies in [0, 1].

    Returns:
        a dict. "points" has for each point the "rank", "limit", "x" and "y" of the mark, and "label_x" and "label_y" of
        the middle of its label. Labels cover no label or mark if there is room. "x_ticks" and "y_ticks" are pairs
        (place, text).
    """
    if len(points) < 2:
        return None
    to_x, x_ticks = _axis([clean for _, clean, _, _ in points], FRAME["left"], FRAME["right"])
    to_y, y_ticks = _axis([robust for _, _, robust, _ in points], FRAME["bottom"], FRAME["top"])
    middles = np.array([(to_x(clean), to_y(robust)) for _, clean, robust, _ in points])
    marks = np.stack([middles - MARK, middles + MARK], axis=1)
    frame = np.array([(FRAME["left"], 0), (SIZE[0], FRAME["bottom"])])
    sizes, bars = np.tile(np.add(LABEL, GAP), (len(points), 1)), np.empty((0, 2, 2))
    labels = label_boxes(sizes, marks, bars, frame, 1).mean(axis=1)
    found = np.round(np.concatenate([middles, labels], axis=1), 1).tolist()
    return {
        "points": [
            {"rank": rank, "limit": limit, "x": x, "y": y, "label_x": label_x, "label_y": label_y}
            for (rank, _, _, limit), (x, y, label_x, label_y) in zip(points, found)
        ],
        "x_ticks": x_ticks,
        "y_ticks": y_ticks,
    }


def _axis(shares, start, end):
    """Returns the function from a share to its place between `start` and `end`, and the ticks, pairs (place, text)."""
    low, high = max(0.0, min(shares) - 0.01), min(1.0, max(shares) + 0.01)
    step = next((step for step in STEPS if (high - low) / step <= 6), STEPS[-1])

    def place(share):
        return start + (share - low) / (high - low) * (end - start)

    ticks = [step * number for number in range(round(1 / step) + 1) if low <= step * number <= high]
    return place, [(round(place(tick), 1), f"{100 * tick:.3g}") for tick in ticks]
