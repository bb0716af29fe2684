"""Shared parts of the commands: absl flags; a wrong flag ends a command with one line and exit status 2."""

import contextlib
import io
import json
import os
import pathlib
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import tensorflow as tf
from absl import flags

from tf_nuat.core import files, keras_compat
from tf_nuat.parallel import workers

BAD_INPUT, INTERRUPTED = 2, 130  # exit statuses
OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)
# What may be the value of a flag, by what absl calls its type.
VALUES = {"float": "a number, as 0.03", "int": "a whole number", "bool": "true or false"}


def parse(flag_values: flags.FlagValues, arguments: Sequence[str], usage: str) -> None:
    """Parses `arguments` (without the program's name) into `flag_values`.

    For --help it prints `usage` and the flags of this command, and exits with status 0. An unknown flag, a value that
    is not allowed, or an argument that is not a flag raises a `ValueError`. Shells leave a ~ as it is in quotes and
    after `--out=`; it is the home folder all the same.
    """
    if {"--help", "-h", "-help"} & set(arguments):
        print(_help(flag_values, usage))
        sys.exit(0)
    home = os.path.expanduser("~")
    arguments = [re.sub(r"(?<![^=,])~(?=/|$)", lambda _: home, each) for each in arguments]
    try:
        rest = flag_values(["command", *arguments])[1:]
    except flags.Error as error:
        raise ValueError(_named(error, flag_values)) from error
    if rest:
        raise ValueError(f"{rest[0]!r} is no flag; allowed: {', '.join('--' + name for name in sorted(flag_values))}")


def require(values: flags.FlagValues, **allowed: str) -> None:
    """Raises a `ValueError` for the first flag without a value; `allowed` has, by flag, what its value may be."""
    for name, what in allowed.items():
        if getattr(values, name) in (None, "", []):  # 0 is a value
            raise ValueError(f"{name} is not given; allowed: {what}")


def option(text: str, argument: str = "options") -> tuple[str, Any]:
    """Returns the pair (name, value) of a text "name=value"; the value is read as JSON, True or False, or as text."""
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise ValueError(f"{argument} has {text!r}; allowed: name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, {"True": True, "False": False}.get(value, value)


def typed(module: str, arguments: Sequence[str]) -> str:
    """Returns the command that runs `module` with these arguments, as one types it into a shell."""
    return shlex.join(["python", "-m", module, *arguments])


def of_this_process() -> str:
    """Returns the command that this process was started with, as one types it into a shell."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec:
        return typed(spec.name.removesuffix(".__main__"), sys.argv[1:])
    return shlex.join(["python", pathlib.Path(sys.argv[0]).name, *sys.argv[1:]])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as lines of text with aligned columns; the first row has the headings."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _named(error: flags.Error, flag_values: flags.FlagValues) -> str:
    """Returns an error of absl in one line; for a value of another type with what is allowed."""
    said = " ".join(str(error).split())
    found = re.match(r"flag --(\w+)=(.*?): ", said)
    allowed = VALUES.get(flag_values[found[1]].parser.flag_type()) if found else None
    return said if found is None or allowed is None else f"--{found[1]} is {found[2]!r}; allowed: {allowed}"


def _help(flag_values: flags.FlagValues, usage: str) -> str:
    lines = [usage.strip(), "", "Flags:"]
    for name in flag_values:
        flag = flag_values[name]
        default = f" (default: {flag.default})" if flag.default not in (None, []) else ""
        lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(lines)


def print_any_name() -> None:
    """Makes `print` escape what the output's encoding lacks, as the name of a file may have; else it would raise."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def of_memory(error: BaseException, allowed: str) -> str:
    """Returns the line to print for an error of `OUT_OF_MEMORY`."""
    return f"memory is not enough ({keras_compat.reason_of(error)}); allowed: {allowed}, or a smaller network"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A context in which Ctrl-C raises `KeyboardInterrupt`, even if the interrupted code turns it into another error.

    A signal that has another handler, or is ignored as in the background of a shell, is left alone.
    """
    is_main, seen = threading.current_thread() is threading.main_thread(), []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if seen:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def main(command: Callable[[list[str]], int], *, continues: bool = True) -> NoReturn:
    """Runs `command(arguments) -> exit status` and exits; bad input is one line on the standard error stream.

    `continues` says whether the command, started again after an interrupt, goes on or begins anew.
    """
    print_any_name()
    try:
        with interruptible():
            status = command(sys.argv[1:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        status = BAD_INPUT
    except (FloatingPointError, files.NotSavedError, workers.LostError) as error:
        print(f"\nerror: {error}", file=sys.stderr)  # the current line may hold a progress bar
        status = 1
    except OUT_OF_MEMORY as error:
        print(f"\nerror: {of_memory(error, 'fewer images at a time (--batch_size)')}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        how = "continues where it was" if continues else "begins anew"
        print(f"interrupted; the same command {how}", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)
