"""Runs that are killed, and continue with other devices or in another precision."""

import functools
import pathlib
import shutil
import signal
import time
from collections.abc import Callable

import numpy as np

from benchmarks.survival import works
from benchmarks.survival.machines import Pair
from benchmarks.survival.works import Work


def rows(training: Work, evaluation: Work, folder: pathlib.Path) -> dict[str, Callable[[], dict]]:
    """Returns a dict of circumstance to a function that tries it and returns its row."""
    folder.mkdir(parents=True, exist_ok=True)
    two = training.with_flags("--strategy=multiworker")
    tries: dict[str, tuple[Work, Callable[[], tuple[bool, str]]]] = {
        "one device, then two workers": (training, lambda: _on_two(training, two, folder)),
        "two workers, then one device": (training, lambda: _on_one(two, training, folder)),
        "float32, then bfloat16": (training, lambda: _refused(training, "--precision=mixed_bfloat16", folder)),
        "bfloat16, then float32": (evaluation, lambda: _goes_on(evaluation, "--precision=float32", folder)),
    }

    def tried(name: str) -> dict:
        work, attempt = tries[name]
        survived, seen = attempt()
        return {"work": work.name, "circumstance": name, "tried": 1, "survived": int(survived), "seen": {seen: 1}}

    return {name: functools.partial(tried, name) for name in tries}


def _begun_and_killed(work: Work, folder: pathlib.Path) -> pathlib.Path:
    """Kills a run a second after it saved a state; returns its folder."""
    out = folder / "pair-0"
    shutil.rmtree(out, ignore_errors=True)
    with work.started(out, folder / "begun.log") as process:
        works.wait_until(lambda: any(out.rglob("*.npz")), process)
        time.sleep(1.0)
        process.send(signal.SIGKILL)
    return out


def _on_two(before: Work, after: Work, folder: pathlib.Path) -> tuple[bool, str]:
    out = _begun_and_killed(before, folder)
    pair = Pair(folder, (after, after), goes_on=True)
    pair.start(0, 1)
    return _compared(out, max(each.status for each in pair.ended()), folder)


def _on_one(before: Work, after: Work, folder: pathlib.Path) -> tuple[bool, str]:
    pair = Pair(folder, (before, before))
    pair.start(0, 1)
    pair.kill_after_first_file(1, 5.0)
    pair.ended()
    return _compared(pair.outs[0], after.run(pair.outs[0], folder / "elsewhere.log"), folder)


def _compared(out: pathlib.Path, status: int, folder: pathlib.Path) -> tuple[bool, str]:
    if status:
        return False, f"ends with status {status}"
    weights = [works.weights_in(each / "last.keras") for each in (out, folder.parent / "training" / "whole")]
    change = max(float(np.max(np.abs(one - other))) for one, other in zip(*weights))
    return True, f"goes on to its end; weights differ from those of one device by at most {change:.0e}"


def _refused(work: Work, flag: str, folder: pathlib.Path) -> tuple[bool, str]:
    out, log = _begun_and_killed(work, folder), folder / "elsewhere.log"
    status = work.with_flags(flag).run(out, log)
    found = works.errors(log)
    return status == 2 and len(found) == 1, f"status {status}: {'; '.join(found)}".replace(str(folder), "...")


def _goes_on(work: Work, flag: str, folder: pathlib.Path) -> tuple[bool, str]:
    out = _begun_and_killed(work, folder)
    status = work.with_flags(flag).run(out, folder / "elsewhere.log")
    if status:
        return False, f"ends with status {status}"
    outcomes = [work.outcome(each)["fooled_by"] for each in (out, folder.parent / "evaluation" / "whole")]
    others = int(np.sum(outcomes[0] != outcomes[1]))
    return True, f"goes on to its end; {others} of {len(outcomes[0])} images have another outcome"
