"""Compares how long PGD and AutoAttack take here and in other libraries, on the same network and images.

    python -m benchmarks.peers --checkpoint network.keras --dataset mnist --epsilon 0.3 --peers_python peers/bin/python
    python -m benchmarks.peers --norm l1 --checkpoint network.keras --epsilon 12 --peers_python peers/bin/python

In L1, the attacks are PGD, APGD-CE and APGD-T, the latter towards three classes.

The peers (`benchmarks/peers_attacks.py`) live in another environment: `pip install torch tensorflow cleverhans foolbox
adversarial-robustness-toolbox multiprocess` and `pip install --no-deps torchattacks adv-lib`, which work without
torchvision. ART's AutoAttack needs multiprocess and does not declare it. The peers in PyTorch get the weights of the
Keras network, whose layers must be those of LeNet+. Every peer's network must return the same logits as ours.

All get the same images, batch size, steps and number of threads on the processor, and take turns:

- ours, `python -m tf_nuat.evaluate`: the seconds of its stages, compilation included;
- a peer, batch after batch: the seconds of its calls.

Neither counts imports and reading files; the file also has the time of the whole commands. A ratio is the peer's time
over ours in the same round. Strength is compared image by image: a peer is weaker or stronger if it fools significantly
fewer or more images (McNemar's exact test, two-sided, 1 %). What does not run is listed with its error.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags
from tqdm import tqdm

from benchmarks import keras_to_torch, peers_attacks, turns
from benchmarks.figures import check_out, of_this_machine, save, spread
from sanity.statistics import mcnemar_two_sided
from tf_nuat import command_line, data
from tf_nuat.core import validation
from tf_nuat.evaluate.record import ROBUST
from tf_nuat.models import precision

ALPHA = 0.01  # below this p-value, strengths differ
ATTACKS = {"linf": ("pgd", "autoattack"), "l1": ("pgd", "apgd_ce", "apgd_t")}  # by the norm
FLAGS = flags.FlagValues()
flags.DEFINE_string("checkpoint", None, "a .keras file, LeNet+ or layers like its; required", flag_values=FLAGS)
flags.DEFINE_string("peers_python", None, "interpreter with the peers; required", flag_values=FLAGS)
flags.DEFINE_list("peers", list(peers_attacks.PEERS), "which peers: torchattacks, ...", flag_values=FLAGS)
flags.DEFINE_string("norm", "linf", f"norm of the threat model: {', '.join(ATTACKS)}", flag_values=FLAGS)
flags.DEFINE_list("attacks", None, "which attacks (default: all that are compared in the norm)", flag_values=FLAGS)
flags.DEFINE_string("dataset", "mnist", "images to attack: a name or a path", flag_values=FLAGS)
flags.DEFINE_string("data_dir", None, "where the datasets are", flag_values=FLAGS)
flags.DEFINE_integer("samples", 1000, "number of images for PGD and APGD", flag_values=FLAGS)
flags.DEFINE_integer("autoattack_samples", 100, "number of images for AutoAttack", flag_values=FLAGS)
flags.DEFINE_float("epsilon", 0.3, "radius", flag_values=FLAGS)
flags.DEFINE_integer("steps", 40, "steps of PGD and APGD", flag_values=FLAGS)
flags.DEFINE_float("step_size", 0.01, "length of a step of PGD", flag_values=FLAGS)
flags.DEFINE_boolean("as_shipped", False, "AutoAttack of the peers as they ship it, too", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 250, "images that are attacked at a time", flag_values=FLAGS)
flags.DEFINE_list("precision", ["auto", "float32"], "of our gradients, a run each", flag_values=FLAGS)
flags.DEFINE_integer("threads", 2, "processors that each of the commands may use", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 3, "times that each is measured", flag_values=FLAGS)
flags.DEFINE_float("patience", 300.0, "seconds after which a contestant is measured once", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)


def options_of(attack):
    """Returns the keywords of an attack, a dict; it is empty for AutoAttack, which has its published settings."""
    if attack == "autoattack":
        return {}
    more = {"pgd": {"step_size": FLAGS.step_size}, "apgd_t": {"targets": peers_attacks.TARGETS}}
    return {"steps": FLAGS.steps, **more.get(attack, {})}


def ours(folder, attack, requested):
    """Returns the function that runs our evaluation and returns its figures."""
    shared = {
        "checkpoint": FLAGS.checkpoint,
        "dataset": folder / "images.npz",
        "epsilon": FLAGS.epsilon,
        "norm": FLAGS.norm,
        "attack": attack,
        "batch_size": FLAGS.batch_size,
        "precision": requested,
    }
    if options := options_of(attack):
        shared["options"] = ",".join(f"{name}={value}" for name, value in options.items())

    def run():
        with tempfile.TemporaryDirectory(dir=folder) as out:  # a new one: in an old one it would continue
            _, command = _output(sys.executable, "tf_nuat.evaluate", {**shared, "out": out})
            clean, *rows = json.loads((pathlib.Path(out) / "results.json").read_text(encoding="utf-8"))["stages"]
            with np.load(pathlib.Path(out) / "record.npz") as record:
                robust = record["fooled_by"] == ROBUST
        stages = {row["name"]: row["seconds"] for row in rows}
        figures = {"seconds": sum(stages.values()), "command": command, "stages": stages, "clean": clean["accuracy"]}
        return {**figures, "robust": robust.tolist()}

    return run


def theirs(folder, peer, attack, as_shipped):
    """Returns the function that runs the attack of a peer and returns its figures."""
    names = ("norm", "epsilon", "steps", "step_size", "batch_size", "threads")
    shared = {"peer": peer, "attack": attack, "folder": folder, **{name: getattr(FLAGS, name) for name in names}}

    def run():
        flag = ["--as_shipped"] if as_shipped else []
        output, command = _output(FLAGS.peers_python, "benchmarks.peers_attacks", shared, flag)
        return {**json.loads(turns.last_line(output)), "command": command}

    return run


def _output(python, module, options, more=()):
    """Returns what a module prints, and the seconds that it took; raises `turns.FailedError` if it fails."""
    command = [python, "-m", module, *(f"--{name}={value}" for name, value in options.items()), *more]
    began = time.perf_counter()
    try:
        done = subprocess.run(command, env=turns.variables(FLAGS.threads), capture_output=True, text=True)
    except OSError as error:
        raise turns.FailedError(str(error)) from error
    if done.returncode:
        raise turns.FailedError(turns.last_line(done.stderr) or f"ended with status {done.returncode}")
    return done.stdout, time.perf_counter() - began


def in_turns(runs, rounds, patience):
    """Returns a dict of each of `runs` to its figures, a list of rounds, and a dict of those that failed to the reason.

    A run that takes longer than `patience` seconds is measured only in the first round.
    """
    found, failed = {name: [] for name in runs}, {}
    for number in range(rounds):
        for name, run in (bar := tqdm(runs.items(), desc=f"round {number + 1}")):
            bar.set_postfix_str(name)
            if name in failed or (number and found[name][0]["seconds"] > patience):
                continue
            try:
                found[name].append(run())
            except turns.FailedError as error:
                failed[name] = str(error)
    return {name: rows for name, rows in found.items() if name not in failed}, failed


def strength(ours, theirs):
    """Compares the strength of their attack with ours, by which images withstand each (bool arrays); returns a dict."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    p_value = mcnemar_two_sided(ours, theirs)
    verdict = "equal"
    if p_value < ALPHA:
        verdict = "weaker" if theirs.sum() > ours.sum() else "stronger"
    only_ours, only_theirs = int(np.sum(theirs & ~ours)), int(np.sum(ours & ~theirs))
    return {"strength": verdict, "p_value": p_value, "only_ours_fools": only_ours, "only_theirs_fools": only_theirs}


