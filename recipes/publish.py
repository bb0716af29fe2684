"""Writes the index of the pre-trained networks from finished runs, and copies some of them into the package.

    python -m recipes.publish --runs results

A published run has `network.keras`, `card.json` and the evaluation by AutoAttack, from `tf_nuat.evaluate --out
RUN/evaluation/autoattack`.
"""

import hashlib
import pathlib

from absl import flags

from recipes.pages import evaluations
from tf_nuat import card, command_line
from tf_nuat.core import files
from tf_nuat.networks.pretrained import INDEX, PACKAGE

FLAGS = flags.FlagValues()
flags.DEFINE_string("runs", "results", "folder of the runs", flag_values=FLAGS)
AUTOATTACK = "evaluation/autoattack"
LICENCE = "Apache-2.0"
# Name to run.
PUBLISHED = {
    "mnist_nuat": "mnist_nuat/nuat_1",
    "mnist_nuat_seed_0": "mnist_nuat/nuat_0",
    "mnist_nuat_seed_2": "mnist_nuat/nuat_2",
    "mnist_nuat_wa_seed_0": "mnist_nuat/nuat_wa_0",
    "mnist_nuat_wa_seed_1": "mnist_nuat/nuat_wa_1",
    "mnist_nuat_wa_seed_2": "mnist_nuat/nuat_wa_2",
    "cifar10_small_nuat": "cifar10_small/nuat",
    "cifar10_small_nuat_wa": "cifar10_small/nuat_wa",
    "cifar10_small_nuat2_wa": "cifar10_small/nuat2_wa",
    "cifar10_small_pgd_at": "cifar10_small/pgd_at",
    "cifar10_small_trades": "cifar10_small/trades",
}
IN_PACKAGE = ("mnist_nuat", "cifar10_small_nuat_wa")


def entry(name, runs):
    """Returns the entry of the network `name` in the index, a dict; `runs` is the folder of the runs."""
    path = pathlib.Path(PUBLISHED[name]) / "network.keras"
    run = card.read(runs / path.with_name(card.NAME))
    evaluated = under_autoattack(runs / path.with_name(card.NAME), run)
    content = (runs / path).read_bytes()
    return {
        "path": str(path),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "licence": LICENCE,
        "dataset": run.dataset,
        "norm": run.norm,
        "epsilon": run.epsilon,
        "defense": run.defense,
        "clean": run.measured["clean"].accuracy,
        "robust": evaluated.accuracy,
        "attacked": evaluated.images,
        "is_in_package": name in IN_PACKAGE,
    }


def under_autoattack(path, run):
    """Returns the accuracy under AutoAttack that lies beside the card `run` at `path`, a `card.Measured`.

    Raises:
        ValueError: the evaluation is of another attack, threat model, dataset or split.
    """
    folder = path.parent / AUTOATTACK
    for each in evaluations.beside(path, run):
        if each.folder == folder and each.name == "autoattack":
            return each.measured
    raise ValueError(
        f"evaluation is {str(folder)!r}, which is of another attack, threat model or split; "
        f"allowed: autoattack, {run.norm}, epsilon {run.epsilon:g}, test images of {run.dataset}"
    )


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    runs = pathlib.Path(FLAGS.runs)
    for path in PUBLISHED.values():
        for file in ("network.keras", card.NAME, f"{AUTOATTACK}/results.json"):
            if not (runs / path / file).is_file():
                raise ValueError(f"runs is {str(runs)!r}, which lacks {path}/{file}; allowed: finished, evaluated runs")
    entries = {name: entry(name, runs) for name in PUBLISHED}  # before the package is touched
    for name in IN_PACKAGE:
        run = runs / PUBLISHED[name]
        files.save_bytes((run / "network.keras").read_bytes(), PACKAGE / f"{name}.keras")
        files.save_bytes((run / card.NAME).read_bytes(), PACKAGE / f"{name}.json")
    files.save_json(entries, INDEX)
    print(INDEX)
    return 0


if __name__ == "__main__":
    command_line.main(command)
