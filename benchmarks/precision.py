"""Compares training in 16 bits with float32, in one run: the gain in speed, and the loss of accuracy.

    python -m benchmarks.precision --out results/benchmarks/precision.json

Measures a step of NuAT in each precision, in rounds that take turns, for LeNet+ on 28x28 images and for ResNets on
32x32 images; in 16 bits also with BatchNorm as Keras composes it. Then trains NuAT on scikit-learn's digits in each
precision, with several seeds.
"""

import dataclasses
import statistics
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import tf_nuat
from benchmarks import figures
from benchmarks.training import seconds_per_step, step_of
from recipes import digits
from tf_nuat import command_line, training
from tf_nuat.core import validation
from tf_nuat.models import precision

FLAGS = flags.FlagValues()
flags.DEFINE_list("precisions", ["float32", "mixed_bfloat16"], "those to compare", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "times that each step is measured", flag_values=FLAGS)
flags.DEFINE_float("seconds", 2.0, "length of one measurement", flag_values=FLAGS)
flags.DEFINE_integer("seeds", 3, "runs on the digits in each precision; 0 for none", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)
NETWORKS = {
    "lenet_plus, 28x28x1": ("lenet_plus", (28, 28, 1), {}),
    "resnet18 of width 16, 32x32x3": ("resnet18", (32, 32, 3), {"width": 16}),
    "resnet18 of width 64, 32x32x3": ("resnet18", (32, 32, 3), {"width": 64}),
}
BATCH = 64
COMPOSED = ", BatchNorm of Keras"


def step(network, shape, options, policy):
    """Returns a function that takes one training step of NuAT; None for BatchNorm of Keras in a network without it."""
    built = tf_nuat.NETWORKS[network](shape, 10, **options)
    model = tf_nuat.NuAT(precision.computing_in(built, policy.removesuffix(COMPOSED)), epsilon=0.1)
    if policy.endswith(COMPOSED):
        layers = [each for each in model.network.layers if isinstance(each, keras.layers.BatchNormalization)]
        for layer in layers:
            del layer.call  # removes what `batch_norm.fuse` has put there
        if not layers:
            return None
    optimizer = tf_nuat.optimizers.CoupledSGD(1e-4)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if policy.startswith("mixed_float16") else optimizer)
    generator = np.random.default_rng(0)
    images = tf.constant(generator.uniform(size=(BATCH, *shape)), tf.float32)
    return step_of(model, (images, tf.constant(generator.integers(0, 10, BATCH))))


def speeds(policies, rounds, seconds):
    """Returns a dict of network to its seconds per step in each precision, a list of rounds."""
    found = {}
    for name, arguments in NETWORKS.items():
        variants = [*policies, *(policy + COMPOSED for policy in policies if policy != "float32")]
        built = {policy: step(*arguments, policy) for policy in variants}
        steps = {policy: each for policy, each in built.items() if each is not None}
        for each in steps.values():
            seconds_per_step(each, 0.1)
        times = {policy: [] for policy in steps}
        for _ in tqdm(range(rounds), desc=name):
            for policy, each in steps.items():
                times[policy].append(seconds_per_step(each, seconds))
        found[name] = times
    return found


def accuracies(policies, seeds):
    """Returns a dict of precision to the accuracies of each seed's run on the digits."""
    found = {policy: [] for policy in policies}
    for seed in tqdm(range(seeds), desc="runs on the digits"):
        for policy in policies:
            recipe = dataclasses.replace(digits.RECIPES["nuat"], precision=policy, seed=seed)
            with tempfile.TemporaryDirectory() as out:
                card = training.run(recipe, out, strategy="one", verbose=0)
            found[policy].append({name: each.accuracy for name, each in card.measured.items()})
    return found


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    for policy in FLAGS.precisions or [""]:
        validation.one_of("precisions", policy, precision.POLICIES)
    validation.whole_number("rounds", FLAGS.rounds, at_least=1)
    validation.whole_number("seeds", FLAGS.seeds, at_least=0)
    validation.number("seconds", FLAGS.seconds, above=0.0)
    figures.check_out(FLAGS.out)
    first = FLAGS.precisions[0]
    times = speeds(FLAGS.precisions, FLAGS.rounds, FLAGS.seconds)
    faster = {
        name: {
            policy: figures.spread([a / b for a, b in zip(each[first], each[policy])])
            for policy in each
            if policy != first
        }
        for name, each in times.items()
    }
    content = {"batch_size": BATCH, "seconds_per_step": times, f"times as fast as {first}": faster}
    if FLAGS.seeds:
        measured = accuracies(FLAGS.precisions, FLAGS.seeds)
        content["digits"] = measured
        content["digits, means over the seeds"] = {
            policy: {name: statistics.mean(each[name] for each in runs) for name in runs[0]}
            for policy, runs in measured.items()
        }
    figures.publish("benchmarks.precision", arguments, content, FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(command)
