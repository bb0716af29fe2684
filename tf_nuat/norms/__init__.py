"""`NORMS`: the geometry of threat models, an object for each norm.

A threat model allows every image that is within `epsilon` of the clean one, in a norm, and within [0, 1]. Everything
that several modules need of a norm is a method here. What one attack needs is a table of its own, by the norm's name.
"""

from tf_nuat.core import validation
from tf_nuat.norms.geometry import corners, inwards, shared_out, sign_of_largest
from tf_nuat.norms.l1 import L1
from tf_nuat.norms.l2 import L2
from tf_nuat.norms.linf import Linf
from tf_nuat.norms.norm import Norm

__all__ = ["L1", "L2", "Linf", "Norm", "corners", "inwards", "label", "of", "shared_out", "sign_of_largest"]

LINF = Linf()
NORMS: dict[str, Norm] = {norm.name: norm for norm in (LINF, L2(), L1())}


def of(norm: str | Norm) -> Norm:
    """Returns the object of a norm, for its name or the object itself.

    Raises:
        ValueError: there is no norm of that name.

    Example:
        >>> from tf_nuat import norms
        >>> norms.of("l2").label
        'L2'
    """
    return norm if isinstance(norm, Norm) else validation.one_of("norm", norm, NORMS)


def label(name: str) -> str:
    """Returns how a norm of this name is written, the name itself if there is no such norm.

    Example:
        >>> from tf_nuat import norms
        >>> norms.label("linf"), norms.label("spectral")
        ('L-infinity', 'spectral')
    """
    return NORMS[name].label if name in NORMS else name
