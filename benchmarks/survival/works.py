"""The three commands that are disturbed, small enough for many tries, and their results."""

import dataclasses
import json
import pathlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from benchmarks.survival.processes import PATIENCE, Process
from tf_nuat import card, data

EPSILON = 0.02
# Checks of different kinds that compile quickly.
CHECKS = ("iterative_beats_single_step", "larger_epsilon_is_stronger", "random_search_is_not_stronger")


@dataclasses.dataclass(frozen=True)
class Work:
    """A command, whose last argument is the folder that it writes.

    Attributes:
        name: of the work.
        module: the module that `python -m` runs.
        flags: all flags but that of the folder.
        last_file: the file that it writes last.
        outcome: function of the folder that returns what has to be equal, bit for bit.
    """

    name: str
    module: str
    flags: tuple[str, ...]
    last_file: str
    outcome: Callable[[pathlib.Path], Any]

    def with_flags(self, *flags: str) -> "Work":
        """Returns the work with further flags."""
        return dataclasses.replace(self, flags=(*self.flags, *flags))

    def started(self, out: pathlib.Path, log: pathlib.Path, **environment: str) -> Process:
        """Starts it with the folder `out` and further variables; what it prints goes into the file `log`."""
        out.parent.mkdir(parents=True, exist_ok=True)
        return Process(self.module, [*self.flags, f"--out={out}"], log, environment)

    def run(self, out: pathlib.Path, log: pathlib.Path) -> int:
        """Runs it to its end, and returns its exit status."""
        with self.started(out, log) as process:
            return process.ended()

    def is_finished(self, out: pathlib.Path) -> bool:
        """Returns whether the folder has all results."""
        return (out / self.last_file).exists()


def wait_until(condition: Callable[[], bool], process: Process) -> bool:
    """Waits until a condition holds while a process runs; returns whether it came to hold."""
    deadline = time.monotonic() + PATIENCE
    while not (holds := condition()) and process.is_running() and time.monotonic() < deadline:
        time.sleep(0.002)
    return holds


def begun(out: pathlib.Path, since: float) -> bool:
    """Returns whether a file in a folder was written after `since`, of `time.time()`."""
    try:
        return any(path.is_file() and path.stat().st_mtime > since for path in out.rglob("*"))
    except OSError:  # it was removed meanwhile
        return False


def errors(log: pathlib.Path) -> list[str]:
    """Returns the error lines of a command, and the last line of a traceback."""
    lines = [line.strip() for line in log.read_text(errors="replace").replace("\r", "\n").splitlines()]
    found = [line for line in lines if line.startswith(("error: ", "ERROR:absl:", "interrupted"))]
    return [*found, f"traceback: {lines[-1]}"] if any(line.startswith("Traceback") for line in lines) else found


def prepare(folder: pathlib.Path, seed: int) -> tuple[Work, ...]:
    """Writes a network, and digits that it labels, into `folder`; returns training, evaluation and judgement."""
    folder.mkdir(parents=True, exist_ok=True)
    saved, images = folder / "network.keras", folder / "data.npz"
    if not images.exists():
        keras.utils.set_random_seed(seed)
        model = network((8, 8, 1), 10)
        pixels, _ = data.load("digits").arrays("test")
        model.save(saved)
        np.savez(images, images=pixels, labels=model.predict(pixels, verbose=0).argmax(axis=1))
    given = (f"--checkpoint={saved}", f"--dataset={images}", f"--epsilon={EPSILON}")
    training = (
        "--defense=nuat_wa_h",
        "--epochs=3",
        f"--seed={seed}",
        f"--network={__name__}:network",
        "--save_every=0",
    )
    evaluation = (*given, "--attack=pgd,square", "--options=steps=20,queries=2000", "--save_every=0.5")
    judgement = (*given, "--budget=quick", "--samples=100", f"--checks={','.join(CHECKS)}", "--resume")
    return (
        Work("training", "recipes.digits", training, card.NAME, of_training),
        Work("evaluation", "tf_nuat.evaluate", evaluation, "record.npz", of_evaluation),
        Work("judgement", "sanity.run", judgement, "report.html", of_judgement),
    )


def network(input_shape: Sequence[int], num_classes: int) -> keras.Model:
    """Returns a dense network, which compiles quickly."""
    inputs = keras.Input(tuple(input_shape))
    hidden = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(hidden))


def of_training(out: pathlib.Path) -> dict[str, Any]:
    """Returns the weights of both networks of a run, and its measurements without the times."""
    run = card.read(out / card.NAME)
    history = [{name: value for name, value in logs.items() if name != "seconds"} for logs in run.history]
    return {
        "last": weights_in(out / "last.keras"),
        "best": weights_in(out / "network.keras"),
        "history": history,
        "measured": run.measured,
        "epoch_chosen": run.epoch_chosen,
    }


def weights_in(path: pathlib.Path) -> list[np.ndarray]:
    """Returns the weights of a saved network."""
    return keras.saving.load_model(path, compile=False).get_weights()


def of_evaluation(out: pathlib.Path) -> dict[str, Any]:
    """Returns the record of every image."""
    with np.load(out / "record.npz") as record:
        return dict(record)


def of_judgement(out: pathlib.Path) -> Any:
    """Returns `results.json` without the times, and without the names of files."""
    return _without(json.loads((out / "results.json").read_text()), ("seconds", "provenance"))


def _without(content: Any, names: Sequence[str]) -> Any:
    if isinstance(content, dict):
        return {name: _without(value, names) for name, value in content.items() if name not in names}
    return [_without(value, names) for value in content] if isinstance(content, list) else content


def equal(one: Any, other: Any) -> bool:
    """Returns whether two outcomes are the same, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    return bool(one == other)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A run that was not disturbed: its outcome, its exit status, the seconds from its first file to its end."""

    outcome: Any
    status: int
    seconds: float


def whole(work: Work, folder: pathlib.Path) -> Whole:
    """Returns the undisturbed run of a work, which is kept in `folder`."""
    out, kept = folder / "whole", folder / "whole.json"
    if not kept.exists():
        with work.started(out, folder / "whole.log") as process:
            wait_until(lambda: begun(out, 0.0), process)
            first = time.monotonic()
            status = process.ended()
        if not work.is_finished(out):
            raise RuntimeError(f"{work.name} did not end: see {folder / 'whole.log'}")
        kept.write_text(json.dumps({"status": status, "seconds": time.monotonic() - first}))
    return Whole(work.outcome(out), **json.loads(kept.read_text()))


def is_whole(work: Work, out: pathlib.Path, status: int, expected: Whole) -> bool:
    """Returns whether a run has ended with the status and the results of the undisturbed one."""
    return status == expected.status and work.is_finished(out) and equal(work.outcome(out), expected.outcome)


# The exit status of a command after a signal: killed by it, or the status that a shell gives.
STATUSES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 130}
