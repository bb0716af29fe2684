"""The site builds without a warning, has no dead link, and every public name is in its reference."""

import importlib
import inspect
import os
import pathlib
import re
import subprocess
import sys
import types
import zlib

import pytest

import sanity
import tf_nuat
from docs import check_site

# Sphinx warns of what its extensions still use.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
ROOT = pathlib.Path(__file__).parents[2]
MODULES = [sanity, *(each for each in map(tf_nuat.__dict__.get, tf_nuat.__all__) if isinstance(each, types.ModuleType))]
# Those of docs/conf.py without `viewcode`, which makes a page for each file of code. `notebook_test` runs the notebook.
SHORTER = (
    "extensions=myst_nb,sphinx.ext.autodoc,sphinx.ext.napoleon,sphinx_copybutton",
    "nb_execution_mode=off",
    "suppress_warnings=myst-nb.lexer",  # the language of cells is known from their run
)
WHAT = re.search(r"-m sphinx (.*) \$\(SPHINXOPTS\) \. \$\(SITE\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Returns the folder of the site, built as `make docs` does, with the settings `SHORTER`."""
    build = pytest.importorskip("sphinx.cmd.build", reason="Sphinx is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for name, attack in tf_nuat.ATTACKS.items():  # which docs/conf.py replaces by functions
            patch.setattr(tf_nuat.attacks, name, attack)
        assert build.main([*WHAT.split(), *(f"-D{each}" for each in SHORTER), ".", str(folder)]) == 0
    return folder


def test_no_link_of_the_site_is_dead(site):
    assert not check_site.dead_links(site)


def test_the_first_page_leads_to_every_other(site):
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    start = (site / "docs" / "index.html").read_text(encoding="utf-8")
    for page in ("docs/tutorial", "docs/defenses", "docs/reports", "docs/extending", "docs/figures", "results/README"):
        assert f"{page}.html" in pages and f"{page.removeprefix('docs/')}.html" in start
    assert 'href="docs/index.html"' in (site / "index.html").read_text(encoding="utf-8")


def documented(site):
    """Returns the objects that the reference documents, from the inventory of the site."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    entries = [line.split() for line in zlib.decompress(content).decode().splitlines()]
    kinds = ("py:module", "py:class", "py:function", "py:data", "py:exception")
    names = [
        name for name, kind, priority, *_ in entries if kind in kinds and priority != "-1"
    ]  # -1: another name of it
    return {name: found(name) for name in names}


def found(name):
    """Returns the object of a dotted name; a function goes before the module that bears its name."""
    value = importlib.import_module(name.split(".")[0])
    for part in name.split(".")[1:]:
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(f"{value.__name__}.{part}")
    return value


def public(module):
    """Returns the public names of a module: `__all__` or, without it, the functions and classes that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, each in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(each) or inspect.isfunction(each))
        and each.__module__ == module.__name__
    ]


@pytest.mark.parametrize("module", [tf_nuat, *MODULES], ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(site, module):
    there = list(documented(site).values())
    assert public(module)
    for name in public(module):
        assert any(getattr(module, name) is each for each in there), f"{module.__name__}.{name}"


def test_every_check_is_in_the_reference(site):
    there = documented(site)
    for name in sanity.checks.CHECKS:
        assert f"sanity.checks.{name}" in there


def test_dead_links_are_found(tmp_path):
    (tmp_path / "to").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="here">x</h1><a href="#here"><a href="to/page.html#there"><a href="https://example.org/x"><a href="to">'
        '<a href="#gone"><a href="to/page.html#gone"><a href="none.html"><img src="none.png"><a href="../out.html">'
    )
    (tmp_path / "to" / "index.html").write_text("")
    (tmp_path / "to" / "page.html").write_text('<p id="there"><a href="../index.html">')
    (tmp_path.parent / "out.html").write_text("")
    gone = ["#gone", "to/page.html#gone", "none.html", "none.png", "../out.html"]
    assert check_site.dead_links(tmp_path) == [("index.html", link) for link in gone]
    assert check_site.main([str(tmp_path)]) == 1
    with pytest.raises(ValueError, match="has no pages"):
        check_site.dead_links(tmp_path / "nothing")


def test_make_builds_the_site_and_runs_the_notebook(tmp_path):
    # The interpreter of the tests has what the documentation needs: nothing is installed.
    variables = [f"SITE={tmp_path / 'site'}", f"PYTHON={sys.executable}", "INSTALLED="]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # the notebook runs in another folder
    done = subprocess.run(
        ["make", "docs", *variables], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site/docs/notebook.html").read_text().count("<img") == 3
