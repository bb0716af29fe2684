"""All runs on one page: what was measured beside what a paper claims, with intervals, and what it cost.

    python -m recipes.leaderboard --cards results --out results

Reads every card.json below the folder, with what `tf_nuat.evaluate` wrote beside it (see
`recipes.pages.evaluations`), and writes leaderboard.md and leaderboard.html, one file that needs no network; its
columns sort at a click. Runs of one recipe that differ in their seed alone share a row. Nothing is trained or measured.
"""

import os
import pathlib
import urllib.parse

import numpy as np
import scipy.stats
from absl import flags

from recipes import table
from recipes.pages import evaluations
from sanity.report import html
from tf_nuat import command_line, evaluate
from tf_nuat.core import validation
from tf_nuat.evaluate import runs

TITLE = "Leaderboard"
NOTE = (
    "Accuracies in percent on images of the test split, of the network of the epoch that was chosen on the validation "
    "split, or of the last epoch where the recipe says so. In brackets the 95 % Wilson interval. Of several seeds: the "
    "mean ± half of its 95 % interval over seeds (Student’s t); then all their images together, whose Wilson interval "
    "takes them for independent and knows nothing of how seeds differ. In parentheses what the paper claims: met if it "
    "is within the interval (of several seeds: that over seeds, or the mean of the seeds’ own), or missed or passed, "
    "and by how many points. Estimated: of all test images, from a sample (recipes.two_phase), in the worst case of "
    "the attacks on either; the second interval of several seeds is then the mean of their own. "
    "FBP: forward-backward passes per training image and epoch, of the attack alone, and of attack and training. "
    "Training seconds: all epochs, without validation, the mean of the seeds; machines may have been shared, so "
    "compare the passes first."
)


def flag_values():
    """Returns the flags of this command, not yet parsed."""
    values = flags.FlagValues()
    flags.DEFINE_string("cards", None, "folder with card.json files, at any depth; required", flag_values=values)
    flags.DEFINE_string("out", None, "folder for the pages; required", flag_values=values)
    return values


