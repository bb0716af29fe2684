"""Shows that an evaluation which is killed again and again ends with the results of one that is not.

    python -m benchmarks.kills --kills 10 --out results/benchmarks/kills.json

Runs `python -m tf_nuat.evaluate` on scikit-learn's digits, once to its end, and once more with SIGKILL at random
moments, counted from the first file that it writes; then compares the two records image by image.
"""

import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
from absl import flags
from tqdm import tqdm

from benchmarks.attacks import small_network
from benchmarks.figures import save
from tf_nuat import command_line, data
from tf_nuat.core import validation

FLAGS = flags.FlagValues()
flags.DEFINE_integer("kills", 10, "number of kills", flag_values=FLAGS)
flags.DEFINE_integer("queries", 15000, "of Square, which is the last attack: more take longer", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "the network and the moments follow from it", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)
EPSILON = 0.02
LONGEST = 1.5  # seconds from the first file to a kill


def evaluation(folder, out, queries):
    """Returns the command of an evaluation of the network in `folder`."""
    return [
        *(sys.executable, "-m", "tf_nuat.evaluate"),
        *(f"--checkpoint={folder / 'network.keras'}", f"--dataset={folder / 'data.npz'}", f"--epsilon={EPSILON}"),
        *("--attack=pgd,apgd_t,square", f"--options=steps=20,queries={queries}", "--batch_size=60"),
        *("--save_every=0.5", f"--out={folder / out}"),
    ]


def prepare(folder, seed):
    """Writes a network and digits, labelled as it says, into `folder`."""
    keras.utils.set_random_seed(seed)
    network = small_network((8, 8, 1))
    images, _ = data.load("digits").arrays("test")
    network.save(folder / "network.keras")
    np.savez(folder / "data.npz", images=images, labels=network.predict(images, verbose=0).argmax(axis=1))


def killed_run(command, folder, kills, seed):
    """Runs `command` with so many kills, and to its end; returns the seconds after which each came, and the stages."""
    moments, state = random.Random(seed), folder / "killed" / "state.npz"
    after, stages = [], []
    for _ in tqdm(range(kills), desc="kills"):
        before = state.stat().st_mtime_ns if state.exists() else None
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
                time.sleep(0.02)
            after.append(moments.uniform(0.0, LONGEST))
            time.sleep(after[-1])
            if process.poll() is not None:
                raise RuntimeError(f"the evaluation ended before kill {len(after)}: give it more --queries")
            process.send_signal(signal.SIGKILL)
        with np.load(state) as saved:
            stages.append(int(saved["stage"]))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return after, stages


def run(kills, queries, seed):
    """Returns a dict of what was compared."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(folder, seed)
        whole = evaluation(folder, "whole", queries)
        subprocess.run(whole, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after, stages = killed_run(evaluation(folder, "killed", queries), folder, kills, seed)
        one, other = (dict(np.load(folder / each / "record.npz")) for each in ("whole", "killed"))
    return {
        "kills": len(after),
        "seconds_to_kill": [round(each, 2) for each in after],
        "stages_when_killed": stages,
        "images": len(one["fooled_by"]),
        "fooled_by": {str(key): int(np.sum(one["fooled_by"] == key)) for key in np.unique(one["fooled_by"])},
        "same_fooled_by": bool(np.array_equal(one["fooled_by"], other["fooled_by"])),
        "same_distance": bool(np.array_equal(one["distance"], other["distance"], equal_nan=True)),
    }


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    validation.whole_number("kills", FLAGS.kills, at_least=1)
    validation.whole_number("queries", FLAGS.queries, at_least=1)
    figures = {
        "command": " ".join(["python -m benchmarks.kills", *arguments]),
        **run(FLAGS.kills, FLAGS.queries, FLAGS.seed),
    }
    print(json.dumps(figures, indent=2))
    save(figures, FLAGS.out)
    return 0 if figures["same_fooled_by"] and figures["same_distance"] else 1


if __name__ == "__main__":
    command_line.main(command)
