"""Cards: those of before are read, what is written is read back, and whatever is wrong is one line that names it."""

import dataclasses
import json
import pathlib

import pytest

from tf_nuat import card
from tf_nuat.core import json_input
from tf_nuat.evaluate import runs

ROOT = pathlib.Path(__file__).parents[1]
COMMITTED = sorted((ROOT / "results").rglob("card.json"))


def content():
    """Returns the content of a committed card."""
    return json.loads((ROOT / "results/mnist/nuat/card.json").read_text(encoding="utf-8"))


def test_there_are_committed_cards():
    assert len(COMMITTED) >= 49
    assert {json.loads(path.read_text(encoding="utf-8")).get("schema", 1) for path in COMMITTED} == {1, 2}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.parent.relative_to(ROOT / "results")))
def test_every_committed_card_reads_and_is_written_as_it_was(path, tmp_path):
    found = card.read(path)
    before = json.loads(path.read_text(encoding="utf-8"))
    assert found.schema == before.get("schema", 1) and found.missing == ()
    assert found.measured["clean"].accuracy == before["measured"]["clean"]["accuracy"]
    assert (found.dataset, found.epsilon) == (before["recipe"]["dataset"], before["recipe"]["epsilon"])
    assert runs.conditions(found).images == {name: each["images"] for name, each in before["measured"].items()}
    card.write(found, tmp_path / "card.json")
    assert card.read(tmp_path / "card.json") == found
    written = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert before.items() <= written.items()


def test_a_card_that_is_written_has_the_schema_and_reads_back(tmp_path):
    measured = {"clean": card.Measured(0.5, (0.4, 0.6), 10)}
    recipe = {"dataset": "digits", "network": "lenet", "defense": "nuat_h", "epsilon": 0.1, "epochs": 1, "seed": 0}
    written = card.Card(
        recipe={**recipe, "measures": {}},
        command="python",
        epoch_chosen=1,
        measured=measured,
        training_seconds=1.5,
        training_images_per_second=2.5,
        history=[{"loss": 1.0}],
        adapted=["its last softmax was taken off"],
        defense_facts={"extra_epochs": 1.25},
    )
    card.write(written, tmp_path / "card.json")
    assert card.read(tmp_path / "card.json") == written
    assert json.loads((tmp_path / "card.json").read_text())["schema"] == card.SCHEMA


def test_what_a_defense_added_to_an_old_card_is_a_fact_of_the_defense(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps({**content(), "extra_epochs": 0.5}))
    assert card.read(tmp_path / "card.json").defense_facts == {"extra_epochs": 0.5}


def test_every_field_of_the_dataclass_is_documented_and_read():
    names = {field.name for field in dataclasses.fields(card.Card)}
    documented = {line.split(":")[0].strip() for line in card.Card.__doc__.splitlines() if line.startswith("        ")}
    assert names <= documented and names - {"missing"} == set(card._FIELDS)


def test_beside_a_checkpoint_there_may_be_none_or_a_partial_one(tmp_path):
    assert card.beside(tmp_path / "network.keras") is None
    (tmp_path / "card.json").write_text('{"recipe": {"dataset": "digits"}}')
    found = card.beside(tmp_path / "network.keras")
    assert (found.says("dataset"), found.says("epsilon"), found.norm) == ("digits", None, "linf")
    assert "measured" in found.missing and found.facts == {}
    with pytest.raises(ValueError, match="which is not the card of a run .command is missing.; allowed: "):
        card.read(tmp_path / "card.json")


