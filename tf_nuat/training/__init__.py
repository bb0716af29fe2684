"""Training: a `Recipe` is an experiment as plain data, `run` carries it out."""

from tf_nuat.training.building import build
from tf_nuat.training.experiment import check, run
from tf_nuat.training.parts import AttackSpec, ScheduleSpec, Stage
from tf_nuat.training.recipe import Recipe

__all__ = ["AttackSpec", "Recipe", "ScheduleSpec", "Stage", "build", "check", "run"]
