"""Judges networks again and again in one process, and measures what it holds: memory, open files, threads.

    python -m benchmarks.judgements --judgements 50 --out results/survival/judgements.json

Each time, it loads a network of digits from its file, judges it by every check (or those of `--checks`), and drops it.
What the process holds has to level off: exits with 1 if the second half adds too much, compared with the first.
"""

import os
import pathlib
import tempfile
import threading
import time

import keras
import numpy as np
from absl import flags
from tqdm import tqdm

import sanity
from benchmarks import figures
from benchmarks.attacks import small_network
from sanity.judgement import checked_names
from tf_nuat import command_line, data
from tf_nuat.core import validation

FLAGS = flags.FlagValues()
flags.DEFINE_integer("judgements", 50, "how many", flag_values=FLAGS)
flags.DEFINE_integer("images", 60, "of each judgement", flag_values=FLAGS)
flags.DEFINE_list("checks", ["all"], "which checks to run", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "the network follows from it", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)
EPSILON = 0.02
LEVEL = 0.2  # what the second half may add, as a share of the growth of the first


def held():
    """Returns what this process holds: MiB of memory, open files, threads."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory_mib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        "open_files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


def run(count, images, seed, checks):
    """Returns what the process held before and after each of `count` judgements, with their seconds and verdicts."""
    keras.utils.set_random_seed(seed)
    network = small_network((8, 8, 1))
    x, _ = data.load("digits").arrays("test")
    x = x[:images]
    y = network.predict(x, verbose=0).argmax(axis=1)
    rows, seconds, verdicts = [held()], [], set()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "network.keras"
        network.save(path)
        for _ in tqdm(range(count), desc="judgements"):
            began = time.perf_counter()
            judged = keras.saving.load_model(path, compile=False)
            verdicts.add(sanity.judge(judged, x, y, epsilon=EPSILON, checks=checks, progress=False).verdict)
            seconds.append(round(time.perf_counter() - began, 1))
            rows.append(held())
    return {"held": rows, "seconds": seconds, "verdicts": sorted(verdicts)}


def growth(rows, name):
    """Returns how much the mean of `name` grows from quarter 1 to quarter 2 of the judgements, and from 3 to 4."""
    quarters = np.array_split(np.array([row[name] for row in rows]), 4)
    means = [float(np.mean(quarter)) for quarter in quarters]
    return {"first_half": round(means[1] - means[0], 2), "second_half": round(means[3] - means[2], 2)}


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    validation.whole_number("judgements", FLAGS.judgements, at_least=4)
    validation.whole_number("images", FLAGS.images, at_least=20)
    checks = checked_names(FLAGS.checks, "--checks")
    figures.check_out(FLAGS.out)
    content = run(FLAGS.judgements, FLAGS.images, FLAGS.seed, checks)
    content["growth"] = {name: growth(content["held"], name) for name in content["held"][0]}
    figures.publish("benchmarks.judgements", arguments, content, FLAGS.out)
    levels = [each["second_half"] <= max(1.0, LEVEL * each["first_half"]) for each in content["growth"].values()]
    return 0 if all(levels) else 1


if __name__ == "__main__":
    command_line.main(command)