def main(arguments):
    """Writes the pages; returns the exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    command_line.require(
        values, cards="a folder with card.json files (--cards DIR)", out="a folder for the pages (--out DIR)"
    )
    rendered = pages(values.cards, values.out)
    out = validation.output_folder("out", values.out)
    for name, text in rendered.items():
        (out / name).write_text(text, encoding="utf-8")
    print("  ".join(str(out / name) for name in rendered))
    return 0


def pages(folder, out):
    """Returns the pages of the runs below `folder`, a dict of name to text; their links are for a page in `out`.

    Raises:
        ValueError: there is no card, or one cannot be read.
    """
    by_threat = {}
    for path in cards_below(folder):
        run, _ = evaluations.card_with(path)
        by_threat.setdefault(runs.conditions(run).threat, []).append((path, run))
    groups = [_group(threat, found, out) for threat, found in sorted(by_threat.items())]
    parts = [f"# {TITLE}", NOTE]
    for group in groups:
        rows = [{**row, "runs": " ".join(_link(name, to) for name, to in row["runs"])} for row in group["rows"]]
        parts += [
            f"## {table.escaped(group['title'])}",
            table.escaped(group["note"]),
            table.markdown(rows, links=["runs"]),
        ]
    page = html.rendered(pathlib.Path(__file__).with_suffix(".html"), title=TITLE, note=NOTE, groups=groups)
    return {"leaderboard.md": "\n\n".join(parts) + "\n", "leaderboard.html": page + "\n"}


def _link(name, to):
    name = table.escaped(name).replace("[", "\\[").replace("]", "\\]")
    return f"[{name}]({urllib.parse.quote(to)})"


def cards_below(folder):
    """Returns the paths of the cards below `folder`, but those of the source networks of another run.

    Raises:
        ValueError: there is none.
    """
    folder = pathlib.Path(folder)
    found = sorted(path for path in folder.rglob("card.json") if "sources" not in path.relative_to(folder).parts)
    if not found:
        raise ValueError(f"cards is {str(folder)!r}, which has no card.json; allowed: a folder with card.json files")
    return found


def _group(threat, found, out):
    """Returns "title", "note", "columns" and "rows" of the runs `found`, pairs (path, card), of one threat model."""
    counts, settings = {}, {}
    for _, run in found:
        for measure, outcome in _measured(run).items():
            counts.setdefault(measure, set()).add(outcome.images)
            settings.setdefault(measure[0], set()).add(measure[1])
    # Attacks of one name that differ between runs have a column each.
    titles = {(name, attack): name if len(settings[name]) == 1 else f"{name} ({attack})" for name, attack in counts}
    notes = []
    for (name, attack), images in counts.items():
        of = [f"{count:,} images" for count in images if len(images) == 1]
        notes.append(f"{titles[name, attack]}: {', '.join([*([attack] if attack else []), *of])}")
    sources = list(filter(None, dict.fromkeys(run.source for _, run in found)))
    rows = [_row(alike, titles, counts, out) for alike in _of_one_recipe(found)]
    rows.sort(key=lambda row: (row["defense"], row["network"], row["runs"]))
    note = f"{'; '.join(notes)}." + (f" Settings and claims: {'; '.join(sources)}." if sources else "")
    return {"title": threat, "note": note, "columns": table.columns(rows), "rows": rows}


def _measured(run):
    """Returns what a card measured, a dict of (name, the attack's settings as text) to `Measured`."""
    return {
        (name, runs.described(run.measures[name]) if name in run.measures else ""): outcome
        for name, outcome in run.measured.items()
    }


def _of_one_recipe(found):
    """Returns the runs as lists of those whose recipes differ in the seed alone, each seed once."""
    entries = []
    for path, run in found:
        recipe = {name: value for name, value in run.recipe.items() if name not in ("schema", "seed", "measures")}
        for known, alike in entries:
            if known == recipe and run.seed not in [each.seed for _, each in alike]:
                alike.append((path, run))
                break
        else:
            entries.append((recipe, [(path, run)]))
    return [sorted(alike, key=lambda each: each[1].seed) for _, alike in entries]


def _row(alike, titles, counts, out):
    """Returns the cells of the runs of one recipe; that of "runs" is a list of (name, link)."""
    cards = [run for _, run in alike]
    records, first = list(map(runs.record, cards)), cards[0]
    options = [f"{name} {value}" for name, value in first.network_options.items()]
    row = {"defense": first.defense, "network": ", ".join([first.network, *options])}
    for measure, title in titles.items():
        outcomes = [_measured(run)[measure] for run in cards if measure in _measured(run)]
        if not outcomes:
            continue
        remarks = [] if len(outcomes) == len(cards) else [f"{len(outcomes)} of {len(cards)} seeds"]
        if len(counts[measure]) > 1:
            remarks.append(f"{', '.join(sorted({str(outcome.images) for outcome in outcomes}))} images")
        row[title] = _cell(outcomes, first.claimed.get(measure[0]), remarks)
    row["chosen epoch"] = f"{', '.join(str(run.epoch_chosen) for run in cards)} of {first.epochs}"
    row |= table.costs({name: _mean([record[name] for record in records]) for name in table.COSTS})
    row["precision"] = first.precision
    row["seeds"] = ", ".join(str(run.seed) for run in cards)
    row["runs"] = [(path.parent.name, pathlib.Path(os.path.relpath(path, out)).as_posix()) for path, _ in alike]
    return row


def beside_claims(paths):
    """Returns rows of a table, one per measure: what the runs of the cards at `paths` found, beside what is claimed.

    The runs are those of one recipe. Several seeds have a column each, and are taken together as in the leaderboard.

    Raises:
        ValueError: a card cannot be read, or the runs differ in more than their seed.
    """
    found = [(path, evaluations.card_with(path)[0]) for path in paths]
    recipes = _of_one_recipe(found)
    if len(recipes) != 1 or len(recipes[0]) != len(found):
        raise ValueError(f"cards are {', '.join(map(str, paths))}; allowed: those of one recipe, each seed once")
    measures = {measure: {} for _, run in found for measure in _measured(run)}
    for _, run in recipes[0]:
        for measure, outcome in _measured(run).items():
            measures[measure][run.seed] = outcome
    rows = []
    for (name, _), outcomes in measures.items():
        images = sorted({outcome.images for outcome in outcomes.values()})
        row = {"measure": name, "test images": ", ".join(f"{count:,}" for count in images)}
        if len(found) > 1:
            for seed, outcome in outcomes.items():
                row[f"seed {seed}"] = table.percent(outcome.accuracy, outcome.interval)
        remarks = [] if len(outcomes) == len(found) else [f"{len(outcomes)} of {len(found)} seeds"]
        rows.append({**row, "measured": _cell(list(outcomes.values()), found[0][1].claimed.get(name), remarks)})
    return rows


def _mean(values):
    return None if None in values else float(np.mean(values))


def _cell(outcomes, claimed, remarks):
    """Returns what was measured, by one seed or several, beside what is claimed, as text."""
    accuracies = [outcome.accuracy for outcome in outcomes]
    mean = float(np.mean(accuracies))
    if len(outcomes) == 1:
        low, high = outcomes[0].interval
        text = table.percent(mean, (low, high))
    else:
        half = float(scipy.stats.t.ppf(0.975, len(outcomes) - 1) * scipy.stats.sem(accuracies))
        text = f"{100 * mean:.2f} ± {100 * half:.2f}"
        # Few seeds may agree by chance, and all are measured on the same images, which more seeds do not make more.
        own = np.mean([outcome.interval for outcome in outcomes], axis=0)
        low, high = min(mean - half, own[0]), max(mean + half, own[1])
        if any(outcome.estimated for outcome in outcomes):  # there are no images to count
            text += f", of a seed [{100 * own[0]:.2f}, {100 * own[1]:.2f}]"
        else:
            correct = sum(round(outcome.accuracy * outcome.images) for outcome in outcomes)
            total = sum(outcome.images for outcome in outcomes)
            text += f", pooled {table.percent(correct / total, evaluate.wilson(correct, total))}"
    if claimed is not None:
        gap = round(100 * (mean - claimed), 2) + 0.0  # no "-0.00"
        verdict = f"{'missed' if gap < 0 else 'passed'} by {abs(gap):.2f}"
        if low <= claimed <= high:
            verdict = f"met, {gap:+.2f}"
        text += f" (claimed {100 * claimed:.2f}, {verdict})"
    return text if not remarks else f"{text} ({'; '.join(remarks)})"


if __name__ == "__main__":
    command_line.main(main)
