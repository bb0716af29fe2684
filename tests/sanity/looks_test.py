"""Samples that grow until the checks decide, at one error probability, within the time there is."""

import dataclasses

import numpy as np
import pytest

from sanity import Result, Verdict, costs, looks, report, verdict
from sanity.checks import CHECKS
from sanity.clock import Clock
from sanity.judgement import judge, judge_subject
from sanity.looks import FIGURE, SEARCH, Looks
from sanity.report.model_card import model_card
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear

DECIDED, OPEN = "gradients_are_available", "step_count_saturates"


@pytest.fixture
def sample():
    x = np.random.default_rng(0).uniform(size=(1000, *linear.SHAPE)).astype(np.float32)
    network = linear.shared()
    return network, x, network(x).numpy().argmax(axis=1)


def check(name, seen, verdict_of):
    """Returns a check that notes how many images it saw, at which alpha, and says `verdict_of(images, alpha)`."""

    def made(subject, settings):
        seen.append((name, len(subject), settings.alpha))
        found, p_value = verdict_of(len(subject), settings.alpha)
        return Result(name, found, "", 0.0, 0.0, len(subject), (0.0, 0.0), None, "Seen.", "", "", p_value=p_value)

    return made


def looked(sample, monkeypatch, verdicts, **options):
    seen = []
    for name, verdict_of in verdicts.items():
        monkeypatch.setitem(CHECKS, name, check(name, seen, verdict_of))
    subject = Subject(*sample, epsilon=1e-6, **options)
    return Looks(subject, list(verdicts), Settings()).results(), seen, subject


def test_only_what_is_undecided_goes_on_to_more_images(sample, monkeypatch):
    verdicts = {
        DECIDED: lambda images, alpha: (Verdict.PASS, 1.0),
        OPEN: lambda images, alpha: (Verdict.PASS if images >= 400 else Verdict.INCONCLUSIVE, 0.5),
    }
    results, seen, subject = looked(sample, monkeypatch, verdicts)
    # Looks at 200, 400 and 1,000 images share alpha; that at 1,000 is not needed.
    assert seen == [(DECIDED, 200, 0.01 / 3), (OPEN, 200, 0.01 / 3), (OPEN, 400, 0.01 / 3)]
    assert len(subject) == 400 and [each.verdict for each in results] == [Verdict.PASS, Verdict.PASS]


def test_what_is_significant_alone_and_not_among_all_is_judged_again_at_its_share(sample, monkeypatch):
    def borderline(images, alpha):
        return (Verdict.FAIL if alpha > 0.003 else Verdict.PASS), 0.003

    verdicts = {DECIDED: lambda images, alpha: (Verdict.PASS, 1.0), OPEN: borderline}
    results, seen, _ = looked(sample, monkeypatch, verdicts)
    assert [each.verdict for each in results] == [Verdict.PASS, Verdict.PASS]
    assert seen[-1] == (OPEN, 200, 0.01 / 3 / 2)


def test_a_sign_ends_the_looks(sample, monkeypatch):
    verdicts = {
        DECIDED: lambda images, alpha: (Verdict.FAIL, 0.0),
        OPEN: lambda images, alpha: (Verdict.INCONCLUSIVE, 0.5),
    }
    _, seen, subject = looked(sample, monkeypatch, verdicts)
    assert len(subject) == 200 and len(seen) == 2


@pytest.mark.parametrize("speed, minutes", [(1e9, 2.0), (1.0, 3.0)])
def test_a_slow_network_gets_the_minutes_of_slow_ones(speed, minutes, sample, monkeypatch):
    """Slow is one whose checks do not fit, without the attacks that only give the figure."""
    monkeypatch.setattr(costs, "per_second", lambda subject: speed)
    verdicts = {DECIDED: lambda *_: (Verdict.PASS, 1.0), OPEN: lambda *_: (Verdict.PASS, 1.0)}
    _, _, subject = looked(sample, monkeypatch, verdicts, clock=Clock(120.0, 180.0))
    assert subject.clock.seconds == 60.0 * minutes


def test_what_decides_nothing_about_masking_comes_last():
    assert list(CHECKS).index(FIGURE) > max(
        list(CHECKS).index(name) for name in (DECIDED, OPEN, "attack_does_not_fail")
    )


