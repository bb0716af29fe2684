"""Measures the images per second of training under each strategy, in one process and in two, and the communication.

    python -m benchmarks.strategies --out results/benchmarks/strategies.json

Trains NuAT through `fit` on one batch in memory, in rounds that take turns. Each arrangement has the same global batch:

- "one": a process without a strategy;
- "mirrored": a process with two logical devices;
- "multiworker, one": a process that is the only worker of its TF_CONFIG;
- "multiworker, two": two processes on loopback ports;
- "apart": two independent processes at the same time, with half of the batch each.

Two workers, or two devices, take longer than two processes apart. The difference is communication: gradients, the rows
of the nuclear norm, sizes, metrics. Processes on one machine share its processors, so two are not faster than one; look
at the share of the communication.
"""

import json
import os
import statistics
import subprocess
import sys

import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import tf_nuat
from benchmarks import figures, turns
from benchmarks.training import build, repeated, seconds_per_fit_step
from tests.helpers.ports import free_ports
from tf_nuat import command_line, parallel
from tf_nuat.core import validation

FLAGS = flags.FlagValues()
flags.DEFINE_integer("batch_size", 64, "images per step, all devices together", flag_values=FLAGS)
flags.DEFINE_integer("steps", 60, "of a measurement, an even number", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 3, "times that each arrangement is measured", flag_values=FLAGS)
flags.DEFINE_string("network", "lenet_plus", "name in tf_nuat.NETWORKS", flag_values=FLAGS)
flags.DEFINE_string("shape", "28,28,1", "height, width and channels of the images", flag_values=FLAGS)
flags.DEFINE_string("measure", None, "for the processes themselves: the strategy to measure", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)
# Name to: strategy, number of processes, divisor of the batch size for each.
ARRANGEMENTS = {
    "one": ("one", 1, 1),
    "mirrored": ("mirrored", 1, 1),
    "multiworker, one": ("multiworker", 1, 1),
    "multiworker, two": ("multiworker", 2, 1),
    "apart": ("one", 2, 2),
}


def seconds_per_step(name, batch_size, steps, network, shape):
    """Returns the time of a training step under the strategy `name`, in this process."""
    if name == "mirrored":
        devices = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
        tf.config.threading.set_inter_op_parallelism_threads(8)  # two devices that wait for each other need threads
    strategy = parallel.strategy(name)
    generator = np.random.default_rng(0)
    x = tf.constant(generator.uniform(size=(batch_size, *shape)), tf.float32)
    y = tf.constant(generator.integers(0, 10, batch_size))
    with strategy.scope():
        model = build("nuat", lambda: tf_nuat.NETWORKS[network](shape, 10), batch_size)
    seconds_per_fit_step(model, repeated((x, y)), 10)  # compiles
    return seconds_per_fit_step(model, repeated((x, y)), steps)


def measured(name, arguments):
    """Returns the times of a step that the processes of an arrangement measured."""
    strategy, count, share = ARRANGEMENTS[name]
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    processes = []
    for index in range(count):
        environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
        if strategy == "multiworker":
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment["TF_CONFIG"] = json.dumps(task)
        flags = [*arguments, f"--measure={strategy}", f"--batch_size={FLAGS.batch_size // share}"]
        command = [sys.executable, "-m", "benchmarks.strategies", *flags]
        processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
        )
    outputs = [process.communicate()[0] for process in processes]
    for process in processes:
        if process.returncode:
            raise RuntimeError(f"a process of {name!r} ended with status {process.returncode}")
    return [float(output.split()[-1]) for output in outputs]


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    for name in ("batch_size", "steps", "rounds"):
        validation.whole_number(name, getattr(FLAGS, name), at_least=2 if name == "batch_size" else 1)
    if FLAGS.steps % 2:
        validation.refuse("steps", FLAGS.steps, "an even number")
    validation.one_of("network", FLAGS.network, tf_nuat.NETWORKS)
    shape = figures.image_shape(FLAGS.shape)
    figures.check_out(FLAGS.out)
    turns.hide_gpus()  # two logical devices, and two processes, share the processors
    if FLAGS.measure:
        print(seconds_per_step(FLAGS.measure, FLAGS.batch_size, FLAGS.steps, FLAGS.network, shape))
        return 0
    times = {name: [] for name in ARRANGEMENTS}
    with tqdm(total=FLAGS.rounds * len(ARRANGEMENTS), desc="measurements") as bar:
        for _ in range(FLAGS.rounds):
            for name in ARRANGEMENTS:
                times[name].append(max(measured(name, arguments)))
                bar.update()
    shares = {
        name: [1.0 - apart / together for apart, together in zip(times["apart"], times[name])]
        for name in ("mirrored", "multiworker, two")
    }
    content = {
        "network": FLAGS.network,
        "images": shape,
        "batch_size": FLAGS.batch_size,
        "seconds_per_step": times,
        "images_per_second": {name: FLAGS.batch_size / statistics.median(each) for name, each in times.items()},
        "share_of_communication": {name: figures.spread(each) for name, each in shares.items()},
    }
    figures.publish("benchmarks.strategies", arguments, content, FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(command)
