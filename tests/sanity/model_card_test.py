"""The model card: a header that is YAML, and text in which what others wrote means nothing."""

import json
import re

import numpy as np
import pytest

from sanity import report
from sanity.judgement import judge_subject
from sanity.report.model_card import model_card
from sanity.subject import Subject
from tests.helpers import linear


@pytest.fixture(scope="module")
def judgement():
    x = np.random.default_rng(0).uniform(size=(80, *linear.SHAPE)).astype(np.float32)
    network = linear.shared()
    subject = Subject(network, x, network(x).numpy().argmax(axis=1), epsilon=0.01)
    return judge_subject(subject, checks=["large_epsilon_reaches_chance"], progress=False)


def test_the_header_has_both_accuracies(judgement):
    _, header, text = model_card(judgement).split("---\n", 2)
    values = [float(each) for each in re.findall(r"value: ([\d.]+)", header)]
    assert values == [round(judgement.clean.accuracy, 4), round(judgement.robust.accuracy, 4)]
    assert "pipeline_tag: image-classification" in header and f"{judgement.robust.accuracy:.1%}" in text
    assert judgement.masking in text and judgement.robustness in text


def test_a_single_attack_is_not_the_worst_of_many(judgement):
    assert judgement.robust.attacks == 1
    for text in (model_card(judgement), judgement.accuracies, report.render(judgement, {})):
        assert "one attack" in text and "the worst of 1" not in text


def test_hostile_names_mean_nothing(judgement):
    hostile = "<img src=x onerror=alert(1)> [a](http://b) `c` | d\n---\n- e: f"
    judgement.provenance["dataset"] = hostile
    card = model_card(judgement)
    header, text = card.split("\n---\n", 2)[0], card.split("\n---\n", 1)[1]
    (name, kind) = re.findall(r"^ +(?:name|type): (\".*)$", header, re.MULTILINE)[1:3] or (None, None)
    assert json.loads(kind) == hostile or json.loads(name) == hostile
    assert "<img" not in text and "[a](" not in text and "\\`c\\`" in text


@pytest.mark.parametrize("name", ["\U0001f600 net", "ü\x7f\x85\u2028", 'a"\\b', "- a: b # c", "\ud800", ""])
def test_the_header_is_yaml_whatever_a_name_is(judgement, name):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    judgement.provenance["dataset"] = name
    _, header, _ = model_card(judgement).split("---\n", 2)
    found = yaml.safe_load(header)["model-index"][0]["results"][0]
    assert found["dataset"]["name"] == (name or "images")
    assert [each["value"] for each in found["metrics"]] == [1.0, round(judgement.robust.accuracy, 4)]


def test_a_name_does_not_reverse_the_numbers_after_it(judgement):
    judgement.provenance["dataset"] = "\u202edigits"
    _, _, text = model_card(judgement).split("---\n", 2)
    assert "- Dataset: \ufffddigits. 3 classes" in text
