"""Defenses: Keras models that make a network robust by `fit` (see `tf_nuat.defenses.base.Defense`)."""

import keras

from tf_nuat.defenses.awp import AWP, AWPTRADES
from tf_nuat.defenses.base import Defense
from tf_nuat.defenses.bat import BAT
from tf_nuat.defenses.eat import EAT
from tf_nuat.defenses.elle import ELLE, ELLEA
from tf_nuat.defenses.fbf import FBF
from tf_nuat.defenses.fgsm_at import FGSMAT, RFGSMAT
from tf_nuat.defenses.free_at import FreeAT
from tf_nuat.defenses.gat import GAT, GATWA
from tf_nuat.defenses.grad_align import GradAlign
from tf_nuat.defenses.mart import MART
from tf_nuat.defenses.n_fgsm import NFGSM
from tf_nuat.defenses.nuat import NuAT, NuAT2, NuAT2WA, NuATH, NuATWA, NuATWAH
from tf_nuat.defenses.passes import Passes
from tf_nuat.defenses.pgd_at import PGDAT
from tf_nuat.defenses.sat import SATR1, SATR2, SATR3
from tf_nuat.defenses.standard import Standard
from tf_nuat.defenses.trades import TRADES, TRADESWA

DEFENSES: dict[str, type[Defense]] = {
    "standard": Standard,
    "fgsm_at": FGSMAT,
    "rfgsm_at": RFGSMAT,
    "fbf": FBF,
    "n_fgsm": NFGSM,
    "grad_align": GradAlign,
    "elle": ELLE,
    "elle_a": ELLEA,
    "free_at": FreeAT,
    "gat": GAT,
    "gat_wa": GATWA,
    "eat": EAT,
    "pgd_at": PGDAT,
    "trades": TRADES,
    "trades_wa": TRADESWA,
    "mart": MART,
    "awp": AWP,
    "awp_trades": AWPTRADES,
    "bat": BAT,
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

for _defense in DEFENSES.values():  # so that Keras loads saved ones by name
    keras.saving.register_keras_serializable(package="tf_nuat")(_defense)

WITHOUT_ADVERSARY = "standard"  # trains source networks, and networks that are compared with defenses

__all__ = [
    "AWP",
    "AWPTRADES",
    "BAT",
    "DEFENSES",
    "Defense",
    "EAT",
    "ELLE",
    "ELLEA",
    "FBF",
    "FGSMAT",
    "FreeAT",
    "GAT",
    "GATWA",
    "GradAlign",
    "MART",
    "NFGSM",
    "NuAT",
    "NuAT2",
    "NuAT2WA",
    "NuATH",
    "NuATWA",
    "NuATWAH",
    "PGDAT",
    "Passes",
    "RFGSMAT",
    "SATR1",
    "SATR2",
    "SATR3",
    "Standard",
    "TRADES",
    "TRADESWA",
    "WITHOUT_ADVERSARY",
]
