"""The way round a layer that hides the gradients of a linear network, whose worst case has a closed form."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from sanity import Result, Settings, Verdict, accuracies
from sanity.adaptive import find_way_round, queries, surfaces, ways
from sanity.adaptive.standing import Standing
from sanity.adaptive.surfaces import Signs, Surface, answering
from sanity.checks.network_is_deterministic import is_random as random_answers
from sanity.measure import surrogate
from sanity.result import skipped, to_json
from sanity.subject import Subject
from tests.helpers import linear, zoo
from tests.helpers.small import after, before
from tf_nuat.attacks.ascent import input_gradient

EPSILON = 0.1
IMAGES, LABELS = linear.batch(60)
INSIDE = linear.network()
LABELS = np.argmax(INSIDE(IMAGES), axis=1)
WORST = zoo.linear_worst_case(INSIDE, IMAGES, LABELS, EPSILON)

HIDDEN = {
    "rounding": lambda: before(INSIDE, lambda x: keras.ops.round(x * 500.0) / 500.0),
    "scale": lambda: after(INSIDE, keras.layers.Rescaling(1e6)),
    "a squashed scale": lambda: after(INSIDE, lambda logits: keras.ops.tanh(100.0 * logits) + 1e4 * logits),
    "a detached layer": lambda: before(INSIDE, keras.ops.stop_gradient),
    "a wave": lambda: before(INSIDE, lambda x: x + 0.001 * keras.ops.sin(5000.0 * x)),
}


class Opaque(keras.layers.Layer):
    """A network as a layer of which no gradient comes back, and whose logits are steps."""

    def __init__(self, network, **options):
        super().__init__(**options)
        self.network = network

    def call(self, x):
        return keras.ops.round(100.0 * self.network(x)) / 100.0


def subject_of(network, images=IMAGES, labels=LABELS):
    return Subject(network, images, labels, epsilon=EPSILON)


def attacked(subject, steps=40):
    """Returns what the first of the ways leaves, and what was seen."""
    network, is_random = subject.network, random_answers(subject)
    options = {"epsilon": EPSILON, "seed": 0, "is_random": is_random}
    surface, signs = surfaces.of(network, subject.images, subject.labels, **options)
    standing = Standing(subject, Settings(), is_random=is_random, until=time.monotonic() + 600.0)
    standing.attack("pgd", {"steps": steps, "restarts": 3, "loss": "margin"}, surface, signs.words())
    found = standing.outcome()
    np.testing.assert_array_equal(subject.worst_case(), found.correct)
    return found


@pytest.mark.parametrize("name", HIDDEN)
def test_it_finds_what_the_closed_form_of_the_inside_gives(name):
    """Targets change on the way: of a few images the nearest class is not the one that the ascent goes to."""
    found = attacked(subject_of(HIDDEN[name]()))
    assert np.all(found.correct >= WORST) and np.sum(found.correct != WORST) <= 1


@pytest.fixture(scope="module")
def way_round():
    subject = subject_of(HIDDEN["rounding"]())
    failed = Result("loss_surface_is_smooth", Verdict.FAIL, "", None, None, 60, None, None, "", "", "")
    passed = skipped("gradient_magnitude", "", sample_size=60, remedy="", reference="")
    return subject, find_way_round(subject, [failed, passed], Settings(), seconds=100.0)


def test_what_was_tried_is_told_and_recorded(way_round):
    subject, found = way_round
    assert np.sum(found.correct != WORST) <= 1 and np.all(found.correct >= WORST)
    np.testing.assert_array_equal(subject.worst_case(), found.correct)
    assert found.best is found.tried[0] and found.best.attack == "pgd on the stand-ins of BPDA"
    for words in ("has no gradient", '"loss surface is smooth" failed'):
        assert words in found.best.why
    assert "magnitude" not in found.best.why
    assert all("BPDA" in each.attack for each in found.tried)  # what hides the gradients is known: that is enough
    standing = len(IMAGES)
    recorded = [each for each in subject.evaluations() if each.attack is not None]
    for attempt, evaluation in zip(found.tried, recorded, strict=True):
        assert attempt.images == standing and attempt.interval[0] <= attempt.accuracy <= attempt.interval[1]
        attacked = len(IMAGES) if evaluation.among is None else evaluation.among.sum()
        assert attacked == standing and subject.within_epsilon(evaluation)
        assert (evaluation.attack, evaluation.source) == ("pgd", "the stand-ins of BPDA")
        standing -= attempt.fooled
    assert standing == found.correct.sum()
    kept = to_json(found)
    assert set(kept) == {"tried", "best", "cut_short"} and kept["best"] == kept["tried"][0]
    assert found.cut_short == ()


def test_a_threshold_is_followed_by_the_straight_line():
    """A pixel changes where it can cross 1/2: the images are black and white, or grey within reach of it."""
    grey = np.where(np.random.default_rng(0).uniform(size=IMAGES.shape) < 0.3, 0.45, np.round(IMAGES))
    grey = grey.astype(np.float32)
    network = before(INSIDE, lambda x: keras.ops.cast(x > 0.5, "float32"))
    labels = np.argmax(network(grey), axis=1)
    # What is grey may become black or white, as if epsilon were 1 there and 0 elsewhere.
    kernel, bias = INSIDE.get_weights()
    flat = grey.reshape(len(grey), -1)
    low, high = np.where(flat == 0.45, 0.0, flat), np.where(flat == 0.45, 1.0, flat)
    slopes = kernel.T[None] - kernel.T[labels][:, None]
    gains = (
        np.sum(slopes * np.where(slopes > 0.0, high[:, None], low[:, None]), axis=2)
        + bias[None]
        - bias[labels][:, None]
    )
    gains[np.arange(len(labels)), labels] = -np.inf
    found = attacked(subject_of(network, grey, labels))
    assert np.sum(found.correct != (gains.max(axis=1) < 0.0)) <= 1


def test_gradients_that_float32_rounds_away_are_those_of_float64():
    """1 - tanh^2 is 0 in float32 from 9 on, and in float64 from 19 on."""
    kernel, bias = INSIDE.get_weights()
    network = keras.Sequential([*INSIDE.layers[:-1], keras.layers.Dense(3, activation="tanh")])
    network.build((None, *linear.SHAPE))
    scale = 18.0 / np.abs(IMAGES.reshape(60, 16) @ kernel + bias).max()
    network.set_weights([scale * kernel, scale * bias])
    surface, signs = surfaces.of(network, IMAGES, LABELS, epsilon=EPSILON, seed=0, is_random=False)
    assert surface.name == "the network in float64" and signs.without_gradient == 0.0
    x = tf.constant(IMAGES)
    gradient, _ = input_gradient(lambda x: (network(x)[:, 0] - network(x)[:, 1],) * 2, x)
    exact, _ = input_gradient(lambda x: (surface.logits(x)[:, 0] - surface.logits(x)[:, 1],) * 2, x)
    lost = np.all(np.equal(gradient, 0.0), axis=(1, 2, 3))
    assert np.any(lost) and np.all(np.any(exact != 0.0, axis=(1, 2, 3)))


def test_random_answers_are_judged_by_the_mean_of_many(monkeypatch):
    monkeypatch.setattr(surfaces, "PASSES", 4)
    subject = subject_of(before(INSIDE, zoo.Noise(0.005, 0)))
    subject.record("lucky", {"epsilon": EPSILON}, np.zeros(len(IMAGES), bool))  # by single answers
    assert not np.any(subject.worst_case())
    found = attacked(subject, steps=10)
    assert "passes" in found.tried[0].attack and "its answers are random" in found.tried[0].why
    assert np.sum(found.correct != WORST) <= 2  # of which the margin is within what 64 passes say


class Batches:
    """A `Pool` of 16 images and then of the rest: the first four are done, with an image of another class."""

    def __init__(self, attack, logits, images, labels, rows, settings, **options):
        self.rows, self.begun = rows, rows[:0]
        self.others = images[[np.flatnonzero(labels != label)[0] for label in labels]]

    def __iter__(self):
        for part in np.split(self.rows, [16]):
            self.begun = self.rows[: len(self.begun) + len(part)]
            yield part[:4], np.ones(4, bool), self.others[part[:4]]


@pytest.mark.parametrize("is_random", [False, True])
def test_images_that_there_was_no_time_for_were_not_attacked_and_those_under_attack_were(is_random, monkeypatch):
    monkeypatch.setattr("sanity.adaptive.standing.Pool", Batches)
    subject = subject_of(INSIDE)
    short = Standing(subject, Settings(), is_random=is_random, until=time.monotonic() - 1.0)  # it ends with the first
    short.attack("pgd", {"steps": 1}, Surface("the network", INSIDE), "")
    with short.attempt("slow", {"epsilon": EPSILON}, ""):
        pass
    found = short.outcome()
    (attempt,) = found.tried
    assert (attempt.images, attempt.fooled, attempt.accuracy) == (16, 4, 0.75)
    np.testing.assert_array_equal(found.correct, np.arange(60) >= 4)
    np.testing.assert_array_equal(subject.worst_case(), found.correct)
    (recorded,) = [each for each in subject.evaluations() if each.attack is not None]
    np.testing.assert_array_equal(recorded.among, np.arange(60) < 16)
    assert found.cut_short == ("pgd on the network", "slow")
    robust = accuracies.worst_case(subject, Settings(steps=1), ["Square"], found.cut_short)
    assert robust.left_out == (found.cut_short if is_random else ("Square",))


def test_attacks_that_did_not_begin_in_time_are_named(monkeypatch):
    monkeypatch.setattr(Standing, "is_over", True)
    found = find_way_round(subject_of(INSIDE), [], Settings(), seconds=1.0)
    assert found.tried == () and "pgd on the network" in found.cut_short


def test_the_mean_gradient_around_an_image_has_a_radius_that_was_chosen():
    """The wave is one of the pixels alone: any radius of several waves leaves the gradient of the inside."""
    network = HIDDEN["a wave"]()
    subject = subject_of(network)
    surface = Surface("the network", lambda x: network(x, training=False))
    signs = Signs(False, (), True, None, 0.0, 0.0)
    standing = Standing(subject, Settings(), is_random=False, until=time.monotonic() + 600.0)
    (way,) = ways._around(
        subject, surface, signs, standing, "seen", "pgd", {"steps": 10, "loss": "margin"}, "gradients"
    )
    assert way.why == f"with radius {float(way.surface.logits.radius.numpy()):.3g}: seen" and way.cost == 20
    standing.attack(way.attack, way.settings, way.surface, way.why, cost=way.cost)
    assert standing.outcome().best.fooled > 0.8 * np.sum(~WORST)


def test_queries_go_on_from_the_adversaries_of_a_surrogate(monkeypatch):
    monkeypatch.setattr(queries, "QUERIES", 200)
    monkeypatch.setattr(surrogate, "STEPS", 60)
    network = keras.Sequential([keras.Input(linear.SHAPE), Opaque(INSIDE)])
    subject = subject_of(network)
    standing = Standing(subject, Settings(), is_random=False, until=time.monotonic() + 600.0)
    queries.ask(standing, subject)
    (attempt,) = standing.outcome().tried
    assert attempt.attack == "square from the adversaries of a surrogate"
    assert attempt.fooled > 0.8 * np.sum(~WORST) and np.all(standing.outcome().correct >= WORST)


def test_the_images_of_a_surrogate_are_within_the_ball(monkeypatch):
    """Noise of epsilon in every pixel would be four times as long in L2."""
    seen = []
    monkeypatch.setattr(surrogate, "train", lambda images, labels, **options: seen.append((images, options)) or INSIDE)
    subject = Subject(INSIDE, IMAGES, LABELS, epsilon=0.4, norm="l2")
    standing = Standing(subject, Settings(), is_random=False, until=time.monotonic() + 600.0)
    queries._imitation(standing, subject, seconds=7.0)
    ((images, options),) = seen
    change = images - IMAGES[np.resize(np.arange(len(IMAGES)), len(images))]
    lengths = np.linalg.norm(change.reshape(len(change), -1), axis=1)
    assert 0.1 < lengths.max() <= 0.4 + 1e-6 and options["seconds"] == 7.0


def test_nothing_is_attacked_where_nothing_stands():
    found = find_way_round(subject_of(INSIDE, labels=(LABELS + 1) % 3), [], Settings(), seconds=10.0)
    assert found.tried == () and found.best is None and not np.any(found.correct)


def test_scores_are_given_the_answer_of_the_network():
    scores, logits = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]], np.float32), np.array([[5.0, 0, 0], [0, 7, 0]])
    found = answering(scores, logits).numpy()
    np.testing.assert_array_equal(found.argmax(axis=1), [0, 1])
    np.testing.assert_array_equal(found[1], scores[1])
    np.testing.assert_allclose(found[0], [2.001, 2.0, 0.0])


def test_seconds_are_checked():
    with pytest.raises(ValueError, match="seconds is 0; allowed: a number above 0"):
        find_way_round(subject_of(INSIDE), [], Settings(), seconds=0)
