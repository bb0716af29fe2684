"""Compares the cost of a training step of each defense with that of the passes that it claims, in one run.

    python -m benchmarks.training

A defense says how many forward-backward passes its step takes (`Defense.passes`). The benchmark measures such passes
alone (an input gradient, a training forward and backward, an inference forward, an optimizer update), the step of each
defense, and `fit`. They take turns, so a machine whose speed drifts slows all of them alike. A ratio is the step's time
over that of its passes and one update; the median over the rounds is shown.

The passes of SAT-R1's iterative attack are measured on one image: it costs more than its share of a batch.
"""

import os
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import tf_nuat
from benchmarks import figures
from tf_nuat import command_line, losses
from tf_nuat.attacks.ascent import cross_entropy_of, input_gradient
from tf_nuat.core import validation
from tf_nuat.models.inference import inference

STEP_LIMIT, FIT_LIMIT = 1.15, 1.05  # the project's targets
FLAGS = flags.FlagValues()
flags.DEFINE_list("defenses", [], "names in tf_nuat.DEFENSES (default: all)", flag_values=FLAGS)
flags.DEFINE_string("network", "lenet_plus", "name in tf_nuat.NETWORKS", flag_values=FLAGS)
flags.DEFINE_string("shape", "28,28,1", "height, width and channels of the images", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 64, "images per step", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 15, "times that each part is measured", flag_values=FLAGS)
flags.DEFINE_float("seconds", 1.0, "length of one measurement", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)


def build(name, network, batch_size):
    """Returns the compiled defense `name`; `network` is a function that builds one."""
    defense = tf_nuat.DEFENSES[name]
    supply = {"sources": lambda: [network()], "batch_size": lambda: batch_size}
    model = defense(network(), epsilon=0.1, **{name: supply[name]() for name in defense.NEEDS})
    model.compile(optimizer=tf_nuat.optimizers.CoupledSGD(1e-4), metrics=["accuracy"])
    return model


def passes_alone(network, x, y):
    """Returns a dict of name to a function that takes one pass of this kind on the batch."""
    logits_fn = inference(network)
    optimizer = tf_nuat.optimizers.CoupledSGD(1e-4)
    optimizer.build(network.trainable_variables)
    variables = network.trainable_variables
    fixed = [tf.random.normal(variable.shape) * 1e-3 for variable in variables]

    def forward_backward():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.cross_entropy(network(x, training=True), y))
        return tape.gradient(loss, variables)

    def gradient(x, y):
        return input_gradient(cross_entropy_of(logits_fn, y), x)[0]

    functions = {
        "forward": lambda: logits_fn(x),
        "input_gradient": lambda: gradient(x, y),
        "input_gradient of one image": lambda: gradient(x[:1], y[:1]),
        "training": forward_backward,
        "optimizer": lambda: optimizer.apply(fixed, variables),
    }
    return {name: tf.function(function, autograph=False) for name, function in functions.items()}


def repeated(batch):
    """Returns an endless dataset of one batch in memory."""
    return tf.data.Dataset.from_tensors(batch).cache().repeat().prefetch(2)


def step_of(model, batch, *, jit_compile=False):
    """Returns a function that takes one training step of `model`, compiled by XLA with `jit_compile`."""
    iterator = iter(repeated(batch))
    step = tf.function(model.train_step, autograph=False, jit_compile=True) if jit_compile else model.train_step
    compiled = tf.function(lambda iterator: step(next(iterator)), autograph=False)
    return lambda: compiled(iterator)


def seconds_per_step(step, seconds):
    """Returns the mean time of the steps that fill `seconds`, an even number of them (NuAT's batches alternate)."""
    taken, begin = 0, time.perf_counter()
    while True:
        for _ in range(10):
            step()
        taken += 10
        tf.test.experimental.sync_devices()  # what a step returns, if anything, may not depend on all of its work
        if (elapsed := time.perf_counter() - begin) >= seconds:
            return elapsed / taken


def seconds_per_fit_step(model, dataset, steps):
    """Returns the mean time of a step inside `fit`, with its metrics and callbacks.

    The time begins at the end of the first step, so it does not count what `fit` does once per epoch. `dataset` is
    endless, `steps` is even.
    """
    ends = []

    def end(step, logs):
        ends.append(time.perf_counter())

    clock = keras.callbacks.LambdaCallback(on_train_batch_end=end)
    model.fit(dataset, epochs=1, steps_per_epoch=steps + 1, verbose=0, callbacks=[clock])
    return (ends[-1] - ends[0]) / steps