def refused(path, text):
    """Returns the one line that refuses a file of this text; that of the reader of a partial card is the same."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    lines = []
    for partial in (False, True):
        with pytest.raises(ValueError) as error:
            card.read(path, partial=partial)
        lines.append(str(error.value))
    assert lines[0] == lines[1] and "\n" not in lines[0] and len(lines[0]) < 1500 and str(path) in lines[0]
    return lines[0]


DAMAGED = [
    ("", "which is not JSON"),
    ("{", "which is not JSON"),
    (b"\xff\xfe\x00", "which is not JSON"),
    (b"\x00" * 100, "which is not JSON"),
    ("[" * 100_000, "which is not JSON (RecursionError"),
    ('{"a":' * 100_000, "which is not JSON (RecursionError"),
    ("[" * 900 + "]" * 900, "nested too deeply; allowed: at most 50 levels"),
    ('{"epoch_chosen": 1' + "0" * 5000 + "}", "which is not JSON (ValueError: Exceeds the limit"),
    ("[]", "which is not the card of a run (it is a list)"),
    ("3", "which is not the card of a run (it is a int)"),
    ('"text"', "which is not the card of a run (it is a str)"),
    ("null", "which is not the card of a run (it is a NoneType)"),
]


@pytest.mark.parametrize(("text", "words"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_one_line(text, words, tmp_path):
    assert words in refused(tmp_path / "card.json", text)


@pytest.mark.parametrize("schema", [3, 0, -1, 1.0, "2", None, True, 10**400, [[]]])
def test_a_later_schema_is_one_line_that_names_the_file(schema, tmp_path):
    line = refused(tmp_path / "card.json", json.dumps({**content(), "schema": schema}))
    assert line.startswith(f"card is '{tmp_path / 'card.json'}', of schema ") and "; allowed: 1 to 2" in line


WRONG = [None, True, -1, 1e400, float("nan"), 10**400, "text", "x" * 100_000, [], [[]], {}, {"a": {"a": []}}]
NUMBERS = [None, True, -1, 1e400, float("nan"), 10**400, "text", [], {}]


def changed(names, value):
    """Returns a card with `value` at the place that the names lead to."""
    whole = content()
    *parents, last = names
    inner = whole
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return json.dumps(whole)


@pytest.mark.parametrize("name", [*card._FIELDS])
@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_any_value_of_a_field_is_read_or_refused_in_one_line(name, value, tmp_path):
    path = tmp_path / "card.json"
    path.write_text(changed([name], value))
    try:
        found = card.read(path, partial=True)
    except ValueError as error:
        assert "\n" not in str(error) and str(path) in str(error) and name in str(error)
        assert "allowed: " in str(error) and len(str(error)) < 1500
    else:
        found.facts, found.to_json()  # whatever was taken can be shown and written
        repr(found)


@pytest.mark.parametrize("name", [*card._RECIPE])
@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_any_value_of_the_recipe_is_read_or_refused_in_one_line(name, value, tmp_path):
    path = tmp_path / "card.json"
    path.write_text(changed(["recipe", name], value))
    try:
        found = card.read(path, partial=True)
    except ValueError as error:
        assert str(error).startswith(f"recipe.{name}") and f"in {path} is " in str(error) and "\n" not in str(error)
    else:
        found.facts, found.to_json(), getattr(found, name)


@pytest.mark.parametrize("value", NUMBERS, ids=range(len(NUMBERS)))
@pytest.mark.parametrize(
    "names",
    [
        ("recipe", "epsilon"),
        ("recipe", "seed"),
        ("recipe", "epochs"),
        ("epoch_chosen",),
        ("training_seconds",),
        ("measured", "clean", "accuracy"),
        ("measured", "clean", "images"),
        ("measured", "clean", "interval"),
        ("measured", "clean"),
        ("passes", "training"),
    ],
    ids=".".join,
)
def test_what_is_no_number_is_refused_by_its_field(names, value, tmp_path):
    line = refused(tmp_path / "card.json", changed(names, value))
    assert line.startswith(f"{'.'.join(names)}") and f"in {tmp_path / 'card.json'} is " in line


def test_what_is_no_file_is_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "missing", tmp_path / ("x" * 5000), pathlib.Path("/dev/zero")):
        with pytest.raises(ValueError, match="^card is '.*which (is not a file|cannot be read)") as error:
            card.read(path)
        assert len(str(error.value)) < 1000
    (tmp_path / "card.json").symlink_to("card.json")
    with pytest.raises(ValueError, match="which is not a file"):
        card.beside(tmp_path / "network.keras")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_input, "MOST_BYTES", 10)
    assert "which is too large" in refused(tmp_path / "card.json", json.dumps(content()))


def test_a_value_that_is_there_twice_is_named(tmp_path):
    words = "which has 'epsilon' twice; allowed: each name once"
    assert words in refused(tmp_path / "card.json", '{"recipe": {"epsilon": 0.1, "norm": "l2", "epsilon": 0.2}}')


def test_a_name_as_long_as_a_book_is_cut(tmp_path):
    line = refused(tmp_path / "card.json", changed(["measured", "x" * 100_000], 3))
    assert line.startswith("measured.xxx")
    found = card.from_json({"recipe": {"defense": "x" * 10_000}, "command": "y" * 10_000}, "card.json", partial=True)
    assert {len(value) for value in found.facts.values()} == {card.MOST_TEXT}


def test_a_measure_more_is_one_of_the_card():
    attack = {"attack": "pgd", "steps": 40, "step_size": 1 / 3}
    assert runs.described(attack) == "pgd, steps 40, step_size 0.3333"
    before = card.read(ROOT / "results/mnist/nuat/card.json")
    found = before.with_measure("more", attack, card.Measured(0.5, (0, 1), 9))
    conditions = runs.conditions(found)
    assert conditions.measures["more"] == attack and conditions.images["more"] == 9
    assert conditions.threat == "mnist, L-infinity, epsilon 0.3"
    assert runs.Conditions.from_json(json.loads(json.dumps(conditions.to_json()))) == conditions
    assert "more" not in before.measures and "more" not in before.measured
