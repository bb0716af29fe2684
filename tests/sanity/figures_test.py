"""The figures of several networks: closed forms, what is drawn, and the command from its flags to its page."""

import dataclasses
import json
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.table import Cell
from matplotlib.text import Text

from sanity import measure, run
from sanity.figures import FIGURES, Model, Options, connectivity, cost, loss_surface, page, targets
from sanity.figures import __main__ as figures_command
from sanity.figures.models import NotShownError
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear, small
from tf_nuat import card, command_line
from tf_nuat.core import files


def test_the_loss_of_a_network_whose_logits_are_constant_is_a_plane():
    network = keras.Sequential([keras.Input(linear.SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)])
    network.set_weights([np.zeros((16, 3)), np.arange(3.0)])
    images, labels = linear.batch(10)
    options = {"epsilon": 0.1, "batch_size": 4}
    np.testing.assert_array_equal(measure.surface.largest_error(network, images, labels, **options)[0], np.zeros(10))
    parts = [-1.0, 0.0, 1.0]
    for second in (measure.surface.orthogonal, measure.surface.independent):
        heights = measure.surface.plane(network, images, labels, parts=parts, second=second, **options)
        np.testing.assert_allclose(heights, np.broadcast_to(heights[:, :1, :1], heights.shape), rtol=1e-6)


