"""The sanity suite on networks of which the verdict is known: no miss, and no false alarm."""

import json
import pathlib

import numpy as np
import pytest

from benchmarks import masked, way_round, zoos
from benchmarks import zoo as counted
from sanity import Verdict, measure
from sanity.checks import CHECKS
from sanity.judgement import in_order, judge_subject
from sanity.settings import BUDGETS
from sanity.subject import Subject
from tests.helpers import zoo

RESULTS = pathlib.Path(__file__).parents[2] / "results"
FOLDERS = {"digits": "zoo", "held_out": "zoo_held_out", "mnist": "zoo_mnist", "cifar10": "zoo_cifar10"}  # in results
SEEDS = (0, 1, 2)
QUICK = BUDGETS["quick"].settings


@pytest.fixture(scope="module", autouse=True)
def one_surrogate():
    """All judgements here train the same surrogate, with the same data and seed: once is enough."""
    train, trained = measure.surrogate.train, {}

    def kept(images, labels, **options):
        key = (len(images), *sorted(options.items()))
        if key not in trained:
            trained[key] = train(images, labels, **options)
        return trained[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure.surrogate, "train", kept)
        yield


# But for those that take long to overfit: loss_rises_with_epsilon_test.py has another one.
MASKED = [name for name, each in zoo.ZOO.items() if each.kind == zoo.MASKED and "overfitted" not in name]


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_network_is_flagged_by_a_check_that_is_meant_for_it(name):
    """One seed; `results/zoo` has three, and robust networks, with all checks: what is recorded is tested below."""
    specimen = zoo.ZOO[name]
    checks = [check for check in specimen.meant if check in CHECKS]
    outcome = counted.judge(specimen, 0, among=zoos.zoos()["digits"], checks=checks, settings=QUICK)
    assert not counted.missed(specimen, outcome), outcome
    assert outcome["verdict"] in ("masked gradients suspected", zoo.REFUSED)


def test_a_robust_network_is_failed_by_no_check_and_is_called_robust():
    """The linear one, whose robust accuracy is known: no attack is better than its closed form, and few are missed."""
    images, labels = zoo.digits().arrays("test")
    specimen, training_data = zoo.ZOO["linear"], zoo.digits().arrays("train")
    network = specimen.build(0)
    images, labels = in_order(images, labels)
    subject = Subject(network, images, labels, epsilon=specimen.epsilon, training_data=training_data)
    judgement = judge_subject(subject, settings=QUICK, progress=False)
    assert judgement.failed == () and judgement.verdict == "genuinely robust"
    known = zoo.linear_worst_case(network, subject.images, subject.labels, specimen.epsilon)
    assert not np.any(known & ~subject.worst_case())
    assert np.mean(subject.worst_case() & ~known) < 0.01


def test_batch_normalization_does_not_pass_for_an_attack_that_fails():
    """Of an undefended network, whose margins change with small steps and are no less honest for that."""
    specimen = zoo.ZOO["undefended with BatchNormalization"]
    subject = Subject(specimen.build(0), *zoo.digits().arrays("test"), epsilon=specimen.epsilon)
    result = CHECKS["attack_does_not_fail"](subject, QUICK)
    assert result.verdict is Verdict.PASS, result.explanation


def recorded(name):
    return json.loads((RESULTS / FOLDERS[name] / "zoo.json").read_text(encoding="utf-8"))["outcomes"]


@pytest.mark.parametrize("name", FOLDERS)
def test_in_the_record_no_network_is_missed_and_none_is_flagged_in_error(name):
    """What `python -m benchmarks.zoo` found, with all checks; printed as a table. Digits: three seeds."""
    outcomes, specimens = recorded(name), zoos.zoos()[name].specimens
    print(counted.markdown(outcomes, specimens))
    seeds = SEEDS if name == "digits" else SEEDS[:1]
    assert set(outcomes) == {f"{each}, seed {seed}" for each in specimens for seed in seeds}
    for key, outcome in outcomes.items():
        specimen = specimens[key.rsplit(", seed ", 1)[0]]
        assert set(outcome["checks"]) == (set() if outcome["verdict"] == zoo.REFUSED else set(CHECKS)), key
        assert not counted.missed(specimen, outcome), key
        assert not counted.false_alarms(specimen, outcome), key
    undecided = [key for key, outcome in outcomes.items() if outcome["verdict"] == "undecided"]
    assert len(undecided) <= 0.15 * len(outcomes)  # with the quick budget


