"""Runs that get a signal again and again, at random moments, and continue."""

import collections
import pathlib
import random
import signal
import time

from tqdm import tqdm

from benchmarks.survival import works
from benchmarks.survival.works import Whole, Work


def row(work: Work, whole: Whole, folder: pathlib.Path, sign: signal.Signals, times: int, draws: random.Random) -> dict:
    """Returns the row of a work that gets `sign` for `times` times.

    A run that ends before the next signal is compared with the undisturbed run, and another begins.
    """
    survived, tried, seen, runs = 0, 0, collections.Counter(), 0
    with tqdm(total=times, desc=f"{work.name}, {sign.name}") as bar:
        while tried < times:
            out, log, signals = folder / f"{sign.name}-{runs}", folder / "signal.log", 0
            runs += 1
            while tried + signals < times and _interrupted(work, out, log, sign, draws.uniform(0.0, whole.seconds)):
                signals += 1
                seen[_how(log, sign)] += 1
                bar.update()
            same = works.is_whole(work, out, work.run(out, log), whole)
            survived += signals * same
            tried += signals
    return {
        "work": work.name,
        "circumstance": sign.name,
        "tried": tried,
        "survived": survived,
        "seen": {**seen, f"runs compared, {'all the same' if survived == tried else 'not all the same'}": runs},
    }


def _interrupted(work: Work, out: pathlib.Path, log: pathlib.Path, sign: signal.Signals, after: float) -> bool:
    """Sends `sign` to a work, `after` seconds after its first file; returns whether it came before the end."""
    since = time.time()
    with work.started(out, log) as process:
        works.wait_until(lambda: works.begun(out, since), process)
        if process.has_ended_after(after):
            return False
        process.send(sign)
        return process.ended() == works.STATUSES[sign] or not work.is_finished(out)


def _how(log: pathlib.Path, sign: signal.Signals) -> str:
    found = works.errors(log)
    if sign is signal.SIGINT:
        return "one line" if len(found) == 1 and found[0].startswith("interrupted") else f"not one line: {found}"
    return "ended at once" if not found else f"said {found}"
