"""What a NuAT step costs beside its parts: images per second, side by side in one run.

    python -m benchmarks.training

NuAT's step needs one input gradient and, on half of the batches, an inference forward (the attack), two training
forwards and backwards (the objective), and one optimizer update. The benchmark measures each of these alone, the step,
and `fit`, in rounds that take turns, so that a machine whose speed drifts slows all of them alike. Ratios are the
median over the rounds.
"""

import json
import os
import pathlib
import statistics
import time

import cpuinfo
import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import tf_nuat
from tf_nuat import command_line, losses, validation
from tf_nuat.attacks import base

STEP_LIMIT, FIT_LIMIT = 1.15, 1.05  # the project's targets
FLAGS = flags.FlagValues()
flags.DEFINE_string("network", "lenet_plus", "name in tf_nuat.NETWORKS", flag_values=FLAGS)
flags.DEFINE_string("shape", "28,28,1", "height, width and channels of the images", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 64, "images per step", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 15, "times that each part is measured", flag_values=FLAGS)
flags.DEFINE_float("seconds", 1.0, "length of one measurement", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)


def parts(network_name, shape, batch_size):
    """Returns a dict of name to a function that takes one step of it."""
    generator = np.random.default_rng(0)
    x = tf.constant(generator.uniform(size=(batch_size, *shape)), tf.float32)
    y = tf.constant(generator.integers(0, 10, batch_size))

    def defense(name):
        model = tf_nuat.DEFENSES[name](tf_nuat.NETWORKS[network_name](input_shape=shape, num_classes=10), epsilon=0.1)
        model.compile(optimizer=tf_nuat.optimizers.CoupledSGD(1e-4), metrics=["accuracy"])
        return model

    network = tf_nuat.NETWORKS[network_name](input_shape=shape, num_classes=10)
    logits_fn = base.inference(network)
    optimizer = tf_nuat.optimizers.CoupledSGD(1e-4)
    optimizer.build(network.trainable_variables)
    variables = network.trainable_variables
    fixed = [tf.random.normal(variable.shape) * 1e-3 for variable in variables]

    def forward_backward():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.cross_entropy(network(x, training=True), y))
        return tape.gradient(loss, variables)

    def training_step():
        optimizer.apply(forward_backward(), variables)

    standard, nuat = defense("standard"), defense("nuat")

    def step_of(model):
        dataset = tf.data.Dataset.from_tensors((x, y)).cache().repeat().prefetch(2)
        iterator = iter(dataset)

        def step(iterator):
            return model.train_step(next(iterator))

        compiled = tf.function(step, autograph=False)
        return lambda: compiled(iterator)

    compiled = {
        "inference forward": lambda: logits_fn(x),
        "input gradient": lambda: base.input_gradient(base.cross_entropy_of(logits_fn, y), x)[0],
        "training forward and backward": forward_backward,
        "optimizer": lambda: optimizer.apply(fixed, variables),
        "training step": training_step,
    }
    compiled = {name: tf.function(step, autograph=False) for name, step in compiled.items()}
    return {**compiled, "standard step": step_of(standard), "NuAT step": step_of(nuat)}, nuat, (x, y)


def seconds_per_step(step, seconds):
    """Returns the time of a step, from as many as fit into `seconds`, an even number (NuAT's batches alternate)."""
    taken, begin = 0, time.perf_counter()
    while True:
        for _ in range(10):
            result = step()
        taken += 10
        tf.nest.map_structure(lambda tensor: tensor.numpy() if hasattr(tensor, "numpy") else tensor, result)
        if (elapsed := time.perf_counter() - begin) >= seconds:
            return elapsed / taken


def seconds_per_fit_step(model, batch, steps):
    """Returns the time of a step inside `fit`, with its metrics and callbacks, between the ends of two of them.

    What `fit` does once an epoch, before its first step, is not in it. `steps` is even.
    """
    dataset = tf.data.Dataset.from_tensors(batch).cache().repeat().prefetch(2)
    ends = []

    def end(step, logs):
        ends.append(time.perf_counter())

    clock = keras.callbacks.LambdaCallback(on_train_batch_end=end)
    model.fit(dataset, epochs=1, steps_per_epoch=steps + 1, verbose=0, callbacks=[clock])
    return (ends[-1] - ends[0]) / steps


def measure(network, shape, batch_size, rounds, seconds):
    """Returns a dict of name to the list of its seconds per step, one per round."""
    steps, nuat, batch = parts(network, shape, batch_size)
    for step in steps.values():
        seconds_per_step(step, 0.5)
    seconds_per_fit_step(nuat, batch, 20)
    times = {name: [] for name in [*steps, "NuAT fit"]}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, step in steps.items():
            times[name].append(seconds_per_step(step, seconds))
        number = max(10, 2 * round(seconds / times["NuAT step"][-1] / 2))
        times["NuAT fit"].append(seconds_per_fit_step(nuat, batch, number))
    return times


def ratios(times):
    """Returns a dict of ratio name to the list of its values, one per round."""
    by_round = [dict(zip(times, row)) for row in zip(*times.values())]

    def floor(row):
        return (
            row["inference forward"]
            + row["input gradient"]
            + 2 * row["training forward and backward"]
            + row["optimizer"]
        )

    return {
        "NuAT step / sum of its parts": [row["NuAT step"] / floor(row) for row in by_round],
        "NuAT step / standard step": [row["NuAT step"] / row["standard step"] for row in by_round],
        "standard step / training step": [row["standard step"] / row["training step"] for row in by_round],
        "NuAT fit / NuAT step": [row["NuAT fit"] / row["NuAT step"] for row in by_round],
    }


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    validation.one_of("network", FLAGS.network, tf_nuat.NETWORKS)
    validation.whole_number("batch_size", FLAGS.batch_size, at_least=1)
    validation.whole_number("rounds", FLAGS.rounds, at_least=1)
    validation.number("seconds", FLAGS.seconds, above=0.0)
    shape = tuple(int(side) for side in FLAGS.shape.split(","))
    times = measure(FLAGS.network, shape, FLAGS.batch_size, FLAGS.rounds, FLAGS.seconds)
    print(f"{FLAGS.network}, images of {FLAGS.shape}, batch {FLAGS.batch_size}, {os.cpu_count()} processors")
    print(f"{'':32}{'images/s':>10}{'ms':>9}{'min':>9}{'max':>9}")
    for name, values in times.items():
        median, low, high = (1e3 * figure for figure in (statistics.median(values), min(values), max(values)))
        print(f"{name:32}{1e3 * FLAGS.batch_size / median:10,.0f}{median:9.2f}{low:9.2f}{high:9.2f}")
    limits = {"NuAT step / sum of its parts": STEP_LIMIT, "NuAT fit / NuAT step": FIT_LIMIT}
    summary = {}
    for name, values in ratios(times).items():
        summary[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        target = f"  (target: at most {limits[name]})" if name in limits else ""
        print(f"{name:32}{summary[name]['median']:10.3f}  from {min(values):.3f} to {max(values):.3f}{target}")
    if FLAGS.out:
        content = {
            "command": " ".join(["python -m benchmarks.training", *arguments]),
            "seconds_per_step": times,
            "ratios": summary,
            "processors": os.cpu_count(),
            "processor": cpuinfo.get_cpu_info().get("brand_raw", "unknown"),
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        }
        pathlib.Path(FLAGS.out).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(FLAGS.out).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    command_line.main(command)
