"""Keeps what is made for a network, such as compiled functions, as long as the network lives, and no longer."""

import weakref
from collections.abc import Callable, Hashable
from types import MethodType
from typing import Any

_NAME = "_kept_by_tf_nuat"


class _Kept:
    """The dict of an owner. It is not a plain dict: Keras would save the networks in one together with the owner."""

    def __init__(self, owner: Any) -> None:
        self.owner = weakref.ref(owner)
        self.values: dict[Hashable, Any] = {}


def kept_by(owner: Any) -> dict[Hashable, Any]:
    """Returns the dict of what was made for `owner`, a network or a function of images.

    It is an attribute of the owner: the values refer to the network, so a global table would keep the network alive for
    ever. An owner that takes no attribute gets an empty dict each time.
    """
    if isinstance(owner, MethodType):  # a new object at each access
        return kept_by(owner.__self__).setdefault((kept_by, owner.__func__), {})
    try:
        attributes = vars(owner)  # Keras would track an attribute that is set
        kept = attributes.get(_NAME)
        if kept is None or kept.owner() is not owner:  # `functools.wraps` copies the attributes of another function
            kept = attributes[_NAME] = _Kept(owner)
    except TypeError:
        return {}
    return kept.values


def made_once(owner: Any, key: Hashable, make: Callable[[], Any]) -> Any:
    """Returns what `make()` returned for `owner` and this `key`: it is only called the first time."""
    kept = kept_by(owner)
    if key not in kept:
        kept[key] = make()
    return kept[key]
