"""Disturbs training, evaluations and judgements in every known way, and counts what survives.

    python -m benchmarks.survival --times 20 --out results/survival

Writes `survival.json`, and `README.md` rendered from it. A killed command continues when started again: it keeps the
rows of the JSON. `--rows` tries only some rows. Only the superuser tries a full disk, because it has to be mounted.
"""

import functools
import json
import os
import pathlib
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from absl import flags

from benchmarks import figures, turns
from benchmarks.survival import elsewhere, machines, page, places, signals, works
from tf_nuat import command_line
from tf_nuat.core import files, validation

FLAGS = flags.FlagValues()
flags.DEFINE_integer("times", 20, "signals of each kind", flag_values=FLAGS)
flags.DEFINE_integer("few", 5, "tries of what takes longer: folders deleted, two runs at once", flag_values=FLAGS)
flags.DEFINE_integer("pairs", 2, "tries of each circumstance of two workers", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "the runs and the moments follow from it", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "rows", [], "part of the titles of rows to try, anew; default: all not tried", flag_values=FLAGS
)
flags.DEFINE_string("work", "runs/survival", "folder for the runs", flag_values=FLAGS)
flags.DEFINE_string("out", "results/survival", "folder for the table", flag_values=FLAGS)

Tries = dict[str, Callable[[], Iterable[dict]]]


def tries(folder: pathlib.Path) -> Tries:
    """Returns a dict of title to a function that tries it and returns rows of the table."""
    draws = random.Random(FLAGS.seed)
    every = works.prepare(folder, FLAGS.seed)
    training, evaluation, _ = every
    by_title = [_of_one(work, folder / work.name, draws) for work in every]
    found = {title: attempt for titles in zip(*(each.items() for each in by_title)) for title, attempt in titles}
    found |= _each(lambda: machines.rows(training, evaluation, folder / "machines", FLAGS.pairs, draws), "workers")
    return found | _each(lambda: elsewhere.rows(training, evaluation, folder / "elsewhere"), "elsewhere")


def _of_one(work: works.Work, folder: pathlib.Path, draws: random.Random) -> Tries:
    """Returns the tries of one work in one process, in the same order for all works."""
    folder.mkdir(parents=True, exist_ok=True)

    def whole() -> works.Whole:
        return works.whole(work, folder)

    def signalled(sign: signal.Signals) -> list[dict]:
        return [signals.row(work, whole(), folder, sign, FLAGS.times, draws)]

    found: Tries = {f"{work.name}, {sign.name}": functools.partial(signalled, sign) for sign in works.STATUSES}
    if os.geteuid() == 0:
        found[f"{work.name}, disk full"] = lambda: places.disk_full(work, whole(), folder)
    found[f"{work.name}, two at once"] = lambda: [places.together(work, whole(), folder, FLAGS.few)]
    found[f"{work.name}, folder deleted"] = lambda: [places.deleted(work, whole(), folder, FLAGS.few, draws)]
    return found


def _each(rows: Callable[[], dict[str, Callable[[], dict]]], title: str) -> Tries:
    def of_all() -> Iterator[dict]:
        for row in rows().values():
            yield row()

    return {title: of_all}


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    for name in ("times", "few", "pairs"):
        validation.whole_number(name, getattr(FLAGS, name), at_least=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background processes ignore it
    out = validation.output_folder("out", FLAGS.out)
    turns.hide_gpus()  # this process would take their memory from the commands
    path = out / "survival.json"
    done: dict[str, Any] = json.loads(path.read_text())["tries"] if path.exists() else {}
    for title, attempt in tries(pathlib.Path(FLAGS.work).resolve()).items():
        if not any(word in title for word in FLAGS.rows) if FLAGS.rows else title in done:
            continue
        done[title] = list(attempt())
        rows = [row for each in done.values() for row in each]
        content = figures.of_this_machine("benchmarks.survival", arguments, {"tries": done, "rows": rows})
        files.save_json(content, path)
        held = out / "judgements.json"
        judgements = json.loads(held.read_text(encoding="utf-8")) if held.exists() else None
        files.save_text(page.page(content, judgements), out / "README.md")
    rows = [row for each in done.values() for row in each]
    return 0 if all(row["survived"] == row["tried"] for row in rows) else 1


if __name__ == "__main__":
    command_line.main(command)
