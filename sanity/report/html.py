"""HTML pages from templates."""

import pathlib
import re

import jinja2

_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # these characters reverse what stands after them


def in_order(text):
    """Returns text in which no character reorders what stands after it in the line, a number for instance."""
    return _REORDERING.sub("\ufffd", text)


def rendered(template, /, **values):
    """Returns the page that a Jinja template file gives for `values`; their text is escaped and `in_order`.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: in_order(value) if isinstance(value, str) else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    return environment.from_string(pathlib.Path(template).read_text(encoding="utf-8")).render(values)
