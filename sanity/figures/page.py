"""The files of the figures: a PNG and a JSON file for each, and a page that shows all that lie in the folder."""

import pathlib

from sanity.figures import FIGURES
from sanity.report import FIGURES_PAGE, figures, html
from tf_nuat.core import files, json_input
from tf_nuat.core.json_input import Field

_SHOWN = ("title", "caption", "command")


def _read(path):
    """Returns the texts in the file of a figure, after a check of their types."""
    checks = dict.fromkeys(_SHOWN, json_input.text)
    return json_input.fields(checks, json_input.load("figure", path), Field("", path), required=_SHOWN)


def write(name, data, command, folder):
    """Writes a figure, `NAME.png`, and its data, `NAME.json`, into `folder`, and returns the path of the figure."""
    kind, folder = FIGURES[name], pathlib.Path(folder)
    content = {"figure": name, "title": kind.title, "caption": kind.caption(data), "command": command, "data": data}
    path = folder / f"{name}.png"
    figures.save(kind.draw(data), path)
    files.save_json(content, folder / f"{name}.json", indent=None)
    return path


def write_page(folder, skipped=()):
    """Writes the page of all figures in `folder`, each with the command that made it, and returns its path.

    `skipped` are lines that say which figures could not be made.
    """
    folder, shown = pathlib.Path(folder), []
    for name in FIGURES:
        if (folder / f"{name}.json").is_file() and (folder / f"{name}.png").is_file():
            shown.append({"figure": name, **_read(folder / f"{name}.json")})
    report = "report.html" if (folder / "report.html").is_file() else None
    page = html.rendered(pathlib.Path(__file__).with_name("template.html"), shown=shown, skipped=skipped, report=report)
    files.save_text(page, folder / FIGURES_PAGE)
    return folder / FIGURES_PAGE
