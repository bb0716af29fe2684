"""Datasets: `load(name)` returns training, validation and test splits (see `tf_nuat.data.datasets`)."""

from tf_nuat.data.classes import read_names as read_class_names
from tf_nuat.data.datasets import DATASETS, check_name, load, reads_files, sample
from tf_nuat.data.splits import Splits
from tf_nuat.data.subsets import stratified, stratified_order

__all__ = [
    "DATASETS",
    "Splits",
    "check_name",
    "load",
    "read_class_names",
    "reads_files",
    "sample",
    "stratified",
    "stratified_order",
]
