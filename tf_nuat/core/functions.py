"""Functions of the user's own, named `module:function` where a recipe or a command takes a name."""

import importlib
import re
import types
from collections.abc import Callable
from typing import Any, TypeGuard

from tf_nuat.core import files, validation

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_name(name: object) -> TypeGuard[str]:
    """Returns whether `name` has the form `module:function`."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def named(argument: str, name: str) -> Callable[..., Any]:
    """Returns the function that `name`, of the form `module:function`, names.

    The module is imported as Python imports it: `python -m` finds it in the current folder, or on the Python path.

    Raises:
        ValueError: the module cannot be imported, or has no such function.
    """
    module_name, _, attribute = name.partition(":")
    function = getattr(imported(argument, module_name, name), attribute, None)
    if not callable(function):
        validation.refuse(argument, name, f"a function of the module {module_name}")
    return function


def imported(argument: str, module_name: str, name: str | None = None) -> types.ModuleType:
    """Returns a module of the user's own; `name` is what the user wrote, if that is more than the module's name.

    Raises:
        ValueError: it cannot be imported.
    """
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # a module may raise anything while it is imported
        raise ValueError(
            f"{argument} is {name or module_name!r}, whose module cannot be imported ({type(error).__name__}: "
            f"{files.in_one_line(str(error))}); allowed: a module in the current folder or on the Python path"
        ) from error
