"""Attacks: pure functions `attack(logits_fn, x, y, *, epsilon, ...) -> x_adv` (see `tf_nuat.attacks.base`)."""

from tf_nuat.attacks.apgd import apgd_ce, apgd_dlr, apgd_t
from tf_nuat.attacks.fgsm import fgsm
from tf_nuat.attacks.ifgsm import ifgsm
from tf_nuat.attacks.nuclear import nuclear
from tf_nuat.attacks.pgd import pgd
from tf_nuat.attacks.rfgsm import rfgsm

ATTACKS = {
    "fgsm": fgsm,
    "rfgsm": rfgsm,
    "ifgsm": ifgsm,
    "pgd": pgd,
    "nuclear": nuclear,
    "apgd_ce": apgd_ce,
    "apgd_dlr": apgd_dlr,
    "apgd_t": apgd_t,
}

__all__ = ["ATTACKS", *ATTACKS]
