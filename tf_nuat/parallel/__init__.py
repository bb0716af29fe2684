"""Several devices and machines: statistics of the global batch, the strategies by name, `tf_config` and `workers`."""

from tf_nuat.parallel.batch_statistics import (
    average_statistics,
    finite_on_all,
    gather,
    moving_statistics,
    own_gradients,
    own_of_last,
    own_rows,
    replicas,
    scalar,
    share_of_batch_statistic,
    share_of_mean,
    synchronized,
    total,
    weighing,
)
from tf_nuat.parallel.strategies import STRATEGIES, strategy

__all__ = [
    "STRATEGIES",
    "average_statistics",
    "finite_on_all",
    "gather",
    "moving_statistics",
    "own_gradients",
    "own_of_last",
    "own_rows",
    "replicas",
    "scalar",
    "share_of_batch_statistic",
    "share_of_mean",
    "strategy",
    "synchronized",
    "total",
    "weighing",
]
