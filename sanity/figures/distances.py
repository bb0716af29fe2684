"""Figure: distances between the logits of FGSM, I-FGSM and R-FGSM adversaries during training.

Vivek and Babu, 2020, figures 1 and 2, top.
"""

import numpy as np
from matplotlib.figure import Figure

from sanity.figures import models as compared
from sanity.report import figures
from sanity.series import Curve
from tf_nuat.core import json_input
from tf_nuat.training.logit_distances import PAIRS

TITLE = "Distance between the logits of adversaries during training"


def check(models, options):
    """Raises `NotShownError` if there is no file of distances, another `ValueError` if one cannot be read."""
    if not options.distances:
        raise compared.NotShownError(
            "no --distances are given, files that the callback tf_nuat.training.logit_distances.LogitDistances writes"
        )
    measure(models, options)


def measure(models, options):
    """Returns the distances that the callback wrote during the trainings; nothing is measured again."""
    return {"trainings": [_read(path) for path in options.distances]}


def _read(path):
    try:
        found = json_input.load("--distances", path)
        checked = json_input.fields(_FIELDS, found, json_input.Field("", path), required=_FIELDS)
        if len({len(values) for values in checked["history"].values()}) != 1:
            raise ValueError("its history has lists of several lengths")
    except ValueError as error:
        raise ValueError(
            f"--distances is {str(path)!r}, which is not a file of distances ({error}); allowed: what the callback "
            "tf_nuat.training.logit_distances.LogitDistances writes"
        ) from error
    return found


def _history(value, field):
    """Checks and returns a history, a list of numbers for each of `PAIRS` and for its error; see `json_input`."""
    names = ("iteration", *PAIRS, *(f"{pair}_error" for pair in PAIRS))
    return json_input.fields(dict.fromkeys(names, json_input.list_of(json_input.logged)), value, field, required=names)


_FIELDS: dict[str, json_input.Check] = {
    "defense": json_input.text,
    "epsilon": json_input.number,
    "images": json_input.count,
    "history": _history,
}


def draw(data):
    """Returns the figure of what `measure` returns: a panel for each training, all on one scale."""
    trainings = data["trainings"]
    figure = Figure(figsize=(1.0 + 3.2 * len(trainings), 3.5), layout="constrained")
    grid = figure.subplots(1, len(trainings), squeeze=False, sharey=True)[0]
    for axes, each in zip(grid, trainings):
        history = each["history"]
        for number, (pair, other) in enumerate(PAIRS.items()):
            means, errors = np.array(history[pair]), np.array(history[f"{pair}_error"])
            low, high = means - 1.96 * errors, means + 1.96 * errors
            curve = Curve(f"FGSM and {other}", history["iteration"], tuple(means), tuple(low), tuple(high))
            figures.line(axes, history["iteration"], curve, number)
        defense = figures.literal(each["defense"])
        axes.set_title(f"{defense}, epsilon {each['epsilon']:.4g}, {each['images']} images", fontsize=9)
        axes.set_ylim(bottom=0.0)
        axes.grid(alpha=0.3)
    grid[0].legend(fontsize=8, title="bands: 95% intervals", title_fontsize=8)
    figure.supxlabel("optimizer steps", fontsize=9)
    grid[0].set_ylabel("mean L2 distance between logits")
    return figure


def caption(data):
    """Returns the caption, with the numbers."""
    numbers = "; ".join(
        f"{each['defense']} {each['history']['fgsm_ifgsm'][-1]:.3g} and {each['history']['fgsm_rfgsm'][-1]:.3g}"
        for each in data["trainings"]
    )
    images = ", ".join(f"{each['defense']} {each['images']}" for each in data["trainings"])
    return (
        "Mean Euclidean distance from the logits of FGSM adversaries to those of I-FGSM and of R-FGSM adversaries of "
        "the same images, during training: it stays small where training makes the network robust and grows when it "
        f"begins to mask its gradients. At the end, to I-FGSM and to R-FGSM: {numbers}. Validation images: {images}."
    )
