"""What a stranger gets: the wheel, the source distribution, the page of the index, the one command."""

import ast
import email
import pathlib
import re
import sys
import tarfile
import zipfile

import pytest

import tf_nuat
from docs import check_package
from recipes import console
from tests.helpers.shortened import shortened

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("recipes", "sanity", "tf_nuat")
# Where the name of a distribution is not that of its module.
DISTRIBUTIONS = {
    "absl": "absl-py",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}


# What takes long in the README, and what stands for it here.
SHORTER = {
    "epochs=10": "epochs=5",
    '"autoattack"': '"fgsm"',
    "progress=False": 'progress=False, checks=["network_is_deterministic"]',
}
SEEDED = "import keras; keras.utils.set_random_seed(0)\n"  # some initial weights take longer


@pytest.fixture(scope="module")
def built(distributions):
    """The names in the source distribution, and in the wheel, with what they hold."""
    sdist, wheel = distributions
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name: archive.read(name) for name in archive.namelist()}
    return in_sdist, in_wheel


def test_the_index_takes_both_distributions(distributions):
    assert check_package.check(distributions[0].parent).count("PASSED") == 2


def test_the_installed_package_does_what_the_readme_shows(as_installed, tmp_path):
    (page, help_), (readme, (*python, code)), *_ = check_package.shown()
    assert (page, readme) == ("docs/usage.md", "README.md")
    assert "tf-nuat judge" in as_installed(help_, tmp_path)
    code = shortened(code, SHORTER)
    where = f"import {', '.join(PACKAGES)}; print({', '.join(f'{name}.__file__' for name in PACKAGES)}, sep='\\n')\n"
    printed = as_installed([*python, SEEDED + code + where], tmp_path)
    assert re.search(r"^clean \d+\.\d%, under AutoAttack \d+\.\d%$", printed, re.MULTILINE)
    assert " images withstand one attack within " in printed
    assert printed.splitlines()[-3:] == [str(as_installed.place / name / "__init__.py") for name in PACKAGES]


def test_the_source_distribution_has_every_file_of_the_repository(built, tracked):
    assert {str(path) for path in tracked if path.name != ".gitignore"} - built[0] == set()


def test_the_wheel_has_the_packages_whole_and_nothing_else(built, tracked):
    expected = {str(path) for path in tracked if path.parts[0] in PACKAGES}
    assert {name for name in built[1] if ".dist-info/" not in name} == expected
    entry_points = next(text for name, text in built[1].items() if name.endswith("entry_points.txt"))
    assert "tf-nuat = recipes.console:main" in entry_points.decode()


def test_the_page_of_the_index_links_nothing_that_is_elsewhere(built):
    content = next(text for name, text in built[1].items() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(content)
    page = metadata.get_payload()
    assert re.findall(r"\]\((?!https?://)[^)]*\)", page) == [] and "<!--" not in page
    assert "your own network" in page and "![" not in page
    assert metadata["Author"] == "the tf_nuat maintainers" and len(metadata.get_all("Classifier")) > 5


def test_versions_agree():
    version = tf_nuat.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_what_is_imported_is_declared():
    """Another package may bring it today, and not tomorrow."""
    declared = set(re.findall(r'^ {8}"([\w.-]+)[><=]', (ROOT / "setup.py").read_text(), re.MULTILINE))
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                if isinstance(node, ast.ImportFrom):
                    found.add(node.module.partition(".")[0])
    others = found - set(sys.stdlib_module_names) - set(PACKAGES)
    assert {DISTRIBUTIONS.get(name, name) for name in others} <= declared


def test_the_command_runs_what_python_m_runs(monkeypatch, capsys):
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.py") if "command.main(RECIPES" in path.read_text()}
    assert set(console.TRAINING) == {*recipes, "custom"}
    monkeypatch.setattr(sys, "argv", ["tf-nuat", "evaluate", "--epsilom=0.1"])
    with pytest.raises(SystemExit, match="2"):
        console.main()
    assert re.fullmatch(r"error: .*epsilom.*\n", capsys.readouterr().err)
    assert console.module_of(["train", "mnist", "--seed=1"]) == ("recipes.mnist", ["--seed=1"])


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["trian"], "command is 'trian'; allowed: train, evaluate, judge"),
        (["train"], "dataset of train is not given; allowed: digits"),
        (["train", "--defense=nuat"], "dataset of train is '--defense=nuat'; allowed: digits"),
    ],
)
def test_a_wrong_command_is_a_line(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tf-nuat", *arguments])
    with pytest.raises(SystemExit, match="2"):
        console.main()
    assert capsys.readouterr().err.startswith(f"error: {words}")


def test_the_command_says_what_it_does(monkeypatch, capsys):
    for arguments in ["--help"], ["train", "--help"], ["train", "-h"]:
        monkeypatch.setattr(sys, "argv", ["tf-nuat", *arguments])
        console.main()
        shown = capsys.readouterr().out
        assert all(f"tf-nuat {name} " in shown for name in ("train", *console.MODULES))
    monkeypatch.setattr(sys, "argv", ["tf-nuat", "--version"])
    console.main()
    assert capsys.readouterr().out == f"{tf_nuat.__version__}\n"