def test_the_error_of_a_linear_network_whose_loss_is_linear_is_zero():
    """Of an image that two logits lose by far the cross-entropy is their difference, which is linear in the image."""
    kernel = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    network = keras.Sequential([keras.Input(linear.SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])
    network.set_weights([kernel, np.array([100.0, 0.0])])
    images, _ = linear.batch(10)
    found, _ = measure.surface.largest_error(network, images, np.ones(10, int), epsilon=0.1, batch_size=10)
    np.testing.assert_allclose(found, np.zeros(10), atol=1e-4)


def test_the_error_of_a_square_is_that_of_its_farthest_point():
    """Logits (0, c |x|^2 / 2) of a lost image: the loss is c |x|^2 / 2, its error c |d|^2 / 2, largest in a corner."""
    inputs = keras.Input(linear.SHAPE)
    square = keras.ops.sum(keras.ops.square(keras.layers.Flatten()(inputs)), axis=1, keepdims=True)
    network = keras.Model(inputs, keras.ops.concatenate([square * 0.0, 50.0 * square], axis=1))
    images = np.full((4, *linear.SHAPE), 0.5, np.float32)
    found, points = measure.surface.largest_error(
        network, images, np.zeros(4, int), epsilon=0.1, steps=20, batch_size=4
    )
    np.testing.assert_allclose(np.abs(points - images), 0.1, atol=1e-6)
    np.testing.assert_allclose(found, np.full(4, 50.0 * 16 * 0.1**2), rtol=1e-3)


def test_independent_directions_are_signs_and_unit_vectors():
    directions = np.zeros((5, 8, 8, 1))
    found = measure.surface.independent(directions, np.random.default_rng(0))
    assert set(np.unique(found)) == {-1.0, 1.0} and 0.4 < np.mean(found > 0) < 0.6
    found = measure.surface.independent(directions, np.random.default_rng(0), "l2")
    np.testing.assert_allclose(np.linalg.norm(found.reshape(5, -1), axis=1), 1.0, rtol=1e-6)


def test_entropies_of_known_counts():
    found = targets.entropy([[10, 0, 0, 0], [5, 5, 0, 0], [1, 1, 1, 1], [2, 1, 1, 0]])
    np.testing.assert_allclose(found, [0.0, np.log(2), np.log(4), 1.5 * np.log(2)], rtol=1e-12)


@pytest.mark.parametrize("name", list(targets.NORMS))
def test_a_norm_attack_on_one_image_of_a_linear_map_to_a_line_has_a_closed_form(name):
    """Logits w.x v: of one image both norms are |w.d| |v|, and the attack goes the way on which its noise began."""
    w, v = np.random.default_rng(0).normal(size=16).astype(np.float32), np.array([1.0, -2.0, 2.0], np.float32)
    x = np.full((1, *linear.SHAPE), 0.5, np.float32)
    x_adv = targets.norm_attack(
        lambda x: tf.reshape(x, (-1, 16)) @ w[:, None] * v, tf.constant(x), norm=targets.NORMS[name], epsilon=0.1
    )
    change = (np.asarray(x_adv) - x).ravel()
    assert abs(change @ w) == pytest.approx(0.1 * np.sum(np.abs(w)), rel=1e-5)


def test_the_gradients_of_the_norms_are_those_of_their_singular_values():
    """U V^T of the nuclear norm: every direction counts alike; the matrix over its norm of the Frobenius norm."""
    change = np.array([[3.0, 0.1], [2.0, -0.2]])
    u, _, vt = np.linalg.svd(change)
    matrix = tf.Variable(change, dtype=tf.float32)
    gradients = {}
    for name, norm in targets.NORMS.items():
        with tf.GradientTape() as tape:
            value = norm(matrix)
        gradients[name] = tape.gradient(value, matrix).numpy()
    np.testing.assert_allclose(gradients["nuclear"], u @ vt, atol=1e-5)
    np.testing.assert_allclose(gradients["Frobenius"], change / np.linalg.norm(change), rtol=1e-5)


def model(name, network, size=60, epsilon=0.2):
    images, labels = small.sample(size)
    return Model(name, Subject(network, images, labels, epsilon=epsilon))


SETTINGS = Settings(steps=5, most_steps=5)


def test_every_figure_of_plain_data_is_drawn_again_from_its_json():
    """And the name of a network, often that of a file, is text in it: no formula, and never left out of a legend."""
    models = [model("_clean $x^{$", small.undefended(0)), model("robust", small.robust(0.2))]
    options = Options(settings=SETTINGS, dataset="digits", resolution=5, training_data=small.sample(100), epochs=1)
    for name, kind in FIGURES.items():
        if name in ("logit_distances", "training_cost"):
            continue
        data = kind.measure(models, options)
        again = json.loads(json.dumps(data, allow_nan=False))
        figure = kind.draw(again)
        assert isinstance(figure, Figure)
        cells = [cell.get_text() for cell in figure.findobj(Cell)]
        texts = [text.get_text() for text in (*figure.findobj(Text), *cells)]
        assert any(r" _clean \$x^{\$" in text for text in texts)
        assert not [text for text in texts if re.search(r"(?<!\\)\$", text)]
        assert "60 test images" in kind.caption(again) and kind.caption(again) == kind.caption(data)


def test_accuracies_are_those_of_the_subject():
    models = [model("clean", small.undefended(0)), model("robust", small.robust(0.2))]
    data = FIGURES["accuracy_epsilon"].measure(models, Options(settings=SETTINGS))
    for each, entry in zip(models, data["models"]):
        at = entry["x"].index(0.2)
        assert entry["y"][0] == np.mean(each.subject.correct())
        assert entry["y"][at] == np.mean(each.subject.correct("pgd", **SETTINGS.pgd(0.2)))
    assert data["models"][1]["y"][at] > data["models"][0]["y"][at]


def test_confusion_matrices_count_every_image_of_its_class():
    data = targets.measure([model("clean", small.undefended(0))], Options())
    labels = small.sample(60)[1]
    for found in data["models"][0]["norms"].values():
        counts = np.array(found["confusion"])
        np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(labels, minlength=10))
        assert found["entropy_of_counts"] == pytest.approx(np.mean(targets.entropy(counts)))


