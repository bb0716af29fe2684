"""Compares the cost of attacks with that of the bare gradients and forward passes that they need, in one run.

    python -m benchmarks.attacks
    python -m benchmarks.attacks --checkpoint network.keras --dataset mnist --samples 1000 --epsilon 0.3

The parts take turns, so a machine whose speed drifts slows all of them alike. Shows medians over the rounds.

- PGD-40 through the engine of evaluations, in float32 and in bfloat16, in gradients per second over those of the bare
  float32 input gradient of a batch. CleverHans' PGD-40 for comparison, if it is installed. Both also run on a small
  network with batches of 25 images of 8x8, where calls take more time than products. No image is fooled, so all 40
  steps are taken.
- An undefended network: the time of the same attack with an epsilon that fools every image.
- Memory: how much the process grows from a tenth of the images to all of them.
- With a checkpoint, AutoAttack on it: the time of each stage over its number of steps times the cost of one such step
  alone, in the precision that was used.
"""

import importlib.util
import os
import resource
import statistics
import time
import typing

import cpuinfo
import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import tf_nuat
from benchmarks.figures import check_out, devices, image_shape, save
from tf_nuat import attacks, command_line, data
from tf_nuat.attacks.ascent import cross_entropy_of, input_gradient
from tf_nuat.attacks.pool import Pool
from tf_nuat.core import validation
from tf_nuat.evaluate import worst_case
from tf_nuat.models import precision
from tf_nuat.models.inference import inference

STEPS = 40
SMALL_BATCH = 25
# FAB evaluates the point of a step before it takes the next gradient.
PARTS_OF_A_STEP = {
    "apgd_ce": ("gradient",),
    "apgd_t": ("gradient",),
    "fab_t": ("gradient", "forward"),
    "square": ("forward",),
}
FLAGS = flags.FlagValues()
flags.DEFINE_string("network", "lenet_plus", "name in tf_nuat.NETWORKS", flag_values=FLAGS)
flags.DEFINE_string("shape", "28,28,1", "height, width and channels of the images", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 250, "images that are attacked at a time", flag_values=FLAGS)
flags.DEFINE_integer("images", 500, "images of PGD-40", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "times that each part is measured", flag_values=FLAGS)
flags.DEFINE_string("checkpoint", None, "a .keras file, for AutoAttack", flag_values=FLAGS)
flags.DEFINE_string("dataset", "mnist", "what AutoAttack gets: a name or a path", flag_values=FLAGS)
flags.DEFINE_string("data_dir", None, "where the datasets are", flag_values=FLAGS)
flags.DEFINE_integer("samples", 1000, "images that AutoAttack gets", flag_values=FLAGS)
flags.DEFINE_float("epsilon", 0.3, "radius for AutoAttack", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)


def small_network(shape):
    """Returns a network so small that calls take more time than products."""
    layers = [keras.layers.Conv2D(8, 3, strides=2, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input(shape), *layers])


def seconds(function):
    """Returns how long a call of `function` takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def bare_gradients(network, x, y, number):
    """Returns a function that takes the input gradient of the batch `number` times."""
    objective = cross_entropy_of(inference(network), y)
    gradient = tf.function(lambda x: input_gradient(objective, x)[0], autograph=False)

    def run():
        for _ in range(number):
            result = gradient(x)
        result.numpy()

    return run


def through_the_pool(attack, network, x, y, settings, batch_size, requested):
    """Returns a function that attacks all images and returns the total number of steps over all images."""

    def run():
        pool = Pool(attack, network, x, y, np.arange(len(x)), settings, batch_size=batch_size, precision=requested)
        for _ in pool:
            pass
        return sum(pool.steps.values())

    return run


def cleverhans_pgd(network, x, y, epsilon, batch_size):
    """Returns a function that runs CleverHans' PGD-40 on all images, batch by batch."""
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    def run():
        for first in range(0, len(x), batch_size):
            rows = slice(first, first + batch_size)
            projected_gradient_descent(
                network,
                tf.constant(x[rows]),
                epsilon,
                epsilon / 10,
                STEPS,
                np.inf,
                clip_min=0.0,
                clip_max=1.0,
                y=y[rows],
            ).numpy()

    return run


