"""Measures training on a device: the first command to run on a machine with a GPU. Takes some minutes.

    python -m benchmarks.device --out device.json

Trains NuAT-WA on CIFAR-10 as `recipes.cifar10` does. In one run, in rounds that take turns, it measures

- a step in each precision, as TensorFlow's graph and compiled by XLA: images per second, the speed in TFLOP/s, and the
  hours of training at that speed, without validation;
- the nuclear norm of a batch of logits with its gradient: by `tf.linalg.svd` on the device, as in the package, by the
  same on the host, and by the eigenvalues of the matrix of products on the device; and the distance of each from
  float64;
- the input pipeline alone, `fit` on one batch in memory and `fit` fed by the pipeline, in images per second;
- how often Python traced a step in two epochs of `fit`. More than once means that something retraces.

Lists what the device cannot run, with the reason. Operations are deterministic, as in the recipes; a second run with
`--nodeterministic` shows what that costs.
"""

import collections
import dataclasses
import functools
import statistics
import typing

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from benchmarks import figures, pipeline
from benchmarks.training import repeated, seconds_per_fit_step, seconds_per_step, step_of
from recipes import cifar10
from tf_nuat import NETWORKS, command_line, losses, training
from tf_nuat.core import files, placement, validation
from tf_nuat.models import precision
from tf_nuat.training import building

FLAGS = flags.FlagValues()
flags.DEFINE_list("precisions", ["float32", "mixed_bfloat16"], "those to compare", flag_values=FLAGS)
flags.DEFINE_boolean("xla", True, "each of them compiled by XLA, too", flag_values=FLAGS)
flags.DEFINE_boolean("deterministic", True, "exact repeats on GPUs", flag_values=FLAGS)
flags.DEFINE_string("dataset", "cifar10", "name in tf_nuat.data.DATASETS", flag_values=FLAGS)
flags.DEFINE_string("data_dir", None, "where the datasets are", flag_values=FLAGS)
flags.DEFINE_string("network", "resnet18", "name in tf_nuat.NETWORKS", flag_values=FLAGS)
flags.DEFINE_integer("width", None, "channels of its first layer", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 64, "images per step", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "times that each part is measured", flag_values=FLAGS)
flags.DEFINE_float("seconds", 1.0, "length of one measurement", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)
FAILED = (tf.errors.OpError, NotImplementedError, ValueError)  # a device raises one of them for what it cannot do


def in_turns(parts, rounds, seconds):
    """Returns a dict of name to the seconds of each round, and a dict of each name that failed to the reason.

    `parts` is a dict of name to a function without arguments that returns the function to measure.
    """
    ready, failed = {}, {}
    for name, part in parts.items():
        try:
            ready[name] = part()
            seconds_per_step(ready[name], 0.0)  # compiles
        except FAILED as error:
            ready.pop(name, None)
            failed[name] = files.in_one_line(str(error))
    times = {name: [] for name in ready}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, step in ready.items():
            times[name].append(seconds_per_step(step, seconds))
    return times, failed


def attempted(parts):
    """Returns a dict of name to what its function of `parts` returned, and one of what failed to the reason."""
    found, failed = {}, {}
    for name, part in parts.items():
        try:
            found[name] = part()
        except FAILED as error:
            failed[name] = files.in_one_line(str(error))
    return found, failed


def steps(recipe, splits, precisions, xla):
    """Returns the parts for `in_turns`: a training step of `recipe` in each precision, with and without XLA."""
    batch = next(iter(splits.train_from(0)))

    def part(policy, jit_compile):
        model = training.build(dataclasses.replace(recipe, precision=policy), splits)
        model.build_state()
        return step_of(model, batch, jit_compile=jit_compile)

    kinds = {"": False, ", XLA": True} if xla else {"": False}
    return {
        f"{policy}{title}": lambda policy=policy, jit_compile=jit_compile: part(policy, jit_compile)
        for policy in precisions
        for title, jit_compile in kinds.items()
    }


