"""Robust image classifiers in Keras by single-step adversarial training."""

from tf_nuat import (
    attacks,
    callbacks,
    data,
    defenses,
    distribute,
    evaluate,
    losses,
    networks,
    optimizers,
    schedules,
    training,
)
from tf_nuat.attacks import ATTACKS
from tf_nuat.defenses import DEFENSES, Defense, NuAT, NuAT2, NuAT2WA, NuATH, NuATWA, NuATWAH, Standard
from tf_nuat.networks import NETWORKS

__version__ = "0.1.0"

__all__ = [
    "ATTACKS",
    "DEFENSES",
    "NETWORKS",
    "Defense",
    "NuAT",
    "NuAT2",
    "NuAT2WA",
    "NuATH",
    "NuATWA",
    "NuATWAH",
    "Standard",
    "attacks",
    "callbacks",
    "data",
    "defenses",
    "distribute",
    "evaluate",
    "losses",
    "networks",
    "optimizers",
    "schedules",
    "training",
]
