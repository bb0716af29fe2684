"""`recipes.race`: alike for all, the page and the figure, a race that is run twice, and what it refuses."""

import copy
import dataclasses
import pathlib
import sys

import numpy as np
import pytest

from recipes import compare, race
from sanity import statistics
from tests.recipes.compare_test import CARD, rows_of
from tf_nuat import card, command_line, data
from tf_nuat.card import from_json
from tf_nuat.evaluate import runs, wilson
from tf_nuat.training import minutes

ROOT = pathlib.Path(__file__).parents[2]
TINY = "--network=tests.helpers.tiny:network"


def racer(defense, correct, alarm=()):
    """Returns the card of a run of three epochs, and what became of the test images."""
    card = copy.deepcopy(CARD)
    card["recipe"] |= {"defense": defense, "minutes": 45.0, "epochs": 2.5, "measures": {"pgd_50": {"attack": "pgd"}}}
    accuracy = float(np.mean(correct))
    measured = {
        "accuracy": accuracy,
        "interval": list(wilson(int(correct.sum()), len(correct))),
        "images": len(correct),
    }
    card["measured"] = {"clean": card["measured"]["clean"] | {"images": len(correct)}, "pgd_50": measured}
    card["history"] = [
        {"val_robust_accuracy": 0.1 * epoch, "seconds": 60.0 * epoch, "masking_alarm": float(epoch in alarm)}
        for epoch in (1, 2, 3)
    ]
    return from_json(card, f"{defense}.json"), correct


@pytest.fixture(scope="module")
def racers():
    images = np.arange(1000)
    return {
        "fgsm_at": racer("fgsm_at", images < 100, alarm=(2, 3)),
        "nuat": racer("nuat", images < 400),
        "n_fgsm": racer("n_fgsm", (images < 396) | (images > 997)),
    }


def test_the_page_ranks_tests_on_the_same_images_and_says_where_the_alarm_rang(racers):
    cards = [run for run, _ in racers.values()]
    outcomes = {name: correct for name, (_, correct) in racers.items()}
    text = race.page(cards, outcomes, runs.conditions(cards[0]), ["failed: gat: the loss became NaN"])
    assert text.startswith("# 45 minutes each") and "failed: gat" in text and "](race.png)" in text
    ranked, below = rows_of(text.split("![")[0]), rows_of(text.split("![")[1])
    assert [row["defense"] for row in ranked] == ["nuat", "n_fgsm", "fgsm_at"]
    assert [row["alarm"] for row in ranked] == ["silent", "silent", "2, 3"]
    assert all(row["chosen epoch"] == "1 of 2.5" for row in ranked)
    assert [(row["defense"], row["verdict"]) for row in below] == [("n_fgsm", "within noise"), ("fgsm_at", "below")]
    # 4 images are lost and 2 gained; of the three pairs Holm multiplies the smallest p-value by 3, the largest by 1.
    assert below[0]["p (Holm)"] == f"{statistics.mcnemar_two_sided(outcomes['n_fgsm'], outcomes['nuat']):.2g}"
    assert float(below[0]["below nuat by"].split()[0]) == pytest.approx(0.2)
    assert float(below[1]["below nuat by"].split()[0]) == pytest.approx(30.0)


@pytest.mark.parametrize("name, racers", [("race_cifar10", 12), ("race_cifar10_45", 3)])
def test_the_committed_page_is_that_of_the_committed_runs(name, racers):
    folder = ROOT / "results" / name
    cards = [card.read(path) for path in sorted(folder.glob("*/card.json"))]
    outcomes = {run.defense: race._outcomes(folder / run.defense) for run in cards}
    for run in cards:
        assert outcomes[run.defense].mean() == pytest.approx(run.measured[race.MEASURE].accuracy)
    assert len(cards) == racers and len({str(race.alike(run.recipe)) for run in cards}) == 1
    assert (folder / "race.md").read_text(encoding="utf-8") == race.page(cards, outcomes, runs.conditions(cards[0]))


def test_the_correction_is_for_all_pairs():
    """Of equal racers the one that came first is not ahead: it was not named before the images were seen."""
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        outcomes = {str(number): generator.random(400) < 0.4 for number in range(13)}
        ranked = sorted(outcomes, key=lambda name: -outcomes[name].mean())
        found += any(row["verdict"] == "below" for row in race.differences(ranked, outcomes))
    assert found / 200 < 0.1  # 5 %; a correction for the twelve rows alone finds more than 10


