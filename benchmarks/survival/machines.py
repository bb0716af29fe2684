"""Two workers, one of which is killed, late, missing or wrong."""

import functools
import json
import pathlib
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tqdm import tqdm

from benchmarks.survival import works
from benchmarks.survival.processes import Process
from benchmarks.survival.works import Whole, Work
from tests.helpers.ports import free_ports

LATE = 30  # seconds by which a worker is late
WAIT = 15  # seconds that a worker waits for one that never comes


class Ended(NamedTuple):
    """How a worker ended: exit status, error lines, and the seconds from its start."""

    status: int
    errors: list[str]
    seconds: float


class Pair:
    """Two workers, each with a work and a folder of its own, on ports of this machine."""

    def __init__(self, folder: pathlib.Path, both: Sequence[Work], *, goes_on: bool = False) -> None:
        self.outs = [folder / "pair-0", folder / "pair-1"]
        self._logs = [folder / "pair-0.log", folder / "pair-1.log"]
        self._works, self.ports = both, free_ports(2)
        self._started: dict[int, tuple[Process, float]] = {}
        for out in () if goes_on else self.outs:
            shutil.rmtree(out, ignore_errors=True)

    def start(self, *indices: int) -> None:
        """Starts these workers."""
        addresses = [f"localhost:{port}" for port in self.ports]
        for index in indices:
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            process = self._works[index].started(self.outs[index], self._logs[index], TF_CONFIG=json.dumps(task))
            self._started[index] = process, time.monotonic()

    def kill_after_first_file(self, index: int, after: float) -> None:
        """Kills worker `index`, `after` seconds after the chief has written a file."""
        process, _ = self._started[index]
        works.wait_until(lambda: works.begun(self.outs[0], 0.0), process)
        time.sleep(after)
        process.send(signal.SIGKILL)

    def ended(self) -> list[Ended]:
        """Waits for the workers that were started, and returns how each ended."""
        found = []
        for index, (process, since) in sorted(self._started.items()):
            status = process.ended()
            found.append(Ended(status, works.errors(self._logs[index]), time.monotonic() - since))
        self._started, self.ports = {}, free_ports(2)
        return found


