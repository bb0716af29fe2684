"""Attacks, called as `attack(logits_fn, x, y, *, epsilon, ...) -> x_adv` (see `tf_nuat.attacks.attack`)."""

from tf_nuat.attacks.apgd import apgd_ce, apgd_dlr, apgd_t
from tf_nuat.attacks.attack import Attack
from tf_nuat.attacks.autoattack import autoattack
from tf_nuat.attacks.averaged import Averaged, averaged
from tf_nuat.attacks.cw import cw
from tf_nuat.attacks.deepfool import deepfool
from tf_nuat.attacks.fab import fab, fab_t
from tf_nuat.attacks.fgsm import fgsm
from tf_nuat.attacks.gama import gama_fw, gama_pgd
from tf_nuat.attacks.ifgsm import ifgsm
from tf_nuat.attacks.mifgsm import mifgsm
from tf_nuat.attacks.nuclear import nuclear
from tf_nuat.attacks.pgd import pgd
from tf_nuat.attacks.pgd_cw import pgd_cw
from tf_nuat.attacks.random_search import random_search
from tf_nuat.attacks.rfgsm import rfgsm
from tf_nuat.attacks.spsa import spsa
from tf_nuat.attacks.square import square
from tf_nuat.attacks.transfer import transfer

ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "rfgsm": rfgsm,
    "ifgsm": ifgsm,
    "mifgsm": mifgsm,
    "pgd": pgd,
    "pgd_cw": pgd_cw,
    "nuclear": nuclear,
    "gama_pgd": gama_pgd,
    "gama_fw": gama_fw,
    "apgd_ce": apgd_ce,
    "apgd_dlr": apgd_dlr,
    "apgd_t": apgd_t,
    "fab": fab,
    "fab_t": fab_t,
    "square": square,
    "spsa": spsa,
    "random_search": random_search,
    "autoattack": autoattack,
    "deepfool": deepfool,
    "cw": cw,
    "transfer": transfer,
}

__all__ = ["ATTACKS", "Attack", "Averaged", "averaged", *ATTACKS]