def measure(names, network, shape, batch_size, rounds, seconds):
    """Returns a dict of name to seconds per step in each round, one of defense to its passes, and `fit`'s defense."""
    generator = np.random.default_rng(0)
    x = tf.constant(generator.uniform(size=(batch_size, *shape)), tf.float32)
    y = tf.constant(generator.integers(0, 10, batch_size))
    models = {name: build(name, network, batch_size) for name in names}
    steps = passes_alone(network(), x, y)
    steps.update({f"{name} step": step_of(model, (x, y)) for name, model in models.items()})
    for step in tqdm(steps.values(), desc="compiling"):
        seconds_per_step(step, 0.2)
    times = {name: [] for name in steps}
    fitted = next(name for name in ("nuat", *names) if name in names)
    times[f"{fitted} fit"] = []
    seconds_per_fit_step(models[fitted], repeated((x, y)), 20)
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, step in steps.items():
            times[name].append(seconds_per_step(step, seconds))
        number = max(10, 2 * round(seconds / times[f"{fitted} step"][-1] / 2))
        times[f"{fitted} fit"].append(seconds_per_fit_step(models[fitted], repeated((x, y)), number))
    return times, {name: model.passes(batch_size) for name, model in models.items()}, fitted


def floor(row, name, passes, batch_size):
    """Returns the seconds that the claimed passes of the defense `name`, and one update, take in a round."""
    seconds = sum(getattr(passes, kind) * row[kind] for kind in passes._fields) + row["optimizer"]
    if name == "sat_r1":
        seconds += (passes.input_gradient - 1.0) * (
            batch_size * row["input_gradient of one image"] - row["input_gradient"]
        )
    return seconds


def ratios(times, passes, fitted, batch_size):
    """Returns a dict of ratio name to the list of its values, one per round."""
    rounds = [dict(zip(times, row)) for row in zip(*times.values())]
    found = {
        f"{name} step / its passes": [row[f"{name} step"] / floor(row, name, claimed, batch_size) for row in rounds]
        for name, claimed in passes.items()
    }
    return {**found, f"{fitted} fit / step": [row[f"{fitted} fit"] / row[f"{fitted} step"] for row in rounds]}


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    validation.one_of("network", FLAGS.network, tf_nuat.NETWORKS)
    validation.whole_number("batch_size", FLAGS.batch_size, at_least=1)
    validation.whole_number("rounds", FLAGS.rounds, at_least=1)
    validation.number("seconds", FLAGS.seconds, above=0.0)
    names = FLAGS.defenses or list(tf_nuat.DEFENSES)
    for name in names:
        validation.one_of("defenses", name, tf_nuat.DEFENSES)
    shape = figures.image_shape(FLAGS.shape)
    figures.check_out(FLAGS.out)

    def network():
        return tf_nuat.NETWORKS[FLAGS.network](input_shape=shape, num_classes=10)

    times, passes, fitted = measure(names, network, shape, FLAGS.batch_size, FLAGS.rounds, FLAGS.seconds)
    print(f"{FLAGS.network}, images of {FLAGS.shape}, batch {FLAGS.batch_size}, {os.cpu_count()} processors")
    print(f"{'':32}{'images/s':>10}{'ms':>9}{'min':>9}{'max':>9}")
    for name, values in times.items():
        median, low, high = (1e3 * figure for figure in (statistics.median(values), min(values), max(values)))
        print(f"{name:32}{1e3 * FLAGS.batch_size / median:10,.0f}{median:9.2f}{low:9.2f}{high:9.2f}")
    summary = {}
    for name, values in ratios(times, passes, fitted, FLAGS.batch_size).items():
        limit = FIT_LIMIT if name.endswith("fit / step") else STEP_LIMIT
        summary[name] = {**figures.spread(values), "target": limit}
        over = "  over the target" if summary[name]["median"] > limit else ""
        spread = f"from {min(values):.3f} to {max(values):.3f}"
        print(f"{name:32}{summary[name]['median']:10.3f}  {spread}, target {limit}{over}")
    content = {
        "passes": {name: claimed._asdict() for name, claimed in passes.items()},
        "seconds_per_step": times,
        "ratios": summary,
    }
    figures.save(figures.of_this_machine("benchmarks.training", arguments, content), FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(command)
