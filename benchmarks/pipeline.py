"""Measures whether reading JPEGs keeps up with training: images per second of the input pipeline, training, and both.

    python -m benchmarks.pipeline --out results/benchmarks/pipeline.json

Makes a temporary folder of class folders of JPEGs, random pictures that compress like photographs, and loads it at
224x224 with random resized crops. Measures, in rounds that take turns: the pipeline alone, NuAT with ResNet-18 on one
batch in memory, and the same training fed by the pipeline. If the last takes over a tenth longer than the one before,
input is the bottleneck. Notes the peak memory of the process after each part of the first round. The files are in the
page cache, so a slow disk does not show.
"""

import pathlib
import resource
import statistics
import sys
import tempfile
import time

import numpy as np
from absl import flags
from PIL import Image
from tqdm import tqdm

import tf_nuat
from benchmarks import figures
from benchmarks.training import repeated, seconds_per_fit_step
from tf_nuat import command_line, data
from tf_nuat.core import validation

SHAPE = (224, 224, 3)
LIMIT = 1.1  # on the time of a step fed by the pipeline, over that of a step on a batch in memory
FLAGS = flags.FlagValues()
flags.DEFINE_integer("classes", 100, "number of class folders", flag_values=FLAGS)
flags.DEFINE_integer("images_per_class", 20, "JPEGs in each", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 16, "images per step", flag_values=FLAGS)
flags.DEFINE_integer("steps", 4, "training steps of a measurement, an even number", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 3, "times that each part is measured", flag_values=FLAGS)
flags.DEFINE_string("out", None, "JSON file for the figures", flag_values=FLAGS)


def picture(generator):
    """Returns a random picture of about 300x400: shapes of all sizes, the smaller the fainter, and grain."""
    width, height = (int(side * generator.uniform(0.85, 1.15)) for side in (400, 300))
    pixels = np.full((height, width, 3), 128.0)
    for size, contrast in ((4, 90.0), (16, 45.0), (64, 18.0)):
        coarse = generator.integers(0, 256, (size, size, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64)
        pixels += contrast * (smooth / 127.5 - 1.0)
    pixels += generator.normal(scale=12.0, size=pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_folder(folder, classes, images_per_class):
    """Writes the class folders; returns the mean size of a file in bytes."""
    generator = np.random.default_rng(0)
    for number in tqdm(range(classes), desc="pictures"):
        place = folder / f"class{number:03}"
        place.mkdir()
        for image in range(images_per_class):
            picture(generator).save(place / f"{image:04}.jpg", quality=90)
    return statistics.mean(path.stat().st_size for path in folder.glob("*/*.jpg"))


def seconds_per_batch(dataset, batches):
    """Returns the time per batch of the pipeline alone, without the two that are read ahead and one more."""
    iterator = iter(dataset)
    for _ in range(3):
        next(iterator)
    begin = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return (time.perf_counter() - begin) / batches


def peak_mebibytes():
    """Returns the most memory that this process has held until now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def measure(splits, steps, rounds):
    """Returns a dict of part to its seconds per batch, one per round, and one of part to the peak memory after it."""
    network = tf_nuat.networks.resnet18(splits.input_shape, splits.num_classes, stem="imagenet")
    model = tf_nuat.NuAT(network, epsilon=8 / 255)
    model.compile(optimizer=tf_nuat.optimizers.CoupledSGD(1e-3), metrics=["accuracy"])
    dataset = splits.train_from(0)
    held = repeated(next(iter(dataset)))
    parts = {
        "pipeline": lambda: seconds_per_batch(dataset, 4 * steps),
        "training from memory": lambda: seconds_per_fit_step(model, held, steps),
        "training from the pipeline": lambda: seconds_per_fit_step(model, dataset, steps),
    }
    seconds_per_fit_step(model, held, 2)  # compiles
    peaks = {"compiling": peak_mebibytes()}
    times = {name: [] for name in parts}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, part in parts.items():
            times[name].append(part())
            peaks.setdefault(name, peak_mebibytes())
    return times, {**peaks, "at the end": peak_mebibytes()}


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    validation.whole_number("classes", FLAGS.classes, at_least=2)
    validation.whole_number("images_per_class", FLAGS.images_per_class, at_least=3)
    for name in ("batch_size", "steps", "rounds"):
        validation.whole_number(name, getattr(FLAGS, name), at_least=1)
    if FLAGS.steps % 2:
        validation.refuse("steps", FLAGS.steps, "an even number")
    figures.check_out(FLAGS.out)
    with tempfile.TemporaryDirectory() as name:
        size = write_folder(pathlib.Path(name), FLAGS.classes, FLAGS.images_per_class)
        splits = data.load(name, batch_size=FLAGS.batch_size, input_shape=SHAPE, augmentation="resized_crop")
        times, peaks = measure(splits, FLAGS.steps, FLAGS.rounds)
    waits = [fed / held for fed, held in zip(times["training from the pipeline"], times["training from memory"])]
    content = {
        "images": {"shape": SHAPE, "files": FLAGS.classes * FLAGS.images_per_class, "mean_bytes": round(size)},
        "batch_size": FLAGS.batch_size,
        "seconds_per_batch": times,
        "images_per_second": {part: FLAGS.batch_size / statistics.median(each) for part, each in times.items()},
        "training from the pipeline / from memory": {**figures.spread(waits), "target": LIMIT},
        "input_is_the_bottleneck": statistics.median(waits) > LIMIT,
        "peak_mebibytes": peaks,
    }
    figures.publish("benchmarks.pipeline", arguments, content, FLAGS.out)
    return 0


if __name__ == "__main__":
    command_line.main(command)
