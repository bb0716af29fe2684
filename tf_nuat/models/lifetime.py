"""What is made for a network, compiled functions for instance, lives as long as the network, and no longer."""

import weakref
from collections.abc import Callable, Hashable
from types import MethodType
from typing import Any

_NAME = "_kept_by_tf_nuat"


class _Kept:
    """The dict of an owner. A plain dict would not do: Keras saves networks in it with the network that has it."""

    def __init__(self, owner: Any) -> None:
        self.owner = weakref.ref(owner)
        self.values: dict[Hashable, Any] = {}


def kept_by(owner: Any) -> dict[Hashable, Any]:
    """Returns the dict of what was made for `owner`, a network or a function of images.

    It is an attribute of the owner. A table beside it would hold what refers to the network, and with it the network,
    for ever. An owner that takes no attribute gets an empty dict each time.
    """
    if isinstance(owner, MethodType):  # another object each time it is asked for
        return kept_by(owner.__self__).setdefault((kept_by, owner.__func__), {})
    try:
        attributes = vars(owner)  # past Keras, which looks at attributes that are set
        kept = attributes.get(_NAME)
        if kept is None or kept.owner() is not owner:  # `functools.wraps` copies the attributes of another function
            kept = attributes[_NAME] = _Kept(owner)
    except TypeError:
        return {}
    return kept.values


def made_once(owner: Any, key: Hashable, make: Callable[[], Any]) -> Any:
    """Returns what `make()` returned for `owner` and this `key`: it is called where nobody has asked before."""
    kept = kept_by(owner)
    if key not in kept:
        kept[key] = make()
    return kept[key]
