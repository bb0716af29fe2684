"""The report of a judgement: `report.html`, `results.json`, `card.md`, `junit.xml`, a figure per check, and pictures.

The package renders, and computes nothing.
"""

import base64
import functools
import json
import pathlib

from sanity import verdict
from sanity.checks import CHECKS
from sanity.judgement import Judgement
from sanity.report import figures, html, pictures
from sanity.report.junit import junit
from sanity.report.model_card import model_card
from sanity.result import Verdict
from tf_nuat.core import files
from tf_nuat.evaluate import wilson

__all__ = ["bars", "write"]

PAGE = "report.html"
RESULTS = "results.json"
FIGURES_PAGE = "figures.html"  # written by `sanity.figures`; linked if it is in the folder
EXAMPLES = "examples"  # the name of the pictures of adversaries; other figures have the names of checks
CARD = "card.md"
# The labels of a check's verdict, with marks that can be read without colour.
WORDS = {
    Verdict.PASS: "✓ no sign",
    Verdict.FAIL: "✗ sign of masking",
    Verdict.INCONCLUSIVE: "? undecided",
    Verdict.SKIPPED: "– left out",
    Verdict.REPORTED: "• reported",
}
MOST_BARS = 14  # attacks in the first chart, the strongest
# Colours of the two answers.
ROBUSTNESS = {verdict.ROBUST: "good", verdict.PARTLY: "fair", verdict.NOT: "bad"}
TRUST = {verdict.NOT_SEEN: "good", verdict.UNSURE: "fair", verdict.SUSPECTED: "bad"}


def write(judgement: Judgement, folder: files.PathLike) -> tuple[list[pathlib.Path], list[str]]:
    """Writes the report of `judgement` into `folder`, which exists; returns (paths that were written, error messages).

    Every file is written as a whole or not at all. A file that cannot be drawn or written adds an error message, and
    the others are still written. `results.json` comes first. Figures of an earlier report that this one does not have
    are removed; nothing else in the folder is touched.

    Example:
        >>> written, troubles = write(judgement, ".")
        >>> [path.name for path in written if path.suffix != ".png"]
        ['results.json', 'card.md', 'junit.xml', 'report.html']
    """
    folder, troubles = pathlib.Path(folder), []
    drawn = {}
    for name, draw in _figures(judgement).items():
        try:
            drawn[name] = draw()
        except Exception as error:  # whatever a drawing raises, the report must be written
            reason = files.in_one_line(str(error))
            troubles.append(f"{name}.png cannot be drawn ({type(error).__name__}: {reason})")
    page = render(judgement, drawn, FIGURES_PAGE if (folder / FIGURES_PAGE).is_file() else None)
    results = json.dumps(judgement.to_json(), indent=2, allow_nan=False) + "\n"
    texts = {RESULTS: results, CARD: model_card(judgement), "junit.xml": junit(judgement), PAGE: page}
    content = {name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}
    content |= {f"{name}.png": image for name, image in drawn.items()}
    written = []
    for name, part in content.items():
        try:
            files.save_bytes(part, folder / name)
            written.append(folder / name)
        except files.NotSavedError as error:
            troubles.append(str(error))
    for name in {*CHECKS, EXAMPLES} - drawn.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)
    return written, troubles


def _figures(judgement):
    """Returns a dict of the names of the figures to functions that draw them and return PNG bytes."""
    confidence, examples = judgement.settings.confidence, judgement.examples
    draw = {
        result.name: functools.partial(figures.png, result, confidence=confidence)
        for result in judgement.results
        if result.series is not None
    }
    if examples:
        draw[EXAMPLES] = functools.partial(pictures.png, examples, judgement.provenance.get("class_names", ()))
    return draw


def render(judgement, drawn, figures_page=None):
    """Returns the page as self-contained HTML.

    The figures `drawn`, a dict of the names of checks and `EXAMPLES` to PNG bytes, are embedded. `figures_page`, the
    name of a page in the same folder, is linked.
    """
    return html.rendered(
        pathlib.Path(__file__).with_name("template.html"),
        judgement=judgement,
        figures_page=figures_page,
        figures={name: base64.b64encode(image).decode("ascii") for name, image in drawn.items()},
        words={each.value: word for each, word in WORDS.items()},
        tones=tones(judgement),
        bars=bars(judgement),
    )


def tones(judgement):
    """Returns the colours of both answers: what may be overrated is never green."""
    robustness, trust = ROBUSTNESS[judgement.robustness], TRUST[judgement.masking]
    may_be_overrated = robustness == "good" and judgement.is_upper_limit
    return {"robustness": "fair" if may_be_overrated else robustness, "trust": trust}


def bars(judgement: Judgement) -> list[tuple[str, float, float, float]]:
    """Returns the bars of the first chart, all of the same images, from high to low: (label, accuracy, low, high).

    The first bar is without attack, and the last is the worst case. Between them are the `MOST_BARS` strongest attacks
    with the epsilon of the judgement and the number of answers of the worst case. Attacks that were only run on a part
    of the images have no bar.

    Example:
        >>> [label for label, *_ in bars(judgement)]
        ['no attack', 'FGSM', 'I-FGSM, 40 steps', 'PGD, 40 steps', 'worst of all attacks']
    """
    robust, confidence = judgement.robust, judgement.settings.confidence
    left = {
        each["label"]: each["left"]
        for each in judgement.evaluations
        if each["compared"]
        and each["settings"].get("epsilon") == judgement.subject["epsilon"]
        and each["answers"] == robust.answers
    }
    chosen = dict(sorted(left.items(), key=lambda each: each[1])[:MOST_BARS][::-1])
    shown = {"no attack": judgement.clean.accuracy, **chosen, "worst of all attacks": robust.accuracy}
    return [
        (label, share, *wilson(round(share * robust.images), robust.images, confidence=confidence))
        for label, share in shown.items()
    ]