def flops_of_forward(network):
    """Returns the floating-point operations of a forward pass of one image: two for each product of its layers."""
    products = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            products += np.prod(layer.output.shape[1:3]) * np.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            products += np.prod(layer.kernel.shape)
    return 2 * int(products)


def training_figures(times, recipe, splits):
    """Returns the figures that follow from the seconds of the steps of `recipe`: speeds, and hours of training."""
    model = training.build(recipe, splits)
    passes, forward = model.passes(recipe.batch_size), flops_of_forward(model.network)
    # A backward pass to the images costs as much as a forward pass, and so does one to the weights.
    forwards = 2 * passes.input_gradient + 3 * passes.training + passes.forward
    images = recipe.epochs * splits.steps_per_epoch * recipe.batch_size
    found = {"gflop_of_a_forward": forward / 1e9, "forwards_of_a_step": forwards, "images_of_the_recipe": images}
    for name, seconds in times.items():
        rate = recipe.batch_size / statistics.median(seconds)
        found[name] = {
            "milliseconds": figures.spread([1e3 * each for each in seconds]),
            "images_per_second": rate,
            "tflop_per_second": rate * forwards * forward / 1e12,
            "hours_of_training": images / rate / 3600,
        }
    return found


@tf.custom_gradient
def norm_by_eigenvalues(matrix):
    """Returns the nuclear norm of `matrix` (B, K) by the eigenvalues of its (K, K) products.

    They are squares of the singular values, so float32 loses those below about a thousandth of the largest.
    """
    values, right = tf.linalg.eigh(tf.matmul(matrix, matrix, transpose_a=True))
    singular = tf.sqrt(tf.maximum(values, 0.0))
    inverse = tf.where(values > 1e-6 * values[-1], tf.math.divide_no_nan(1.0, singular), 0.0)
    gradient = tf.matmul(matrix, tf.matmul(right * inverse, right, transpose_b=True))
    return tf.reduce_sum(singular), lambda upstream: upstream * gradient


def norm_on_the_host(matrix):
    """Returns the package's nuclear norm of `matrix`, computed on the host."""
    with placement.on_host():
        return losses.nuclear_norm(matrix)


NORMS = {
    "svd": losses.nuclear_norm,
    "svd on the host": norm_on_the_host,
    "eigenvalues": norm_by_eigenvalues,
}


def norm_with_gradient(norm):
    """Returns a compiled function of a matrix that returns its norm and the gradient of the norm."""

    @tf.function(autograph=False)
    def both(matrix):
        with tf.GradientTape() as tape:
            tape.watch(matrix)
            value = norm(matrix)
        return value, tape.gradient(value, matrix)

    return both


def matrices(batch_size, num_classes):
    """Returns a dict of name to matrix (B, K), float32, like those of differences of logits."""
    generator = np.random.default_rng(0)
    full = generator.normal(size=(batch_size, num_classes))
    direction = np.outer(generator.normal(size=batch_size), generator.normal(size=num_classes))
    found = {"random": full, "nearly of rank 1": direction + 1e-3 * full, "tiny": 1e-6 * full}
    return {name: matrix.astype(np.float32) for name, matrix in found.items()}


def norm_errors(norm, batch_size, num_classes):
    """Returns the distance of a form of the nuclear norm from float64, on each matrix, and if it is finite at 0."""
    both = norm_with_gradient(norm)
    errors: dict[str, typing.Any] = {}
    for title, matrix in matrices(batch_size, num_classes).items():
        left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
        value, gradient = (each.numpy() for each in both(tf.constant(matrix)))
        errors[title] = {
            "value, relative": float(abs(value - values.sum()) / values.sum()),
            "gradient, largest": float(np.abs(gradient - left @ right).max()),
        }
    value, gradient = both(tf.zeros((batch_size, num_classes)))
    errors["finite at 0"] = bool(np.isfinite(value.numpy()) and np.isfinite(gradient.numpy()).all())
    return errors


