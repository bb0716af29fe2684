"""Adversarial training here and as a user would write it elsewhere: images per second, side by side in one run.

    python -m benchmarks.peers_training --peers_python peers/bin/python --out results/benchmarks/peers_training.json

- NuAT: our `fit`, and a plain PyTorch loop (`benchmarks/peers_training_torch.py`), in float32 and in bfloat16. In
  float32 also the same loop with what the authors' public scripts compute beyond the algorithm.
- PGD-AT: our `fit`, CleverHans' tutorial loop and ART's `AdversarialTrainer`, all in TensorFlow
  (`benchmarks/peers_training_tensorflow.py`).

Every contestant is a process of its own (`benchmarks.turns`) with the same number of threads, initial weights of
LeNet+, images and settings. Before the measurements, each takes the first training steps, NuAT with the same draws. A
contestant whose losses differ from ours does not compute the same; it is listed without a ratio. Then the contestants
take turns, and in the end those of NuAT time the parts of a step alone.

The peers live in another environment: `pip install torch tensorflow cleverhans adversarial-robustness-toolbox`.
"""

import json
import pathlib
import statistics
import sys
import tempfile
import typing

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import tf_nuat
from benchmarks import figures, keras_to_torch, turns
from tf_nuat import command_line
from tf_nuat.attacks.nuclear import bernoulli_start
from tf_nuat.core import validation

# Batches whose losses are compared, and all. Later losses differ by rounding, as it flips signs of gradients near 0.
CHECKED, BATCHES = 4, 40
LARGEST_DIFFERENCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of a loss
FLAGS = flags.FlagValues()
flags.DEFINE_string("peers_python", None, "interpreter with the peers; required", flag_values=FLAGS)
flags.DEFINE_list("only", [], "contestants to measure (default: all)", flag_values=FLAGS)
flags.DEFINE_string("shape", "28,28,1", "height, width and channels of the images", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 64, "images per step", flag_values=FLAGS)
flags.DEFINE_float("epsilon", 0.3, "radius, L-infinity", flag_values=FLAGS)
flags.DEFINE_integer("steps", 10, "steps of PGD", flag_values=FLAGS)
flags.DEFINE_integer("threads", 2, "processors that each contestant may use", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 15, "times that each is measured", flag_values=FLAGS)
flags.DEFINE_float("seconds", 3.0, "length of one measurement", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)


class Trained(typing.NamedTuple):
    """A contestant: its module and arguments, and which of ours it is compared with (None: it is ours)."""

    module: str
    arguments: tuple
    beside: str | None = None
    precision: str = "float32"
    has_parts: bool = False


OURS, TORCH, TENSORFLOW = (f"benchmarks.peers_training_{name}" for name in ("ours", "torch", "tensorflow"))
CONTESTANTS = {
    "nuat": Trained(OURS, ("--defense=nuat",), has_parts=True),
    "nuat (PyTorch)": Trained(TORCH, (), "nuat", has_parts=True),
    "nuat (PyTorch as published)": Trained(TORCH, ("--style=published",), "nuat"),
    "nuat bfloat16": Trained(OURS, ("--defense=nuat", "--policy=mixed_bfloat16"), precision="bfloat16", has_parts=True),
    "nuat bfloat16 (PyTorch)": Trained(TORCH, ("--precision=bfloat16",), "nuat bfloat16", "bfloat16", True),
    "pgd_at": Trained(OURS, ("--defense=pgd_at",)),
    "pgd_at (CleverHans)": Trained(TENSORFLOW, ("--peer=cleverhans",), "pgd_at"),
    "pgd_at (ART)": Trained(TENSORFLOW, ("--peer=art",), "pgd_at"),
}


def settings(epsilon, steps, threads):
    """Returns what the contestants share, besides network and images: a dict of numbers."""
    return {
        "epsilon": epsilon,
        "alpha": epsilon,  # of NuAT, as on MNIST
        "nuclear_weight": 1.0,
        "steps": steps,  # of PGD, as is `step_size`
        "step_size": 2.5 * epsilon / steps,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,  # of NuAT
        "threads": threads,
        "checked": CHECKED,
    }


def prepare(folder, shape, batch_size, shared):
    """Writes what all contestants read into `folder`: network, images and settings.

    Images are random numbers, because the cost of a step does not depend on them. `starts` has the random starts of
    NuAT's first adversaries, as our NuAT draws them.
    """
    keras.utils.set_random_seed(0)
    network = tf_nuat.networks.lenet_plus(shape, 10)
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(BATCHES, batch_size, *shape)).astype(np.float32)
    y = generator.integers(0, 10, (BATCHES, batch_size))
    starts = [bernoulli_start(tf.constant(x[step]), shared["alpha"], (0, step)) for step in range(CHECKED)]
    network.save(folder / "network.keras")
    np.savez(folder / "network.npz", **keras_to_torch.exported(network))
    np.savez(folder / "batches.npz", x=x, y=y, starts=np.stack(starts))
    (folder / "settings.json").write_text(json.dumps(shared), encoding="utf-8")