def rows(
    training: Work, evaluation: Work, folder: pathlib.Path, times: int, draws: random.Random
) -> dict[str, Callable[[], dict]]:
    """Returns a dict of circumstance of two workers to a function that tries it and returns its row."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = ("--strategy=multiworker", f"--wait={LATE * 20}")
    training, evaluation = training.with_flags(*flags), evaluation.with_flags(*flags)
    expected = _whole_pair(training, folder)
    tries: dict[str, Callable[[], tuple[bool, str]]] = {
        "two workers, one killed": lambda: _killed(training, folder, expected, 1, draws),
        "two workers, the chief killed": lambda: _killed(training, folder, expected, 0, draws),
        f"two workers, one {LATE} seconds late": lambda: _late(training, folder, expected),
        "two workers, one never comes": lambda: _alone(training.with_flags(f"--wait={WAIT}"), folder),
        "two workers, the chief's folder cannot be written": lambda: _chief_failing(training, folder),
        "two workers, port in use": lambda: _port_in_use(training, folder),
        "two workers, other seeds": lambda: _differing(training, folder, "--seed=7"),
        "two workers of an evaluation, one with a damaged network": lambda: _damaged(evaluation, folder),
        "two workers of an evaluation, other epsilon": lambda: _differing(evaluation, folder, "--epsilon=0.03"),
    }

    def tried(name: str) -> dict:
        found = [tries[name]() for _ in tqdm(range(times), desc=name)]
        seen = [text for _, text in found]
        return {
            "work": "evaluation" if "evaluation" in name else "training",
            "circumstance": name,
            "tried": times,
            "survived": sum(survived for survived, _ in found),
            "seen": {text: seen.count(text) for text in dict.fromkeys(seen)},
        }

    return {name: functools.partial(tried, name) for name in tries}


def _whole_pair(work: Work, folder: pathlib.Path) -> Whole:
    """Returns the undisturbed run of two workers, which is kept in `folder`."""
    out = folder / "whole-pair"
    if not work.is_finished(out):
        pair = Pair(folder, (work, work))
        pair.start(0, 1)
        if [each.status for each in pair.ended()] != [0, 0]:
            raise RuntimeError(f"two workers did not end: see {folder / 'pair-0.log'}")
        pair.outs[0].rename(out)
    return Whole(work.outcome(out), 0, 0.0)


def _killed(work: Work, folder: pathlib.Path, expected: Whole, index: int, draws: random.Random) -> tuple[bool, str]:
    pair = Pair(folder, (work, work))
    pair.start(0, 1)
    pair.kill_after_first_file(index, draws.uniform(0.0, 10.0))
    other = pair.ended()[1 - index]
    pair.start(0, 1)
    again = [each.status for each in pair.ended()]
    # After an interrupted epoch, the workers get equal shares of the metrics' sums, which rounds differently.
    same = again == [0, 0] and _same_but_metrics(work.outcome(pair.outs[0]), expected.outcome)
    said = len(other.errors) == 1 and f"worker {index} of TF_CONFIG" in other.errors[0] and other.status == 1
    words = "the other ends in a line that names it" if said else f"the other says {other.errors}"
    return same and said, f"{words}; started again, the weights are {'the same' if same else 'others'}"


def _same_but_metrics(one: dict, other: dict) -> bool:
    return all(works.equal(one[name], other[name]) for name in ("last", "best", "measured", "epoch_chosen"))


def _late(work: Work, folder: pathlib.Path, expected: Whole) -> tuple[bool, str]:
    pair = Pair(folder, (work, work))
    pair.start(0)
    time.sleep(LATE)
    pair.start(1)
    statuses = [each.status for each in pair.ended()]
    same = statuses == [0, 0] and works.equal(work.outcome(pair.outs[0]), expected.outcome)
    return same, f"waits, and ends {'with the same results' if same else f'otherwise: {statuses}'}"


def _alone(work: Work, folder: pathlib.Path) -> tuple[bool, str]:
    pair = Pair(folder, (work, work))
    pair.start(0)
    (one,) = pair.ended()
    return _in_a_line(one, 1, "--wait"), _words("ends", one)


def _failing(work: Work, folder: pathlib.Path, flag: str) -> tuple[bool, str]:
    """One worker has a flag that is wrong for it alone: it has to blame itself, and the other has to blame it."""
    pair = Pair(folder, (work, work.with_flags(flag)))
    pair.start(0, 1)
    chief, other = pair.ended()
    good = _in_a_line(other, 2, flag.partition("=")[2]) and _in_a_line(chief, 1, "worker 1 of TF_CONFIG")
    return good, f"{_words('it', other)}; {_words('the other', chief)}"


def _chief_failing(work: Work, folder: pathlib.Path) -> tuple[bool, str]:
    pair = Pair(folder, (work, work))
    pair.outs[0].write_text("a file")
    pair.start(0, 1)
    chief, other = pair.ended()
    pair.outs[0].unlink()
    good = _in_a_line(chief, 2, "out is ") and _in_a_line(other, 1, "worker 0 of TF_CONFIG")
    return good, f"{_words('it', chief)}; {_words('the other', other)}"


def _damaged(work: Work, folder: pathlib.Path) -> tuple[bool, str]:
    damaged = folder / "damaged.keras"
    damaged.write_bytes(b"PK\x03\x04 and nothing more")
    return _failing(work, folder, f"--checkpoint={damaged}")


def _port_in_use(work: Work, folder: pathlib.Path) -> tuple[bool, str]:
    pair = Pair(folder, (work, work))
    with socket.socket() as taken:
        taken.bind(("", pair.ports[0]))
        taken.listen()
        pair.start(0)
        (one,) = pair.ended()
    return _in_a_line(one, 2, "whose port cannot be opened"), _words("it", one)


def _differing(work: Work, folder: pathlib.Path, flag: str) -> tuple[bool, str]:
    pair = Pair(folder, (work, work.with_flags(flag)))
    pair.start(0, 1)
    both = pair.ended()
    name = flag.strip("-").partition("=")[0]
    return all(_in_a_line(each, 2, f"error: {name} is ") for each in both), _words("both", both[0])


def _in_a_line(ended: Ended, status: int, words: str) -> bool:
    return ended.status == status and len(ended.errors) == 1 and words in ended.errors[0]


def _words(who: str, ended: Ended) -> str:
    return f"{who}: status {ended.status}, {'; '.join(ended.errors) or 'no error'}"
