"""Robust image classifiers in Keras by single-step adversarial training."""

from tf_nuat.core import backend as backend  # before anything imports TensorFlow or Keras

# isort: split

from tf_nuat import (
    attacks,
    critical_epsilon,
    data,
    defenses,
    evaluate,
    losses,
    networks,
    norms,
    optimizers,
    parallel,
    schedules,
    training,
)
from tf_nuat.attacks import ATTACKS
from tf_nuat.core import validation as validation  # scripts import it from here; it is not part of the reference
from tf_nuat.defenses import *  # noqa: F403  # every name that the package of defenses exports
from tf_nuat.networks import NETWORKS
from tf_nuat.norms import NORMS
from tf_nuat.training import callbacks

__version__ = "0.1.0"

__all__ = [
    "ATTACKS",
    "NETWORKS",
    "NORMS",
    "attacks",
    "callbacks",
    "critical_epsilon",
    "data",
    "defenses",
    "evaluate",
    "losses",
    "networks",
    "norms",
    "optimizers",
    "parallel",
    "schedules",
    "training",
]
__all__ += defenses.__all__
