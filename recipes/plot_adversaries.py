"""Draws where each defense trains: the adversaries that its own code makes from images of two pixels.

    python -m recipes.plot_adversaries --out results/adversaries

All defenses attack the same four images on the same small, untrained network, for a few training steps, each with new
random draws. Writes NAME.png for each defense, and the numbers as adversaries.json. Takes a minute.
"""

import typing

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from matplotlib.figure import Figure

from sanity.report import figures
from sanity.report.figures import COLOURS, DOTS_PER_INCH
from tf_nuat import DEFENSES, command_line
from tf_nuat.core import files, validation
from tf_nuat.defenses import awp

EPSILON = 0.15
STEPS = 8
GAMMA = 0.03  # of AWP: three times its default, to be visible
IMAGES = np.array([(0.25, 0.75), (0.7, 0.8), (0.25, 0.3), (0.75, 0.3)], np.float32).reshape(4, 1, 2, 1)
# Averaging does not change the attack (only NuAT2-WA attacks an average). NuAT-H takes the steps of NuAT or of NuAT2,
# ELLE-A the step of ELLE.
DRAWN = tuple(name for name in DEFENSES if not name.endswith(("_wa", "_h", "_a")))
REGIONS = ("#f2e9d8", "#dde8f0", "#e3eedd")  # where the network sees each class

FLAGS = flags.FlagValues()
flags.DEFINE_string("out", None, "folder for the figures", flag_values=FLAGS)


def network(seed=16):
    """Returns a network of images (B, 1, 2, 1) and three classes whose decision boundaries are curved."""
    generator = np.random.default_rng(seed)
    inputs = keras.Input((1, 2, 1))
    hidden = keras.layers.Dense(16, activation="tanh")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    kernel = 5.0 * generator.normal(size=(2, 16))
    biases = -np.sum(kernel * generator.uniform(size=(2, 16)), axis=0)  # each unit is 0 somewhere in the square
    model.set_weights([kernel, biases, generator.normal(size=(16, 3)), np.zeros(3)])
    return model


def classes(model, points):
    """Returns the classes (...) that a network sees at `points` (..., 2)."""
    points = np.asarray(points, np.float32)
    return model(points.reshape(-1, 1, 2, 1), training=False).numpy().argmax(axis=-1).reshape(points.shape[:-1])


def defense(name):
    """Returns the defense around `network()`, compiled with an optimizer that moves no weight."""
    supplied: dict[str, typing.Any] = {"sources": [network(17), network(28)], "batch_size": len(IMAGES)}
    options = {each: supplied[each] for each in DEFENSES[name].NEEDS}
    if issubclass(DEFENSES[name], awp.WeightPerturbation):
        options["awp_gamma"] = GAMMA
    model = DEFENSES[name](network(), epsilon=EPSILON, **options)
    model.compile(keras.optimizers.SGD(0.0))
    return model


def batch():
    """Returns the images and, as their labels, the classes that the network sees in them."""
    return tf.constant(IMAGES), tf.constant(classes(network(), IMAGES.reshape(-1, 2)))


def adversaries(model):
    """Returns the adversaries that `perturb` makes at each training step, (STEPS, rows, 2).

    If a defense compares two attacks, the rows of the second follow those of the first.
    """
    found = []
    for _ in range(STEPS):
        found.append(model.perturb(*batch()).numpy().reshape(-1, 2))
        model.train_step(batch())  # counts the step, and updates the state of the defense
    return np.array(found)


def moved(model, x_adv):
    """Returns the network of a defense, with its weights moved as AWP moves them for the images `x_adv` (rows, 2)."""
    variables = model.trained_network.trainable_variables
    x, y = batch()
    with tf.GradientTape() as tape:
        loss, *_ = model.objective(x, tf.constant(x_adv.reshape(-1, 1, 2, 1)), y)
    for variable, gradient in zip(variables, tape.gradient(loss, variables)):
        if len(variable.shape) > 1:
            variable.assign_add(awp.perturbation(variable.value, gradient, GAMMA))
    return model.network


def draw(name, found):
    """Returns the figure of what `adversaries` found for a defense."""
    figure = Figure(figsize=(2.8, 2.8), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    side = np.linspace(0.0, 1.0, 201)
    grid = np.stack(np.meshgrid(side, side), axis=-1)
    axes.contourf(side, side, classes(network(), grid), levels=[-0.5, 0.5, 1.5, 2.5], colors=REGIONS)
    if name.startswith("awp"):
        regions = classes(moved(defense(name), found[0]), grid)
        axes.contour(side, side, regions, levels=[0.5, 1.5], colors="black", linestyles="dashed", linewidths=0.8)
    labels, seen = batch()[1].numpy(), classes(network(), found)
    for image, centre in enumerate(IMAGES.reshape(-1, 2)):
        (left, bottom), (right, top) = np.clip([centre - EPSILON, centre + EPSILON], 0.0, 1.0)
        axes.plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], color="black", linewidth=0.8)
        axes.plot(*centre, "+", color="black", markersize=8, zorder=5)
        second = found.shape[1] - len(IMAGES) + image  # the rows of a second attack are those of the last images
        for row, marker in [(image, "o"), (second, "s")][: 1 + (second >= len(IMAGES))]:
            for point, fools in zip(found[:, row], seen[:, row] != labels[image]):
                axes.plot(*zip(centre, point), color="grey", linewidth=0.4, zorder=2)
                axes.plot(*point, marker, color=COLOURS[int(fools)], markersize=4, alpha=0.7, zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="one pixel", ylabel="the other pixel")
    return figure


def main(arguments):
    """Draws the figures; returns the exit status."""
    command_line.parse(FLAGS, arguments, __doc__)
    command_line.require(FLAGS, out="a folder for the figures (--out DIR)")
    out = validation.output_folder("out", FLAGS.out)
    found = {name: adversaries(defense(name)) for name in DRAWN}
    numbers = {
        "command": command_line.typed("recipes.plot_adversaries", arguments),
        "epsilon": EPSILON,
        "images": IMAGES.reshape(-1, 2).astype(float).round(3).tolist(),
        "labels": batch()[1].numpy().tolist(),
        "adversaries": {name: points.astype(float).round(3).tolist() for name, points in found.items()},
    }
    files.save_json(numbers, out / "adversaries.json", indent=None)
    for name, points in found.items():
        figures.save(draw(name, points), out / f"{name}.png")
    print(f"{out}/adversaries.json and {len(found)} figures")
    return 0


if __name__ == "__main__":
    command_line.main(main, continues=False)
