"""Draws what `RobustValidation` and `MaskingAlarm` see, in plain `fit`, while a network overfits to its attack.

    python -m recipes.plot_callbacks --out results/callbacks

Trains a small network on scikit-learn's digits with FGSM at a large epsilon, so it overfits catastrophically. Writes
callbacks.png, with a curve for each entry of the history, and the numbers as callbacks.json. Takes a minute or two.
"""

import functools

import keras
from absl import flags
from matplotlib.figure import Figure

from sanity.report import figures
from sanity.report.figures import COLOURS, DOTS_PER_INCH
from tf_nuat import attacks, callbacks, command_line, data, defenses
from tf_nuat.core import files, validation

EPSILON = 0.4
CURVES = {
    "val_accuracy": "clean",
    "val_fgsm_accuracy": "FGSM (MaskingAlarm)",
    "val_pgd_accuracy": "PGD-10 (MaskingAlarm)",
    "val_robust_accuracy": "PGD-40 (RobustValidation)",
}

FLAGS = flags.FlagValues()
flags.DEFINE_string("out", None, "folder for the figure", flag_values=FLAGS)
flags.DEFINE_integer("epochs", 30, "epochs of training", flag_values=FLAGS)


def history(epochs):
    """Returns the history of `fit`, a dict of name to a value for each epoch."""
    keras.utils.set_random_seed(0)
    digits = data.load("digits")
    layers = [keras.layers.Conv2D(16, 3, activation="relu"), keras.layers.Flatten()]
    layers += [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    model = defenses.FGSMAT(keras.Sequential([keras.Input(digits.input_shape), *layers]), epsilon=EPSILON, seed=0)
    model.compile(keras.optimizers.Adam(3e-3), metrics=["accuracy"])
    validated = digits.arrays("validation")
    pgd = functools.partial(attacks.pgd, epsilon=EPSILON, steps=40)
    watching = [callbacks.MaskingAlarm(*validated, epsilon=EPSILON), callbacks.RobustValidation(*validated, pgd)]
    fitted = model.fit(
        *digits.arrays("train"),
        batch_size=32,
        epochs=epochs,
        validation_data=validated,
        callbacks=watching,
        verbose=0,
    )
    return {name: [float(each) for each in values] for name, values in fitted.history.items()}


def draw(found):
    """Returns the figure of a history; epochs in which the alarm rang are grey."""
    figure = Figure(figsize=(5.6, 3.0), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    for epoch, rang in enumerate(found["masking_alarm"], start=1):
        if rang:
            axes.axvspan(epoch - 0.5, epoch + 0.5, color="0.88", linewidth=0)
    for colour, (name, label) in zip(COLOURS, CURVES.items()):
        axes.plot(range(1, len(found[name]) + 1), found[name], color=colour, label=label)
    axes.set(xlabel="epoch (grey: the alarm rang)", ylabel="accuracy", ylim=(-0.03, 1.03))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def main(arguments):
    """Draws the figure; returns the exit status."""
    command_line.parse(FLAGS, arguments, __doc__)
    command_line.require(FLAGS, out="a folder for the figure (--out DIR)")
    validation.whole_number("epochs", FLAGS.epochs, at_least=1)
    out = validation.output_folder("out", FLAGS.out)
    found = history(FLAGS.epochs)
    numbers = {"command": command_line.typed("recipes.plot_callbacks", arguments), "history": found}
    files.save_json(numbers, out / "callbacks.json", indent=None)
    figures.save(draw(found), out / "callbacks.png")
    print(f"{out}/callbacks.json and callbacks.png")
    return 0


if __name__ == "__main__":
    command_line.main(main)
