"""Compares the adaptive stage with attacks made by hand for what hides the gradients of a network.

    TFDS_DATA_DIR=... python -m benchmarks.way_round --out results/way_round

Builds each network of `benchmarks/masked.py` on MNIST. One attack is told what hides the gradients and follows the
right stand-in; `sanity.adaptive.find_way_round` is told nothing. Both attack the same test images. Writes
`way_round.json` and the table `way_round.md`. Takes a minute to train, and up to `--seconds` per network.
"""

import json
import pathlib
import time

import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import tf_nuat
from benchmarks import figures, masked, zoos
from sanity import Settings
from sanity.adaptive import find_way_round
from sanity.result import to_json
from sanity.subject import Subject
from tf_nuat import attacks, command_line
from tf_nuat.core import files, validation

FLAGS = flags.FlagValues()
flags.DEFINE_float("epsilon", 0.1, "radius of the threat model, L-infinity", flag_values=FLAGS)
flags.DEFINE_integer("images", 100, "test images, each class in proportion", flag_values=FLAGS)
flags.DEFINE_float("seconds", 60.0, "for the adaptive stage, on each network", flag_values=FLAGS)
flags.DEFINE_integer("seed", 11, "of the networks and the attacks", flag_values=FLAGS)
flags.DEFINE_list("networks", [], "names in benchmarks/masked.py; default all", flag_values=FLAGS)
flags.DEFINE_string("out", "results/way_round", "folder for the results", flag_values=FLAGS)
STEPS, TARGETS, RADIUS = 50, 4, 0.5  # RADIUS is that of an averaged gradient, as a share of epsilon
VERDICT = 64  # passes that decide the answer of a random network
POINTS = 3.0  # of accuracy that the stage may leave beyond the attack by hand; for random answers, 5
POINTS_OF_RANDOM = 5.0


def answers(each, images):
    """Returns the answers of a `masked.Masked`, integers (N,): if they are random, the classes of the mean logits."""
    passes = VERDICT if each.passes > 1 else 1
    return np.mean([each.network.predict(images, batch_size=500, verbose=0) for _ in range(passes)], axis=0).argmax(1)


def by_hand(each, images, labels, epsilon, seed):
    """Returns which images, bool (N,), withstand the attacks that are told what hides the gradients."""
    correct = answers(each, images) == labels
    for surface, attack, settings in _attacks_by_hand(each, epsilon):
        rows = np.flatnonzero(correct)
        if not len(rows):
            break
        chosen = np.resize(rows, len(labels))  # one shape for all
        x_adv = attack(surface, images[chosen], labels[chosen], epsilon=epsilon, seed=seed, index=chosen, **settings)
        correct[rows] = answers(each, x_adv.numpy()[: len(rows)]) == labels[rows]
    return correct


def _attacks_by_hand(each, epsilon):
    """Yields (function whose gradients to follow, attack, its settings)."""
    network, inside = each.network, each.inside
    pgd, towards = {"steps": STEPS, "restarts": 2, "loss": "margin"}, {"steps": STEPS, "targets": TARGETS}
    yield inside or network, attacks.pgd, pgd
    yield inside or network, attacks.apgd_t, towards
    if each.passes > 1:
        mean = attacks.averaged(network, radius=0.0, points=each.passes, answers="mean")
        yield mean, attacks.pgd, {**pgd, "restarts": 1}
    elif inside is not None:  # with the answers of the network: it may tie where `inside` does not
        yield lambda x: inside(x) + tf.stop_gradient(network(x, training=False) - inside(x)), attacks.pgd, pgd
    if each.points:
        yield network, attacks.apgd_t, {"steps": STEPS, "targets": 9}
        mean = attacks.averaged(network, radius=RADIUS * epsilon, points=each.points)
        yield mean, attacks.pgd, {"steps": STEPS, "loss": "margin"}


def compare(each, images, labels, *, epsilon, seconds, seed):
    """Returns the accuracies of a `masked.Masked` under both attacks, the seconds and the attempts: a dict."""
    started = time.perf_counter()
    hand = by_hand(each, images, labels, epsilon, seed)
    took = time.perf_counter() - started
    subject = Subject(each.network, images, labels, epsilon=epsilon, seed=seed)
    plain = subject.correct("pgd", epsilon=epsilon, steps=40, step_size=2.5 * epsilon / 40)
    subject = Subject(each.network, images, labels, epsilon=epsilon, seed=seed)  # a new one, which knows no attack
    started = time.perf_counter()
    found = find_way_round(subject, [], Settings(), seconds=seconds)
    return {
        "clean": float(np.mean(answers(each, images) == labels)),
        "pgd": float(np.mean(plain)),
        "by_hand": float(np.mean(hand)),
        "by_hand_seconds": round(took, 1),
        "found": float(np.mean(found.correct)),
        "found_seconds": round(time.perf_counter() - started, 1),
        "allowed": POINTS_OF_RANDOM if each.passes > 1 else POINTS,
        "tried": to_json(found.tried),
        "best": None if found.best is None else found.best.attack,
    }


def markdown(rows):
    """Returns the table of `rows`, a dict of name to a result of `compare`."""
    lines = [
        "| network | clean | PGD alone | by hand | found | points above | by | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        above = round(100.0 * (row["found"] - row["by_hand"]), 6)
        verdict = "" if above <= row["allowed"] else " (missed)"
        shares = " | ".join(f"{row[key]:.1%}" for key in ("clean", "pgd", "by_hand", "found"))
        lines.append(f"| {name} | {shares} | {above:+.1f}{verdict} | {row['best']} | {row['found_seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def rows_in(path, settings):
    """Returns the rows in the `way_round.json` at `path`; {} if there is no such file.

    Raises:
        ValueError: a row was made with other settings, a dict of flag to value.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))["networks"] if path.exists() else {}
    before = {name: FLAGS[name].default for name in settings}  # of older rows, which do not say their settings
    for row in rows.values():
        figures.check_settings(settings, row.get("settings", before), path)
    return rows


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    validation.number("--seconds", FLAGS.seconds, above=0.0)
    for name in FLAGS.networks:
        validation.one_of("--networks", name, masked.DESCRIPTIONS)
    folder = validation.output_folder("--out", pathlib.Path(FLAGS.out))
    path = folder / "way_round.json"
    settings = {name: getattr(FLAGS, name) for name in ("epsilon", "images", "seconds", "seed")}
    rows = rows_in(path, settings)
    kinds = zoos.hidden(FLAGS.seed)
    images, labels = zoos.zoos()["mnist"].test
    chosen = tf_nuat.data.stratified(labels, FLAGS.images, seed=FLAGS.seed)
    for name in tqdm([each for each in FLAGS.networks or kinds if each not in rows], unit="network"):
        options = {"epsilon": FLAGS.epsilon, "seconds": FLAGS.seconds, "seed": FLAGS.seed}
        found = compare(kinds[name](), images[chosen], labels[chosen], **options)
        found.update(settings=settings, command=command_line.typed("benchmarks.way_round", arguments))
        rows = {each: {**rows, name: found}[each] for each in kinds if each in rows or each == name}
        files.save_json({"networks": rows}, path)
        files.save_text(markdown(rows), folder / "way_round.md")
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    command_line.main(command)
