"""What a judgement makes of its sample, of random answers, and of a network that is not judged."""

import dataclasses

import keras
import numpy as np
import pytest

import sanity
from sanity import Result, Verdict, accuracies, judgement, report, verdict
from sanity.adaptive import Adaptive, Attempt
from sanity.judgement import in_order, judge_subject
from sanity.report.model_card import _strongest, model_card
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear, small, zoo
from tests.helpers.small import before

CLASSES = np.repeat(np.arange(10), 20)  # as they are often stored, class by class
IMAGES = np.arange(200.0).reshape(200, 1, 1, 1)
EPSILON = 0.01
HALF = np.arange(80) < 40


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES,
        CLASSES.astype(np.uint8),
        CLASSES.astype(np.float32),
        CLASSES[:, None],
        CLASSES[:, None].astype(np.float64),
        np.eye(10)[CLASSES],
    ],
    ids=lambda labels: f"{labels.dtype} {labels.shape}",
)
def test_the_first_images_have_each_class_in_proportion_whatever_the_labels_are(labels):
    images, ordered = in_order(IMAGES, labels)
    numbers = images.ravel().astype(int)
    np.testing.assert_array_equal(np.sort(numbers), np.arange(200))
    np.testing.assert_array_equal(ordered, labels[numbers])
    for size in (10, 30, 100):
        np.testing.assert_array_equal(np.bincount(CLASSES[numbers[:size]], minlength=10), size // 10)


@pytest.mark.parametrize("labels", [CLASSES + 0.5, -1 - CLASSES, CLASSES[:7], CLASSES.astype(str)])
def test_what_is_no_sample_is_left_as_it_is(labels):
    images, same = in_order(IMAGES, labels)
    assert images is IMAGES and same is labels


def sample_of(network, size=80):
    x = np.random.default_rng(0).uniform(size=(size, *linear.SHAPE)).astype(np.float32)
    return network, x, linear.shared()(x).numpy().argmax(axis=1)


def with_answers(subject):
    """Records what an attack left by single answers, nothing, and what one left by the mean of 64, half."""
    subject.record("lucky", {"epsilon": EPSILON}, np.zeros(80, bool))
    subject.record(None, {}, np.ones(80, bool), answers=64)
    subject.record("pgd", {"epsilon": EPSILON}, HALF, "several passes", answers=64)


def test_single_answers_do_not_count_where_the_mean_of_many_is_known():
    subject = Subject(*sample_of(linear.shared()), epsilon=EPSILON)
    subject.record("lucky", {"epsilon": EPSILON}, np.zeros(80, bool))
    assert not np.any(subject.worst_case())
    assert accuracies.worst_case(subject, Settings(), ["Square"]).left_out == ("Square",)
    with_answers(subject)
    np.testing.assert_array_equal(subject.worst_case(), HALF)
    robust = accuracies.worst_case(subject, Settings(), ["Square"])
    assert (robust.correct, robust.attacks, robust.answers, robust.left_out) == (40, 1, 64, ())
    left = {each["label"]: (each["left"], each["answers"]) for each in accuracies.described(subject, Settings())}
    assert left["lucky"] == (0.0, 1) and left["PGD from several passes"] == (0.5, 64)


def test_an_attack_on_a_part_of_the_images_is_not_compared_with_attacks_on_all():
    """PGD fools ten. MI-FGSM fools none of forty images, and seems as strong; Square had all that PGD left."""
    subject, number = Subject(*sample_of(linear.shared()), epsilon=EPSILON), np.arange(80)
    subject.record("pgd", {"epsilon": EPSILON}, number >= 10)
    subject.record("mifgsm", {"epsilon": EPSILON}, number >= 0, among=number >= 40)
    subject.record("square", {"epsilon": EPSILON}, number >= 20, among=number >= 10)
    found = accuracies.described(subject, Settings())
    seen = {each["attack"]: (each["left"], each["compared"]) for each in found if each["attack"]}
    assert seen == {"pgd": (0.875, True), "mifgsm": (0.875, False), "square": (0.75, True)}


def test_what_the_mean_of_many_answers_says_is_not_compared_with_pgd_by_one():
    """By one answer PGD fooled all. By the mean ten are wrong without attack, and thirty more are fooled."""
    subject, number = Subject(*sample_of(linear.shared()), epsilon=EPSILON), np.arange(80)
    subject.record("pgd", {**Settings().pgd(EPSILON), "seed": 0}, np.zeros(80, bool))
    subject.record(None, {}, number >= 10, answers=64)
    for fooled, leaves in ((0, "No attack fooled an image."), (30, "fooled 30 images, the most of all attacks.")):
        attack, among = {"epsilon": EPSILON, "steps": 1 + fooled}, number >= 10
        subject.record("mifgsm", attack, number >= 10 + fooled, "several passes", among=among, answers=64)
        robust = accuracies.worst_case(subject, Settings(), [])
        assert (robust.correct, robust.fooled) == (70 - fooled, fooled)
        assert robust.attack == f"MI-FGSM, {1 + fooled} steps from several passes" and leaves in _strongest(robust)
    clean, pgd = (verdict.accuracy(each, Settings()) for each in (subject.correct(), number < 0))
    flags = {"is_random": True, "is_upper_limit": False}
    said = accuracies.sentence(clean, robust, pgd, None, subject, Settings(), **flags)
    assert "several passes fooled 30 images. Its answers are random" in said and "PGD did not" not in said


@pytest.mark.parametrize(
    ("is_upper_limit", "says"), [(False, "PGD alone says 62.5%, publish 50.0%. "), (True, "PGD alone says 62.5%. ")]
)
def test_an_upper_limit_is_no_figure_to_publish(is_upper_limit, says):
    subject = Subject(*sample_of(linear.shared()), epsilon=EPSILON)
    clean, pgd, left = (verdict.accuracy(np.arange(80) < each, Settings()) for each in (80, 50, 40))
    robust = verdict.WorstCase(**dataclasses.asdict(left), attacks=3, attack="Square", fooled=10)
    flags = {"is_random": False, "is_upper_limit": is_upper_limit}
    said = accuracies.sentence(clean, robust, pgd, None, subject, Settings(), **flags)
    assert says in said and (", publish" in said) is not is_upper_limit


def test_random_answers_are_judged_by_their_mean_whatever_is_checked(monkeypatch):
    def found(subject, results, settings, *, seconds):
        with_answers(subject)
        attempt = Attempt("pgd on several passes", "", images=80, accuracy=0.5, interval=(0.4, 0.6), seconds=1.0)
        return Adaptive((attempt,), attempt, HALF, cut_short=("square",))

    monkeypatch.setattr(judgement.adaptive, "find_way_round", found)
    subject = Subject(*sample_of(before(linear.shared(), zoo.Noise(0.001, 0))), epsilon=EPSILON)
    judged = judge_subject(subject, checks=["iterative_beats_single_step"], progress=False)
    assert judged.clean.correct == 80 and judged.robust.correct == 40 and judged.robust.answers == 64
    assert "Its answers are random: an image counts by the mean of 64 answers." in judged.accuracies
    assert [label for label, *_ in report.bars(judged)] == [
        "no attack",
        "PGD from several passes",
        "worst of all attacks",
    ]
    page, card = report.render(judged, {}), model_card(judged)
    assert "by the mean of\n    64 answers" in page and "Not run on all images: square." in page
    assert "| without attack, by the mean of 64 answers |" in card and "under PGD alone, by one answer" in card
    assert "by the mean of 64 answers: an upper limit" in card and judged.robust.left_out == ("square",)


def noisy():
    return before(linear.shared(), zoo.Noise(0.001, 0))


def test_where_there_is_no_time_for_the_mean_of_many_answers_page_and_card_say_that_one_counts(monkeypatch):
    monkeypatch.setattr(judgement, "ADAPTIVE_SECONDS", 0.0)
    subject = Subject(*sample_of(noisy()), epsilon=EPSILON)
    judged = judge_subject(subject, checks=["iterative_beats_single_step"], progress=False)
    assert judged.adaptive is None and judged.robust.answers == 1 and judged.subject["random_answers"]
    assert "random, and one that is wrong counts" in report.render(judged, {})
    assert "attacks, where one wrong answer counts: " in model_card(judged)


def test_whether_answers_are_random_is_what_the_check_said(monkeypatch):
    """It may have seen no image whose answer is, and have closed."""
    name = "network_is_deterministic"
    found = Result(name, Verdict.PASS, "", 0.0, 0.0, 80, (0.0, 0.0), None, "Seen.", "", "")
    monkeypatch.setitem(judgement.CHECKS, name, lambda subject, settings: found)
    monkeypatch.setattr(judgement.adaptive, "find_way_round", lambda *_, **__: pytest.fail("it was looked for"))
    judged = judge_subject(Subject(*sample_of(noisy()), epsilon=EPSILON), checks=[name], progress=False)
    assert judged.masking == "not seen" and not judged.subject["random_answers"] and "random" not in judged.accuracies


def test_a_network_that_breaks_the_look_for_random_answers_is_judged(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(judgement, "is_random", broken)
    subject = Subject(*sample_of(linear.shared()), epsilon=EPSILON)
    judged = judge_subject(subject, checks=["large_epsilon_reaches_chance"], progress=False)
    assert judged.adaptive is None and judged.robust.images == 80


def test_a_network_that_is_not_random_takes_no_way_round_where_nothing_is_seen(monkeypatch):
    monkeypatch.setattr(judgement.adaptive, "find_way_round", lambda *_, **__: pytest.fail("it was looked for"))
    judged = judge_subject(
        Subject(*sample_of(linear.shared(), 200), epsilon=EPSILON), checks=["network_is_deterministic"], progress=False
    )
    assert judged.adaptive is None and judged.robust.answers == 1 and "random" not in judged.accuracies


def test_of_a_network_that_is_not_judged_no_robust_accuracy_is_shown():
    dark = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), small.undefended()])
    judged = sanity.judge(dark, *small.sample(100), epsilon=0.1, progress=False)
    assert judged.verdict == "not judged"
    page, card = report.render(judged, {}), model_card(judged)
    for words in ("How robust is it?", "upper limit", "PGD alone", "Accuracy by attack", "worst case of each image"):
        assert words not in page
    for words in ("Robustness", "worst case", "PGD alone", "upper limit"):
        assert words not in card
    assert f"| without attack | {judged.clean.accuracy:.1%} |" in card and "Not judged: it is right on" in page


