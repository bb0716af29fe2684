"""Stages, early stopping, the last epoch, source networks and cost: what `run` does beyond one defense to the end."""

import dataclasses

import keras
import numpy as np
import pytest

import tf_nuat
from tests.helpers.killed import run
from tests.training.training_test import RECIPE as PLAIN
from tf_nuat import card as cards
from tf_nuat import training
from tf_nuat.training import AttackSpec, ScheduleSpec, Stage, backup, measuring

R3 = {"tau": 0.6, "epsilon_low": 0.04}
RECIPE = dataclasses.replace(PLAIN, defense="sat_r3", defense_options=R3, measures={}, claimed={}, masking_alarm=None)


def staged(*stages, **changes):
    stages = tuple(Stage(name, epochs, options) for name, epochs, options in stages)
    defense = "+".join(stage.defense for stage in stages)
    return dataclasses.replace(RECIPE, defense=defense, defense_options={}, stages=stages, **changes)


def last_weights(out):
    return keras.saving.load_model(out / "last.keras", compile=False).get_weights()


def assert_same_run(card, other, out, other_out, tolerance=1e-5):
    for ours, theirs in zip(card.history, other.history, strict=True):
        for key in set(ours) - {"seconds"}:
            assert ours[key] == pytest.approx(theirs[key], abs=tolerance), key
    for one, expected in zip(last_weights(out), last_weights(other_out)):
        np.testing.assert_allclose(one, expected, atol=tolerance)


def test_two_stages_of_one_defense_are_one_longer_stage(tmp_path):
    """Weights, average, momentum, the clock of the schedule and that of the draws all go on; a reset of any shows."""
    options = {"ema_decay": 0.99}
    whole = run(dataclasses.replace(RECIPE, defense="fbf", defense_options=options), tmp_path / "whole")
    parts = run(staged(("fbf", 1, options), ("fbf", 2, options)), tmp_path / "parts")
    assert_same_run(parts, whole, tmp_path / "parts", tmp_path / "whole")


def test_a_card_has_the_mean_passes_of_its_stages(tmp_path):
    """Of stages without an average."""
    card = run(staged(("standard", 1, {}), ("sat_r3", 2, R3)), tmp_path)
    assert card.passes == pytest.approx(
        {"input_gradient": 2 / 3, "training": 5 / 3, "forward": 0.0, "forward_backward": 7 / 3}
    )


def test_stages_stretch_with_the_epochs():
    recipe = staged(("sat_r1", 1, {}), ("sat_r3", 2, R3), epochs=6)
    assert recipe.plan() == [Stage("sat_r1", 2), Stage("sat_r3", 4, R3)]


@pytest.mark.parametrize(
    "stages, changes, words",
    [
        ([("sat_r1", 1), ("sat_r3", 1)], {}, r"stages take 1 \+ 1 epochs; allowed: 3 in sum"),
        ([("sat_r1", 3), ("sat_r3", 1)], {}, r"stages take 3 \+ 1 epochs; allowed: 3 in sum"),
        ([("sat_r1", 0), ("sat_r3", 3)], {}, "stages: epochs is 0; allowed: "),
        ([("sat_r1", 1), ("sat_r9", 2)], {}, "stages: defense is 'sat_r9'; allowed: "),
        ([("sat_r1", 1), ("sat_r3", 2)], {"epochs": 4}, "epochs is 4; allowed: a number to which stages of 1"),
        ([("sat_r1", 1), ("sat_r3", 2)], {"defense": "sat_r1"}, r"defense is 'sat_r1'; allowed: sat_r1\+sat_r3"),
        ([("sat_r1", 1), ("sat_r3", 2)], {"defense_options": {"tau": 1}}, "defense_options is given; allowed: "),
        ([("sat_r1", 1, {"tau": 0.5}), ("sat_r3", 2)], {}, "options of SATR1 are"),
        ([("sat_r1", 1), ("sat_r3", 2, {"tau": 2})], {}, "tau is 2; allowed: "),
        ([("sat_r1", 1), ("sat_r3", 2, {"ema_decay": 0.9})], {}, "ema_decay is 0.9 after None; allowed: the same one"),
    ],
)
def test_stages_that_do_not_fit_are_refused_before_any_work(stages, changes, words, tmp_path):
    stages = [(*stage, {})[:3] for stage in stages]
    with pytest.raises(ValueError, match=words) as raised:
        recipe = staged(*stages)
        run(dataclasses.replace(recipe, **changes), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_training_ends_when_patience_does_and_goes_no_further_where_it_is_started_again(tmp_path, monkeypatch):
    """With a learning rate of 0 no epoch is better than the first. The run is killed before it is measured."""
    recipe = dataclasses.replace(RECIPE, defense="fgsm_at", defense_options={}, learning_rate=1e-12)
    recipe = dataclasses.replace(recipe, epochs=6, patience=2)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measuring, "measure", killed)
        run(recipe, tmp_path)
    assert len(backup.restored(tmp_path / "state", None).history) == 3
    card = run(recipe, tmp_path)
    assert len(card.history) == 3 and card.epoch_chosen == 1
    # Three epochs of 9 batches of 128 were trained, of the six of the recipe.
    assert card.training_images_per_second * card.training_seconds == pytest.approx(3 * 9 * 128)
    assert card.training_seconds == pytest.approx(sum(logs["seconds"] for logs in card.history))


