"""The half of `benchmarks.peers_training` that trains with this package, through `fit`."""

import functools
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import flags

import tf_nuat
from benchmarks import training, turns
from tf_nuat import command_line, losses
from tf_nuat.core import validation
from tf_nuat.models import precision

FLAGS = flags.FlagValues()
flags.DEFINE_string("folder", None, "what benchmarks.peers_training wrote", flag_values=FLAGS)
flags.DEFINE_enum("defense", "nuat", ["nuat", "pgd_at"], "what to train with", flag_values=FLAGS)
flags.DEFINE_enum("policy", "float32", precision.POLICIES, "the precision of training", flag_values=FLAGS)


class Losses(keras.callbacks.Callback):
    """Keeps the loss of each step in the list `found`; `fit` itself shows means."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(logs["loss"]))


def compiled(defense, network, settings):
    """Returns the compiled model that trains `network` by "nuat" or "pgd_at", with the settings of all contestants."""
    epsilon = settings["epsilon"]
    if defense == "nuat":
        weight, decay = settings["nuclear_weight"], settings["weight_decay"]
        model = tf_nuat.NuAT(network, epsilon=epsilon, alpha=settings["alpha"], nuclear_weight=weight)
    else:
        attack = {name: settings[name] for name in ("steps", "step_size")}
        model = tf_nuat.PGDAT(network, epsilon=epsilon, random_start=False, **attack)
        decay = 0.0  # the peers have Keras's SGD, which does not couple it
    optimizer = tf_nuat.optimizers.CoupledSGD(
        settings["learning_rate"], momentum=settings["momentum"], weight_decay=decay
    )
    model.compile(optimizer=optimizer, metrics=["accuracy"])
    return model


def first_losses(model, x, y):
    """Returns the losses of a training step on each of the batches x (N, B, H, W, C), y (N, B)."""
    kept = Losses()
    model.fit(tf.data.Dataset.from_tensor_slices((x, y)), verbose=0, callbacks=[kept])
    return kept.found


def parts(network, x, y):
    """Returns a dict of name to a compiled function that does one part of a step."""
    alone = training.passes_alone(network, x, y)
    change = tf.random.normal(network(x).shape)

    def nuclear_norm():
        with tf.GradientTape() as tape:
            tape.watch(change)
            norm = losses.nuclear_norm(change)
        return tape.gradient(norm, change)

    functions = {name: alone[name] for name in ("forward", "input_gradient", "training", "optimizer")}
    return {**functions, "nuclear_norm": tf.function(nuclear_norm, autograph=False)}


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    folder = pathlib.Path(FLAGS.folder)
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    with np.load(folder / "batches.npz") as file:
        x, y = file["x"], file["y"]
    network = precision.computing_in(validation.load_network("folder", folder / "network.keras"), FLAGS.policy)
    model, checked = compiled(FLAGS.defense, network, settings), settings["checked"]
    found = first_losses(model, x[:checked], y[:checked])
    batches = tf.data.Dataset.from_tensor_slices((x, y)).repeat().prefetch(2)
    pace = [training.seconds_per_fit_step(model, batches, 2)]

    def train(seconds):
        pace.append(training.seconds_per_fit_step(model, batches, max(2, 2 * round(seconds / pace[-1] / 2))))
        return {"images_per_second": x.shape[1] / pace[-1]}

    @functools.cache
    def compiled_parts():
        functions = parts(network, tf.constant(x[0]), tf.constant(y[0]))
        for function in functions.values():
            training.seconds_per_step(function, 0.0)
        return functions

    def time_parts(seconds):
        return {name: training.seconds_per_step(function, seconds) for name, function in compiled_parts().items()}

    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}
    turns.serve({"losses": found, "versions": versions}, {"train": train, "parts": time_parts})
    return 0


if __name__ == "__main__":
    command_line.main(command)
