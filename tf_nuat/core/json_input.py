"""Safely reads JSON that someone else wrote, and checks the types of its values.

A check is a function `(value, field) -> value` that raises `ValueError`, one line that names the field and its file.
"""

import collections
import dataclasses
import functools
import json
import math
import os
import pathlib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tf_nuat.core import files

MOST_BYTES = 64 * 2**20
MOST_LEVELS = 50  # of brackets within brackets
MOST_TEXT = 120  # characters of a value or a name that an error shows
LARGEST = 2**63  # bound of whole numbers, all of which convert to a float


def load(argument: str, path: str | os.PathLike) -> Any:
    """Returns the content of a JSON file.

    Raises:
        ValueError: there is no such file, it cannot be read or is too large, or it is not JSON.
    """
    path = pathlib.Path(path)
    try:
        if not path.is_file():  # a pipe would block
            raise ValueError(f"{argument} is {str(path)!r}, which is not a file; allowed: a JSON file")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{argument} is {str(path)!r}, which is too large; allowed: at most {MOST_BYTES:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{argument} is {_cut(str(path))!r}, which cannot be read ({files.reason(error)}); allowed: a JSON file"
        ) from error
    return parsed(f"{argument} is {str(path)!r}, which", content)


def parsed(where: str, content: str | bytes, *, allowed: str = "a JSON file") -> Any:
    """Returns what JSON says.

    Args:
        where: beginning of an error, "card is 'card.json', which".
        content: the text, or its bytes in UTF-8, UTF-16 or UTF-32.
        allowed: end of an error.

    Raises:
        ValueError: it is not JSON, a dict has a name twice, or lists and dicts are nested too deeply.
    """
    twice = list[str]()

    def of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            twice.append(collections.Counter(name for name, _ in pairs).most_common(1)[0][0])
        return content

    try:
        found = json.loads(content, object_pairs_hook=of_pairs)
    except (ValueError, RecursionError) as error:  # a number may have too many digits, too
        raise ValueError(
            f"{where} is not JSON ({type(error).__name__}: {files.line(str(error), MOST_TEXT)}); allowed: {allowed}"
        ) from error
    if twice:  # Python would take the last
        raise ValueError(f"{where} has {shown(twice[0])} twice; allowed: each name once")
    if _levels(found, MOST_LEVELS) > MOST_LEVELS:
        raise ValueError(f"{where} is nested too deeply; allowed: at most {MOST_LEVELS} levels")
    return found


def refuse_another(argument: str, path: pathlib.Path, own: str) -> None:
    """Raises a `ValueError` if a JSON file that will be replaced is of another command: if it lacks the name `own`.

    A file that is no JSON, such as one that was damaged, is replaced.
    """
    try:
        content = load(argument, path)
    except ValueError:
        return
    if not isinstance(content, dict) or own not in content:
        raise ValueError(
            f"{argument} is {str(path.parent)!r}, whose {path.name} is of another command; allowed: another folder"
        )


def check_levels(content: Any, most: int) -> None:
    """Raises a `ValueError` where lists and dicts are nested more deeply."""
    if _levels(content, most) > most:
        raise ValueError(f"it is nested more than {most} levels deep")


def _levels(content: Any, most: int) -> int:
    """Returns how deep lists and dicts are nested, at most one more than is allowed; without recursion."""
    level, inner = 0, [content]
    while inner and level <= most:
        inner = [
            each
            for value in inner
            if isinstance(value, (dict, list))
            for each in (value.values() if isinstance(value, dict) else value)
        ]
        level += 1
    return level


def dicts_in(content: Any) -> Iterator[dict[str, Any]]:
    """Yields every dict in lists and dicts, `content` itself among them, the outer before the inner."""
    if isinstance(content, dict):
        yield content
        content = list(content.values())
    for each in content if isinstance(content, list) else ():
        yield from dicts_in(each)


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a file: `name` with a dot before each further name, and the path of the file."""

    name: str
    path: str | os.PathLike

    def __truediv__(self, name: str) -> "Field":
        return Field(f"{self.name}.{name}" if self.name else name, self.path)

    def refuse(self, value: Any, allowed: str) -> typing.NoReturn:
        """Raises `ValueError` for a value that is not allowed."""
        path = files.line(str(self.path), 1000)
        name = f"{files.line(self.name, MOST_TEXT)} in {path}" if self.name else f"content of {path}"
        raise ValueError(f"{name} is {shown(value)}; allowed: {allowed}")


Check = Callable[[Any, Field], Any]


def shown(value: Any) -> str:
    """Returns a value as text for an error, cut where it is long."""
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."


def anything(value: Any, field: Field) -> Any:
    """Returns `value`, whatever it is."""
    return value


def text(value: Any, field: Field) -> str:
    """Returns `value`, text."""
    return value if isinstance(value, str) else field.refuse(value, "text")


def text_or_none(value: Any, field: Field) -> str | None:
    """Returns `value`, text or null."""
    return value if value is None or isinstance(value, str) else field.refuse(value, "text or null")


def flag(value: Any, field: Field) -> bool:
    """Returns `value`, true or false."""
    return value if isinstance(value, bool) else field.refuse(value, "true or false")


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < LARGEST)


def logged(value: Any, field: Field) -> float:
    """Returns `value`, a number, which may be NaN or infinite."""
    return value if _is_number(value) else field.refuse(value, "a number")


def number(value: Any, field: Field, *, at_most: float = math.inf) -> float:
    """Returns `value`, a finite number, at least 0."""
    if not (_is_number(value) and math.isfinite(value) and 0.0 <= value <= at_most):
        field.refuse(value, "a number, at least 0" + (f" and at most {at_most:g}" if at_most < math.inf else ""))
    return value


share = functools.partial(number, at_most=1.0)


def whole(value: Any, field: Field, *, at_least: int = 0) -> int:
    """Returns `value`, a whole number."""
    if type(value) is not int or not at_least <= value < LARGEST:
        field.refuse(value, f"a whole number, at least {at_least}")
    return value


count = functools.partial(whole, at_least=1)


def dict_of(check: Check) -> Check:
    """Returns the check of a dict whose values `check` checks."""

    def checked(value: Any, field: Field) -> dict[str, Any]:
        if not isinstance(value, dict):
            field.refuse(value, "names and values, {...}")
        return {name: check(each, field / name) for name, each in value.items()}

    return checked


named = dict_of(anything)


def list_of(check: Check) -> Check:
    """Returns the check of a list whose values `check` checks."""

    def checked(value: Any, field: Field) -> list[Any]:
        if not isinstance(value, list):
            field.refuse(value, "a list, [...]")
        return [check(each, field / str(place)) for place, each in enumerate(value)]

    return checked


def pair(value: Any, field: Field) -> tuple[Any, Any]:
    """Returns `value`, a list of two, as a pair."""
    if not isinstance(value, list) or len(value) != 2:
        field.refuse(value, "a list of two, [..., ...]")
    return value[0], value[1]


def interval(value: Any, field: Field) -> tuple[float, float]:
    """Returns `value`, [low, high] in [0, 1], as a pair."""
    low, high = pair(value, field)
    return share(low, field / "0"), share(high, field / "1")


def fields(checks: Mapping[str, Check], value: Any, field: Field, *, required: Iterable[str] = ()) -> dict[str, Any]:
    """Returns those of the named fields that `value`, a dict, has, each checked; other fields are left out."""
    content = named(value, field)
    for name in required:
        if name not in content:
            field.refuse(value, f"one with {name}")
    return {name: check(content[name], field / name) for name, check in checks.items() if name in content}
