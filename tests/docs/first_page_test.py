"""The README and the first page show the same code, and soon. `tests/package_test.py` runs it."""

import re

import pytest

from docs.render import code
from tests.docs.pages_test import read


def statements(page):
    """Returns the lines of a page's Python, without comments and imports."""
    lines = [re.sub(r"(^|\s+)#.*", "", line) for block in code(page, "python") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("import ")]


def test_both_first_pages_have_the_same_code():
    assert statements("docs/index.md") == statements("README.md")


@pytest.mark.parametrize("page, most", [("docs/index.md", 10), ("README.md", 20)])
def test_the_first_code_comes_soon(page, most):
    """The first page is short; of the README no more than a screen stands before its code."""
    lines = read(page).splitlines()
    if page == "docs/index.md":
        assert len(lines) <= 60
    assert lines.index("```python") < most