def start(names, folder, python, variables):
    """Returns a dict of name to contestant that is ready, and a dict of name to the reason why one is not."""
    ready, failed = {}, {}
    for name in tqdm(names, desc="setting up"):
        each = CONTESTANTS[name]
        interpreter = sys.executable if each.module == OURS else python
        try:
            ready[name] = turns.Contestant(
                [interpreter, "-m", each.module, f"--folder={folder}", *each.arguments], variables
            )
        except turns.FailedError as error:
            failed[name] = str(error)
    return ready, failed


def differences(losses):
    """Returns a dict of a peer's name to the largest relative difference of its losses from ours.

    Ours in bfloat16 is compared with ours in float32.
    """
    beside = {name: CONTESTANTS[name].beside or "nuat" for name in losses if name not in ("nuat", "pgd_at")}
    return {
        name: float(np.max(np.abs(np.divide(losses[name], losses[other]) - 1.0)))
        for name, other in beside.items()
        if other in losses
    }


def unequal(found):
    """Returns a dict of name to the reason, for contestants whose losses differ from ours."""
    return {
        name: f"its first losses differ from ours by {difference:.1e} of them; allowed: {limit:g}"
        for name, difference in found.items()
        if not difference <= (limit := LARGEST_DIFFERENCE[CONTESTANTS[name].precision])
    }


def ratios(rates):
    """Returns a dict of a peer's name to the spread of the ratio of our images per second to its, in the same round."""
    return {
        name: figures.spread([one / other for one, other in zip(rates[beside], rates[name])])
        for name in rates
        if (beside := CONTESTANTS[name].beside) in rates
    }


def measure(ready, rounds, seconds):
    """Measures the contestants in turns; leaves out those that end early.

    Returns:
        a dict of name to images per second, a list of rounds; a dict of name to the seconds of the parts of a step; a
        dict of name to the reason, for those left out.
    """
    rates, failed = {name: [] for name in ready}, {}
    parts = {name: [] for name in ready if CONTESTANTS[name].has_parts}

    def ask(found, **request):
        for name in [name for name in found if name not in failed]:
            try:
                found[name].append(ready[name].ask(**request))
            except turns.FailedError as error:
                failed[name] = str(error)

    for _ in tqdm(range(rounds), desc="rounds"):
        ask(rates, ask="train", seconds=seconds)
    for _ in tqdm(range(min(rounds, 5)), desc="parts"):
        ask(parts, ask="parts", seconds=seconds / 5)
    rates = {name: [row["images_per_second"] for row in rows] for name, rows in rates.items() if name not in failed}
    medians = {
        name: {part: statistics.median(row[part] for row in rows) for part in rows[0]}
        for name, rows in parts.items()
        if name not in failed
    }
    return rates, medians, failed


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    command_line.require(FLAGS, peers_python="a Python with the peers (--peers_python FILE)")
    for name in ("batch_size", "steps", "threads", "rounds"):
        validation.whole_number(name, getattr(FLAGS, name), at_least=1)
    validation.number("epsilon", FLAGS.epsilon, above=0.0, at_most=1.0)
    validation.number("seconds", FLAGS.seconds, above=0.0)
    for name in FLAGS.only:
        validation.one_of("only", name, CONTESTANTS)
    shape = figures.image_shape(FLAGS.shape)
    figures.check_out(FLAGS.out)
    turns.keep_to_processors(FLAGS.threads)
    turns.hide_gpus()
    shared = settings(FLAGS.epsilon, FLAGS.steps, FLAGS.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        prepare(folder, shape, FLAGS.batch_size, shared)
        names = [name for name in CONTESTANTS if not FLAGS.only or name in FLAGS.only]
        ready, failed = start(names, folder, FLAGS.peers_python, turns.variables(FLAGS.threads))
        about = {name: contestant.about for name, contestant in ready.items()}
        losses = {name: each["losses"] for name, each in about.items()}
        found = differences(losses)
        failed.update(unequal(found))
        for name in set(ready) & set(failed):
            ready.pop(name).close()
        rates, parts, ended = measure(ready, FLAGS.rounds, FLAGS.seconds)
        failed.update(ended)
        for contestant in ready.values():
            contestant.close()
    summary = ratios(rates)
    print(f"LeNet+, images of {FLAGS.shape}, batch {FLAGS.batch_size}, {FLAGS.threads} threads")
    for name, values in rates.items():
        line = f"{name:28}{statistics.median(values):8,.0f} images/s"
        if name in summary:
            ratio = summary[name]
            line += f"   ours: {ratio['median']:.2f} times ({ratio['min']:.2f} to {ratio['max']:.2f})"
        print(line)
    for name, reason in failed.items():
        print(f"{name:28}not compared: {reason}")
    content = {
        "network": "lenet_plus",
        "shape": shape,
        "batch_size": FLAGS.batch_size,
        "settings": shared,
        "images_per_second": {name: figures.spread(values) for name, values in rates.items()},
        "times_as_fast": summary,
        "first_losses": losses,
        "difference_of_losses": found,
        "seconds_of_parts": parts,
        "not_compared": failed,
        "rounds": rates,
        "peers_versions": {name: each["versions"] for name, each in about.items()},
    }
    figures.save(figures.of_this_machine("benchmarks.peers_training", arguments, content), FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(command)
