"""Writes the files of all benchmarks: the command, the figures, the machine."""

import json
import os
import pathlib
import re
import statistics

import cpuinfo
import keras
import tensorflow as tf

from tf_nuat import command_line
from tf_nuat.core import files, validation


def spread(values):
    """Returns the median, the smallest and the largest of some numbers, a dict."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def devices():
    """Returns the names of the GPUs, or "CPU" if there are none."""
    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(each).get("device_name", each.name) for each in gpus] or ["CPU"]


def of_this_machine(module, arguments, figures):
    """Returns `figures`, a dict, with the command that made them, the devices and the versions."""
    return {
        "command": command_line.typed(module, arguments),
        **figures,
        "devices": devices(),
        "processors": os.cpu_count(),
        "processor": cpuinfo.get_cpu_info().get("brand_raw", "unknown"),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def check_out(path):
    """Checks, before any work, that `save` can write a file at `path`.

    Raises:
        ValueError: it cannot.
    """
    if path:
        validation.output_folder("out", pathlib.Path(path).parent)
        if pathlib.Path(path).is_dir():
            validation.refuse("out", path, "a file for the figures, not a folder")


def image_shape(text):
    """Returns height, width and channels, integers, from the text of a flag such as "28,28,1".

    Raises:
        ValueError: it has another form.
    """
    if not re.fullmatch(r"([1-9]\d*,){2}[1-9]\d*", text):
        validation.refuse("shape", text, "height,width,channels as 28,28,1")
    return tuple(map(int, text.split(",")))


def check_settings(asked, made, path):
    """Checks that a file that is to be continued was made with the settings that are asked for, dicts of flag to value.

    Raises:
        ValueError: it was not.
    """
    for name, value in asked.items():
        if made[name] != value:
            validation.refuse(f"--{name}", value, f"{made[name]}, with which {path} was made, or another --out")


def save(content, path):
    """Writes a dict as JSON, if a path is given."""
    if path:
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.save_json(content, path)


def publish(module, arguments, figures, path):
    """Prints the figures with what `of_this_machine` adds, and writes them if a path is given."""
    content = of_this_machine(module, arguments, figures)
    print(json.dumps(content, indent=2))
    save(content, path)