@pytest.mark.parametrize(
    "found, p_value, seconds",
    [
        (Verdict.FAIL, 0.0, 500),
        (Verdict.FAIL, None, 500),  # a fact, not a matter of chance
        (Verdict.FAIL, 0.003, 1000),  # significant alone, and not among two checks in three looks: no sign
        (Verdict.PASS, 0.0, 1000),
    ],
)
def test_a_sign_keeps_time_for_a_way_round(found, p_value, seconds, sample, monkeypatch):
    """Of 1,000 seconds half are left for the checks after it."""
    monkeypatch.setattr(costs, "per_second", lambda subject: 1e9)
    verdicts = {DECIDED: lambda *_: (found, p_value), OPEN: lambda *_: (Verdict.PASS, 1.0)}
    _, _, subject = looked(sample, monkeypatch, verdicts, clock=Clock(1000.0))
    assert seconds - 100 < subject.clock.left <= seconds


def test_the_figure_to_publish_takes_images_until_its_interval_is_narrow(sample, monkeypatch):
    """Every image of one class is fooled: 95 % intervals of 80 % are 8 points wide with 400 images, 5 with 1,000."""
    network, x, y = sample
    wrong = np.where(np.arange(len(y)) % 5 == 0, (y + 1) % linear.CLASSES, y)
    verdicts = {DECIDED: lambda *_: (Verdict.PASS, 1.0), FIGURE: lambda *_: (Verdict.REPORTED, None)}
    _, seen, subject = looked((network, x, wrong), monkeypatch, verdicts)
    assert [images for name, images, _ in seen if name == FIGURE] == [200, 400, 1000]
    assert [images for name, images, _ in seen if name == DECIDED] == [200]
    _, seen, subject = looked(sample, monkeypatch, verdicts)  # none is: 2 points with 200
    assert len(subject) == 200


class Hourglass(Clock):
    """A clock that moves only where a test says so."""

    spent = 0.0


@pytest.mark.parametrize("seconds, images", [(900, 400), (1100, 1000)])
def test_a_look_that_does_not_fit_is_not_begun(seconds, images, sample, monkeypatch):
    """An image takes a second. After 400 the 600 of the third look need 600, whatever the first 200 took."""
    network, x, y = sample
    wrong = np.where(np.arange(len(y)) % 5 == 0, (y + 1) % linear.CLASSES, y)
    clock, seen = Hourglass(seconds), []
    monkeypatch.setattr(looks, "time", type("Time", (), {"perf_counter": staticmethod(lambda: clock.spent)}))
    monkeypatch.setattr(costs, "per_second", lambda subject: 1e9)

    def reported(size, alpha):
        clock.spent = float(size)
        return Verdict.REPORTED, None

    monkeypatch.setitem(CHECKS, DECIDED, check(DECIDED, seen, lambda *_: (Verdict.PASS, 1.0)))
    monkeypatch.setitem(CHECKS, FIGURE, check(FIGURE, seen, reported))
    Looks(Subject(network, x, wrong, epsilon=1e-6, clock=clock), [DECIDED, FIGURE], Settings()).results()
    assert seen[-1][:2] == (FIGURE, images)


@pytest.mark.parametrize("finished", [200, 0])
def test_the_figure_is_of_images_that_every_attack_had_its_turn_on(finished, sample, monkeypatch):
    """Time runs out in the second look, or in the first: then what was not run is named beside the figure."""
    network, x, y = sample
    wrong = np.where(np.arange(len(y)) % 5 == 0, (y + 1) % linear.CLASSES, y)
    clock = Clock(1e6)
    subject = Subject(network, x, wrong, epsilon=1e-6, clock=clock)
    monkeypatch.setattr(costs, "of_check", lambda *_: 0.0)
    monkeypatch.setattr(clock, "has_time_for", lambda gradients: gradients == 0.0 or len(subject) <= finished)
    monkeypatch.setitem(CHECKS, DECIDED, check(DECIDED, [], lambda *_: (Verdict.PASS, 1.0)))
    short = Settings(steps=2, most_steps=2, restarts=1, queries=3)
    judged = judge_subject(subject, checks=[DECIDED, FIGURE], settings=short, progress=False)
    if finished:
        assert judged.robust.images == judged.clean.images == judged.reported_by_pgd.images == finished
        assert judged.robust.left_out == () and "Not run" not in judged.accuracies
        assert "upper limit" not in judged.advice
        assert "the figure to publish" in model_card(judged) and "is the figure to publish" in report.render(judged, {})
    else:
        assert {"Square", "FAB-T", "APGD-CE"} <= set(judged.robust.left_out)
        assert f"Not run on all of them: {'; '.join(judged.robust.left_out)}." in judged.accuracies
        assert judged.robust.attack == "PGD" and judged.robust.fooled == 0
        named = "; ".join(judged.robust.left_out)
        assert f"an upper limit: {named} did not run on all images" in judged.advice
        page = report.render(judged, {})
        assert "an upper limit" in model_card(judged) and "is an upper limit" in page
        assert f"Not run on all images: {named}." in page


