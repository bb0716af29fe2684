"""Evaluation: the accuracy of a network, clean, under an attack, or under the worst of many for each image."""

from tf_nuat.evaluate.outcomes import accuracy, arrays, correct, exceeds, share, wilson
from tf_nuat.evaluate.record import Attacked, Record
from tf_nuat.evaluate.worst import worst_case

__all__ = ["Attacked", "Record", "accuracy", "arrays", "correct", "exceeds", "share", "wilson", "worst_case"]
