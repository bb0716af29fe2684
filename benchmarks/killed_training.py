"""Shows that training which is killed again and again ends with the bits of training that is not.

    python -m benchmarks.killed_training --kills 20 --out results/benchmarks/killed_training.json

Runs `python -m recipes.digits` once to its end, and once more with SIGKILL at random moments: while it trains, while it
writes a checkpoint, and while it validates an epoch, in turn. Then compares the weights of the last and of the best
network, bit by bit, and what was measured.
"""

import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
from absl import flags
from tqdm import tqdm

from benchmarks import figures
from tf_nuat import card, command_line, data
from tf_nuat.core import validation

FLAGS = flags.FlagValues()
flags.DEFINE_integer("kills", 20, "number of kills", flag_values=FLAGS)
flags.DEFINE_integer("epochs", 24, "of training", flag_values=FLAGS)
flags.DEFINE_string("defense", "nuat_wa_h", "a recipe of recipes.digits", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "the run and the moments follow from it", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)
MOMENTS = ("training", "checkpoint", "validation")
PATIENCE = 120  # seconds until the moment has to come


def training(out, epochs, defense, seed):
    """Returns the command of a run that saves its state after every batch."""
    return [
        *(sys.executable, "-m", "recipes.digits", f"--defense={defense}", f"--epochs={epochs}", f"--seed={seed}"),
        *("--network=lenet_plus", "--save_every=0", f"--out={out}"),
    ]


def batches(state):
    """Returns after how many batches the newest checkpoint was written, 0 where there is none."""
    names = [re.fullmatch(r"batches-(\d+)\.npz", path.name) for path in state.glob("*.npz")]
    return max((int(name.group(1)) for name in names if name), default=0)


def wait_for(moment, process, state, before, steps_per_epoch, draws):
    """Returns when it is time to kill a run, which has then trained on since `before` batches."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("training ended before all kills: give it more --epochs")
        now = batches(state)
        if moment == "checkpoint" and now > before and list(state.glob(".unfinished-*")):
            return
        # The last batch of an epoch leaves no checkpoint: validation follows.
        at_the_end = now % steps_per_epoch == steps_per_epoch - 1
        if moment == "validation" and now > before and at_the_end:
            time.sleep(draws.uniform(0.05, 0.5))
            return
        if moment == "training" and now > before:
            time.sleep(draws.uniform(0.0, 0.5))
            return
        time.sleep(0.0005)
    raise RuntimeError(f"no {moment} within {PATIENCE} seconds")


def killed_run(command, out, kills, steps_per_epoch, seed):
    """Runs `command` with so many kills, and to its end; returns what was going on at each, and the batches then."""
    draws, state, found = random.Random(seed), out / "state", []
    for number in tqdm(range(kills), desc="kills"):
        moment, before = MOMENTS[number % len(MOMENTS)], batches(state)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_for(moment, process, state, before, steps_per_epoch, draws)
            process.send_signal(signal.SIGKILL)
        found.append({"moment": moment, "batches": batches(state), "half_written": bool(list(state.glob(".unfin*")))})
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return found


def outcome(folder):
    """Returns the weights of both networks of a run, and what was measured without the times."""
    run = card.read(folder / card.NAME)
    networks = (keras.saving.load_model(folder / name, compile=False) for name in ("last.keras", "network.keras"))
    weights = [weight for network in networks for weight in network.get_weights()]
    history = [{name: value for name, value in logs.items() if name != "seconds"} for logs in run.history]
    return weights, {"measured": run.measured, "history": history, "epoch_chosen": run.epoch_chosen}


def run(kills, epochs, defense, seed):
    """Returns a dict of what was compared."""
    steps_per_epoch = data.load("digits", batch_size=32).steps_per_epoch
    with tempfile.TemporaryDirectory() as name:
        whole, killed = pathlib.Path(name) / "whole", pathlib.Path(name) / "killed"
        command = training(whole, epochs, defense, seed)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = killed_run(training(killed, epochs, defense, seed), killed, kills, steps_per_epoch, seed)
        (weights, measured), (other_weights, other_measured) = outcome(whole), outcome(killed)
    return {
        "kills": found,
        "batches": epochs * steps_per_epoch,
        "weights_compared": sum(weight.size for weight in weights),
        "same_weights": all(np.array_equal(one, other) for one, other in zip(weights, other_weights)),
        "same_history_and_measurements": measured == other_measured,
    }


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    for name in ("kills", "epochs"):
        validation.whole_number(name, getattr(FLAGS, name), at_least=1)
    content = run(FLAGS.kills, FLAGS.epochs, FLAGS.defense, FLAGS.seed)
    figures.publish("benchmarks.killed_training", arguments, content, FLAGS.out)
    return 0 if content["same_weights"] and content["same_history_and_measurements"] else 1


if __name__ == "__main__":
    command_line.main(command)
