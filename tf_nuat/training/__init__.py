"""Training: a `Recipe` is an experiment as plain data, `run` carries it out."""

from tf_nuat.training.experiment import build, check, run
from tf_nuat.training.recipe import Recipe

__all__ = ["Recipe", "build", "check", "run"]
