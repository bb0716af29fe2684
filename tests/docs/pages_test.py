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
import sys

import pytest

from docs import render
from docs.render import code
from recipes import command, compare, console, custom, phase_transition, race
from sanity import verdict
from sanity.checks import CHECKS
from sanity.judgement import checked_names
from sanity.settings import Settings
from tf_nuat import DEFENSES, command_line
from tf_nuat.evaluate.__main__ import with_options
from tf_nuat.evaluate.worst import stages

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [str(path.relative_to(ROOT)) for path in render.pages()]
# Files of code whose docstring shows commands. That of `recipes.console` has a test of its own.
HELPS = [
    str(path.relative_to(ROOT))
    for package in ("benchmarks", "docs", "recipes", "sanity", "tf_nuat")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "console.py" and "python -m" in (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
]
# These take no absl flags, or are not ours.
OTHERS = ("benchmarks.peers_attacks", "docs.check_site", "pip", "pytest", "recipes.table")

every_page = pytest.mark.parametrize("page", PAGES)


def read(page):
    """Returns the text of a page or, for a file of code, the docstring that its command shows as help."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)) if page.endswith(".py") else text


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
        for module, arguments in re.findall(r"python -m ([\w.]+)((?: [^|>]*)?)", re.sub(r"\$\([^)]*\)", "VALUE", line)):
            if "DATASET" in module:
                continue
            if arguments.count("'") % 2:  # the last line of what a shell is given
                arguments = arguments.rstrip("'")
            yield module, shlex.split(arguments, comments=True)
        for arguments in re.findall(r"^ *tf-nuat (?!--|train$)([^|]*)", line):
            module, rest = console.module_of(shlex.split(arguments, comments=True))
            yield module, [] if rest == ["..."] else rest


def flags_of(module):
    """Returns the flags of a command, not yet parsed."""
    if hasattr(module, "flag_values"):
        return module.flag_values()
    return command.flag_values(module.RECIPES) if hasattr(module, "RECIPES") else copy.deepcopy(module.FLAGS)


def _evaluated(values):
    chosen = with_options(values.attack, dict(map(command_line.option, values.options)))
    stages(chosen, num_classes=10, norm=values.norm or "linf")


# What a command checks of its flags before any work, by its module.
CHECKED = {
    "recipes.compare": compare._recipes,
    "recipes.custom": custom.recipe_of,
    "recipes.phase_transition": lambda values: values.simulation or phase_transition.described(values),
    "recipes.race": race._recipes,
    "sanity.run": lambda values: checked_names(values.checks, "--checks"),
    "tf_nuat.evaluate": _evaluated,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a reader, who has made what the pages speak of."""
    (tmp_path / "my_module.py").write_text("def build(input_shape, num_classes): ...\n\n\ndef splits(): ...\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "runs" / "pretrained").mkdir(parents=True)
    for name in ("images.npz", "bytes.keras", "network.keras", "runs/pretrained/network.keras"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)  # that of another test
    yield tmp_path
    sys.modules.pop("my_module", None)


@pytest.mark.parametrize("page", [*PAGES, *HELPS])
def test_commands_exist_and_take_what_they_are_given(page, folder):
    for name, arguments in calls(page):
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"{name}.__main__")
        if name in OTHERS or not arguments or arguments == ["--help"] or arguments == ["..."]:
            continue
        values = flags_of(module)
        command_line.parse(values, arguments, "")
        if hasattr(module, "RECIPES"):
            command.with_flags(module.RECIPES[values.defense], values)
        CHECKED.get(name, lambda values: None)(values)


@pytest.mark.parametrize("page", [*PAGES, *HELPS])
def test_no_two_commands_of_a_page_write_into_one_folder(page):
    """The second would refuse what the first has left there, or a third would take the one for the other."""
    modules = {}
    for module, arguments in calls(page):
        for folder in re.findall(r"--out[ =](\S+)", " ".join(arguments)):
            modules.setdefault(folder, set()).add(module)
    assert not {folder: each for folder, each in modules.items() if len(each) > 1}


@pytest.mark.parametrize(
    "written, words",
    [
        ("recipes.mnist --defence nuat", "defence"),
        ("recipes.custom --data images --network my_module:built --epsilon 0.1", "network is 'my_module:built'"),
        ("recipes.race --dataset digits --minutes 1 --defenses nuat,magic", "defenses is 'magic'"),
        ("tf_nuat.evaluate --checkpoint network.keras --attack pgd --options queries=5", "options is 'queries'"),
    ],
)
def test_a_wrong_command_is_seen(written, words, folder, monkeypatch):
    (folder / "page.md").write_text(f"Run `python -m {written}`.\n")
    monkeypatch.setattr("tests.docs.pages_test.ROOT", folder)
    with pytest.raises(ValueError, match=words):
        test_commands_exist_and_take_what_they_are_given("page.md", folder)


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
