"""A scatter plot of clean and robust accuracy as the numbers of an SVG: marks, ranks beside them, ticks."""

import itertools
from collections.abc import Sequence
from typing import Any

SIZE = (520, 340)  # units of the drawing
FRAME = {"left": 52, "right": 504, "top": 12, "bottom": 300}  # of the axes
LABEL = (16, 12)  # at most, of a rank
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # between ticks
DIRECTIONS = (
    *((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1)),
    *((1, -0.5), (-1, -0.5), (1, 0.5), (-1, 0.5), (0.5, -1), (-0.5, -1), (0.5, 1), (-0.5, 1)),
)
DISTANCES = (13, 22, 32, 44, 58)


def drawn(points: Sequence[tuple[int, float, float]]) -> dict[str, Any] | None:
    """Returns what an SVG of `SIZE` needs, or None for fewer than two points.

    Args:
        points: (rank, clean accuracy, robust accuracy), accuracies in [0, 1].

    Returns:
        a dict: "points", with "rank", "x" and "y" of the mark and "label_x" and "label_y" of the middle of its label,
        which covers no other label or mark as far as there is room; "x_ticks" and "y_ticks", pairs (place, text).
    """
    if len(points) < 2:
        return None
    to_x, x_ticks = _axis([clean for _, clean, _ in points], FRAME["left"], FRAME["right"])
    to_y, y_ticks = _axis([robust for _, _, robust in points], FRAME["bottom"], FRAME["top"])
    marks = [(rank, to_x(clean), to_y(robust)) for rank, clean, robust in points]
    labels: list[tuple[float, float]] = []
    for _, x, y in marks:
        labels.append(_place(x, y, [(x, y) for _, x, y in marks], labels))
    return {
        "points": [
            {"rank": rank, "x": round(x, 1), "y": round(y, 1), "label_x": round(at[0], 1), "label_y": round(at[1], 1)}
            for (rank, x, y), at in zip(marks, labels)
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


def _place(x, y, marks, labels):
    """Returns the middle of a label near the mark at (x, y) that covers the least of the marks and labels given."""
    width, _ = SIZE

    def covered(at):
        by_labels = sum(abs(at[0] - other[0]) < LABEL[0] and abs(at[1] - other[1]) < LABEL[1] for other in labels)
        by_marks = sum(abs(at[0] - other[0]) < LABEL[0] - 3 and abs(at[1] - other[1]) < LABEL[1] - 1 for other in marks)
        inside = FRAME["left"] + 8 < at[0] < width - 8 and 8 < at[1] < FRAME["bottom"] - 8
        return 2 * by_labels + by_marks + 4 * (not inside)

    places = [(x + d * away, y + e * away) for away, (d, e) in itertools.product(DISTANCES, DIRECTIONS)]
    return min(places, key=covered)  # the nearest of the best
