"""Processes that measure in turns, so a machine whose speed drifts slows all of them alike.

A `Contestant` is a command that sets itself up and describes itself in one line of JSON. From then on it answers each
line of JSON on its standard input with one on its standard output, and waits between its turns. The command calls
`serve`, which only needs Python, so a contestant may live in an environment of its own.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import typing

ROOT = pathlib.Path(__file__).parents[1]


class FailedError(Exception):
    """A contestant has ended; the message is the last line of its errors."""


class Contestant:
    """A command that measures on request.

    Args:
        command: the words of a command that calls `serve`, a list.
        variables: its environment.

    Attributes:
        about: what it says about itself, a dict.

    Raises:
        FailedError: it ended before it was ready, or cannot be started.
    """

    def __init__(self, command, variables):
        # Not a pipe, which could fill up. `close` closes it.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        words, pipe = list(map(str, command)), subprocess.PIPE
        try:
            self._process: typing.Any = subprocess.Popen(
                words, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, env=variables
            )
        except OSError as error:
            raise FailedError(str(error)) from error
        self.about = self._answer()

    def ask(self, **request):
        """Returns the answer to `request`, both dicts; raises `FailedError` if the command has ended."""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and said why
        return self._answer()

    def close(self):
        """Ends the command."""
        self._process.communicate()  # closes its input, which ends `serve`
        self._errors.close()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise FailedError(last_line(self._errors.read()) or f"ended with status {self._process.returncode}")
        return json.loads(line)


def serve(about, answers):
    """Prints `about`, then answers requests until there are no more.

    Args:
        about: a dict.
        answers: dict of a request's "ask" to a function that takes the request's other entries and returns a dict.
    """
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answers[request.pop("ask")](**request)), flush=True)


def last_line(text):
    """Returns the last line of `text` that is not empty; in a traceback, that is the error."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def variables(threads):
    """Returns the environment of a contestant: the number of threads, no GPU, and this package to import."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    found = {**os.environ, **dict.fromkeys(names, str(threads)), "CUDA_VISIBLE_DEVICES": "-1"}
    return {**found, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def hide_gpus():
    """Hides the GPUs from this process and those that it starts; call it before TensorFlow looks for devices."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def keep_to_processors(count):
    """Restricts this process and those that it starts to `count` processors.

    Raises:
        ValueError: there are fewer.
    """
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        if count > len(processors):
            raise ValueError(f"threads is {count}; allowed: a whole number, at least 1 and at most {len(processors)}")
        os.sched_setaffinity(0, processors[:count])
