"""What one worker of `multiworker_test.py` does, one after the other; a process that starts is half a minute.

TF_CONFIG=... python -m tests.helpers.worker FOLDER NUMBER

It trains defenses by `fit`, and writes their weights to FOLDER/NUMBER.npz; judges FOLDER/network.keras; asks for a run
with NUMBER as its seed; trains a recipe in FOLDER/whole-NUMBER; writes the exit statuses to FOLDER/status-NUMBER;
trains it again in FOLDER/worker-NUMBER, with a checkpoint after each batch. Started again, it does the last alone.
"""

import contextlib
import functools
import pathlib
import sys

import numpy as np
import tensorflow as tf

from recipes import command, digits
from tests.helpers import distributed
from tf_nuat import parallel
from tf_nuat.evaluate import __main__ as evaluation

DEFENSES = ("nuat", "sat_r1")
RECIPE = {"--defense": "nuat", "--network": "tests.helpers.tiny:network", "--test_images": 40}


def status(main, flags):
    """Returns the exit status of a command with these flags, a dict."""
    sys.argv = ["command", *(f"{name}={value}" for name, value in flags.items())]
    try:
        main()
    except SystemExit as stopped:
        return stopped.code


def train(out, *, strategy="multiworker", **flags):
    """Returns the exit status of the digits' recipe with these flags besides `RECIPE`."""
    given = {"--out": out, "--strategy": strategy, **{f"--{name}": value for name, value in flags.items()}}
    return status(functools.partial(command.main, digits.RECIPES, digits.__doc__), {**RECIPE, **given})


def judge(folder, out, strategy):
    """Returns the exit status of the judgement of the network in a folder."""
    flags = {"--checkpoint": folder / "network.keras", "--dataset": folder / "data.npz", "--epsilon": 0.04}
    flags |= {"--attack": "square,pgd", "--options": "queries=100", "--out": out, "--strategy": strategy}
    return status(functools.partial(evaluation.command_line.main, evaluation.command), flags)


def fit(path):
    """Trains defenses, and writes what they end with."""
    strategy = parallel.strategy("multiworker")
    weights = {}
    for name in DEFENSES:
        model, history = distributed.trained(name, strategy)
        weights.update({f"{name}/{key}": np.asarray(values) for key, values in history.items()})
        for number, weight in enumerate(model.network.get_weights()):
            weights[f"{name}/{number}"] = weight
    model, _ = distributed.trained("gat_wa", strategy, network=distributed.with_batch_norm)
    for number, weight in enumerate([*model.trained_network.get_weights(), *model.network.get_weights()]):
        weights[f"batch_norm/{number}"] = weight
    np.savez(path, **weights)


def before(folder, number):
    """Does all but the last run."""
    fit(folder / f"{number}.npz")
    with (folder / f"judged-{number}").open("w") as file, contextlib.redirect_stdout(file):
        judged = judge(folder, folder / f"judgement-{number}", "multiworker")
    with (folder / f"seeds-{number}").open("w") as file, contextlib.redirect_stderr(file):
        seeds = train(folder / f"seeds-out-{number}", epochs=1, seed=number)
    whole = train(folder / f"whole-{number}", epochs=2)
    (folder / f"status-{number}").write_text(f"{judged} {seeds} {whole}")


def main(folder, number):
    # Most graphs run a few times: optimizing them takes longer than that saves.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if not (folder / f"status-{number}").exists():
        before(folder, number)
    sys.exit(train(folder / f"worker-{number}", epochs=2, save_every=0))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
