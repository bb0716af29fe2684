"""`Recipe` and its parts: what each refuses when it is made, and the way to JSON and back."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest

from tests.helpers.killed import run
from tf_nuat import card as cards
from tf_nuat import data, evaluate, networks, training
from tf_nuat.training import AttackSpec, Recipe, ScheduleSpec, Stage
from tf_nuat.training.recipe_json import SCHEMA, differences, fields_from_json

CARDS = sorted(pathlib.Path(__file__).parents[2].glob("results/**/card.json"))
RECIPE = Recipe(
    dataset="digits",
    network="two_conv",
    network_options={"width": 4},
    defense="nuat",
    defense_options={"nuclear_weight": ScheduleSpec("ramp", peak=1.0, epochs=1)},
    epsilon=0.1,
    epochs=1,
    batch_size=128,
    learning_rate=ScheduleSpec("triangle", peak=0.05, up=1, down=0.5),
    selection=AttackSpec("pgd", steps=1),
    selection_images=32,
    test_images=40,
    masking_alarm=None,
)
STAGED = dataclasses.replace(
    RECIPE,
    defense="sat_r1+sat_r3",
    defense_options={},
    stages=(Stage("sat_r1", 1, {"pairs": 2}), Stage("sat_r3", 2, {"tau": 0.5})),
    epochs=3,
    schedule_epochs=3,
    measures={"pgd": AttackSpec("pgd", steps=2, restarts=3), "aa": AttackSpec("autoattack", version="v1")},
    data_options={},
)


def refusal(make):
    """Returns the one line with which `make` refuses."""
    with pytest.raises(ValueError) as raised:
        make()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: AttackSpec("unheard_of"), "attack is 'unheard_of'; allowed: apgd_ce, "),
        (lambda: AttackSpec({"attack": "pgd", "steps": 3}), "attack is {'attack': 'pgd', 'steps': 3}; allowed: "),
        (lambda: AttackSpec("pgd", steps=0), "steps is 0; allowed: "),
        (lambda: AttackSpec("pgd", iterations=3), "argument of pgd is 'iterations'; allowed: "),
        (lambda: AttackSpec("pgd", loss="hinge"), "loss is 'hinge'; allowed: "),
        (lambda: AttackSpec("pgd", target=np.zeros(3, int)), "target is a ndarray; allowed: numbers, text"),
        (lambda: AttackSpec("rfgsm", norm="l2"), "argument of rfgsm is 'norm'; allowed: "),
        (lambda: AttackSpec("autoattack", version="v0"), "version is 'v0'; allowed: "),
        (lambda: AttackSpec("autoattack", steps=3), "argument of autoattack is 'steps'; allowed: "),
        (lambda: AttackSpec("transfer"), "surrogate of transfer is not given; allowed: "),
        (lambda: AttackSpec("transfer", surrogate="none.keras"), "surrogate is 'none.keras'; allowed: the path"),
        (lambda: AttackSpec("transfer", surrogate=networks), "surrogate is a module; allowed: the path"),
        (lambda: ScheduleSpec("sawtooth"), "schedule is 'sawtooth'; allowed: constant, "),
        (lambda: ScheduleSpec("ramp", peek=1.0, epochs=3), "argument of ramp is 'peek'; allowed: epochs, peak, wait"),
        (lambda: ScheduleSpec("ramp", peak=1.0), "epochs of ramp is not given; allowed: peak, epochs, wait"),
        (lambda: ScheduleSpec("ramp", peak="high", epochs=3), "peak of ramp is 'high'; allowed: a number"),
        (lambda: ScheduleSpec("ramp", peak=-4.0, epochs=3), "peak of ramp is -4.0; allowed: a number at least 0"),
        (lambda: ScheduleSpec("constant", value=-0.05), "value of constant is -0.05; allowed: a number at least 0"),
        (lambda: ScheduleSpec("ramp", peak=(1, 2), epochs=3), "ScheduleSpec('ramp', peak=(1, 2), epochs=3) is no"),
        (lambda: ScheduleSpec("divide", start=1, factor=0, epochs=[2]), "factor is 0; allowed: a number above 0"),
        (lambda: ScheduleSpec("ramp", peak=1.0, epochs=3, steps_per_epoch=2), "argument of ramp is 'steps_per_epoch'"),
        (lambda: ScheduleSpec("cyclic_step", peak=1, up=2, down=2, freeze=5, drops=[]), "freeze is 5; allowed: "),
        (lambda: Stage("sat_r9", 3), "stages: defense is 'sat_r9'; allowed: awp, "),
        (lambda: Stage("sat_r1"), "stages: epochs is None; allowed: a whole number, at least 1"),
        (lambda: Stage("sat_r1", 0), "stages: epochs is 0; allowed: "),
        (lambda: Stage("sat_r1", 3, {"tau": 1}), "options of SATR1 are {'tau': 1}; allowed: ema_decay, "),
        (lambda: Stage("free_at", 3, {"batch_size": 8}), "options of FreeAT are {'batch_size': 8}; allowed: "),
        (lambda: Stage("nuat", 3, {"seed": 8}), "options of NuAT are {'seed': 8}; allowed: "),
        (lambda: Stage("nuat", 3, ["alpha"]), "options of NuAT are ['alpha']; allowed: a dict"),
        (
            lambda: Stage("nuat", 3, {"nuclear_weight": ("ramp", {"peak": 4.0})}),
            "nuclear_weight is ('ramp', {'peak': 4.0}); allowed: a number, or ScheduleSpec('ramp', peak=4.0)",
        ),
        (lambda: Stage("nuat", 3, {"nuclear_weight": abs}), "nuclear_weight is a builtin_function_or_method; allowed"),
    ],
)
def test_a_part_refuses_what_is_wrong_when_it_is_made(make, words):
    assert words in refusal(make)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"selection": {"attack": "pgd"}}, "selection is {'attack': 'pgd'}; allowed: an attack as AttackSpec("),
        ({"measures": {"x": "pgd"}}, "x is 'pgd'; allowed: an attack as AttackSpec("),
        ({"measures": {"clean": AttackSpec("fgsm")}}, "measures is 'clean'; allowed: "),
        ({"measures": {"a/b": AttackSpec("fgsm")}}, "measures is 'a/b'; allowed: "),
        ({"measures": {"cw": AttackSpec("cw")}}, "norm of cw is 'linf'; allowed: l2"),
        ({"norm": "l2", "measures": {"x": AttackSpec("rfgsm")}}, "norm of rfgsm is 'l2'; allowed: linf"),
        ({"norm": "l2", "defense": "sat_r1", "defense_options": {}}, "norm (of sat_r1) is 'l2'; allowed: linf"),
        ({"learning_rate": ("triangle", {})}, "learning_rate is ('triangle', {}); allowed: a number above 0, or Sched"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; allowed: a number above 0"),
        ({"momentum": 1.0}, "momentum is 1.0; allowed: "),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; allowed: "),
        (
            {"stages": ({"defense": "nuat", "epochs": 1},)},
            "stages is {'defense': 'nuat', 'epochs': 1}; allowed: stages",
        ),
        ({"network_options": {"width": abs}}, "width is a builtin_function_or_method; allowed: numbers, text"),
        ({"claimed": {"clean": 92.3}}, "clean of claimed is 92.3; allowed: a number at least 0 and at most 1"),
        ({"claimed": ["clean"]}, "claimed is ['clean']; allowed: a dict of names and values"),
        ({"network_options": None}, "network_options is None; allowed: a dict of names and values"),
        ({"data_options": "augmentation"}, "data_options is 'augmentation'; allowed: a dict of names and values"),
        ({"source": 2021}, "source is 2021; allowed: text"),
        ({"synchronized_batch_norm": "false"}, "synchronized_batch_norm is 'false'; allowed: False, True"),
        ({"network": ["two_conv"]}, "network is ['two_conv']; allowed: "),
        ({"defense": ["nuat"]}, "defense is ['nuat']; allowed: text"),
        ({"norm": {}}, "norm is {}; allowed: text"),
    ],
)
def test_a_recipe_refuses_what_is_wrong_when_it_is_made(changes, words):
    assert words in refusal(lambda: dataclasses.replace(RECIPE, **changes))


@pytest.mark.parametrize("changes", [{"stages": (Stage("eat", 1),), "defense": "eat", "defense_options": {}}])
def test_a_stage_that_needs_sources_is_refused_without(changes):
    words = "sources is () for eat; allowed: names of networks or .keras files"
    assert words in refusal(lambda: dataclasses.replace(RECIPE, **changes))


@pytest.mark.parametrize("recipe", [RECIPE, STAGED, dataclasses.replace(STAGED, learning_rate=0.1, norm="linf")])
def test_a_recipe_goes_to_json_and_back(recipe):
    content = json.loads(json.dumps(recipe.to_json()))
    assert content == recipe.to_json() and content["schema"] == SCHEMA
    assert Recipe.from_json(content) == recipe
    assert repr(recipe).count("ScheduleSpec(") == recipe.to_json().__repr__().count("'ramp'") + repr(content).count(
        "'tri"
    )


def test_parts_read_what_they_write():
    for part in (AttackSpec("pgd", steps=3, step_size=None), AttackSpec("autoattack")):
        assert type(part).from_json(part.to_json()) == part
    schedule = ScheduleSpec("cyclic_step", peak=0.1, up=4, down=5, freeze=8, drops=[9, 10])
    assert schedule.to_json() == ["cyclic_step", {"peak": 0.1, "up": 4, "down": 5, "freeze": 8, "drops": [9, 10]}]
    assert ScheduleSpec.from_json(schedule.to_json()) == schedule
    assert (schedule.peak, schedule.with_peak(0.2).peak) == (0.1, 0.2)
    stage = Stage("nuat", 2, {"nuclear_weight": ScheduleSpec("constant", value=3)})
    assert Stage.from_json(stage.to_json()) == stage


@pytest.mark.parametrize("path", CARDS, ids=lambda path: "-".join(path.parts[-4:-1]))
def test_the_recipe_of_every_card_in_results_is_read(path):
    """They are of before there were numbers of a schema; a field that they do not have has its default."""
    described = cards.read(path).recipe
    fields = fields_from_json(Recipe, described, str(path))
    assert all(isinstance(spec, AttackSpec) for spec in (fields["selection"], *fields["measures"].values()))
    if not (described["dataset"] in data.DATASETS and described["network"] in networks.NETWORKS):
        return  # a file of the run, which is not here
    recipe = Recipe.from_json(described, str(path))
    assert {name: recipe.to_json()[name] for name in described} == described


@pytest.mark.parametrize(
    "content, words",
    [
        ({"schema": SCHEMA + 1}, f"old.json is a recipe of schema {SCHEMA + 1}; allowed: up to {SCHEMA}"),
        ({"schema": "x"}, "old.json is a recipe of schema 'x'; allowed: "),
        ({"colour": 3}, "old.json has colour; allowed: the fields of a recipe"),
        ({"measures": [3]}, "old.json is no recipe ("),
        ({"measures": {"x": {"steps": 3}}}, "old.json: attack is {'steps': 3}; allowed: "),
        ({"learning_rate": ["ramp", {"peek": 3}]}, "old.json: argument of ramp is 'peek'; allowed: "),
        ({"stages": [{"defense": "nuat"}]}, "old.json: stages: epochs is None; allowed: "),
    ],
)
def test_json_that_is_no_recipe_of_ours_is_refused_by_one_line_that_names_the_file(content, words):
    assert words in refusal(lambda: Recipe.from_json({**RECIPE.to_json(), **content}, "old.json"))
    assert "old.json is no recipe" in refusal(lambda: Recipe.from_json([content], "old.json"))
    assert "old.json has no dataset" in refusal(lambda: Recipe.from_json({}, "old.json"))


def test_a_run_begun_by_an_earlier_version_goes_on_and_one_of_a_later_is_refused(tmp_path):
    """What an earlier version wrote has no schema, stages may lack their options, and later fields are not there."""
    before = json.loads(json.dumps(STAGED.to_json()))
    for name in ("schema", "precision", "synchronized_batch_norm"):
        del before[name]
    plain = dataclasses.replace(STAGED, stages=(Stage("sat_r1", 1), Stage("sat_r3", 2)))
    before["stages"] = [{"defense": "sat_r1", "epochs": 1}, {"defense": "sat_r3", "epochs": 2}]
    (tmp_path / "recipe.json").write_text(json.dumps(before))
    assert training.check(plain, tmp_path)[0] is None
    other = dataclasses.replace(plain, seed=1)
    assert "holds a run with another seed" in refusal(lambda: training.check(other, tmp_path))
    # It was trained with the default of a field that it does not have, whatever that field says today.
    assert "holds a run with another precision" in refusal(
        lambda: training.check(dataclasses.replace(plain, precision="mixed_bfloat16"), tmp_path)
    )
    (tmp_path / "recipe.json").write_text(json.dumps({**before, "schema": SCHEMA + 1}))
    assert str(tmp_path / "recipe.json") in refusal(lambda: training.check(plain, tmp_path))
    (tmp_path / "recipe.json").write_text("{")
    assert str(tmp_path / "recipe.json") in refusal(lambda: training.check(plain, tmp_path))


def test_a_name_that_is_too_long_for_the_system_is_refused_in_one_line(tmp_path):
    plain = dataclasses.replace(STAGED, stages=(Stage("sat_r1", 1), Stage("sat_r3", 2)))
    assert "cannot be written (File name too long)" in refusal(lambda: training.run(plain, tmp_path / ("x" * 300)))
    surrogate = f"{'x' * 300}.keras"
    assert "surrogate is 'xxx" in refusal(lambda: AttackSpec("transfer", surrogate=surrogate))


@pytest.mark.parametrize(
    "change, names",
    [
        ({"schema": None, "minutes": None, "precision": None, "source": "x", "claimed": {"clean": 0.9}}, []),
        ({"masking_alarm": None, "chosen_by": None, "schedule_epochs": None}, []),  # what they default to is not known
        ({"seed": 1, "batch_size": 64}, ["batch_size", "seed"]),
        ({"minutes": 2.0, "epochs": 1.5}, ["epochs", "minutes"]),
    ],
)
def test_recipes_differ_by_what_changes_a_run(change, names):
    """None stands for a field that is not there."""
    here = dataclasses.replace(RECIPE, precision="float32").to_json()
    there = {name: value for name, value in {**here, **change}.items() if change.get(name, 0) is not None}
    assert differences(Recipe, here, there) == differences(Recipe, there, here) == names


def test_recipes_of_the_same_minutes_are_alike_whatever_epochs_they_had():
    one, other = ({**RECIPE.to_json(), "minutes": 2.0, "epochs": epochs} for epochs in (1.5, 2.5))
    assert differences(Recipe, one, other) == []
    assert differences(Recipe, one, {**other, "minutes": 3.0}) == ["minutes"]


def test_autoattack_is_a_measure_as_any_other(tmp_path):
    measures = {"aa": AttackSpec("autoattack"), "fgsm": AttackSpec("fgsm")}
    dense = {"network": "tests.helpers.tiny:network", "network_options": {}}
    recipe = dataclasses.replace(RECIPE, **dense, test_images=10, measures=measures)
    card = run(recipe, tmp_path)
    network = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    images, labels = data.load("digits").arrays("test")
    robust = evaluate.worst_case(network, (images[:10], labels[:10]), epsilon=0.1).robust
    with np.load(tmp_path / "outcomes.npz") as outcomes:
        np.testing.assert_array_equal(outcomes["aa"], robust)
        assert not np.any(outcomes["aa"] & ~outcomes["fgsm"])  # its first attack has FGSM's steps within its reach
    assert card.measured["aa"].accuracy == robust.mean() and card.measures["aa"] == {"attack": "autoattack"}


def test_a_surrogate_is_a_file_and_has_to_fit_the_data(tmp_path):
    networks.two_conv((8, 8, 1), 10, width=4).save(tmp_path / "surrogate.keras")
    networks.two_conv((8, 8, 1), 3, width=4).save(tmp_path / "other.keras")
    measured = {"transfer": AttackSpec("transfer", surrogate=str(tmp_path / "surrogate.keras"), steps=2)}
    card = run(dataclasses.replace(RECIPE, measures=measured), tmp_path / "out")
    assert card.measured["transfer"].images == 40
    other = dataclasses.replace(RECIPE, selection=AttackSpec("transfer", surrogate=tmp_path / "other.keras"))
    words = "surrogate takes images of (8, 8, 1) to 3 outputs; allowed: (8, 8, 1) to 10, as the data"
    assert refusal(lambda: run(other, tmp_path / "refused")) == words
    assert not (tmp_path / "refused").exists()


def test_an_epsilon_that_no_image_of_the_data_allows_is_refused(tmp_path):
    l2 = dataclasses.replace(RECIPE.under_norm("l2", 8.0))  # the length of 64 pixels that change by 1
    assert training.check(l2, tmp_path)[0] is None
    words = "epsilon is 8.1; allowed: a number at most 8"
    assert refusal(lambda: training.check(dataclasses.replace(l2, epsilon=8.1), tmp_path)) == words


def test_the_documentation_has_every_field():
    for field in dataclasses.fields(Recipe):
        assert f"\n    {field.name}: {field.metadata['help']}" in Recipe.__doc__
