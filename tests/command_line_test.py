"""The command that a card and a report name can be typed again."""

import importlib.machinery
import shlex
import sys
import types

import pytest

from tf_nuat import command_line

GIVEN = ["--out", "my runs/a", "--source=eight epochs, in place of 30", "--epsilon", "8/255"]


@pytest.mark.parametrize(
    ("module", "program"),
    {
        "recipes.mnist": ["python", "-m", "recipes.mnist"],
        "sanity.figures.__main__": ["python", "-m", "sanity.figures"],  # a package, as Python names it
        None: ["python", "train.py"],  # a script of somebody's own
    }.items(),
    ids=str,
)
def test_the_command_of_a_process_is_as_one_types_it(module, program, monkeypatch):
    main = types.ModuleType("__main__")
    main.__spec__ = importlib.machinery.ModuleSpec(module, None) if module else None
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["somewhere/train.py", *GIVEN])
    assert shlex.split(command_line.of_this_process()) == [*program, *GIVEN]
    if module:
        assert command_line.typed(program[-1], GIVEN) == command_line.of_this_process()


@pytest.mark.parametrize(
    ("text", "value"),
    {"3": 3, "0.5": 0.5, "false": False, "False": False, "True": True, "[1, 2]": [1, 2], "ce": "ce"}.items(),
)
def test_the_value_of_an_option_is_json_or_a_truth_value_of_python_or_text(text, value):
    name, found = command_line.option(f"name={text}")
    assert name == "name" and found == value and type(found) is type(value)
