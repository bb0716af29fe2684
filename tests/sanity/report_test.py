"""Every number of a report is that of the judgement, each of which is another one here."""

import dataclasses
import re
import xml.etree.ElementTree

import numpy as np
import pytest

from sanity import Verdict, report, verdict
from sanity.judgement import judge_subject
from sanity.report.junit import junit
from sanity.subject import Subject
from tests.helpers import linear

EPSILON = 0.01
CHECKS = ("network_is_deterministic", "gradients_are_available", "large_epsilon_reaches_chance")


def evaluation(number, **changes):
    """Returns an attack, as a judgement lists it, whose numbers no other one has."""
    share = number / 100
    found = {"attack": "pgd", "label": f"attack {number}", "settings": {"epsilon": EPSILON, "steps": number}}
    found |= {"source": None, "answers": 1, "images": 300 + number, "accuracy": 0.7 + share, "left": 0.3 + share}
    found |= {"interval": (0.6 + share, 0.8 + share), "within_epsilon": True, "compared": True}
    return found | changes


@pytest.fixture(scope="module")
def judgement():
    images, _ = linear.batch(80)
    network = linear.shared()
    subject = Subject(network, images, network(images).numpy().argmax(axis=1), epsilon=EPSILON)
    judged = judge_subject(subject, checks=CHECKS, progress=False)
    verdicts = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE)
    results = [
        dataclasses.replace(each, verdict=found, value=0.11 * place, interval=(0.1 * place, 0.13 * place), remedy="x")
        for place, (each, found) in enumerate(zip(judged.results, verdicts), start=1)
    ]
    clean = verdict.Accuracy(273, 300, 0.91, (0.871, 0.938))
    pgd = verdict.Accuracy(201, 300, 0.67, (0.615, 0.721))
    robust = verdict.WorstCase(99, 300, 0.33, (0.279, 0.385), attacks=23, attack="x", left_out=("Square",))
    beyond = evaluation(19, label="beyond", settings={"epsilon": 2 * EPSILON}, within_epsilon=False)
    part = evaluation(0, label="on a part", compared=False)
    ran = [evaluation(number) for number in range(1, 19)] + [beyond, part]
    return dataclasses.replace(
        judged, results=tuple(results), clean=clean, reported_by_pgd=pgd, robust=robust, evaluations=ran
    )


@pytest.fixture(scope="module")
def page(judgement):
    """The text of the page, a space between its parts."""
    return " ".join(re.sub("<style.*?</style>|<[^>]*>", " ", report.render(judgement, {}), flags=re.DOTALL).split())


def test_the_figure_stands_at_the_top_with_its_interval_and_that_of_pgd(page):
    assert "33.0% is an upper limit: of 300 images so many withstand the worst of 23 attacks" in page
    assert "(95% interval 27.9% to 38.5%). Not run on all images: Square. PGD alone says 67.0%." in page


def test_the_chart_has_what_the_strongest_attacks_left_of_all_images(judgement):
    bars = report.bars(judgement)
    labels = [f"attack {number}" for number in range(report.MOST_BARS, 0, -1)]
    assert [label for label, *_ in bars] == ["no attack", *labels, "worst of all attacks"]
    assert [share for _, share, *_ in bars] == pytest.approx([0.91, *np.arange(44, 30, -1) / 100, 0.33])


def test_every_check_has_its_value_and_interval_in_the_table_and_below_it(judgement, page):
    for each in judgement.results:
        interval = "{:.1%} to {:.1%}".format(*each.interval)
        assert f"{each.quantity} {each.value:.1%} {interval} {each.good} {each.threshold:.1%}" in page
        assert f"{each.quantity}: {each.value:.1%}, on {each.sample_size} images ({interval}); good: " in page


def test_every_attack_has_the_accuracy_of_its_images(judgement, page):
    for each in judgement.evaluations:
        settings = ", ".join(f"{name} {value:.4g}" for name, value in each["settings"].items())
        beyond = "" if each["within_epsilon"] else " &nbsp;(beyond epsilon)"
        interval = "{:.1%} to {:.1%}".format(*each["interval"])
        row = f"{each['label']} {settings}{beyond} the network {each['images']} {each['accuracy']:.1%} {interval}"
        assert row in page.replace("steps&nbsp;", "steps ").replace("epsilon&nbsp;", "epsilon ")
    assert "worst case of each image, within epsilon 300 33.0% 27.9% to 38.5%" in page


def test_a_check_that_saw_a_sign_is_a_failure_and_one_that_did_not_decide_an_error(judgement):
    suites = xml.etree.ElementTree.fromstring(junit(judgement))
    counts = {name: suites.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "2", "skipped": "0"}
    found = {case.get("name"): [each.tag for each in case] for case in suites.iter("testcase")}
    assert found == dict(zip(CHECKS, (["failure"], ["error"], ["error"])))
