"""What an interrupted judgement has evaluated is not evaluated again, and reports for continuous integration."""

import dataclasses
import xml.etree.ElementTree

import keras
import numpy as np
import pytest

from sanity import measure
from sanity import subject as subject_module
from sanity.judgement import judge_subject
from sanity.report.junit import junit
from sanity.result import Verdict
from sanity.subject import Subject
from tests.helpers import linear


@pytest.fixture
def given():
    x = np.random.default_rng(0).uniform(size=(40, *linear.SHAPE)).astype(np.float32)
    network = linear.shared()
    return network, x, network(x).numpy().argmax(axis=1)


def subject(given, path, **options):
    return Subject(*given, epsilon=0.05, kept_in=path, **options)


def test_outcomes_are_taken_from_the_file(given, tmp_path, monkeypatch):
    path = tmp_path / "evaluations.npz"
    first = subject(given, path)
    expected = first.correct("pgd", epsilon=0.05, steps=5), first.correct("fgsm", epsilon=0.05), first.correct()
    assert 0 < expected[0].sum() < 40
    again = subject(given, path, resume=True)
    monkeypatch.setattr(subject_module.evaluate, "correct", None)  # nothing is evaluated
    found = again.correct("pgd", epsilon=0.05, steps=5), again.correct("fgsm", epsilon=0.05), again.correct()
    np.testing.assert_array_equal(found, expected)
    assert [each.attack for each in again.evaluations()] == ["pgd", "fgsm", None]
    with pytest.raises(TypeError):
        again.correct("pgd", epsilon=0.05, steps=6)
    with pytest.raises(TypeError):
        subject(given, path).correct()  # without resume


def test_a_name_that_is_too_long_for_the_system_is_left_to_the_check_of_the_folder(given, tmp_path):
    subject(given, tmp_path / ("x" * 300) / "evaluations.npz", resume=True)


def test_a_file_of_others_or_unreadable_is_named(given, tmp_path):
    path = tmp_path / "evaluations.npz"
    subject(given, path).correct()
    network, x, y = given
    with pytest.raises(ValueError, match="belongs to other images; allowed: another --out"):
        subject((network, x[::-1], y), path, resume=True)
    with pytest.raises(ValueError, match="belongs to other seed;"):
        subject(given, path, resume=True, seed=1)
    with pytest.raises(ValueError, match="belongs to other network;"):
        subject((linear.network(seed=3), x, y), path, resume=True)
    scaled = keras.Sequential([keras.Input(linear.SHAPE), network, keras.layers.Rescaling(1000.0)])  # equal weights
    with pytest.raises(ValueError, match="belongs to other network;"):
        subject((scaled, x, y), path, resume=True)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read .*; allowed: without --resume"):
        subject(given, path, resume=True)
    assert path.read_bytes() == b"nothing"
    subject(given, path).correct()


def test_what_was_attacked_among_some_is_taken_from_the_file(given, tmp_path, monkeypatch):
    path, half = tmp_path / "evaluations.npz", np.arange(40) < 20
    expected = subject(given, path).correct("pgd", epsilon=0.05, steps=5, among=half)
    assert 0 < expected.sum() < 20
    again = subject(given, path, resume=True)
    again.correct()
    monkeypatch.setattr(subject_module.evaluate, "correct", None)  # nothing is evaluated
    np.testing.assert_array_equal(again.correct("pgd", epsilon=0.05, steps=5, among=half), expected)
    np.testing.assert_array_equal(again.worst_case(), np.where(half, expected, again.correct()))
    for among in (None, ~half):  # which is something else
        with pytest.raises(TypeError):
            again.correct("pgd", epsilon=0.05, steps=5, among=among)


@pytest.mark.parametrize(("first", "second"), [(False, False), (True, True), (False, True), (True, False)])
def test_outcomes_from_a_surrogate_whose_training_the_time_ended_are_not_taken(
    first, second, given, tmp_path, monkeypatch
):
    """The next one may be another: `first` and `second` say whether the time ended the training of each."""

    def judged(ended, **options):
        surrogate = linear.network(seed=1)
        surrogate.stop_training = ended
        monkeypatch.setattr(measure.surrogate, "train", lambda images, labels, **_: surrogate)
        found = subject(given, tmp_path / "evaluations.npz", training_data=given[1:], **options)
        (source,) = found.surrogates()
        return lambda: found.correct("fgsm", source=source.name, epsilon=0.05)

    expected, again = judged(first)(), judged(second, resume=True)
    monkeypatch.setattr(subject_module.evaluate, "correct", None)  # nothing is evaluated
    if first or second:
        with pytest.raises(TypeError):
            again()
    else:
        np.testing.assert_array_equal(again(), expected)


def test_junit_counts_what_the_checks_said(given):
    names = ["larger_epsilon_is_stronger", "white_box_beats_black_box", "iterative_beats_single_step"]
    judgement = judge_subject(Subject(*given, epsilon=0.05), checks=names, progress=False)
    root = xml.etree.ElementTree.fromstring(junit(judgement))
    cases = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    kinds = {
        Verdict.PASS: [],
        Verdict.FAIL: ["failure"],
        Verdict.SKIPPED: ["skipped"],
        Verdict.REPORTED: ["skipped"],
        Verdict.INCONCLUSIVE: ["error"],
    }
    assert cases == {result.name: kinds[result.verdict] for result in judgement.results}
    assert cases["white_box_beats_black_box"] == ["skipped"]  # there is no surrogate
    suite = root.find("testsuite")
    assert suite.get("tests") == "3" and int(suite.get("skipped")) >= 1
    assert judgement.sentence in suite.find("system-out").text


def test_junit_escapes_hostile_text(given):
    judgement = judge_subject(Subject(*given, epsilon=0.05), checks=["white_box_beats_black_box"], progress=False)
    hostile = dataclasses.replace(
        judgement.results[0], verdict=Verdict.FAIL, explanation='</testsuite> <&"\x00\x1b\ud800\uffff é'
    )
    text = junit(dataclasses.replace(judgement, results=(hostile,)))
    failure = xml.etree.ElementTree.fromstring(text).find(".//failure")
    assert failure.get("message").startswith('</testsuite> <&"???? é')
    assert "encoding='utf-8'" in text.splitlines()[0]
    assert xml.etree.ElementTree.fromstring(text).get("failures") == "1"
