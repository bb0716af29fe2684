"""Compares AutoAttack with the official implementation, stage by stage and image by image.

    python -m benchmarks.official --golden GOLDEN --out results/benchmarks/official.json

The folder GOLDEN holds a robust MNIST network, `network.keras`, and `official.npz`: the images that were attacked at
epsilon 0.3 (their numbers in TensorFlow Datasets' test split) and which of them withstood all stages of the official
standard AutoAttack. After a kill, the same command with the same `--work` continues.
"""

import pathlib

import numpy as np
from absl import flags

from benchmarks.figures import check_out, save
from tf_nuat import command_line, data
from tf_nuat.core import validation
from tf_nuat.evaluate import worst_case
from tf_nuat.models import precision

EPSILON = 0.3
# What the official implementation left after each stage, in percent, from the README beside the network.
OFFICIAL = {"clean": 98.8, "apgd_ce": 87.7, "apgd_t": 86.8, "fab_t": 86.7, "square": 86.5}
FLAGS = flags.FlagValues()
flags.DEFINE_string("golden", None, "folder of network.keras and official.npz; required", flag_values=FLAGS)
flags.DEFINE_string("data_dir", None, "where MNIST is (default: TFDS_DATA_DIR)", flag_values=FLAGS)
flags.DEFINE_string("precision", "auto", f"of the gradients: {', '.join(precision.PRECISIONS)}", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "of the random starts", flag_values=FLAGS)
flags.DEFINE_string("work", "runs/official", "folder for what is done so far", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    command_line.require(FLAGS, golden="a folder with network.keras and official.npz (--golden DIR)")
    check_out(FLAGS.out)
    folder = pathlib.Path(FLAGS.golden)
    network = validation.classifier("network", validation.load_network("golden", folder / "network.keras"))
    with np.load(folder / "official.npz") as file:
        official = dict(file)
    images, labels = data.load("mnist", data_dir=FLAGS.data_dir).arrays("test")
    images, labels = images[official["index_in_tfds"]], labels[official["index_in_tfds"]]
    validation.one_of("labels are those of official.npz", bool(np.all(labels == official["label"])), (True,))
    settings = {"epsilon": EPSILON, "seed": FLAGS.seed, "precision": FLAGS.precision, "progress": True}
    record = worst_case(network, (images, labels), folder=pathlib.Path(FLAGS.work), **settings)
    rows = [
        {
            "stage": row["name"],
            "ours": round(100 * row["accuracy"], 2),
            "official": OFFICIAL[row["name"]],
            "steps": row["steps"],
            "seconds": row["seconds"],
        }
        for row in record.rows()
    ]
    figures = {
        "command": command_line.typed("benchmarks.official", arguments),
        "stages": rows,
        "images": len(labels),
        "robust_here_alone": np.flatnonzero(record.robust & ~official["robust"]).tolist(),
        "robust_there_alone": np.flatnonzero(~record.robust & official["robust"]).tolist(),
        "robust_in_both": int(np.sum(record.robust & official["robust"])),
    }
    for row in rows:
        print(f"{row['stage']:10}{row['ours']:8.2f}{row['official']:8.2f}{row['seconds']:8.0f} s")
    print(f"images that are robust here alone: {figures['robust_here_alone']}, there: {figures['robust_there_alone']}")
    save(figures, FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(command)