@pytest.mark.parametrize("name", FOLDERS)
def test_the_table_in_the_documentation_is_what_was_found(name):
    table = counted.markdown(recorded(name), zoos.zoos()[name].specimens)
    assert table in (RESULTS / FOLDERS[name] / "zoo.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_record_is_continued_by_its_own_zoo_and_budget_alone(name, tmp_path):
    path, every = RESULTS / FOLDERS[name] / "zoo.json", zoos.zoos()
    asked = {"zoo": name, "budget": "quick"}
    assert counted.outcomes_in(path, asked, every[name].specimens) == recorded(name)
    for other in set(every) - {name}:
        with pytest.raises(ValueError, match=f"--zoo is '{other}'; allowed: that of .*, or another --out"):
            counted.outcomes_in(path, {**asked, "zoo": other}, every[other].specimens)
    written = tmp_path / "zoo.json"
    written.write_text(json.dumps({**asked, "budget": "standard", "outcomes": {}}))
    with pytest.raises(ValueError, match="--budget is 'quick'; allowed: standard, with which .* or another --out"):
        counted.outcomes_in(written, asked, every[name].specimens)
    assert counted.outcomes_in(tmp_path / "none.json", asked, every[name].specimens) == {}


def test_rows_of_a_way_round_with_other_settings_are_not_taken_for_these(tmp_path):
    settings = {"epsilon": 0.1, "images": 100, "seconds": 60.0, "seed": 11}
    assert len(way_round.rows_in(RESULTS / "way_round" / "way_round.json", settings)) == 13  # made before they said so
    path = tmp_path / "way_round.json"
    path.write_text(json.dumps({"networks": {"ties": {"settings": settings}}}))
    assert way_round.rows_in(path, settings) == {"ties": {"settings": settings}}
    with pytest.raises(ValueError, match="--epsilon is 0.2; allowed: 0.1, with which .* or another --out"):
        way_round.rows_in(path, {**settings, "epsilon": 0.2})


def test_each_network_that_hides_its_gradients_is_described(monkeypatch):
    monkeypatch.setattr(masked, "trained", lambda network, *_: network)
    assert list(masked.networks(None, None)) == list(masked.DESCRIPTIONS)


def test_misses_and_false_alarms_are_counted():
    def outcome(verdict, **checks):
        suspected = verdict == "masked gradients suspected"
        return {
            "verdict": verdict,
            "masking": "suspected" if suspected else "not seen",
            "checks": {check: {"verdict": each, "value": 0.5} for check, each in checks.items()},
        }

    flagged = outcome("masked gradients suspected", gradients_are_available="fail", step_count_saturates="pass")
    other = outcome("masked gradients suspected", gradients_are_available="pass", step_count_saturates="fail")
    clean = outcome("genuinely robust", gradients_are_available="pass")
    refused = outcome(zoo.REFUSED)
    table = counted.markdown(
        {
            "scaled logits, seed 0": flagged,
            "scaled logits, seed 1": other,
            "softmax outputs, seed 0": refused,
            "softmax outputs, seed 1": clean,
            "PGD-AT, seed 0": clean,
            "PGD-AT, seed 1": flagged,
        },
        zoo.ZOO,
    )
    assert "Misses: 2 of 4 masked networks. False alarms: 1 of 2 networks that are not. Undecided: 0 of 6." in table
    assert "| gradients_are_available | gradients_are_available (1 of 2), step_count_saturates (1 of 2) |" in table
    assert "| refused | refused (1 of 2) |" in table
