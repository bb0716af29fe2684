"""The scatter plots of the leaderboard."""

import itertools
import pathlib
import re

import pytest

from recipes.pages import scatter

PAGE = pathlib.Path(__file__).parents[2] / "results" / "leaderboard.html"


def overlapping(middles):
    """Returns the pairs of labels that share a place."""
    width, height = scatter.LABEL
    pairs = itertools.combinations(middles, 2)
    return [(a, b) for a, b in pairs if abs(a[0] - b[0]) < width and abs(a[1] - b[1]) < height]


@pytest.mark.parametrize("plot", re.findall(r"<svg.*?</svg>", PAGE.read_text(encoding="utf-8"), re.DOTALL))
def test_no_rank_covers_another(plot):
    ranks = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="middle">\d+</text>', plot)
    marks = plot.count('class="mark"')
    assert not overlapping([tuple(map(float, each)) for each in ranks][-marks:])


def test_ranks_of_one_place_stand_around_it():
    drawn = scatter.drawn([(rank, 0.5, 0.5, False) for rank in range(12)] + [(12, 0.1, 0.1, False)])
    middles = [(each["label_x"], each["label_y"]) for each in drawn["points"]]
    assert not overlapping(middles) and len({(each["x"], each["y"]) for each in drawn["points"]}) == 2
    assert overlapping([(0.0, 0.0), (15.0, 11.0)])
