"""What one worker of `multiworker_test.py` does: it trains defenses by `fit`, one after the other, and writes weights.

TF_CONFIG=... python -m tests.helpers.worker OUT.npz
"""

import sys

import numpy as np

from tests.helpers import distributed
from tf_nuat import parallel

DEFENSES = ("nuat", "sat_r1", "eat")


def main(out):
    strategy = parallel.strategy("multiworker")
    weights = {}
    for name in DEFENSES:
        model, history = distributed.trained(name, strategy)
        weights.update({f"{name}/{key}": np.asarray(values) for key, values in history.items()})
        for number, weight in enumerate(model.network.get_weights()):
            weights[f"{name}/{number}"] = weight
    model, _ = distributed.trained("nuat_wa", strategy, network=distributed.with_batch_norm)
    for number, weight in enumerate([*model.trained_network.get_weights(), *model.network.get_weights()]):
        weights[f"batch_norm/{number}"] = weight
    np.savez(out, **weights)


if __name__ == "__main__":
    main(sys.argv[1])