def summary(found, own):
    """Returns a dict of a contestant's name to its figures; a peer's include its ratio to each of ours.

    Args:
        found: dict of a contestant's name to its rounds, a list.
        own: the names of ours; strengths are compared with the first.
    """
    figures = {}
    for name, rows in found.items():
        first, times = rows[0], [row["seconds"] for row in rows]
        row = {
            "seconds": {**spread(times), "rounds": len(rows)},
            "command": statistics.median(r["command"] for r in rows),
        }
        row["stages"] = {stage: statistics.median(each["stages"][stage] for each in rows) for stage in first["stages"]}
        row.update(clean=first["clean"], robust=float(np.mean(first["robust"])))
        if name not in own:
            row["over_ours"] = {
                mine: spread([one["seconds"] / other["seconds"] for one, other in zip(rows, found[mine])])
                for mine in own
            }
            row.update(strength(found[own[0]][0]["robust"], first["robust"]), versions=first["versions"])
        figures[name] = row
    return figures


def check_flags():
    command_line.require(
        FLAGS,
        checkpoint="a network saved by Keras (--checkpoint FILE.keras)",
        peers_python="a Python with the peers (--peers_python FILE)",
    )
    for name in ("samples", "autoattack_samples", "steps", "batch_size", "threads", "rounds"):
        validation.whole_number(name, getattr(FLAGS, name), at_least=1)
    validation.number("epsilon", FLAGS.epsilon, at_least=0.0)
    for name in ("step_size", "patience"):
        validation.number(name, getattr(FLAGS, name), above=0.0)
    attacks = validation.one_of("norm", FLAGS.norm, ATTACKS)
    if FLAGS.attacks is None:
        FLAGS["attacks"].value = list(attacks)
    for name, allowed in (("precision", precision.PRECISIONS), ("attacks", attacks), ("peers", peers_attacks.PEERS)):
        for value in getattr(FLAGS, name) or [""]:
            validation.one_of(name, value, allowed)


