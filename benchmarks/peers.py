"""How long AutoAttack takes here and in torchattacks, on the same network and images, on the processor.

    python -m benchmarks.peers --checkpoint network.keras --dataset mnist --epsilon 0.3 --torch_python torch/bin/python

TensorFlow and PyTorch need not be in one environment: `--torch_python` is the interpreter of another, with torch and
torchattacks (`pip install torch scipy tqdm requests`, `pip install --no-deps torchattacks`: it works without its
torchvision). The weights are copied from the Keras network, whose layers must be those of LeNet+; the PyTorch network
must return the same logits. The two commands take turns, with the same images, batch size and number of threads:

- ours, `python -m tf_nuat.evaluate --attack autoattack`: the seconds of its stages, compilation included;
- torchattacks' `AutoAttack`, version "standard", batch after batch: the seconds of its calls.

Neither counts imports and reading files; what the whole commands took is shown as well. torchattacks 3.5.1 gives APGD
and FAB 10 steps where the publication, and we, take 100: `--torch_steps` says with how many to run it, one run each.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
from absl import flags

from benchmarks.figures import of_this_machine, save
from tf_nuat import command_line, data, precision, validation

SCRIPT = pathlib.Path(__file__).with_name("peers_torch.py")
STEPS = 100  # of every attack but Square, in `tf_nuat.attacks.autoattack`
FLAGS = flags.FlagValues()
flags.DEFINE_string("checkpoint", None, "a .keras file, LeNet+ or layers like its; required", flag_values=FLAGS)
flags.DEFINE_string("torch_python", None, "interpreter with torch and torchattacks; required", flag_values=FLAGS)
flags.DEFINE_string("dataset", "mnist", "images to attack: a name or a path", flag_values=FLAGS)
flags.DEFINE_string("data_dir", None, "where the datasets are", flag_values=FLAGS)
flags.DEFINE_integer("samples", 1000, "number of images", flag_values=FLAGS)
flags.DEFINE_float("epsilon", 0.3, "radius, L-infinity", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 250, "images that are attacked at a time", flag_values=FLAGS)
flags.DEFINE_string("precision", "auto", f"of our gradients: {', '.join(precision.PRECISIONS)}", flag_values=FLAGS)
flags.DEFINE_list("torch_steps", ["100", "10"], "steps of torchattacks' APGD and FAB, a run each", flag_values=FLAGS)
flags.DEFINE_integer("threads", 2, "processors that each of the commands may use", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 1, "times that each is measured", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)


def exported(network):
    """Returns the layers of a Keras network as PyTorch takes them: a dict of arrays, for `peers_torch.build`.

    `layers` is JSON, a list of dicts; `0_kernel` and `0_bias` are the weights of layer 0. Convolutions get (outputs,
    inputs, height, width); what follows the flattening gets its inputs in the order channel, row, column.

    Raises:
        ValueError: it has a layer that is not one of LeNet+'s kinds.
    """
    layers, arrays, flattened = [], {}, None

    def refuse(layer):
        raise ValueError(
            f"checkpoint has the layer {layer.name!r}, {type(layer).__name__}, or settings of it; "
            "allowed: Conv2D, MaxPooling2D, Flatten, Dense with bias, with ReLU or without activation, as in LeNet+"
        )

    for layer in network.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            refuse(layer)
        if isinstance(layer, keras.layers.MaxPooling2D) and layer.padding == "valid":
            layers.append({"kind": "pool", "size": layer.pool_size, "strides": layer.strides})
            continue
        if isinstance(layer, keras.layers.Flatten):
            flattened = layer.input.shape[1:]
            layers.append({"kind": "flatten"})
            continue
        activation = getattr(layer, "activation", None)
        if activation not in (keras.activations.relu, keras.activations.linear) or not layer.use_bias:
            refuse(layer)
        kernel, bias = layer.get_weights()
        if type(layer) is keras.layers.Conv2D and layer.dilation_rate == (1, 1) and layer.groups == 1:
            if layer.padding == "same" and layer.strides != (1, 1):
                refuse(layer)  # the two libraries pad differently
            arrays[f"{len(layers)}_kernel"] = kernel.transpose(3, 2, 0, 1)
            arrays[f"{len(layers)}_bias"] = bias
            layers.append({"kind": "convolution", "strides": layer.strides, "padding": layer.padding})
        elif type(layer) is keras.layers.Dense:
            if flattened is not None:
                kernel = kernel.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
                flattened = None
            arrays[f"{len(layers)}_kernel"] = kernel.T
            arrays[f"{len(layers)}_bias"] = bias
            layers.append({"kind": "dense"})
        else:
            refuse(layer)
        if activation is keras.activations.relu:
            layers.append({"kind": "relu"})
    return {"layers": json.dumps(layers), **{name: np.ascontiguousarray(array) for name, array in arrays.items()}}


def environment(threads):
    """Returns the variables of both commands: so many threads, and no GPU."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads)), "CUDA_VISIBLE_DEVICES": "-1"}