def test_an_attack_on_images_that_are_not_looked_at_any_more_is_none_of_the_judgement(sample):
    subject = Subject(*sample, epsilon=1e-6)
    subject.record("late", {"epsilon": 1e-6}, subject.correct(), among=np.arange(1000) >= 300)
    assert "late" in [each.attack for each in subject.evaluations()]
    subject.look_at(200)
    assert "late" not in [each.attack for each in subject.evaluations()]
    assert subject.not_attacked("pgd", among=np.ones(200, bool), epsilon=1e-6) == 200
    assert "pgd" not in [each.attack for each in subject.evaluations()]


def test_what_is_judged_again_takes_no_time(sample, monkeypatch):
    monkeypatch.setattr(costs, "per_second", lambda subject: 1e9)
    clock = Clock(1000.0)

    def borderline(images, alpha):
        clock.seconds = 0.0  # no time is left after it
        return (Verdict.FAIL if alpha > 0.003 else Verdict.PASS), 0.003

    verdicts = {DECIDED: lambda *_: (Verdict.PASS, 1.0), OPEN: borderline}
    results, seen, _ = looked(sample, monkeypatch, verdicts, clock=clock)
    assert len(seen) == 3 and [each.verdict for each in results] == [Verdict.PASS, Verdict.PASS]


def test_the_first_look_is_as_large_as_the_time_allows(sample, monkeypatch):
    """At ten gradients a second, of which PGD and what comes with it take 40 and more an image."""
    monkeypatch.setattr(costs, "per_second", lambda subject: 10.0)
    verdicts = {DECIDED: lambda images, alpha: (Verdict.PASS, 1.0)}
    for seconds, images in ((1e9, 200), (42 * 150 / 0.4 / 10, 150), (1.0, 80)):
        _, seen, subject = looked(sample, monkeypatch, verdicts, clock=Clock(seconds))
        assert len(subject) == pytest.approx(images, abs=1)
    assert seen == []  # no time was left for it


def test_costs_are_known_for_every_check():
    assert set(costs.GRADIENTS) == set(CHECKS)
    settings = Settings()
    for name in costs.GRADIENTS:
        assert 0.0 <= costs.of_check(name, 1, settings) <= costs.of_check(name, 2, settings)
    assert costs.of_check("second_opinion", 10_000, settings) == costs.of_check("second_opinion", 200, settings)
    assert costs.of_attack({"steps": 10, "targets": 9}) == 90 and costs.of_attack({"queries": 300}) == 100


def test_square_costs_what_its_queries_do():
    settings = Settings()
    square = costs.of_attack({"queries": settings.queries})
    assert costs.of_check("gradient_free_is_not_stronger", 1, settings) >= square


