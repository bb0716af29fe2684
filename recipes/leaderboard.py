"""All runs on one page, ranked by the worst case, with intervals, claims, verdicts, and the cost of training.

    python -m recipes.leaderboard --cards results --out results

Reads every card.json below the folder, with the results of `tf_nuat.evaluate` and `sanity.run` beside it. Writes
leaderboard.md, and leaderboard.html, a single file that works offline and has filters. Runs of one recipe that differ
only in their seed share a row. Trains and measures nothing.
"""

import os
import pathlib
import urllib.parse

from absl import flags

from recipes import table
from recipes.pages import evaluations, ranking, scatter
from sanity import verdict
from sanity.report import html
from tf_nuat import command_line, norms
from tf_nuat.core import files, validation
from tf_nuat.evaluate import runs

TITLE = "Leaderboard"
NOTE = (
    "The most robust first, by the lowest accuracy that any attack left of test images, with its 95 % interval. "
    "Without AutoAttack that is an upper limit, and such rows come after those with it. Runs whose gradients are "
    "suspected to be masked come last, as their accuracy says little. Seeds of one recipe share a row. FBP are passes, "
    "forward and backward, per training image and epoch; they compare across machines, as seconds do not. An attack in "
    "training of one gradient is a single step. Where AutoAttack is estimated, the interval is that of the accuracy on "
    "these test images; the other intervals also hold the noise of drawing test images, and so are wider."
)
COLUMNS = ("rank", "defense", "training", "network", "worst case", "under", "clean", "verdict", "paper claims")
LEFT_OUT = ("sources", "tutorial")  # folders of source networks of other runs, and of the tutorial


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
        files.save_text(text, out / name)
    print("  ".join(str(out / name) for name in rendered))
    return 0


def pages(folder, out):
    """Returns the pages of the runs below `folder`, a dict of name to text; their links are relative to `out`.

    Raises:
        ValueError: there is no card, or one cannot be read.
    """
    by_threat = {}
    for path in cards_below(folder):
        run, _ = evaluations.card_with(path)
        by_threat.setdefault(runs.conditions(run).threat, []).append((path, run))
    groups = [_group(threat, found, out) for threat, found in sorted(by_threat.items())]
    page = html.rendered(
        pathlib.Path(__file__).with_suffix(".html"),
        title=TITLE,
        note=NOTE,
        groups=groups,
        size=scatter.SIZE,
        frame=scatter.FRAME,
    )
    return {"leaderboard.md": _markdown(groups), "leaderboard.html": page + "\n"}


def cards_below(folder):
    """Returns the paths of the cards below `folder`, without those in folders named in `LEFT_OUT`.

    Raises:
        ValueError: there is none.
    """
    folder = pathlib.Path(folder)
    found = sorted(
        path for path in folder.rglob("card.json") if not {*LEFT_OUT} & {*path.relative_to(folder).parts[:-1]}
    )
    if not found:
        raise ValueError(f"cards is {str(folder)!r}, which has no card.json; allowed: a folder with card.json files")
    return found


def _group(threat, found, out):
    """Returns what the page shows for one threat model; `found` are its runs, pairs (path, card)."""
    entries, first = ranking.ranked(found), found[0][1]
    rows = [_row(rank, entry, out) for rank, entry in enumerate(entries, start=1)]
    return {
        "title": threat,
        "dataset": first.dataset,
        "norm": norms.label(first.norm),
        "epsilon": f"{first.epsilon:.4g}",
        "sources": _sources(entries),
        "rows": rows,
        "scatter": scatter.drawn(
            [
                (row["rank"], entry.measured["clean"].accuracy, entry.robust.accuracy, not entry.by_autoattack)
                for row, entry in zip(rows, entries)
                if entry.robust is not None
            ]
        ),
    }


def _sources(entries):
    """Returns a line for each source of settings and claims: the ranks of the runs that have it, and the source."""
    ranks = {}
    for rank, entry in enumerate(entries, start=1):
        for source in dict.fromkeys(run.source for run in entry.cards if run.source):
            ranks.setdefault(source, []).append(str(rank))
    return [f"Rank {', '.join(found)}: {source}" for source, found in ranks.items()]


def _row(rank, entry, out):
    """Returns the cells of an entry: texts, and the numbers that its bar needs."""
    first, robust = entry.first, entry.robust
    options = [f"{name} {value}" for name, value in first.network_options.items()]
    records = [runs.record(run) for run in entry.cards]
    return {
        "rank": rank,
        "defense": first.defense,
        "training": entry.gradients,
        "network": ", ".join([first.network, *options]),
        "robust": None if robust is None else (robust.accuracy, *robust.interval),
        "worst case": "-" if robust is None else table.percent(robust.accuracy, robust.interval),
        "under": _under(entry),
        "clean": f"{100 * entry.measured['clean'].accuracy:.2f}",
        "paper claims": "; ".join(f"{name} {beside(*claim)}" for name, claim in entry.claims.items()),
        "verdict": ", ".join(entry.verdicts),
        "trust": _trust(entry),
        **table.costs({name: _mean([record[name] for record in records]) for name in table.COSTS}),
        "seeds": ", ".join(str(run.seed) for run in entry.cards),
        "chosen epoch": ", ".join(f"{run.epoch_chosen} of {run.epochs:.3g}" for run in entry.cards) + _images(first),
        "precision": first.precision,
        "runs": [(path.parent.name, _address(path, out)) for path in entry.paths],
        "measured": [_measured(name, found, entry) for name, found in entry.measured.items()],
    }