def ours(folder, checkpoint, epsilon, batch_size, requested, variables):
    """Runs our evaluation and returns its figures."""
    with tempfile.TemporaryDirectory(dir=folder) as out:  # a new one, as it would go on with what it finds
        arguments = {
            "checkpoint": checkpoint,
            "dataset": folder / "images.npz",
            "epsilon": epsilon,
            "norm": "linf",
            "attack": "autoattack",
            "batch_size": batch_size,
            "precision": requested,
            "out": out,
        }
        arguments = [f"--{name}={value}" for name, value in arguments.items()]
        began = time.perf_counter()
        command = [sys.executable, "-m", "tf_nuat.evaluate", *arguments]
        subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, check=True)
        command_seconds = time.perf_counter() - began
        clean, *rows = json.loads((pathlib.Path(out) / "results.json").read_text(encoding="utf-8"))["stages"]
        with np.load(pathlib.Path(out) / "record.npz") as record:
            robust = (record["fooled_by"] == -1).tolist()
    stages = {row["name"]: row["seconds"] for row in rows}
    return {
        "seconds": sum(stages.values()),
        "command": command_seconds,
        "stages": stages,
        "clean": clean["accuracy"],
        "robust": robust,
    }


def theirs(folder, python, epsilon, batch_size, steps, threads, variables):
    """Runs torchattacks' AutoAttack with `steps` steps and returns its figures."""
    arguments = {
        "network": folder / "network.npz",
        "images": folder / "images.npz",
        "epsilon": epsilon,
        "batch_size": batch_size,
        "steps": steps,
        "threads": threads,
    }
    arguments = [f"--{name}={value}" for name, value in arguments.items()]
    began = time.perf_counter()
    done = subprocess.run([python, SCRIPT, *arguments], env=variables, stdout=subprocess.PIPE, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "command": time.perf_counter() - began}


def summary(rounds):
    """Returns the median times of a method's rounds, with the figures of the first of them, which all share."""
    times = [row["seconds"] for row in rounds]
    stages = {name: statistics.median(row["stages"].get(name, 0.0) for row in rounds) for name in rounds[0]["stages"]}
    found = {"seconds": statistics.median(times), "min": min(times), "max": max(times), "stages": stages}
    return {**rounds[0], **found, "command": statistics.median(row["command"] for row in rounds)}


