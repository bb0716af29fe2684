"""Processes that measure when it is their turn, so that a machine whose speed drifts slows all of them alike.

A `Contestant` is a command that sets itself up and tells about itself in one line of JSON; from then on it answers each
line of JSON on its standard input with one on its standard output. Between its turns it waits. `serve` is its half,
which needs no more than Python: a contestant may live in an environment of its own.
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
    """A contestant has ended; the message is the last line of what it said."""


class Contestant:
    """A command that measures when it is asked.

    Args:
        command: a list of words, those of a process that calls `serve`.
        variables: its environment.

    Attributes:
        about: what it told about itself.

    Raises:
        FailedError: it ended before it was ready, or cannot be started.
    """

    def __init__(self, command, variables):
        # Not a pipe, which would be full one day. `close` closes it.
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
        """Returns the answer to `request`, both dicts; raises `FailedError` where it ended instead."""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and said why
        return self._answer()

    def close(self):
        """Ends it."""
        self._process.communicate()  # closes its input, after which it has nothing to wait for
        self._errors.close()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise FailedError(last_line(self._errors.read()) or f"ended with status {self._process.returncode}")
        return json.loads(line)


def serve(about, answers):
    """Tells `about`, then answers requests until there are no more.

    Args:
        about: a dict.
        answers: a dict of the name of a request, its "ask", to the function of its other entries that returns a dict.
    """
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answers[request.pop("ask")](**request)), flush=True)


def last_line(text):
    """Returns the last line of `text` with something in it: of a traceback, the error."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def variables(threads):
    """Returns the environment of a contestant: so many threads, no GPU, and this package to import."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    found = {**os.environ, **dict.fromkeys(names, str(threads)), "CUDA_VISIBLE_DEVICES": "-1"}
    return {**found, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def keep_to_processors(count):
    """Keeps this process and those it starts to `count` processors.

    Raises:
        ValueError: there are fewer.
    """
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        if count > len(processors):
            raise ValueError(f"threads is {count}; allowed: a whole number, at least 1 and at most {len(processors)}")
        os.sched_setaffinity(0, processors[:count])
