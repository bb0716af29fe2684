"""Datasets: `load(name)` returns training, validation and test splits (see `tf_nuat.data.datasets`)."""

from tf_nuat.data.datasets import DATASETS, check_name, load, sample
from tf_nuat.data.splits import Splits
from tf_nuat.data.subsets import stratified

__all__ = ["DATASETS", "Splits", "check_name", "load", "sample", "stratified"]
