"""The figures that have no check of their own to show them, and the pictures of adversarial examples."""

import dataclasses
import io
import json
import warnings

import numpy as np
import pytest
from PIL import Image

from sanity import measure, result, series
from sanity.report import figures, pictures
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear


def drawn(shown):
    judged = result.Result("name", result.Verdict.PASS, "", 0.0, 0.0, 100, (0.0, 0.0), shown, "", "", "")
    return pixels(figures.png(judged)), judged


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def example(image, adversary, label=0, predicted=0, attacked_as=1):
    return measure.examples.Example(image, adversary, label, predicted, attacked_as)


def surface(*heights):
    parts = tuple(np.linspace(-1.0, 1.0, len(heights[0])).tolist())
    panels = tuple(series.Panel(f"panel {n}", tuple(map(tuple, z.tolist()))) for n, z in enumerate(heights))
    return series.Surface("first", "second", "height", parts, parts, panels)


def share_of(image, colour):
    return np.mean(np.all(np.abs(image - colour) < 12, axis=2))


def test_a_surface_rises_to_the_right_and_up():
    """Rows are y, and y grows upwards: of the four corners the top right one has the highest colour."""
    x, y = np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 5))
    image, _ = drawn(surface(np.where((x > 0.4) & (y > 0.4), 1.0, 0.0)))
    plot = image[:, : int(image.shape[1] * 0.75)]  # without the scale
    yellow = np.nonzero((plot[..., 0] > plot[..., 2] + 60) & (plot[..., 0] > 150))
    blue = np.nonzero(plot[..., 2] > plot[..., 0] + 60)
    assert len(yellow[0]) > 1000 and len(blue[0]) > 1000
    assert yellow[0].mean() < blue[0].mean() and yellow[1].mean() > blue[1].mean()


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_flat_surfaces_are_drawn_without_a_warning(panels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "No contour levels were found", UserWarning)
        image, shown = drawn(surface(*[np.zeros((5, 5))] * panels))
    assert shown.shown == "height" and image.std() > 10


def test_what_a_figure_shows_is_named_for_every_kind():
    curves = series.Curves("x", "rate", (series.Curve("a", (1.0,), (0.5,), (0.4,), (0.6,)),))
    bars = series.Bars("length", (series.Bar("a", 0.5, 0.4, 0.6, "g"),))
    histogram = series.Histogram("size", (1.0, 10.0), (3,), (("exactly zero", 97),))
    for each, label in [(curves, "rate"), (bars, "length"), (histogram, "size"), (surface(np.eye(3)), "height")]:
        image, shown = drawn(each)
        assert shown.shown == label and image.std() > 5
        assert json.loads(json.dumps(result.to_json(each)))["kind"] == each.kind
    assert dataclasses.replace(shown, series=None).shown == ""


def test_the_bars_of_a_histogram_have_the_areas_of_their_counts():
    blue, orange = np.array([38, 134, 189]), np.array([213, 94, 0])
    one, _ = drawn(series.Histogram("size", (1.0, 10.0, 100.0), (40, 40), (("exactly zero", 20),)))
    two, _ = drawn(series.Histogram("size", (1.0, 10.0, 100.0), (40, 20), (("exactly zero", 40),)))
    assert share_of(two, blue) / share_of(one, blue) == pytest.approx(0.75, abs=0.03)
    assert share_of(two, orange) / share_of(one, orange) == pytest.approx(2.0, abs=0.2)


def test_bars_bear_their_own_numbers_and_shares_are_of_all_images(monkeypatch):
    monkeypatch.setattr(figures, "as_png", lambda figure: figure)
    bars = series.Bars("length", (series.Bar("a", 0.51, 0.42, 0.63, "g"),))
    histogram = series.Histogram("size", (1.0, 10.0), (3,), (("exactly zero", 7), ("not finite", 2)))
    for shown, numbers in (bars, ["51.0%"]), (histogram, ["7.0%", "2.0%"]):
        judged = result.Result("name", result.Verdict.PASS, "", 0.0, 0.0, 100, (0.0, 0.0), shown, "", "", "")
        texts = [text.get_text() for axes in figures.png(judged).axes for text in axes.texts]
        assert texts == numbers


def test_pictures_show_image_perturbation_and_adversary():
    """An image of 0.2, an adversary of 0.4: the perturbation is the largest of all, white; one of half of it, 0.75."""
    image = np.full((8, 8, 1), 0.2)
    found = pixels(pictures.png([example(image, image + 0.2), example(image, image + 0.1)]))
    for level in (0.2, 0.4, 0.3, 0.75):
        assert 0.05 < share_of(found, round(255 * level)) < 0.25, level
    red = np.zeros((120, 120, 3))
    red[..., 0] = 1.0
    assert share_of(pixels(pictures.png([example(red, red)])), np.array([255, 0, 0])) > 0.2


def test_no_more_than_eight_are_shown():
    image = np.zeros((8, 8, 1))
    one, eight, nine = (pictures.png([example(image, image + 0.1)] * number) for number in (1, 8, 9))
    assert eight == nine != one
    with pytest.raises(ValueError, match="examples is empty; allowed: at least one"):
        pictures.png([])


@pytest.mark.parametrize(
    "name", ["$x^{$", "\\frac", "<script>", "a\nb\x00c", "猫", "", "n" * 5000, "two\tthree", "\ud800"]
)
def test_hostile_names_are_drawn_as_text(name):
    image = np.zeros((8, 8, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected, found = (pixels(pictures.png([example(image, image)], names)) for names in ((), [name, name]))
    assert found.shape == expected.shape
    assert len(pictures.shortened(name)) <= pictures.NAME_LENGTH and "\n" not in pictures.shortened(name)


def test_a_class_without_a_name_goes_by_its_number():
    image = np.zeros((8, 8, 1))
    assert pictures.png([example(image, image)], ()) == pictures.png([example(image, image)], ["0", "1"])
    assert pictures.png([example(image, image)], ["0"]) != pictures.png([example(image, image)], ["zero"])


def test_examples_are_images_that_pgd_fools():
    images, _ = linear.batch(100)
    network = linear.network()
    labels = network.predict(images, verbose=0).argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % linear.CLASSES  # wrong without attack: not an example of one
    subject, settings = Subject(network, images, labels, epsilon=0.1), Settings()
    found = measure.examples.found_by_pgd(subject, settings)
    fooled = subject.correct() & ~subject.correct("pgd", **settings.pgd(0.1))
    assert len(found) == measure.examples.MOST
    for each in found:
        (place,) = np.nonzero(np.all(images == each.image, axis=(1, 2, 3)))
        assert fooled[place] and labels[place] == each.label == each.predicted
        assert np.max(np.abs(each.adversary - each.image)) <= 0.1 + 1e-6
        assert each.attacked_as == network.predict(each.adversary[None], verbose=0).argmax() != each.label
    assert measure.examples.found_by_pgd(Subject(network, images, labels, epsilon=1e-6), settings) == ()


def test_what_is_not_for_the_file_is_left_out_of_it():
    @dataclasses.dataclass
    class Holds:
        kept: int = 1
        left_out: object = dataclasses.field(default=None, metadata={"json": False})

    assert result.to_json(Holds()) == {"kept": 1}
