"""What the commands share: absl flags, with every wrong one answered by a line and exit status 2."""

import contextlib
import json
import pathlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from absl import flags

from tf_nuat.core import files
from tf_nuat.parallel import workers

BAD_INPUT, INTERRUPTED = 2, 130  # exit statuses


def parse(flag_values: flags.FlagValues, arguments: Sequence[str], usage: str) -> None:
    """Parses `arguments` (without the program's name) into `flag_values`.

    Prints the flags of this command with `usage` and exits with 0 at --help. A flag that is unknown, or a value that
    is not allowed, is a `ValueError`, as is anything that is no flag.
    """
    if {"--help", "-h", "-help"} & set(arguments):
        print(_help(flag_values, usage))
        sys.exit(0)
    try:
        rest = flag_values(["command", *arguments])[1:]
    except flags.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    if rest:
        raise ValueError(f"{rest[0]!r} is no flag; allowed: {', '.join('--' + name for name in sorted(flag_values))}")


def require(values: flags.FlagValues, **allowed: str) -> None:
    """Raises `ValueError` for the first of the flags `allowed`, name=what it may be, that has no value in `values`."""
    for name, what in allowed.items():
        if getattr(values, name) in (None, "", []):  # 0 is a value
            raise ValueError(f"{name} is not given; allowed: {what}")


def option(text: str, argument: str = "options") -> tuple[str, Any]:
    """Returns the pair (name, value) of `text`, "name=value"; the value is JSON, or True or False, or else text."""
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
    """Returns rows of cells, the first of which are the heads of the columns, as lines of text."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _help(flag_values: flags.FlagValues, usage: str) -> str:
    lines = [usage.strip(), "", "Flags:"]
    for name in flag_values:
        flag = flag_values[name]
        default = f" (default: {flag.default})" if flag.default not in (None, []) else ""
        lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(lines)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A context in which Ctrl-C is a `KeyboardInterrupt`, whatever error the code that it interrupts makes of that.

    Signals that are handled otherwise, or ignored as in the background of a shell, are left alone.
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


def main(command: Callable[[list[str]], int]) -> NoReturn:
    """Runs `command(arguments) -> exit status` and exits; bad input is one line on the standard error stream."""
    try:
        with interruptible():
            status = command(sys.argv[1:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        status = BAD_INPUT
    except (FloatingPointError, files.NotSavedError, workers.LostError) as error:
        print(f"\nerror: {error}", file=sys.stderr)  # a progress bar may stand in the line
        status = 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it was", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)
