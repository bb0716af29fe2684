"""The pages of the documentation say what is so: names, commands, tables, what follows from code and results."""

import ast
import copy
import functools
import importlib
import inspect
import json
import pathlib
import re
import shlex

import pytest

from docs import render
from docs.render import code
from recipes import command, console
from sanity import verdict
from sanity.checks import CHECKS
from sanity.settings import Settings
from tf_nuat import DEFENSES, command_line

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [str(path.relative_to(ROOT)) for path in render.pages()]
POSITIONAL = ("docs.check_site", "pip", "pytest", "recipes.table")  # these take no flags, or are not ours

every_page = pytest.mark.parametrize("page", PAGES)


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


@every_page
def test_what_is_rendered_is_up_to_date(page):
    assert render.rendered(read(page)) == read(page), "run python -m docs.render"


def test_a_stale_region_is_rendered_anew_and_the_rest_is_not():
    stale = "before\n<!-- rendered: rule -->\nsomething else\n<!-- end -->\nafter"
    begin, *quoted, end, after = render.rendered(stale).removeprefix("before\n").splitlines()
    assert (begin, end, after) == ("<!-- rendered: rule -->", "<!-- end -->", "after")
    assert " ".join(line.removeprefix("> ") for line in quoted) == verdict.RULE


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", read(page))):
        path, _, place = target.partition("#")
        if not target.startswith("https://"):
            file = (ROOT / page).parent / path if path else ROOT / page
            assert file.exists(), target
            assert not place or place in places(file), target


def places(file):
    """Returns the names that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def written_commands(page):
    """Returns the lines of blocks of code, and pieces of code in the text, in which commands may stand."""
    text = read(page).replace("\\\n", " ")
    blocks = re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)
    for block in blocks:
        text = text.replace(block, "")
    lines = [line for block in blocks for line in block.splitlines()[1:-1]]
    lines += [line for line in text.splitlines() if line.startswith("    ")]
    return lines + [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", text)]


def calls(page):
    """Yields the module and the arguments of every `python -m ...` on a page."""
    for line in written_commands(page):
        for module, arguments in re.findall(r"python -m ([\w.]+)((?: [^|]*)?)", re.sub(r"\$\([^)]*\)", "VALUE", line)):
            if arguments.count("'") % 2:  # the last line of what a shell is given
                arguments = arguments.rstrip("'")
            yield module, shlex.split(arguments, comments=True)
        for arguments in re.findall(r"^ *tf-nuat (?!--)([^|]*)", line):
            module, rest = console.module_of(shlex.split(arguments, comments=True))
            yield module, [] if rest == ["..."] else rest


def flags_of(module):
    """Returns the flags of a command, not yet parsed."""
    if hasattr(module, "flag_values"):
        return module.flag_values()
    return command.flag_values(module.RECIPES) if hasattr(module, "RECIPES") else copy.deepcopy(module.FLAGS)


@every_page
def test_commands_exist_and_take_what_they_are_given(page):
    for name, arguments in calls(page):
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"{name}.__main__")
        if name in POSITIONAL or not arguments or arguments == ["--help"] or arguments == ["..."]:
            continue
        values = flags_of(module)
        command_line.parse(values, arguments, "")
        if hasattr(module, "RECIPES"):
            command.with_flags(module.RECIPES[values.defense], values)


@every_page
def test_no_two_commands_of_a_page_write_into_one_folder(page):
    """The second would refuse what the first has left there, or a third would take the one for the other."""
    modules = {}
    for module, arguments in calls(page):
        for folder in re.findall(r"--out[ =](\S+)", " ".join(arguments)):
            modules.setdefault(folder, set()).add(module)
    assert not {folder: each for folder, each in modules.items() if len(each) > 1}


def test_a_wrong_command_is_seen(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text("Run `python -m recipes.mnist --defence nuat`.\n")
    monkeypatch.setattr("tests.docs.pages_test.ROOT", tmp_path)
    with pytest.raises(ValueError, match="defence"):
        test_commands_exist_and_take_what_they_are_given("page.md")


@every_page
def test_targets_of_make_exist(page):
    targets = re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE)
    for line in written_commands(page):
        for target in re.findall(r"^make ([\w-]+)", line):
            assert target in targets, line


@every_page
def test_python_code_names_what_there_is(page):
    for block in [*code(page, "python"), "\n".join(code(page, "{code-cell}"))]:
        tree = ast.parse(block)
        names = {}
        imports = [each for each in tree.body if isinstance(each, (ast.Import, ast.ImportFrom))]
        exec(compile(ast.Module(imports, []), page, "exec"), names)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                resolved(node, names)
            if isinstance(node, ast.Call):
                takes(resolved(node.func, names), node)
                if resolved(node.func, names) is functools.partial:
                    takes(resolved(node.args[0], names), node)


def resolved(node, names):
    """Returns what a dotted name that begins with something imported stands for; None for any other expression."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


def takes(function, call):
    """Fails where `function`, if it is known, does not take the keywords of a call."""
    if inspect.isclass(function):
        function = function.__init__
    if callable(function) and function is not functools.partial:
        inspect.signature(function).bind_partial(**{each.arg: None for each in call.keywords if each.arg})


def test_every_defense_has_a_paragraph_an_equation_a_figure_and_a_source():
    page = read("docs/defenses.md")
    sections = re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE)
    explained = [name for heading, _ in sections for name in re.findall(r"`(\w+)`", heading)]
    assert sorted(explained) == sorted(DEFENSES)
    for heading, text in sections:
        paragraph, *rest = text.strip().split("\n\n")
        assert len(paragraph.split()) >= 10, heading
        assert text.count("$$") >= 2 and len(re.findall(r"^!\[.+\]\(.+\.png\)$", text, re.MULTILINE)) == 1, heading
        assert re.search(r"^Source: .*\d{4}", text, re.MULTILINE | re.DOTALL), heading


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_figures_are_made_by_commands_on_their_page(page):
    """The folder of a figure is the `--out` of a command, or that of a judgement whose command is on the page."""
    commands = [" ".join(["python", "-m", module, *arguments]) for module, arguments in calls(page)]
    for folder in {pathlib.Path(each).parent for each in re.findall(r"\]\(\.\./(results/.+\.png)\)", read(page))}:
        judged = ROOT / folder / "results.json"
        made_by = f"--out {folder}"
        if judged.is_file():
            made_by = json.loads(judged.read_text(encoding="utf-8"))["provenance"]["command"]
        assert any(command.endswith(made_by) for command in commands), folder


def test_the_table_of_checks_is_complete():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", read("docs/reports.md"), re.MULTILINE)
    assert [name for name, _ in rows] == list(CHECKS)


def test_the_table_of_verdicts_is_complete():
    text = read("docs/reports.md").split("| verdict |")[1].split("<!--")[0]
    verdicts = [row.split(" | ")[0] for row in re.findall(r"^\| (\w.*) \|$", text, re.MULTILINE)]
    named = ("ROBUST", "PARTLY", "NOT", "MASKED", "UNDECIDED", "NOT_JUDGED")
    assert verdicts == [getattr(verdict, name) for name in named]
    assert (Settings().alpha, Settings().detectable, Settings().confidence) == (0.01, 0.05, 0.95)  # as the page says