def test_the_interval_of_the_advice_has_the_confidence_of_the_settings():
    subject = Subject(*sample_of(linear.shared(), 200), epsilon=EPSILON)
    settings = Settings(confidence=0.9)
    judged = judge_subject(subject, checks=["network_is_deterministic"], settings=settings, progress=False)
    assert "(90 % interval" in judged.advice


def test_what_was_not_asked_for_is_named_and_its_attacks_are_missed():
    """Without `adaptive_attack_is_not_stronger` nothing of AutoAttack was run: the figure is not one to publish."""
    subject = Subject(*sample_of(linear.shared(), 200), epsilon=EPSILON)
    judged = judge_subject(subject, checks=["network_is_deterministic"], progress=False)
    assert {"GAMA-PGD", "APGD-CE", "FAB-T", "Square"} <= set(judged.robust.left_out)
    assert judged.is_upper_limit and judged.headline.startswith("At most ")
    assert judged.advice.startswith("Do not publish ") and "--checks all" in judged.advice
    assert len(judged.not_asked_for) == len(judgement.CHECKS) - 1
    page, card = report.render(judged, {}), model_card(judged)
    assert "Not asked for: gradients_are_available, " in page and "is the figure to publish" not in page
    assert r"Checks that were not asked for: gradients\_are\_available, " in card and "an upper limit" in card
