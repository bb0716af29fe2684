"""Disturbs the folder of a run: its disk is full, it is deleted, another run uses it."""

import collections
import contextlib
import functools
import os
import pathlib
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

from tqdm import tqdm

from benchmarks.survival import works
from benchmarks.survival.works import Whole, Work

FILLER = "filler"


def disk_full(work: Work, whole: Whole, folder: pathlib.Path) -> Iterator[dict]:
    """Yields a row for each kind of file that a work writes, with a disk that is full before this file."""
    kinds = _kinds(work, folder)
    for number, kind in enumerate(tqdm(kinds, desc=f"{work.name}, disk full")):
        log = folder / "disk.log"
        with _disk(folder / "disk") as disk:
            out = disk / "out"
            with work.started(out, log) as process:
                if number:
                    works.wait_until(functools.partial(_has, out, kinds[number - 1]), process)
                _fill(disk)
                status = process.ended()
            found = works.errors(log)
            said = "verdict printed, " if work.name == "judgement" and " withstand " in log.read_text() else ""
            in_a_line = bool(found) and not any(line.startswith("traceback") for line in found)
            (disk / FILLER).unlink(missing_ok=True)
            same = works.is_whole(work, out, work.run(out, log), whole)
        yield {
            "work": work.name,
            "circumstance": f"disk full before {kind}",
            "tried": 1,
            "survived": int(same and (in_a_line or status == whole.status)),
            "seen": {f"{said}status {status}: {found[0] if found else 'no error'}".replace(str(folder), "..."): 1},
        }


def _kinds(work: Work, folder: pathlib.Path) -> list[str]:
    """Returns the kinds of files that a work writes, in the order in which they appear."""
    out, found = folder / "kinds", []
    shutil.rmtree(out, ignore_errors=True)
    with work.started(out, folder / "kinds.log") as process:
        while process.is_running():
            found += [kind for kind in _kinds_in(out) if kind not in found]
            time.sleep(0.002)
    return found


def _has(out: pathlib.Path, kind: str) -> bool:
    return kind in _kinds_in(out)


def _kinds_in(out: pathlib.Path) -> list[str]:
    """Returns the names of the files in a folder, with N for numbers, * for pictures and "events" for event files."""
    with contextlib.suppress(OSError):
        paths = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
        names = [re.sub(r"\d+", "N", str(path)) for path in paths if not path.name.startswith(".")]
        return sorted({re.sub(r"\w+\.png", "*.png", re.sub(r"events\.out.*", "events", name)) for name in names})
    return []


@contextlib.contextmanager
def _disk(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """A context with a file system of its own, in memory; only the superuser can mount it."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _fill(disk: pathlib.Path) -> None:
    space = os.statvfs(disk)
    with contextlib.suppress(OSError), (disk / FILLER).open("ab", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize)  # at once
        while True:
            file.write(bytes(4096))


def deleted(work: Work, whole: Whole, folder: pathlib.Path, times: int, draws: random.Random) -> dict:
    """Returns the row of a work whose folder is deleted at a random moment."""
    survived, seen, log = 0, collections.Counter(), folder / "deleted.log"
    for number in tqdm(range(times), desc=f"{work.name}, folder deleted"):
        out, since = folder / f"deleted-{number}", time.time()
        with work.started(out, log) as process:
            works.wait_until(functools.partial(works.begun, out, since), process)
            time.sleep(draws.uniform(0.0, whole.seconds))
            shutil.rmtree(out, ignore_errors=True)
            status = process.ended()
        found = works.errors(log)
        kind = re.sub(r"[^ ]*/|\d+", "", found[0]) if found else "no error"
        seen[f"status {status}: {kind}"] += 1
        same = works.is_whole(work, out, work.run(out, log), whole)
        survived += same and not any(line.startswith("traceback") for line in found)
    return _row(work, "folder deleted", times, survived, seen)


def together(work: Work, whole: Whole, folder: pathlib.Path, times: int) -> dict:
    """Returns the row of a work that is started twice at once with one folder."""
    survived, seen = 0, collections.Counter()
    for number in tqdm(range(times), desc=f"{work.name}, two at once"):
        out, logs = folder / f"together-{number}", [folder / f"together-{index}.log" for index in range(2)]
        with work.started(out, logs[0]) as one, work.started(out, logs[1]) as other:
            statuses = [process.ended() for process in (one, other)]
        refused = [
            index for index in range(2) if any("into which process" in line for line in works.errors(logs[index]))
        ]
        same = works.is_whole(work, out, whole.status if whole.status in statuses else -1, whole)
        seen[f"{len(refused)} refused in a line; the other's results {'as they should be' if same else 'wrong'}"] += 1
        survived += len(refused) == 1 and statuses[refused[0]] == 2 and same
    return _row(work, "two at once, one folder", times, survived, seen)


def _row(work: Work, circumstance: str, tried: int, survived: int, seen: collections.Counter) -> dict:
    return {"work": work.name, "circumstance": circumstance, "tried": tried, "survived": survived, "seen": dict(seen)}