def export(folder, network, samples):
    """Writes the network and the images into `folder` for all commands; returns the number of images."""
    images, labels, names = data.sample(FLAGS.dataset, samples=samples, data_dir=FLAGS.data_dir)
    logits = network.predict(images, batch_size=FLAGS.batch_size, verbose=0)
    network.save(folder / "network.keras")
    np.savez(folder / "network.npz", **keras_to_torch.exported(network))
    np.savez(folder / "images.npz", images=images, labels=labels, class_names=np.array(names))
    np.save(folder / "logits.npy", logits)
    return len(images)


def contestants(folder, attack):
    """Returns a dict of name to function of all that run `attack`; ours come first."""
    runs = {f"tf_nuat {requested}": ours(folder, attack, requested) for requested in FLAGS.precision}
    for peer in FLAGS.peers:
        if attack not in peers_attacks.PEERS[peer][2].get(FLAGS.norm, ()):
            continue
        runs[peer] = theirs(folder, peer, attack, as_shipped=False)
        if attack == "autoattack" and FLAGS.as_shipped:
            runs[f"{peer}, as shipped"] = theirs(folder, peer, attack, as_shipped=True)
    return runs


def show(attack, count, figures, failed):
    """Prints the figures of an attack."""
    print(
        f"\n{attack}, {count} images, {FLAGS.norm}, epsilon {FLAGS.epsilon:g}, "
        f"batches of {FLAGS.batch_size}, {FLAGS.threads} threads"
    )
    for name, row in figures.items():
        line = f"{name:36}{row['seconds']['median']:9.1f} s{row['robust']:9.2%} robust"
        for mine, ratio in row.get("over_ours", {}).items():
            line += f"   {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) x {mine}"
        print(line + (f"   {row['strength']}" if "strength" in row else ""))
    for name, reason in failed.items():
        print(f"{name:36}not run: {reason}")


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    check_flags()
    check_out(FLAGS.out)
    turns.keep_to_processors(FLAGS.threads)
    turns.hide_gpus()
    network = validation.classifier("checkpoint", validation.load_network("checkpoint", FLAGS.checkpoint))
    own = [f"tf_nuat {requested}" for requested in FLAGS.precision]
    content = {}
    for attack in FLAGS.attacks:
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            count = export(folder, network, FLAGS.autoattack_samples if attack == "autoattack" else FLAGS.samples)
            found, failed = in_turns(contestants(folder, attack), FLAGS.rounds, FLAGS.patience)
        for name in own:
            if name in failed:
                raise ValueError(f"attacks has {attack}, which {name} cannot run ({failed[name]})")
        figures = summary(found, own)
        show(attack, count, figures, failed)
        threat = {"norm": FLAGS.norm, "epsilon": FLAGS.epsilon}
        content[attack] = {"images": count, **threat, "figures": figures, "not_run": failed, **options_of(attack)}
        save(of_this_machine("benchmarks.peers", arguments, content), FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(command)
