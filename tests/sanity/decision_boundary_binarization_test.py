"""Planted adversaries: closed forms, and attacks and networks for which they are there and not found."""

import functools
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from sanity import Verdict, measure
from sanity.checks.decision_boundary_binarization import INNER, decision_boundary_binarization
from sanity.settings import Settings
from sanity.statistics import Overrating
from sanity.subject import Subject
from tests.helpers import small

EPSILON = 0.2
SHAPE = (8, 8, 1)
module = importlib.import_module("sanity.checks.decision_boundary_binarization")


@pytest.fixture(scope="module")
def sample():
    return small.sample(40)


@pytest.fixture(autouse=True)
def something_to_overrate(monkeypatch):
    """Whatever PGD leaves of these networks: what is looked at is whether it finds what was planted."""
    monkeypatch.setattr(Overrating, "of", lambda *_: Overrating(True, False, ""))


def judge(network, sample, settings=None, **options):
    subject = Subject(network, *sample, **{"epsilon": EPSILON, **options})
    return decision_boundary_binarization(subject, settings or Settings())


@functools.cache
def linear():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(10)])


def then(network, *layers):
    """Returns the network with layers behind it."""
    return keras.Sequential([keras.Input(SHAPE), network, *layers])


class TinySteps(Settings):
    def pgd(self, epsilon):
        return {**super().pgd(epsilon), "step_size": 0.01 * epsilon / self.steps}


def small_ball(factor):
    """Returns settings whose PGD has a ball too small by a factor."""

    class Shrunk(Settings):
        def pgd(self, epsilon):
            return super().pgd(factor * epsilon)

    return Shrunk()


def test_the_read_out_of_a_closed_form():
    """The inner point nearest to (2, 0) is (0, 0), between (0, 1) and (0, -1): g is x - 1, from -2 to 1."""
    features = np.array([[0.0, 1.0], [0.0, -1.0], [-1.0, 0.0], [2.0, 0.0]])
    logits = np.array([[3.0, -4.0], [6.0, 0.0], [1.0, 1.0], [0.0, 0.0]])  # a range of 10: g is scaled by 10 / 4
    weights, bias, separable = measure.readout.planted(features, logits)
    np.testing.assert_allclose(weights, [2.5, 0.0], atol=2e-3)
    g = features @ weights + bias
    np.testing.assert_allclose(g, [2.5e-4 - 5.0, 2.5e-4 - 5.0, 2.5e-4 - 7.5, 2.5e-4], atol=5e-3)
    assert separable and 0.0 < g[-1] < 3e-4


def test_a_point_among_the_others_is_not_separable():
    features = np.array([[0.0, 1.0], [0.0, -1.0], [-1.0, 0.0], [-0.2, 0.1]])
    assert not measure.readout.planted(features, np.eye(4))[2]
    assert not measure.readout.planted(np.ones((4, 3)), np.eye(4))[2]


def test_where_the_points_are():
    image = tf.constant(np.random.default_rng(0).uniform(0.3, 0.7, SHAPE), tf.float32)
    draw = {"epsilon": 0.1, "inner": 50, "seed": 3}
    points = measure.readout.points(image, 7, **draw).numpy()
    distances = np.abs(points - image).max(axis=(1, 2, 3))
    assert points.shape == (51, *SHAPE) and distances[0] == 0.0
    assert np.all(distances[1:-1] > 0.08) and np.all(distances[1:-1] <= 0.095 + 1e-6)
    np.testing.assert_allclose(distances[-1], 0.1, atol=1e-6)
    assert len(np.unique(points.reshape(51, -1), axis=0)) == 51
    np.testing.assert_array_equal(points, measure.readout.points(image, 7, **draw))
    assert not np.any(points[1:] == measure.readout.points(image, 8, **draw)[1:])
    on_the_edge = measure.readout.points(tf.zeros(SHAPE), 7, **draw).numpy()
    assert on_the_edge.min() == 0.0 and on_the_edge.max() <= 0.1 + 1e-6
    lengths = np.linalg.norm(
        (measure.readout.points(image, 7, norm="l2", **draw) - image).numpy().reshape(51, -1), axis=1
    )
    assert np.all(lengths[:-1] <= 0.095 + 1e-6) and lengths[-1] == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("wrap", [lambda network: network, small.quantised, lambda network: then(network)])
def test_features_are_what_enters_the_last_layer(sample, wrap):
    inner, images = small.undefended(), sample[0]
    network = wrap(inner)
    layer = measure.readout.last_dense(network)
    assert layer is inner.layers[-1]
    before = network(images).numpy()
    features = measure.readout.features_of(network, layer)(images).numpy()
    x = np.round(images * 16) / 16 if wrap is small.quantised else images
    kernel, bias, *_ = inner.get_weights()
    np.testing.assert_allclose(features, np.maximum(x.reshape(len(x), -1) @ kernel + bias, 0.0), atol=1e-5)
    np.testing.assert_array_equal(network(images), before)  # the layer is back
    assert "call" not in vars(layer)