@pytest.mark.parametrize(("share", "looks_made"), [(1.01, 1), (0.99, 0)])
def test_square_takes_time_for_the_images_that_pgd_leaves(share, looks_made, sample, monkeypatch):
    """At a gradient a second, for 80 images; the 30 queries of an image cost as much as 10 gradients."""
    monkeypatch.setattr(costs, "per_second", lambda subject: 1.0)
    (network, x, y), settings, seen = sample, Settings(queries=30), []
    subject = Subject(network, x[:80], y[:80], epsilon=0.05)
    pgd = subject.correct("pgd", **settings.pgd(0.05))
    assert 0 < pgd.sum() < 70
    subject.clock = Hourglass(share * pgd.sum() * 10)
    monkeypatch.setitem(CHECKS, SEARCH, check(SEARCH, seen, lambda *_: (Verdict.PASS, 1.0)))
    (result,) = Looks(subject, [SEARCH], settings).results()
    needed = 10 * pgd.sum()
    left = f"it may take {needed} s on 80 images, and {int(share * needed)} s are left."
    said = f"Too little time is left for {SEARCH}: {left}"
    assert len(seen) == looks_made and (result.explanation == said) is (looks_made == 0)
    subject.correct("square", epsilon=0.05, queries=30, among=np.arange(80) < 40)
    assert costs.of_search(subject, settings) == pytest.approx(pgd[40:].sum() * 10)


@pytest.mark.parametrize(
    ("name", "found"),
    [(name, Verdict.SKIPPED) for name in looks.REPORTING] + [(FIGURE, Verdict.INCONCLUSIVE)],
)
def test_a_check_that_only_reports_and_breaks_does_not_leave_masking_undecided(name, found, sample, monkeypatch):
    def broken(subject, settings):
        raise ValueError("a defect")

    monkeypatch.setitem(CHECKS, DECIDED, check(DECIDED, [], lambda *_: (Verdict.PASS, 1.0)))
    monkeypatch.setitem(CHECKS, name, broken)
    _, result = results = Looks(Subject(*sample, epsilon=1e-6), [DECIDED, name], Settings()).results()
    assert result.verdict is found and "a defect" in result.explanation
    assert verdict.masking(results) == "not seen"


def test_time_runs_out():
    clock = Clock(0.0)
    assert clock.left <= 0.0 and not clock.has_time_for(1.0)
    assert Clock().left == float("inf") and Clock().has_time_for(1e12)


def test_bad_input_of_a_judgement_is_named(sample):
    network, x, labels = sample
    for arguments, options, message in [
        ((x, labels), {"minutes": 0}, "minutes is 0; allowed: a number above 0"),
        ((x[:2], labels[:2]), {}, "images has 2 images; allowed: at least as many as the network has classes, 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            judge(network, *arguments, epsilon=0.1, progress=False, **options)


def test_a_network_that_answers_nan_on_adversaries_alone_is_judged(sample):
    """The logarithm of what lies outside of where the images are: no check crashes, and one names it."""
    import keras

    network, x, labels = sample
    x = np.maximum(x[:100], 0.2)
    inputs = keras.Input(linear.SHAPE)
    guarded = 0.0 * keras.ops.log(keras.ops.min(inputs, axis=(1, 2, 3), keepdims=False)[:, None] - 0.15)
    nan = keras.Model(inputs, network(inputs) + guarded)
    labels = nan.predict(x, verbose=0).argmax(axis=1)
    names = ["gradient_magnitude", "loss_rises_with_epsilon", "attack_does_not_fail", "random_search_is_not_stronger"]
    judgement = judge(nan, x, labels, epsilon=0.1, checks=names, progress=False)
    found = {result.name: result for result in judgement.results}
    assert found["gradient_magnitude"].verdict is Verdict.FAIL and judgement.masking == "suspected"
    assert "finite" in judgement.headline
    assert all("ended with" not in result.explanation for result in judgement.results)
    assert dataclasses.asdict(judgement.robust)["images"] == 100


def test_the_attack_that_fooled_most_that_pgd_does_not_is_named(sample, monkeypatch):
    """Not the last that fooled any of what those before it had left."""
    subject, number = Subject(*sample, epsilon=1e-6), np.arange(1000)
    subject.record("broad", {"epsilon": 1e-6}, subject.correct() & (number >= 30))
    subject.record("late", {"epsilon": 1e-6}, subject.correct() & (number >= 31), among=number >= 30)
    monkeypatch.setitem(CHECKS, DECIDED, check(DECIDED, [], lambda *_: (Verdict.PASS, 1.0)))
    judged = judge_subject(subject, checks=[DECIDED], progress=False)
    assert (judged.robust.images - judged.robust.correct, judged.robust.fooled) == (31, 30)
    assert "broad fooled 30 images that PGD did not" in judged.accuracies