def traces(recipe, splits):
    """Returns how often Python traced a training step and a validation step in two epochs of `fit`."""
    model, counts = training.build(recipe, splits), collections.Counter()
    model.build_state()  # as a run does
    for name in ("train_step", "test_step"):
        setattr(model, name, _counted(name, getattr(model, name), counts))
    options = {"validation_data": splits.validation.take(2), "steps_per_epoch": 3, "epochs": 2}
    model.fit(splits.train_from(0), verbose=0, **options)
    return dict(counts)


def _counted(name, function, counts):
    def counted(data):
        counts[name] += 1
        return function(data)

    return counted


def input_figures(recipe, splits, rounds, steps):
    """Returns the images per second of the pipeline, of `fit` from memory and of `fit` from the pipeline."""
    model, dataset = training.build(recipe, splits), splits.train_from(0)
    held = repeated(next(iter(dataset)))
    parts = {
        "pipeline": lambda: pipeline.seconds_per_batch(dataset, 4 * steps),
        "fit from memory": lambda: seconds_per_fit_step(model, held, steps),
        "fit from the pipeline": lambda: seconds_per_fit_step(model, dataset, steps),
    }
    seconds_per_fit_step(model, held, 2)  # compiles
    rates = {name: [] for name in parts}
    for _ in tqdm(range(rounds), desc="input"):
        for name, part in parts.items():
            rates[name].append(recipe.batch_size / part())
    return {name: figures.spread(each) for name, each in rates.items()}


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    for policy in FLAGS.precisions or [""]:
        validation.one_of("precisions", policy, precision.POLICIES)
    validation.one_of("network", FLAGS.network, NETWORKS)
    validation.whole_number("rounds", FLAGS.rounds, at_least=1)
    validation.number("seconds", FLAGS.seconds, above=0.0)
    figures.check_out(FLAGS.out)
    changed = {"dataset": FLAGS.dataset, "network": FLAGS.network, "batch_size": FLAGS.batch_size}
    if FLAGS.width is not None:
        changed["network_options"] = {"width": FLAGS.width}
    recipe = dataclasses.replace(cifar10.RECIPES["nuat_wa"], precision=FLAGS.precisions[-1], **changed)
    splits = building.load_data(recipe, FLAGS.data_dir)
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    times, not_run = in_turns(steps(recipe, splits, FLAGS.precisions, FLAGS.xla), FLAGS.rounds, FLAGS.seconds)
    matrix = tf.constant(matrices(recipe.batch_size, splits.num_classes)["random"])
    forms = {
        name: lambda norm=norm: functools.partial(norm_with_gradient(norm), matrix) for name, norm in NORMS.items()
    }
    norm_times, failed = in_turns(forms, FLAGS.rounds, FLAGS.seconds)
    errors, not_compared = attempted(
        {
            name: functools.partial(norm_errors, NORMS[name], recipe.batch_size, splits.num_classes)
            for name in norm_times
        }
    )
    even, ran = 2, [policy for policy in FLAGS.precisions if policy in times]
    if ran:
        recipe = dataclasses.replace(recipe, precision=ran[-1])
        even = max(2, 2 * round(FLAGS.seconds / statistics.median(times[ran[-1]]) / 2))
    of_fit = {
        "images_per_second": lambda: input_figures(recipe, splits, FLAGS.rounds, even),
        "traces": lambda: traces(recipe, splits),
    }
    fits, not_fitted = attempted(of_fit)
    content = {
        "deterministic": FLAGS.deterministic,
        "steps": training_figures(times, recipe, splits),
        "nuclear_norm": {
            "milliseconds": {name: figures.spread([1e3 * s for s in each]) for name, each in norm_times.items()},
            "distance_from_float64": errors,
        },
        **fits,
        "not_run": {**not_run, **failed, **not_compared, **not_fitted},
    }
    figures.publish("benchmarks.device", arguments, content, FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(command)