def test_the_figure_has_a_cross_where_the_alarm_rang(racers):
    lines = race.draw([run for run, _ in racers.values()]).axes[0].lines
    curves, crosses = lines[::2], lines[1::2]
    np.testing.assert_allclose(curves[0].get_xdata(), [1.0, 3.0, 6.0])  # minutes of training so far
    np.testing.assert_allclose(curves[0].get_ydata(), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(crosses[0].get_xdata(), [3.0, 6.0])
    assert [len(cross.get_xdata()) for cross in crosses[1:]] == [0, 0]


def test_what_races_is_alike(monkeypatch):
    """One network, the same minutes and attacks, whatever the recipes have; no claims of other networks."""
    values = race.flag_values()
    values(["", "--dataset=cifar10", "--defenses=nuat2_wa,sat_r2,fbf", "--minutes=45", "--width=8"])
    recipes = race._recipes(values)
    assert list(recipes) == ["nuat2_wa", "sat_r2", "fbf"]
    for recipe in recipes.values():
        assert (recipe.network, recipe.network_options, recipe.minutes) == ("resnet18", {"width": 8}, 45.0)
        assert list(recipe.measures) == ["pgd_50"] and not recipe.claimed
    assert set(race.SETTINGS) <= set(compare.DATASETS)


def test_patience_is_for_the_defenses_that_keep_the_best_epoch():
    for module in compare, race:
        values = module.flag_values()
        values(["", "--dataset=digits", "--defenses=nuat,fgsm_at", "--patience=5"])
        recipes = module._recipes(values)
        assert {name: (recipe.chosen_by, recipe.patience) for name, recipe in recipes.items()} == {
            "nuat": ("val_robust_accuracy", 5),
            "fgsm_at": ("last", None),
        }


def call(monkeypatch, *arguments):
    """Returns the exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["race", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command_line.main(race.main)
    return stopped.value.code


def test_a_race_is_run_and_not_run_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(minutes, "measured", lambda *_, **__: minutes.Speed(0.1, 0.1))
    monkeypatch.setattr(minutes, "fitted", lambda recipe, *_: dataclasses.replace(recipe, epochs=1.25))
    arguments = ["--dataset=digits", "--defenses=standard,n_fgsm", "--minutes=1", TINY, "--test_images=60"]
    arguments += [f"--out={tmp_path}", "--strategy=one"]
    assert call(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "standard (1 of 2): 1 minutes of tests.helpers.tiny:network on digits" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"standard", "n_fgsm", "race.md", "race.csv", "race.png"}
    page = (tmp_path / "race.md").read_text()
    assert {row["chosen epoch"].split()[-1] for row in rows_of(page.split("![")[0])} == {"1.25"}
    monkeypatch.setattr(minutes, "measured", lambda *_, **__: pytest.fail("measured again"))
    assert call(monkeypatch, *arguments) == 0 and (tmp_path / "race.md").read_text() == page


def test_a_defense_that_the_minutes_are_too_few_for_is_named_and_the_others_race(monkeypatch, tmp_path, capsys):
    def fitted(recipe, *_):
        if recipe.defense == "standard":
            raise minutes.TooFewError("minutes is 1, too few for a step and a validation; allowed: about 2 or more")
        return dataclasses.replace(recipe, epochs=0.5)

    monkeypatch.setattr(minutes, "measured", lambda *_, **__: minutes.Speed(0.1, 0.1))
    monkeypatch.setattr(minutes, "fitted", fitted)
    arguments = ["--dataset=digits", "--minutes=1", TINY, "--test_images=60", f"--out={tmp_path}", "--strategy=one"]
    assert call(monkeypatch, *arguments, "--defenses=standard,n_fgsm") == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("failed: standard: minutes is 1, too few")
    page = (tmp_path / "race.md").read_text()
    assert [row["defense"] for row in rows_of(page.split("![")[0])] == ["n_fgsm"] and "failed: standard" in page
    # Another race in this folder would replace the page: it is refused before its images are read.
    with monkeypatch.context() as patch:
        patch.setattr(data, "load", lambda *_, **__: pytest.fail("read"))
        assert call(monkeypatch, *arguments[1:], "--defenses=fgsm_at", "--dataset=mnist") == 2
    assert "where n_fgsm ran with dataset 'digits', not 'mnist'; allowed: a new folder" in capsys.readouterr().err
    # What is finished, but has no outcomes, is named before the others are trained.
    (tmp_path / "n_fgsm" / "outcomes.npz").unlink()
    monkeypatch.setattr(minutes, "measured", lambda *_, **__: pytest.fail("trained"))
    assert call(monkeypatch, *arguments, "--defenses=n_fgsm,fgsm_at") == 2
    assert "n_fgsm/outcomes.npz; allowed: " in capsys.readouterr().err
    assert (tmp_path / "race.md").read_text() == page


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "dataset is not given; allowed: "),
        (["--dataset=digits", "--defenses=nuat"], "minutes is not given; allowed: "),
        (["--dataset=digits", "--minutes=1"], "defenses is not given; allowed: --defenses nuat,"),
        (["--dataset=imagenet2012", "--minutes=1", "--defenses=nuat"], "dataset is 'imagenet2012'; allowed: "),
        (["--dataset=digits", "--minutes=1", "--defenses=nuat,nuat"], "defenses has 'nuat' twice; allowed: "),
        (["--dataset=digits", "--minutes=1", "--defenses=magic"], "defenses is 'magic'; allowed: "),
        (["--dataset=digits", "--minutes=1", "--defenses=nuat,eat"], "defenses is 'eat'; allowed: "),
        (["--dataset=digits", "--minutes=-1", "--defenses=nuat"], "minutes is -1.0; allowed: "),
        (["--dataset=digits", "--minutes=1", "--defenses=nuat", "--epochs=2"], "epochs is 2; allowed: not with"),
        (["--dataset=digits", "--minutes=1", "--defenses=nuat", "--measures=clean"], "measures is given; allowed: "),
    ],
)
def test_what_cannot_race_is_refused_in_one_line(arguments, words, monkeypatch, tmp_path, capsys):
    assert call(monkeypatch, *arguments, f"--out={tmp_path / 'race'}") == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1, printed
    assert not (tmp_path / "race").exists()