def test_memory_bounds_the_resolution(monkeypatch):
    models = [model("clean", small.undefended(0))]
    monkeypatch.setattr(loss_surface, "available_memory", lambda: 32 * (50 + 3) * 100**2)
    loss_surface.check(models, Options(resolution=100))
    with pytest.raises(ValueError, match="^resolution is 101; allowed: at most 100, .* of memory that are free$"):
        loss_surface.check(models, Options(resolution=101))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    small.undefended(0).save(folder / "clean.keras")
    small.robust(0.2).save(folder / "robust.keras")
    small.perturbed(small.dense(0, hidden=32), epochs=5).save(folder / "narrow.keras")
    (folder / "text.json").write_text("{}")
    return folder


GIVEN = ["--dataset", "digits", "--epsilon", "0.2", "--samples", "40", "--resolution", "3", "--epochs", "1"]


def drawn(out):
    return sorted(path.stem for path in out.glob("*.png"))


def test_the_command_writes_figures_numbers_and_a_page_that_the_report_links(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    given = ["--checkpoint", "clean.keras", "--checkpoint", "robust.keras", *GIVEN, "--out", str(tmp_path)]
    assert figures_command.command([*given, "--only", "gradients"]) == 0
    assert drawn(tmp_path) == ["gradients"]
    assert figures_command.command([*given, "--only", "accuracy_steps,connectivity"]) == 0
    assert drawn(tmp_path) == ["accuracy_steps", "connectivity", "gradients"]
    page = (tmp_path / "figures.html").read_text()
    for name in drawn(tmp_path):
        kept = json.loads((tmp_path / f"{name}.json").read_text())
        assert kept["command"].startswith("python -m sanity.figures --checkpoint clean.keras")
        assert f'src="{name}.png"' in page and f'href="{name}.json"' in page
        assert [each["name"] for each in kept["data"].get("models", [])] in ([], ["clean", "robust"])
    capsys.readouterr()
    judged = ["--checkpoint", "clean.keras", *GIVEN[:6], "--checks", "network_is_deterministic", "--out", str(tmp_path)]
    assert run.main([*judged, "--budget", "quick"]) == 3  # 40 images are too few to decide
    assert '<a href="figures.html">' in (tmp_path / "report.html").read_text()


def test_the_page_loads_the_figures_of_its_folder_whatever_their_files_say(tmp_path):
    """A file may come from someone else: what it names is neither loaded nor linked. A lone surrogate is no UTF-8."""
    shown = dict.fromkeys(("title", "caption", "command"), "\ud800")
    for name in FIGURES:
        (tmp_path / f"{name}.png").write_bytes(b"")
        (tmp_path / f"{name}.json").write_text(json.dumps({"figure": "javascript:alert(1)//", **shown}))
    text = page.write_page(tmp_path).read_text(encoding="utf-8")
    assert re.findall('src="([^"]*)"', text) == [f"{name}.png" for name in FIGURES]
    assert "javascript" not in text and r"\ud800" in text


def test_a_figure_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(FIGURES, "gradients", dataclasses.replace(FIGURES["gradients"], draw=lambda data: Figure()))
    data = {"sample": {"images": 1, "dataset": "digits"}}
    with pytest.raises(files.NotSavedError, match="gone/gradients.png cannot be written"):
        page.write("gradients", data, "command", tmp_path / "gone")


def test_all_leaves_out_what_there_is_not_and_says_so(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(figures_command, "FIGURES", {n: FIGURES[n] for n in ("gradients", "connectivity")})
    monkeypatch.setattr(figures_command.inputs, "FIGURES", figures_command.FIGURES)
    given = ["--checkpoint", "clean.keras", "--checkpoint", "narrow.keras", *GIVEN, "--out", str(tmp_path)]
    assert figures_command.command(given) == 0
    assert drawn(tmp_path) == ["gradients"]
    said = "Not shown: connectivity: clean and narrow have different architectures; allowed: checkpoints of one"
    assert said in capsys.readouterr().out and said in (tmp_path / "figures.html").read_text()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--only", "connectivity"], "connectivity: there is one checkpoint; allowed: a clean network and"),
        (["--only", "connectivity", "--checkpoint", "narrow.keras"], "connectivity: .* have different architectures;"),
        (["--only", "loss_surface", "--resolution", "1000000"], "resolution is 1000000; allowed: at most .* memory"),
        (["--only", "logit_distances"], "logit_distances: no --distances are given"),
        (["--only", "logit_distances", "--distances", "text.json"], "--distances is 'text.json', which is not a file"),
        (["--only", "training_cost"], "training_cost: clean has no card.json of a run"),
        (["--only", "beauty"], "--only is 'beauty'; allowed: .*loss_surface"),
        (["--resolution", "1"], "--resolution is 1; allowed: a whole number, at least 2"),
        (["--checkpoint", "missing.keras"], "--checkpoint is 'missing.keras', which is not a file"),
        (["--epsilon", "0"], "--epsilon is 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(folder, tmp_path, monkeypatch, capsys, changed, said):
    monkeypatch.chdir(folder)
    out = tmp_path / "out"
    arguments = ["--checkpoint", "clean.keras", *GIVEN, "--out", str(out), *changed]
    monkeypatch.setattr("sys.argv", ["figures", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main(figures_command.command)
    shown = capsys.readouterr()
    assert ended.value.code == 2 and shown.out == "" and shown.err.count("\n") == 1
    assert re.search(said, shown.err), shown.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--out=out"], "--checkpoint is not given; allowed: networks saved by Keras"),
        (["--checkpoint=clean.keras"], "--out is not given; allowed: a folder for the figures"),
        (["--checkpoint=clean.keras", "--out=out", "--only=all,gradients"], "'all,gradients'; allowed: all alone"),
    ],
)
def test_what_is_needed_is_asked_for(folder, monkeypatch, given, said):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=said):
        figures_command.command([*given, *GIVEN])


def test_a_path_between_networks_has_no_statistics_of_batches():
    network = keras.Sequential([keras.Input(linear.SHAPE), keras.layers.Flatten(), keras.layers.BatchNormalization()])
    images, labels = linear.batch(5)
    normalized = Model("normalized", Subject(network, images, labels % 2, epsilon=0.1))
    with pytest.raises(NotShownError, match="normalized has weights that are not trained .*; allowed: "):
        connectivity.check([normalized, normalized], Options())
    plain = model("clean", small.undefended(0), size=10)
    with pytest.raises(NotShownError, match="no training images to train the bend of a path on"):
        connectivity.check([plain, plain], Options())


def test_costs_of_runs_that_were_attacked_otherwise_are_not_compared():
    root = pathlib.Path(__file__).parents[2] / "results"
    cards = [card.read(root / name / card.NAME) for name in ("mnist/nuat", "cifar10_small/nuat")]
    models = [dataclasses.replace(model("clean", small.undefended(0), size=10), card=each) for each in cards]
    assert len(cost.measure(models[:1], Options())["records"]) == 1
    with pytest.raises(NotShownError, match="were measured by other attacks, see card.json"):
        cost.measure(models, Options())


def test_a_class_without_images_has_no_entropy():
    images, labels = small.sample(60)
    few = Subject(small.undefended(0), images[labels < 3], labels[labels < 3], epsilon=0.2)
    for found in targets.measure([Model("few", few)], Options())["models"][0]["norms"].values():
        assert len(found["confusion"]) == 3


def test_cards_that_disagree_are_named(folder, tmp_path):
    for name, epsilon in [("one", 0.1), ("two", 0.2)]:
        (tmp_path / name).mkdir()
        small.undefended(0).save(tmp_path / name / "network.keras")
        (tmp_path / name / "card.json").write_text(json.dumps({"recipe": {"dataset": "digits", "epsilon": epsilon}}))
    given = [f"--checkpoint={tmp_path / name / 'network.keras'}" for name in ("one", "two")]
    with pytest.raises(ValueError, match="epsilon in .*two.* is 0.2, and epsilon in .*one.* is 0.1; allowed: the same"):
        figures_command.command([*given, "--out", str(tmp_path / "out")])
