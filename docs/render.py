"""Writes what follows from code and from results into the pages.

    python -m docs.render

In README.md and in the pages of docs/ and results/, the lines from `<!-- rendered: KIND ARGUMENTS -->` to
`<!-- end -->` are made anew. A test fails where that would change anything.
"""

import functools
import inspect
import json
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable

import recipes.command
from recipes import leaderboard, table
from sanity import verdict
from sanity.checks import CHECKS
from tf_nuat import ATTACKS, DEFENSES, NETWORKS, card, command_line

ROOT = pathlib.Path(__file__).resolve().parents[1]
REGION = re.compile(r"(<!-- rendered: (\w+)([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
filled = functools.partial(textwrap.fill, width=120, break_long_words=False, break_on_hyphens=False)


def pages():
    """Returns the paths of all pages."""
    others = ("leaderboard.md", "card.md")  # what commands write as a whole
    results = [path for path in sorted((ROOT / "results").rglob("*.md")) if path.name not in others]
    first = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*first, *results, *sorted((ROOT / "docs").rglob("*.md"))]


def code(page, language):
    """Returns the blocks of code in a language that a page, a path within the repository, shows."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def rendered(text):
    """Returns the text of a page with what is rendered in it made anew."""

    def region(match):
        begin, kind, arguments, _, end = match.groups()
        return f"{begin}{KINDS[kind](*arguments.split())}\n{end}"

    return REGION.sub(region, text)


def cards(*names):
    """Returns the table of runs on MNIST, of the cards in `results/mnist/NAME`."""
    return table.markdown([table.row(ROOT / "results" / "mnist" / name / "card.json") for name in names])


def claims(*folders):
    """Returns the table of what the runs in `folders`, those of one recipe, found beside what is claimed."""
    return table.markdown(leaderboard.beside_claims([ROOT / folder / "card.json" for folder in folders]))


def summary(folder):
    """Returns what a recipe prints at its end, from the card in `folder`."""
    return _block(recipes.command.summary(card.read(ROOT / folder / card.NAME)))


def judged(folder):
    """Returns what a judgement in `folder` says, as `sanity.run` prints it."""
    found = json.loads((ROOT / folder / "results.json").read_text(encoding="utf-8"))
    return _quoted(f"{found['headline']} {found['accuracies']}")


def evaluated(folder):
    """Returns the robust accuracy of the evaluation in `folder`, as `tf_nuat.evaluate` prints it."""
    found = json.loads((ROOT / folder / "results.json").read_text(encoding="utf-8"))
    left = [f"{each['name']:>10}: {each['accuracy']:.2%} left" for each in found["stages"]]
    return _block("\n".join(left))


def rule():
    """Returns the rule of the verdict, as a quotation."""
    return _quoted(verdict.RULE)


def checks():
    """Returns a section for each check: what it asks, what it does, and where it comes from."""
    sections = []
    for name, check in CHECKS.items():
        module = sys.modules[check.__module__]
        said = f"*{_first(module)}* {_first(check)} Source: {module.REFERENCE}."
        sections.append(f"### `{name}`\n\n{filled(said)}")
    return "\n\n".join(sections)


def table_of(registry, prefix):
    """Returns a table of what `registry`, a dict of name to object, holds: name, object, and what its docstring says.

    Of a class with averages the first line names the class that it averages.
    """
    lines = ["| name | in Python | what it does |", "| --- | --- | --- |"]
    for name, each in registry.items():
        does = _first(each).replace("|", "\\|")
        lines.append(f"| `{name}` | `{prefix}{each.__name__}` | {does} |")
    return "\n".join(lines)


def _first(documented):
    """Returns the first paragraph of a docstring as one line."""
    return " ".join(inspect.cleandoc(documented.__doc__).split("\n\n")[0].split())


def _quoted(text):
    return filled(text, initial_indent="> ", subsequent_indent="> ")


def _block(text):
    return f"```text\n{text}\n```"


KINDS: dict[str, Callable] = {
    "attacks": lambda: table_of(ATTACKS, "tf_nuat.attacks."),
    "cards": cards,
    "checks": checks,
    "claims": claims,
    "defenses": lambda: table_of(DEFENSES, "tf_nuat."),
    "evaluated": evaluated,
    "judged": judged,
    "networks": lambda: table_of(NETWORKS, "tf_nuat.networks."),
    "rule": rule,
    "summary": summary,
}


def main(arguments):
    """Renders all pages; returns the exit status."""
    if arguments:
        raise ValueError(f"{arguments[0]!r} is given; allowed: nothing")
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if rendered(text) != text:
            path.write_text(rendered(text), encoding="utf-8")
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    command_line.main(main)
