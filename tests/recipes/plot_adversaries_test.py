"""The figures of where each defense trains: what the code does now, and what has to be so."""

import json
import pathlib

import numpy as np
import pytest

from recipes import plot_adversaries
from tf_nuat import DEFENSES

RESULTS = pathlib.Path(__file__).parents[2] / "results" / "adversaries"
FOUND = json.loads((RESULTS / "adversaries.json").read_text(encoding="utf-8"))
IMAGES, LABELS = np.array(FOUND["images"]), np.array(FOUND["labels"])


def points(name):
    return np.array(FOUND["adversaries"][name])


def gradient():
    """Returns the gradient of the cross-entropy to the images (4, 2), by hand: one hidden layer of tanh."""
    kernel, bias, last, last_bias = plot_adversaries.network().get_weights()
    hidden = np.tanh(IMAGES @ kernel + bias)
    logits = hidden @ last + last_bias
    error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(3)[LABELS]
    return ((error @ last.T) * (1.0 - hidden**2)) @ kernel.T


@pytest.mark.parametrize("name", plot_adversaries.DRAWN)
def test_the_figure_is_that_of_the_code(name):
    found = plot_adversaries.adversaries(plot_adversaries.defense(name))
    np.testing.assert_allclose(found, points(name), atol=1e-3)


def test_single_steps_end_where_the_gradient_says():
    """Those of the figure, which the test above has made anew."""
    corners = np.clip(IMAGES + FOUND["epsilon"] * np.sign(gradient()), 0.0, 1.0)
    half_way = np.clip(IMAGES + FOUND["epsilon"] / 2 * np.sign(gradient()), 0.0, 1.0)
    half_batch = np.where(np.arange(4)[:, None] % 2 == 0, corners, IMAGES)
    for found in points("fgsm_at"):
        np.testing.assert_allclose(found, half_batch, atol=1e-3)
    for name in "grad_align", "elle":
        for found in points(name):
            np.testing.assert_allclose(found, corners, atol=1e-3)
    for found in points("sat_r3"):
        np.testing.assert_allclose(found, np.concatenate([half_way, corners]), atol=1e-3)
    for found in points("standard"):
        np.testing.assert_allclose(found, IMAGES, atol=1e-3)


@pytest.mark.parametrize("name", plot_adversaries.DRAWN)
def test_adversaries_are_in_the_ball_and_in_the_square(name):
    found = points(name)
    rows = np.concatenate([IMAGES, IMAGES[8 - found.shape[1] :]])  # a second attack is on the last images
    reach = 3.0 if name == "n_fgsm" else 1.0  # its noise is twice as large as the ball, and it does not come back
    assert np.abs(found - rows).max() <= reach * FOUND["epsilon"] + 1e-3
    assert found.min() >= 0.0 and found.max() <= 1.0
    assert (RESULTS / f"{name}.png").is_file()


def test_every_defense_is_drawn_or_is_another_with_averages_or_the_hybrid():
    assert set(plot_adversaries.DRAWN) == set(FOUND["adversaries"])
    for name in set(DEFENSES) - set(plot_adversaries.DRAWN):
        assert name.removesuffix("_h").removesuffix("_wa").removesuffix("_a") in plot_adversaries.DRAWN


def test_a_figure_shows_every_adversary():
    figure = plot_adversaries.draw("sat_r2", points("sat_r2"))
    marks = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "s")]
    drawn = np.array([(*line.get_xdata(), *line.get_ydata()) for line in marks])
    assert sorted(map(tuple, drawn.round(3))) == sorted(map(tuple, points("sat_r2").reshape(-1, 2).round(3)))
