"""HTML pages from templates."""

import pathlib

import jinja2


def rendered(template, /, **values):
    """Returns the page that a Jinja template file gives for `values`; their text is escaped.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    return environment.from_string(pathlib.Path(template).read_text(encoding="utf-8")).render(values)