def _images(run):
    """Returns how many training images a run took, as text; nothing if it took all."""
    count = run.recipe.get("images_per_class")
    return f", of {count} training images per class" if count else ""


def _address(path, out):
    """Returns the address of a file in a page in `out`; no name of a folder is a scheme or a fragment there."""
    return urllib.parse.quote(os.fsencode(os.path.relpath(path, out)))


def _under(entry):
    if entry.worst is None:
        return "no attack was run"
    return entry.worst if entry.by_autoattack else f"{entry.worst} alone: an upper limit"


def _trust(entry):
    """Returns the colour of a verdict: "good", "bad" or "open"."""
    if entry.masked:
        return "bad"
    return "good" if entry.verdicts and {*entry.verdicts} <= {verdict.ROBUST, verdict.PARTLY} else "open"


def _measured(name, found, entry):
    """Returns a measure as text: its attack, accuracy and number of images."""
    attacks = [run.measures[name] for run in entry.cards if name in run.measures]
    attack = f" ({runs.described(attacks[0])})" if attacks else ""
    attack = "" if name.endswith(attack) else attack
    seeds = f" of {found.seeds} of {len(entry.cards)} seeds" if found.seeds < len(entry.cards) else ""
    return f"{name}{attack}: {shown(found)}, {found.images:,} images{seeds}"


def _markdown(groups):
    parts = [f"# {TITLE}", NOTE]
    for group in groups:
        rows = [{column: str(row[column]) or "-" for column in COLUMNS} for row in group["rows"]]
        for cells, row in zip(rows, group["rows"]):
            cells |= {column: row[column] for column in (*table.COSTS.values(), "seeds") if column in row}
            cells["runs"] = " ".join(_link(name, to) for name, to in row["runs"])
        parts += [f"## {table.escaped(group['title'])}", table.markdown(rows, links=["runs"])]
        if group["sources"]:
            lines = [f"- {table.escaped(source)}" for source in group["sources"]]
            parts += ["Where settings and claims come from:", "\n".join(lines)]
        parts.append("What was measured, by rank:")
        parts.append(
            "\n".join(
                f"{row['rank']}. {table.escaped(row['defense'])}, epoch {table.escaped(row['chosen epoch'])}, "
                f"{table.escaped(row['precision'])}: {table.escaped('; '.join(row['measured']))}"
                for row in group["rows"]
            )
        )
    return "\n\n".join(parts) + "\n"


def _link(name, to):
    name = table.escaped(name).replace("[", "\\[").replace("]", "\\]")
    return f"[{name}]({to})"


def beside_claims(paths):
    """Returns rows of a table, one per measure: the results of the cards at `paths` beside the claims.

    All runs must have one recipe. Each of several seeds has a column; "measured" combines them as in the leaderboard.

    Raises:
        ValueError: a card cannot be read, or the runs differ in more than their seed.
    """
    found = [(path, evaluations.card_with(path)[0]) for path in paths]
    recipes = ranking.of_one_recipe(found)
    if len(recipes) != 1 or len(recipes[0]) != len(found):
        raise ValueError(f"cards are {', '.join(map(str, paths))}; allowed: those of one recipe, each seed once")
    cards = ranking.named_alike([run for _, run in found])
    measures = {name: {} for run in cards for name in run.measured}
    for run in sorted(cards, key=lambda run: run.seed):
        for name, outcome in run.measured.items():
            measures[name][run.seed] = outcome
    rows = []
    for name, outcomes in measures.items():
        images = sorted({outcome.images for outcome in outcomes.values()})
        row = {"measure": name, "test images": ", ".join(f"{count:,}" for count in images)}
        if len(found) > 1:
            for seed, outcome in outcomes.items():
                row[f"seed {seed}"] = table.percent(outcome.accuracy, outcome.interval)
        together = ranking.together(list(outcomes.values()))
        row["measured"] = shown(together)
        if len(outcomes) < len(found):
            row["measured"] += f" ({len(outcomes)} of {len(found)} seeds)"
        claimed = recipes[0][0][1].claimed.get(name)
        rows.append({**row, "claimed": "-" if claimed is None else beside(claimed, together)})
    return rows


def shown(found):
    """Returns a `ranking.Together` as text, in percent; for several seeds, over seeds and over all images pooled."""
    if found.half is None:
        return table.percent(found.accuracy, found.interval)
    text = f"{100 * found.accuracy:.2f} ± {100 * found.half:.2f}"
    if found.pooled is None:
        return f"{text}, with the seeds' own intervals [{100 * found.interval[0]:.2f}, {100 * found.interval[1]:.2f}]"
    return f"{text}, pooled {table.percent(*found.pooled)}"


def beside(claimed, found):
    """Returns a claim as text, with the difference of the measured accuracy, and whether chance explains it."""
    gap = round(100 * (found.accuracy - claimed), 2) + 0.0  # no "-0.00"
    low, high = found.interval
    words = "within the interval" if low <= claimed <= high else "below the claim" if gap < 0 else "above the claim"
    return f"{100 * claimed:.2f} (measured {gap:+.2f}, {words})"


def _mean(values):
    return None if None in values else sum(values) / len(values)


if __name__ == "__main__":
    command_line.main(main)
