"""Draws the figures of both papers for one network or several, and a page that shows them.

    python -m sanity.figures --checkpoint runs/mnist/network.keras --out figures
    python -m sanity.figures --checkpoint clean.keras --checkpoint robust.keras --dataset mnist --epsilon 0.3 --out DIR
    python -m sanity.figures --checkpoint a.keras --checkpoint b.keras --only loss_surface,connectivity --out figures

Writes NAME.png and NAME.json (the numbers) for each figure into the output folder, and the page `figures.html`, which
also shows figures from earlier commands. If `sanity.run` writes its report into the same folder, it links that page.
Figures that these networks do not have are listed; they are an error if `--only` asks for them. The paths of the
connectivity figure start at the first checkpoint, which should be the clean network.
"""

import sys

import tensorflow as tf
from absl import flags
from tqdm import tqdm

from sanity.figures import FIGURES, inputs, page
from sanity.figures.models import NotShownError
from sanity.settings import BUDGETS
from tf_nuat import command_line
from tf_nuat.core import validation
from tf_nuat.evaluate import inputs as shared
from tf_nuat.evaluate import networks


def flag_values():
    """Returns the flags of this command, not yet parsed."""
    values = flags.FlagValues()

    def flag(define, name, default, help_text):
        define(name, default, help_text, flag_values=values)

    flag(
        flags.DEFINE_multi_string, "checkpoint", [], f"a network, {networks.FILE}; several times for several; required"
    )
    networks.define(values)
    flag(flags.DEFINE_string, "out", None, "folder for the figures; required")
    flag(flags.DEFINE_list, "only", ["all"], f"which figures, by commas: all, or {', '.join(FIGURES)}")
    shared.define(values, samples="Default: that of the budget")
    flag(
        flags.DEFINE_string,
        "budget",
        "quick",
        "how long the attacks are: " + ", ".join(f"{name} ({each.samples:,} images)" for name, each in BUDGETS.items()),
    )
    flag(flags.DEFINE_integer, "resolution", 21, "points along each axis of a surface")
    flag(flags.DEFINE_integer, "epochs", 3, "over 2,000 training images, for the bend of a path between two networks")
    flag(
        flags.DEFINE_multi_string,
        "distances",
        [],
        "distances between logits during a training: a file that tf_nuat.training.logit_distances.LogitDistances wrote",
    )
    return values


def command(arguments):
    """Runs the command with `arguments` (without the program's name) and returns its exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    if not values.out:
        raise ValueError("--out is not given; allowed: a folder for the figures (--out DIR)")
    tf.get_logger().setLevel("ERROR")  # hides warnings about functions that are traced for each of several networks
    models, options, names = inputs.collect(values)
    asked, skipped = values.only != ["all"], []
    for name in list(names):
        try:
            FIGURES[name].check(models, options)
        except NotShownError as reason:
            if asked:
                raise ValueError(f"--only has {name}: {reason}") from reason
            skipped.append(f"Not shown: {name}: {reason}")
            names.remove(name)
    out = validation.output_folder("--out", values.out)
    written = command_line.typed("sanity.figures", arguments)
    for name in tqdm(names, unit="figure", disable=not sys.stderr.isatty(), leave=False):
        try:
            page.write(name, FIGURES[name].measure(models, options), written, out)
        except command_line.OUT_OF_MEMORY as error:
            raise ValueError(
                f"memory is not enough for {name}; allowed: fewer --samples, or a smaller --resolution "
                f"(of {options.resolution})"
            ) from error
    for line in skipped:
        print(line)
    print(page.write_page(out, skipped))
    return 0


if __name__ == "__main__":
    command_line.main(command, continues=False)
