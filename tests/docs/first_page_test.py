"""The code of the README and of the first page runs as it stands, but for what takes long, and is the same."""

import re

import keras
import pytest

from tests.docs.pages_test import code, read

SHORTER = {
    "epochs=10": "epochs=5",
    '"autoattack"': '"fgsm"',
    "progress=False": 'progress=False, checks=["network_is_deterministic"]',
}


def statements(page):
    """Returns the lines of a page's Python, without comments and imports."""
    lines = [re.sub(r"\s+#.*", "", line) for block in code(page, "python") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("import ")]


def test_the_code_of_the_first_pages_runs(capsys):
    text = "\n".join(code("README.md", "python"))
    for long, short in SHORTER.items():
        assert text.count(long) == 1, long
        text = text.replace(long, short)
    keras.utils.set_random_seed(0)  # some initial weights take longer
    exec(compile(text, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"^clean \d+\.\d%, under AutoAttack \d+\.\d%$", printed, re.MULTILINE)
    assert " images withstand the worst of " in printed


def test_both_first_pages_have_the_same_code():
    assert statements("docs/index.md") == statements("README.md")


@pytest.mark.parametrize("page, most", [("docs/index.md", 10), ("README.md", 20)])
def test_the_first_code_comes_soon(page, most):
    """The first page is short; of the README no more than a screen stands before its code."""
    lines = read(page).splitlines()
    shown = lines[: lines.index("```{toctree}")] if "```{toctree}" in lines else lines
    if page == "docs/index.md":
        assert len(shown) <= 60
    assert lines.index("```python") < most