def pgd_parts(network, x, batch_size):
    """Returns a dict of name to a function that runs PGD-40 on all images, or takes as many bare gradients."""
    small_x, parts = x[:, :8, :8], {}
    small = "small network, ", small_network(small_x.shape[1:]), small_x, SMALL_BATCH
    for prefix, each, images, size in (("", network, x, batch_size), small):
        number = STEPS * -(-len(x) // size)
        labels = each.predict(images, verbose=0, batch_size=size).argmax(axis=1)
        batch = tf.constant(images[:size]), tf.constant(labels[:size])
        parts[f"{prefix}bare float32"] = bare_gradients(each, *batch, number)
        unfooled = {"epsilon": 1e-4, "steps": STEPS}
        for requested in precision.PRECISIONS:
            arguments = (attacks.pgd, each, images, labels, unfooled, size, requested)
            parts[f"{prefix}PGD-40 {requested}"] = through_the_pool(*arguments)
        if importlib.util.find_spec("cleverhans"):
            parts[f"{prefix}PGD-40 CleverHans"] = cleverhans_pgd(each, images, labels, 1e-4, size)
        if each is network:
            fooled = (attacks.pgd, network, x, labels, {"epsilon": 0.9, "steps": STEPS}, size, "float32")
            parts["undefended, PGD-40 float32"] = through_the_pool(*fooled)
    return parts


def growth_of_memory(network, shape, batch_size):
    """Returns by how many MiB the peak memory of the process grows from ten batches to a hundred.

    The images do not count: they are made on demand.
    """

    class Made:
        def __init__(self, count):
            self.shape = (count, *shape)

        def __getitem__(self, rows):
            return np.random.default_rng(int(rows[0])).uniform(size=(len(rows), *shape)).astype(np.float32)

    peaks = []
    for count in (10 * batch_size, 100 * batch_size):
        labels = np.zeros(count, np.int64)
        pool = Pool(
            attacks.pgd,
            network,
            Made(count),
            labels,
            np.arange(count),
            {"epsilon": 1e-4, "steps": 2},
            batch_size=batch_size,
        )
        for _ in pool:
            pass
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return peaks[1] - peaks[0]


def autoattack(network, images, labels, epsilon, batch_size, rounds):
    """Returns for each stage of AutoAttack its seconds, its steps, and the seconds that as many steps take alone."""
    record = worst_case(network, (images, labels), epsilon=epsilon, batch_size=batch_size)
    attacked = precision.attacked(network, "auto")
    x, y = tf.constant(images[:batch_size]), tf.constant(labels[:batch_size])
    logits_fn = inference(attacked)
    forward = tf.function(lambda x: logits_fn(x), autograph=False)
    gradient = bare_gradients(attacked, x, y, 10)

    def forwards():
        for _ in range(10):
            result = forward(x)
        result.numpy()

    costs = {"gradient": gradient, "forward": forwards}
    for part in costs.values():
        part()
    alone = {
        name: statistics.median(seconds(part) for _ in range(rounds)) / (10 * len(x)) for name, part in costs.items()
    }
    rows = []
    for stage in record.stages:
        cost = sum(alone[part] for part in PARTS_OF_A_STEP[stage.name])
        rows.append(
            {"stage": stage.name, "seconds": stage.seconds, "steps": stage.steps, "predicted": stage.steps * cost}
        )
    return rows, float(record.robust.mean())


def main(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    for name in ("batch_size", "images", "rounds", "samples"):
        validation.whole_number(name, getattr(FLAGS, name), at_least=1)
    shape = image_shape(FLAGS.shape)
    build = validation.one_of("network", FLAGS.network, tf_nuat.NETWORKS)
    check_out(FLAGS.out)
    if FLAGS.checkpoint:
        given = validation.classifier("checkpoint", validation.load_network("checkpoint", FLAGS.checkpoint))
        images, labels, _ = data.sample(FLAGS.dataset, samples=FLAGS.samples, data_dir=FLAGS.data_dir)
    keras.utils.set_random_seed(0)
    network = build(shape, 10)
    x = np.random.default_rng(0).uniform(size=(FLAGS.images, *shape)).astype(np.float32)
    parts = pgd_parts(network, x, FLAGS.batch_size)
    steps = {name: part() for name, part in tqdm(parts.items(), desc="compiling")}
    times = {name: [] for name in parts}
    for _ in tqdm(range(FLAGS.rounds), desc="rounds"):
        for name, part in parts.items():
            times[name].append(seconds(part))
    gradients = STEPS * FLAGS.images
    figures: dict[str, typing.Any] = {"gradients_per_second": {}, "over_bare_float32": {}}
    for name, row in times.items():
        bare = times["small network, bare float32" if name.startswith("small") else "bare float32"]
        figures["gradients_per_second"][name] = gradients / statistics.median(row)
        figures["over_bare_float32"][name] = statistics.median(one / other for one, other in zip(bare, row))
    figures["undefended, share of the steps"] = steps["undefended, PGD-40 float32"] / gradients
    figures["growth_of_memory_mib"] = growth_of_memory(network, shape, FLAGS.batch_size)
    if FLAGS.checkpoint:
        rows, robust = autoattack(given, images, labels, FLAGS.epsilon, FLAGS.batch_size, FLAGS.rounds)
        figures["autoattack"] = {"stages": rows, "robust": robust}
        total = sum(row["seconds"] for row in rows)
        figures["autoattack"]["over_predicted"] = total / sum(row["predicted"] for row in rows)
    processor = cpuinfo.get_cpu_info().get("brand_raw", "unknown")
    figures["machine"] = {"devices": devices(), "processor": processor, "cores": os.cpu_count()}
    figures["versions"] = {"tensorflow": tf.__version__, "keras": keras.__version__}
    for name, value in figures["over_bare_float32"].items():
        rate = figures["gradients_per_second"][name]
        print(f"{name:40s} {rate:10.0f} gradients/s {value:8.2f} x bare float32")
    print(f"memory grows by {figures['growth_of_memory_mib']:.0f} MiB from 10 batches to 100")
    for row in figures.get("autoattack", {}).get("stages", []):
        print(f"{row['stage']:10s} {row['seconds']:8.1f} s, its steps alone {row['predicted']:8.1f} s")
    if "autoattack" in figures:
        print(f"AutoAttack: {figures['autoattack']['over_predicted']:.2f} x the time of its steps alone")
    figures["command"] = command_line.typed("benchmarks.attacks", arguments)
    save(figures, FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(main)
