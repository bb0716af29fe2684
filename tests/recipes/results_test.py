"""The tables in the documentation are those of the committed cards and reports."""

import json
import pathlib
import re

import pytest

from recipes import orderings, sat_tables, table
from sanity.figures import FIGURES
from tf_nuat import card

ROOT = pathlib.Path(__file__).parents[2]


def test_the_table_of_runs_is_rendered_from_the_cards():
    cards = sorted((ROOT / "results" / "mnist").glob("*/card.json"))
    assert len(cards) >= 3
    page = (ROOT / "results" / "mnist.md").read_text(encoding="utf-8")
    assert table.markdown([table.row(path) for path in cards]) in page


def test_the_table_of_the_first_page_is_a_part_of_it():
    """What a newcomer sees first is what the results say, the undefended network and the one that masks included."""
    page, results = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "results/mnist.md"))
    rows = re.findall(r"^\| \w+ \| lenet_plus .*$", page, re.MULTILINE)
    assert {row.split(" ")[1] for row in rows} >= {"standard", "fgsm_at", "pgd_at", "nuat"}
    for row in rows:
        assert row in results


def test_the_comparison_is_that_of_the_cards():
    cards = [card.read(path) for path in sorted((ROOT / "results" / "mnist").glob("*/card.json"))]
    rendered = table.markdown(list(map(table.cells_with_costs, cards)))
    assert rendered in (ROOT / "results" / "mnist" / "comparison" / "table.md").read_text(encoding="utf-8")


def test_the_estimates_on_the_page_of_cifar10_are_those_of_their_files():
    page = (ROOT / "results" / "cifar10.md").read_text(encoding="utf-8")
    estimate, sample = r"([\d.]+)(?: \[([\d.]+), ([\d.]+)\])?", r"[\d.]+(?: \[.*\])?"
    rows = re.findall(rf"^\| ([\w-]+) \| {estimate} \| {sample} \|$", page, re.MULTILINE)
    assert len(rows) == 11
    for name, *shown in rows:
        run = ROOT / "results" / "cifar10_small" / name.lower().replace("-", "_").replace("r_fgsm", "rfgsm")
        found = json.loads((run / "evaluation" / "autoattack" / "two_phase.json").read_text(encoding="utf-8"))
        expected = [f"{100 * each:.1f}" for each in (found["accuracy"], *found["interval"])]
        assert all(text in ("", value) for text, value in zip(shown, expected)), name
    name, accuracy, low, high = rows[0]
    assert f"**{name} leads with {accuracy} [{low}, {high}] %" in page


@pytest.mark.parametrize("page", sorted(ROOT.glob("results/**/orderings.md")))
def test_orderings_are_those_of_the_runs_beside(page):
    assert orderings.page(page.parent) == page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted(ROOT.glob("results/**/sat_tables.md")))
def test_tables_of_the_sat_paper_are_those_of_the_runs_beside(page):
    runs = [path.parent for path in page.parent.glob("*/sat_tables.json")]
    assert runs
    found = [(card.read(run / card.NAME), json.loads((run / "sat_tables.json").read_text("utf-8"))) for run in runs]
    assert sat_tables.render(found) == page.read_text(encoding="utf-8")


def judged_row(path):
    """Returns the row of the table of judgements of a `results.json`."""
    found = json.loads(path.read_text(encoding="utf-8"))
    failed = ", ".join(each["name"] for each in found["results"] if each["verdict"] == "fail") or "none"
    clean, robust = found["clean"], found["robust"]
    low, high = (f"{each:.1%}" for each in robust["interval"])
    return (
        f"| {path.parts[-4]} | {path.parts[-3]} | {found['verdict']} | {failed} | {clean['accuracy']:.1%} | "
        f"{robust['accuracy']:.1%} ({low} to {high}) | {robust['images']:,} |"
    )


def test_the_table_of_judgements_is_that_of_the_reports():
    folders = ("cifar10_small", "mnist", "mnist_nuat")
    reports = [path for each in folders for path in sorted((ROOT / "results" / each).glob("*/sanity/results.json"))]
    assert len(reports) >= 10
    page = (ROOT / "results" / "sanity.md").read_text(encoding="utf-8")
    assert "\n".join(map(judged_row, reports)) in page
    # Eight epochs of CIFAR-10 were too few for FGSM-AT to overfit.
    partly = ("fbf", "fgsm_at", "gat", "nuat", "nuat2_wa", "pgd_at", "rfgsm_at", "trades")
    others = {
        **{f"cifar10_small/{name}": "partly robust" for name in partly},
        "cifar10_small/standard": "not robust",
        "mnist/fgsm_at": "masked gradients suspected",
        "mnist/standard": "not robust",
    }
    for path in reports:
        verdict, network = json.loads(path.read_text(encoding="utf-8"))["verdict"], "/".join(path.parts[-4:-2])
        assert verdict == others.get(network, "genuinely robust"), path


def test_the_page_of_figures_says_what_their_files_do():
    page = " ".join((ROOT / "docs" / "figures.md").read_text(encoding="utf-8").split())
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "results/figures").glob("*.json")
    }
    assert list(found) and set(found) == set(FIGURES)
    for name, each in found.items():
        kind = FIGURES[name]
        assert each["caption"] == kind.caption(each["data"]) and each["caption"] in page, name
        assert f"![{kind.title}](../results/figures/{name}.png)" in page
        kind.draw(each["data"])  # the figure is made of what is committed


def test_the_results_name_no_place_of_the_machine_that_made_them():
    for path in (ROOT / "results").rglob("*.json"):
        assert not re.search(r'"[^"]*[ "=](/tmp|/home|/root|/work)/', path.read_text(encoding="utf-8")), path
