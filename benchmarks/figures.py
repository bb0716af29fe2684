"""What the files of all benchmarks have: the command, the figures, the machine."""

import json
import os
import pathlib
import statistics

import cpuinfo
import keras
import tensorflow as tf

from tf_nuat import command_line
from tf_nuat.core import files


def spread(values):
    """Returns the median, the smallest and the largest of some numbers, a dict."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def of_this_machine(module, arguments, figures):
    """Returns `figures`, a dict, between the command that made them and what they were made on."""
    return {
        "command": command_line.typed(module, arguments),
        **figures,
        "processors": os.cpu_count(),
        "processor": cpuinfo.get_cpu_info().get("brand_raw", "unknown"),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def save(content, path):
    """Writes a dict as JSON, where a path is given."""
    if path:
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.save_json(content, path)


def publish(module, arguments, figures, path):
    """Prints what `of_this_machine` makes of the figures, and writes it where a path is given."""
    content = of_this_machine(module, arguments, figures)
    print(json.dumps(content, indent=2))
    save(content, path)
