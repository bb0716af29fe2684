"""`recipes.phase_transition`: what a command leaves of the results of one before it in the same folder."""

import json

import keras
import pytest

from recipes import phase_transition
from tf_nuat import critical_epsilon
from tf_nuat.critical_epsilon import intersection, training_runs

GIVEN = ["--dataset=digits", "--epochs=12", "--warm_up=5", "--strategy=one"]
SINGLE_STEP = ["--ways=single_step", "--single_step=0.1"]
LOSSES = ((0.2, 0.3), (0.22, 0.3))


@pytest.fixture
def results(monkeypatch, tmp_path):
    """A function that runs the command, without any training, and returns what it wrote into the folder of the test."""
    found = {
        "fast": critical_epsilon.Measured(
            "fast",
            intersection.extrapolated([0.1, 0.2], LOSSES, 0.5),
            (0.1, 0.2),
            LOSSES,
            (training_runs.Clean("clean.keras", 0.01, 0.5, 0.97, 100, 7.0),),
            300,
            3.0,
        ),
        "single_step": critical_epsilon.SingleStep(None, (0.1,), (0.9,), (0.8,), 50, 2.0),
    }
    for way, each in found.items():
        monkeypatch.setitem(phase_transition.WAYS, way, lambda *_, each=each, **__: each)

    def run(*arguments):
        assert phase_transition.main([*GIVEN, *arguments, f"--out={tmp_path}"]) == 0
        return json.loads((tmp_path / "results.json").read_text())

    return run


def test_another_way_adds_to_those_of_the_same_recipe(results, tmp_path):
    before = results("--ways=fast", "--attack=pgd")
    both = results(*SINGLE_STEP)
    assert both["fast"] == before["fast"] and both["attack"] == "pgd"
    *estimates, advice = before["report"]
    assert both["report"][: len(estimates)] == estimates and both["report"][-1] == advice
    assert both["report"][-2].startswith("single-step training overfits catastrophically at none of the epsilons")
    assert (tmp_path / "critical_epsilon.png").exists()


def test_those_of_another_recipe_are_replaced(results, tmp_path):
    results("--ways=fast")
    alone = results(*SINGLE_STEP, "--seed=1")
    assert "fast" not in alone and len(alone["report"]) == 1
    assert not (tmp_path / "critical_epsilon.png").exists()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda content: "{", "results.json', which is not JSON"),
        (lambda content: json.dumps({**content, "fast": {"losses": [0.2]}}), "fast in .*; allowed: one with way"),
    ],
)
def test_those_that_cannot_be_read_are_refused_before_training(change, words, results, monkeypatch, tmp_path):
    content = results("--ways=fast")
    monkeypatch.setattr(keras.Model, "fit", None)
    (tmp_path / "results.json").write_text(change(content))
    with pytest.raises(ValueError, match=words):
        results(*SINGLE_STEP)