def checked_flags():
    """Returns the values of --torch_steps, having checked those and the other flags."""
    for name in ("checkpoint", "torch_python"):
        if not getattr(FLAGS, name):
            raise ValueError(f"{name} is not given; allowed: a file (--{name} FILE)")
    for name in ("samples", "batch_size", "threads", "rounds"):
        validation.whole_number(name, getattr(FLAGS, name), at_least=1)
    validation.number("epsilon", FLAGS.epsilon, at_least=0.0)
    validation.one_of("precision", FLAGS.precision, precision.PRECISIONS)
    if not FLAGS.torch_steps or not all(steps.isdecimal() and int(steps) for steps in FLAGS.torch_steps):
        raise ValueError(f"torch_steps is {','.join(FLAGS.torch_steps)!r}; allowed: whole numbers, at least 1")
    if hasattr(os, "sched_setaffinity"):  # commands inherit it, and so use no more processors than that
        processors = sorted(os.sched_getaffinity(0))
        validation.number("threads", FLAGS.threads, at_most=len(processors))
        os.sched_setaffinity(0, processors[: FLAGS.threads])
    try:
        subprocess.run([FLAGS.torch_python, "-c", "import torch, torchattacks"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error).encode()).decode().strip().splitlines()[-1]
        raise ValueError(
            f"torch_python is {FLAGS.torch_python!r} ({reason}); allowed: a Python with torch and torchattacks"
        ) from error
    return [int(steps) for steps in FLAGS.torch_steps]


def export(folder):
    """Writes the network and the images into `folder` for both commands."""
    network = validation.classifier("checkpoint", validation.load_network("checkpoint", FLAGS.checkpoint))
    images, labels, names = data.sample(FLAGS.dataset, samples=FLAGS.samples, data_dir=FLAGS.data_dir)
    logits = network.predict(images, batch_size=FLAGS.batch_size, verbose=0)
    np.savez(folder / "network.npz", logits=logits, **exported(network))
    np.savez(folder / "images.npz", images=images, labels=labels, class_names=np.array(names))
    return len(images)


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    all_steps = checked_flags()
    variables = environment(FLAGS.threads)
    our_name, common = f"tf_nuat {FLAGS.precision}", (FLAGS.epsilon, FLAGS.batch_size)
    rounds = {name: [] for name in (our_name, *(f"torchattacks, {steps} steps" for steps in all_steps))}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        count = export(folder)
        for _ in range(FLAGS.rounds):
            rounds[our_name].append(ours(folder, FLAGS.checkpoint, *common, FLAGS.precision, variables))
            for steps in all_steps:
                found = theirs(folder, FLAGS.torch_python, *common, steps, FLAGS.threads, variables)
                rounds[f"torchattacks, {steps} steps"].append(found)
    figures = {name: summary(rows) for name, rows in rounds.items()}
    mine = figures[our_name]
    print(f"{count} images, epsilon {FLAGS.epsilon:g}, batches of {FLAGS.batch_size}, {FLAGS.threads} threads")
    print(f"{'':26}{'seconds':>9}{'min':>9}{'max':>9}{'command':>9}{'clean':>8}{'robust':>8}")
    for name, row in figures.items():
        times = "".join(f"{row[key]:9.1f}" for key in ("seconds", "min", "max", "command"))
        print(f"{name:26}{times}{row['clean']:8.2%}{np.mean(row['robust']):8.2%}")
        print(f"{'':28}{', '.join(f'{stage} {seconds:.1f}' for stage, seconds in row['stages'].items())}")
    for name, row in figures.items():
        if row is mine:
            continue
        row["over_ours"] = statistics.median(
            other["seconds"] / one["seconds"] for one, other in zip(rounds[our_name], rounds[name])
        )
        row["other_outcomes"] = int(np.sum(np.not_equal(row["robust"], mine["robust"])))
        note = " (as shipped)" if set(row["shipped_steps"].values()) == {row["steps"]} else ""
        note = " (as published, and as ours)" if row["steps"] == STEPS else note
        print(f"{name}{note}: {row['over_ours']:.2f} x our time, another outcome for {row['other_outcomes']} images")
    content = {
        "images": count,
        "figures": figures,
        "seconds": {name: [row["seconds"] for row in rows] for name, rows in rounds.items()},
    }
    save(of_this_machine("benchmarks.peers", arguments, content), FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(command)
