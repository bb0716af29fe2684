"""The command that a card and a report name can be typed again."""

import contextlib
import importlib.machinery
import io
import re
import shlex
import sys
import types

import pytest
from absl import flags

from sanity import run
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


@pytest.mark.parametrize(
    ("typed", "meant"),
    {
        "~/my runs/a": "/home/me/my runs/a",
        "~": "/home/me",
        "a/~/b": "a/~/b",
        "~other/a": "~other/a",
        "https://a.org/~/b": "https://a.org/~/b",
    }.items(),
)
def test_the_home_folder_is_found_where_a_shell_leaves_its_sign(typed, meant, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for arguments in ([f"--out={typed}"], ["--out", typed]):
        values = flags.FlagValues()
        flags.DEFINE_string("out", None, "a folder", flag_values=values)
        command_line.parse(values, arguments, "usage")
        assert values.out == meant


@pytest.mark.parametrize(
    ("argument", "words"),
    {
        "--epsilon=8/255": "--epsilon is '8/255'; allowed: a number, as 0.03",
        "--epochs=ten": "--epochs is 'ten'; allowed: a whole number",
        "--trust=perhaps": "--trust is 'perhaps'; allowed: true or false",
        "--epsilom=0.1": "Unknown command line flag 'epsilom'. Did you mean: epsilon",
        "--epsilon": "Missing value for flag --epsilon",
        "epsilon": "'epsilon' is no flag; allowed: --epochs, --epsilon, --trust",
    }.items(),
)
def test_a_wrong_flag_says_what_may_be_in_its_place(argument, words):
    values = flags.FlagValues()
    flags.DEFINE_float("epsilon", None, "a radius", flag_values=values)
    flags.DEFINE_integer("epochs", None, "a number of epochs", flag_values=values)
    flags.DEFINE_bool("trust", False, "whether", flag_values=values)
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        command_line.parse(values, [argument], "")


@pytest.mark.parametrize("name, shown", [("\udcff", rb"\udcff"), ("é", b"\xc3\xa9")])  # a byte that is not UTF-8
@pytest.mark.parametrize("main", [command_line.main, lambda command: run.main([])])
def test_any_name_of_a_file_can_be_printed(main, name, shown, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8", write_through=True))

    def prints(arguments):
        print(name)
        return 0

    monkeypatch.setattr(run, "_judge", prints)
    with contextlib.suppress(SystemExit):
        assert main(prints) == 0
    assert written.getvalue() == shown + b"\n"