def test_the_share_that_is_found_has_a_closed_form(sample):
    """In a linear network g is largest in a corner of the ball that the attack is given: here one too small."""
    network, factor = linear(), 0.68
    weak = small_ball(factor)
    subject = Subject(network, *sample, epsilon=EPSILON, batch_size=15)  # 15, 15, 10 images
    planted, found, _ = module.attacked(subject, weak, np.arange(len(subject)))
    draw = tf.function(lambda x, row: measure.readout.points(x, row, epsilon=EPSILON, inner=INNER, seed=subject.seed))
    expected = []
    for row, image in enumerate(subject.images):
        points = draw(tf.constant(image), tf.constant(row)).numpy()
        weights, bias, separable = measure.readout.planted(points.reshape(INNER + 1, -1), network(points))
        assert separable
        move = factor * EPSILON * np.sign(weights)
        expected.append(np.clip(image.ravel() + move, 0.0, 1.0) @ weights + bias > 0.0)
    assert np.all(planted) and 5 < sum(expected) < 35
    np.testing.assert_array_equal(found, expected)
    result = judge(network, sample, weak)  # in one batch
    assert result.value == pytest.approx(np.mean(expected)) and result.sample_size == 40
    assert result.interval[0] < result.value < result.interval[1]
    assert result.verdict is Verdict.FAIL and result.threshold == 0.95


def test_where_pgd_leaves_no_more_than_chance_it_is_of_no_use(monkeypatch):
    monkeypatch.undo()
    result = judge(small.undefended(), small.sample(200))
    assert result.verdict is Verdict.SKIPPED and "no use here. PGD leaves" in result.explanation


@pytest.mark.parametrize("network", [lambda: small.robust(EPSILON), linear], ids=["robust", "linear"])
def test_honest_networks_pass(sample, network):
    result = judge(network(), sample, seed=1)
    assert result.verdict is Verdict.PASS, result.explanation
    attack, by_chance = result.series.bars
    assert attack.y == result.value >= 0.95 and by_chance.y < 0.5 and result.remedy == ""


@pytest.mark.parametrize("mask", [small.quantised, small.saturated])
def test_hidden_gradients_are_seen(sample, mask):
    result = judge(mask(small.undefended()), sample)
    assert result.verdict is Verdict.FAIL and result.value < 0.2
    assert "planted" in result.explanation and "gradients" in result.remedy and "Zimmermann" in result.reference


def test_a_weak_attack_is_seen(sample):
    """With tiny steps; above, in a ball that is too small."""
    assert judge(small.robust(EPSILON), sample, TinySteps()).verdict is Verdict.FAIL


def test_a_small_sample_is_inconclusive(sample):
    result = judge(small.undefended(), [part[:20] for part in sample])
    assert result.verdict is Verdict.INCONCLUSIVE and "about 40 images" in result.remedy


def test_skipped_where_no_layer_can_be_replaced(sample):
    inputs = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(inputs)
    wide, narrow = (keras.layers.Dense(units)(flat) for units in (20, 2))
    several = keras.layers.average([keras.layers.Dense(10)(each) for each in (wide, narrow)])
    convolution = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(10, 3)(inputs))
    for outputs, reason in ((several, "features"), (convolution, "dense"), (keras.layers.ReLU()(convolution), "dense")):
        result = judge(keras.Model(inputs, outputs), sample)
        assert result.verdict is Verdict.SKIPPED and reason in result.explanation


def prescribed(monkeypatch, planted, found, drawn, size=200):
    """Returns the result of a judgement in which so many adversaries are planted and, of all images, found."""
    outcomes = [np.arange(size) < number for number in (planted, found, drawn)]
    monkeypatch.setattr(module, "attacked", lambda *_: outcomes)
    settings = Settings(planted_images=size)
    return judge(linear(), (np.zeros((size, *SHAPE), np.float32), np.arange(size) % 10), settings)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((200, 200, 0), Verdict.PASS),
        ((200, 192, 99), Verdict.PASS),
        ((200, 190, 0), Verdict.PASS),
        ((200, 184, 0), Verdict.INCONCLUSIVE),
        ((200, 180, 0), Verdict.FAIL),
        ((200, 180, 180), Verdict.FAIL),  # they are there, however easy
        ((200, 200, 100), Verdict.SKIPPED),
        ((100, 100, 0), Verdict.PASS),
        ((99, 99, 0), Verdict.SKIPPED),
    ],
)
def test_verdicts(monkeypatch, counts, expected):
    result = prescribed(monkeypatch, *counts)
    assert result.verdict is expected and result.sample_size == counts[0]
    assert (result.remedy == "") == (expected is Verdict.PASS)
    assert ("more steps" in result.remedy) == (expected in (Verdict.INCONCLUSIVE, Verdict.FAIL))


def test_where_the_sample_is_too_small_to_tell_what_pgd_leaves_a_sign_stays_open(monkeypatch):
    monkeypatch.setattr(Overrating, "of", lambda *_: Overrating(False, False, " PGD leaves too few to tell."))
    result = prescribed(monkeypatch, 200, 180, 0)
    assert result.verdict is Verdict.INCONCLUSIVE and result.p_value == 1.0
    assert result.explanation.endswith("PGD leaves too few to tell.") and "more images" in result.remedy
    assert prescribed(monkeypatch, 200, 200, 0).verdict is Verdict.PASS


def test_outcomes_of_images_without_adversary_do_not_count(monkeypatch):
    """All that is found lies among the first half, where nothing was planted."""
    first = np.arange(200) < 100
    monkeypatch.setattr(module, "attacked", lambda *_: (~first, first, first))
    settings = Settings(planted_images=200)
    result = judge(linear(), (np.zeros((200, *SHAPE), np.float32), np.arange(200) % 10), settings)
    assert result.value == 0.0 and [bar.y for bar in result.series.bars] == [0.0, 0.0]


def test_skipped_where_the_features_tell_too_little(sample):
    network = then(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1), keras.layers.Dense(10)]))
    result = judge(network, [part[:10] for part in sample])
    assert result.verdict is Verdict.SKIPPED and "planted" in result.explanation and result.value is None