def test_the_last_epoch_may_be_chosen(tmp_path):
    """Its learning rate makes it worse than the ones before."""
    recipe = dataclasses.replace(RECIPE, defense="fgsm_at", defense_options={}, chosen_by="last")
    recipe = dataclasses.replace(recipe, learning_rate=_worse_at_the_end())
    card = run(recipe, tmp_path)
    robust = [logs["val_robust_accuracy"] for logs in card.history]
    assert card.epoch_chosen == 3 and robust[2] < max(robust)
    kept = keras.saving.load_model(tmp_path / "network.keras", compile=False).get_weights()
    for one, expected in zip(kept, last_weights(tmp_path)):
        np.testing.assert_array_equal(one, expected)


def _worse_at_the_end():
    return ScheduleSpec("divide", start=0.05, factor=1 / 60, epochs=[2])


def test_sources_are_trained_first_and_kept(tmp_path):
    recipe = dataclasses.replace(
        RECIPE, defense="eat", defense_options={}, sources=("two_conv",), source_epochs=1, epochs=1
    )
    trained = run(recipe, tmp_path)
    source = tmp_path / "sources" / "two_conv"
    described = cards.read(source / "card.json")
    assert (described.defense, described.epochs, described.seed) == ("standard", 1, recipe.seed + 1)
    assert trained.source_training_seconds == described.training_seconds
    given = dataclasses.replace(recipe, sources=(str(source / "network.keras"),))
    run(given, tmp_path / "given")
    for one, expected in zip(last_weights(tmp_path / "given"), last_weights(tmp_path)):
        np.testing.assert_allclose(one, expected, atol=1e-6)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"defense": "eat"}, r"sources is \(\) for eat; allowed: "),
        ({"sources": ("lenet_plus",)}, r"sources is \('lenet_plus',\) for sat_r3; allowed: "),
        ({"defense": "eat", "sources": ("no.keras",)}, "sources has 'no.keras', which is no file; allowed: "),
        ({"defense": "eat", "sources": ("x" * 300,)}, "sources has 'xxx.*', which is no file; allowed: "),
        ({"defense": "eat", "sources": (__file__,)}, "sources"),
        ({"epochs": 10**20}, "epochs is 100000000000000000000; allowed: .* at most 1000000"),
        ({"patience": 0}, "patience is 0; allowed: "),
        ({"patience": 3, "chosen_by": "last"}, "patience is 3; allowed: not given, as the last epoch is the one that"),
        ({"seed": 2**31}, "seed is 2147483648; allowed: a whole number, at least 0 and at most 2147483647"),
        ({"images_per_class": 10_000}, "images_per_class is 10000; allowed: "),
        ({"masking_alarm": "ring"}, "masking_alarm is 'ring'; allowed: "),
        ({"norm": "l0"}, "norm is 'l0'; allowed: "),
        ({"norm": "l2", "selection": AttackSpec("pgd")}, r"norm \(of sat_r3\) is 'l2'; allowed: linf"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words) as raised:
        run(dataclasses.replace(RECIPE, **{"defense_options": {}, **changes}), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_the_recipe_under_another_norm_attacks_in_it():
    plain = dataclasses.replace(PLAIN, defense="pgd_at", defense_options={})
    recipe = plain.under_norm("l2", 1.5)
    attack = recipe.measures["pgd_3"].bound(epsilon=recipe.epsilon, norm=recipe.norm)
    assert attack.keywords == {"epsilon": 1.5, "norm": "l2", "steps": 3} and not recipe.claimed
    splits = tf_nuat.data.load("digits", batch_size=128)
    assert training.build(recipe, splits).norm == "l2"


def test_lengths_in_one_norm_are_none_in_another():
    """They would be a small part of the ball. What is not given is a share of epsilon."""
    kept = {"fgsm": AttackSpec("fgsm"), "gama_pgd_5": AttackSpec("gama_pgd", steps=5)}
    measures = {
        **kept,
        "pgd_20": AttackSpec("pgd", steps=20, step_size=0.01, restarts=2),
        "rfgsm": AttackSpec("rfgsm", alpha=0.05),  # which has no version in L2
    }
    options = {"steps": 10, "step_size": 0.01}
    plain = dataclasses.replace(PLAIN, defense="pgd_at", defense_options=options, measures=measures)
    recipe = plain.under_norm("l2", 1.5)
    assert recipe.defense_options == {"steps": 10}
    pgd = AttackSpec("pgd", steps=40)
    assert recipe.measures == {**kept, "pgd_20": AttackSpec("pgd", steps=20, restarts=2), "pgd_40": pgd}
    splits = tf_nuat.data.load("digits", batch_size=128)
    assert training.build(recipe, splits).step_size == pytest.approx(1.5 / 4)
    stages = ("nuat", 1, {"alpha": 0.05, "nuclear_weight": 2.0}), ("pgd_at", 2, options)
    found = staged(*stages).under_norm("l2", 1.5).stages
    assert [stage.options for stage in found] == [{"nuclear_weight": 2.0}, {"steps": 10}]
