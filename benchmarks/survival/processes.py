"""Runs commands in processes forked from one that has imported TensorFlow: a start takes a second, not six."""

import multiprocessing
import os
import pathlib
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType

PATIENCE = 900  # seconds after which a command counts as hanging

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tf_nuat", "sanity", "recipes.command"])


class Process:
    """A process that runs a module as `python -m` does; it is killed if its context ends first.

    Args:
        module: the module.
        arguments: what follows it on the command line.
        log: file for what it prints.
        environment: variables that it has besides those of this process.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], log: pathlib.Path, environment: Mapping[str, str]
    ) -> None:
        given = (module, list(arguments), str(log), dict(environment))
        self._process = _CONTEXT.Process(target=_run, args=given)
        self._process.start()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()

    def is_running(self) -> bool:
        """Returns whether the process is running."""
        return self._process.is_alive()

    def has_ended_after(self, seconds: float) -> bool:
        """Waits for at most `seconds`; returns whether the process has ended."""
        self._process.join(seconds)
        return not self.is_running()

    def send(self, sign: signal.Signals) -> None:
        """Sends a signal, if the process is running."""
        if self.is_running() and self._process.pid:
            os.kill(self._process.pid, sign)

    def ended(self) -> int:
        """Waits for its end; returns its exit status. A hanging process is killed, and has the status of SIGKILL."""
        if not self.has_ended_after(PATIENCE):
            self._process.kill()
            self._process.join()
        return self._process.exitcode or 0


def _run(module: str, arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
