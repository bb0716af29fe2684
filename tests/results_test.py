"""The tables in the documentation are those of the committed cards, and its commands and files exist."""

import pathlib
import re

import pytest

from recipes import table

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "results/README.md"])
def test_tables_are_rendered_from_the_cards(page):
    cards = sorted((ROOT / "results" / "mnist").glob("*/card.json"))
    assert len(cards) >= 3
    assert table.markdown([table.row(card) for card in cards]) in (ROOT / page).read_text(encoding="utf-8")


def test_the_comparison_is_that_of_the_cards():
    cards = [table.read(card) for card in sorted((ROOT / "results" / "mnist").glob("*/card.json"))]
    rendered = table.markdown(list(map(table.cells_with_costs, cards)))
    assert rendered in (ROOT / "results" / "mnist" / "comparison" / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "results/README.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_results_name_no_place_of_the_machine_that_made_them():
    for path in (ROOT / "results").rglob("*.json"):
        assert not re.search(r'"[^"]*[ "=](/tmp|/home|/root|/work)/', path.read_text(encoding="utf-8")), path
