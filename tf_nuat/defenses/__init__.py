"""Defenses: Keras models that make a network robust by `fit` (see `tf_nuat.defenses.base.Defense`)."""

from tf_nuat.defenses.base import Defense
from tf_nuat.defenses.nuat import NuAT, NuAT2, NuAT2WA, NuATH, NuATWA, NuATWAH
from tf_nuat.defenses.sat import SATR1, SATR2, SATR3
from tf_nuat.defenses.standard import Standard

DEFENSES = {
    "standard": Standard,
    "sat_r1": SATR1,
    "sat_r2": SATR2,
    "sat_r3": SATR3,
    "nuat": NuAT,
    "nuat_wa": NuATWA,
    "nuat2": NuAT2,
    "nuat2_wa": NuAT2WA,
    "nuat_h": NuATH,
    "nuat_wa_h": NuATWAH,
}

__all__ = ["DEFENSES", "Defense", *(defense.__name__ for defense in DEFENSES.values())]
