"""What is made for a network, compiled functions for instance, lives as long as the network, and no longer."""

from collections.abc import Hashable
from typing import Any

_NAME = "_kept_by_tf_nuat"


def kept_by(owner: Any) -> dict[Hashable, Any]:
    """Returns the dict of what was made for `owner`, a network or a function of images.

    It is an attribute of the owner. A table beside it would hold what refers to the network, and with it the network,
    for ever. An owner that takes no attribute gets an empty dict each time.
    """
    function = getattr(owner, "__func__", None)  # of a method, which is another object each time it is asked for
    try:
        # Past Keras, which would take the dict for layers and weights of its own.
        kept = vars(owner if function is None else owner.__self__).setdefault(_NAME, {})
    except TypeError:
        return {}
    return kept if function is None else kept.setdefault(function, {})
