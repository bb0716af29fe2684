"""The report of a judgement: `report.html`, `results.json`, `junit.xml`, a figure per check, pictures of adversaries.

It renders, and computes nothing.
"""

import base64
import json
import os
import pathlib
import tempfile

from sanity.checks import CHECKS
from sanity.report import figures, html, pictures
from sanity.report.junit import junit
from sanity.result import Verdict

FIGURES_PAGE = "figures.html"  # what `sanity.figures` writes, linked where it lies in the folder
EXAMPLES = "examples"  # the name of their pictures, beside the names of the checks
MARKS = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.INCONCLUSIVE: "?", Verdict.SKIPPED: "–"}  # read without colour


def write(judgement, folder):
    """Writes the report of `judgement` into `folder`, which exists, and returns the path of `report.html`.

    Every file appears whole: it is written beside and then moved to its place, `results.json` last. Figures of an
    earlier report are removed where this one has none of that name; nothing else in the folder is touched.
    """
    folder = pathlib.Path(folder)
    drawn = {
        result.name: figures.png(result, confidence=judgement.settings.confidence)
        for result in judgement.results
        if result.series is not None
    }
    examples = judgement.examples
    if examples:
        drawn[EXAMPLES] = pictures.png(examples, judgement.provenance.get("class_names", ()))
    page = render(judgement, drawn, FIGURES_PAGE if (folder / FIGURES_PAGE).is_file() else None)
    results = json.dumps(judgement.to_json(), indent=2, allow_nan=False) + "\n"
    files = {f"{name}.png": image for name, image in drawn.items()}
    texts = {"report.html": page, "junit.xml": junit(judgement), "results.json": results}
    files |= {name: text.encode("utf-8") for name, text in texts.items()}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        for name, content in files.items():
            (pathlib.Path(unfinished) / name).write_bytes(content)
        for name in files:
            os.replace(pathlib.Path(unfinished) / name, folder / name)
    for name in {*CHECKS, EXAMPLES} - drawn.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)
    return folder / "report.html"


def render(judgement, drawn, figures_page=None):
    """Returns the page, HTML in one piece.

    `drawn`, a dict of a check's name, or `EXAMPLES`, to its figure (PNG bytes), is embedded. `figures_page`, the name
    of a page beside it, is linked.
    """
    return html.rendered(
        pathlib.Path(__file__).with_name("template.html"),
        judgement=judgement,
        figures_page=figures_page,
        figures={name: base64.b64encode(image).decode("ascii") for name, image in drawn.items()},
        marks={verdict.value: mark for verdict, mark in MARKS.items()},
    )
