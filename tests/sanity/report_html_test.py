"""Pages from templates: what others wrote is text there, and moves nothing else."""

import pathlib
import re

import jinja2
import pytest

from sanity import report
from sanity.report import html

SANITY = pathlib.Path(report.__file__).parents[1]


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "template.html"
    path.write_text("<p>{{ name }}, epsilon {{ epsilon }}, {{ share|percent }}</p>")
    return path


def test_a_name_does_not_reverse_the_numbers_after_it(template):
    """A browser would show what follows U+202E from right to left: 0.02 as 20.0."""
    page = html.rendered(template, name="\u202enet\u2066 & \u05d0", epsilon=0.02, share=0.5)
    assert page == "<p>\ufffdnet\ufffd &amp; \u05d0, epsilon 0.02, 50.0%</p>"


def test_a_value_that_is_not_given_is_an_error(template):
    with pytest.raises(jinja2.UndefinedError, match="'name' is undefined"):
        html.rendered(template, epsilon=0.02, share=0.5)


@pytest.mark.parametrize("page", ["report/template.html", "figures/template.html"])
def test_a_command_is_shown_with_all_its_spaces(page):
    """Copied from the page, a path with two spaces in a row must still be that path."""
    style = re.search(r"^  code \{(.*)\}$", (SANITY / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert "white-space: pre-wrap" in style[1]
