"""Figure: the loss on planes around images, as in both papers, and the local linearity error, which sums it up."""

import numpy as np

from sanity.figures import models as compared
from sanity.measure import losses as loss_curves
from sanity.measure import surface
from sanity.report import figures
from sanity.series import Panel, Surface
from tf_nuat import norms

TITLE = "Loss surface"
MOST_IMAGES = 50  # in the mean of a panel
BYTES = 8  # of a height
PLANES = 3
COPIES = 4  # of the heights in memory, while they are averaged and drawn
ORTHOGONAL, INDEPENDENT, LARGEST = "orthogonal signs", "independent signs", "the largest error"


def check(models, options):
    """Raises `ValueError` if the surfaces at this resolution do not fit in the memory that is free."""
    free = available_memory()
    if free is None:
        return
    images = min(MOST_IMAGES, len(models[0].subject))
    room = free // (COPIES * BYTES * (images + len(models) * PLANES))
    if options.resolution**2 > room:
        raise ValueError(
            f"resolution is {options.resolution}; allowed: at most {int(room**0.5)}, for the surfaces of {images} "
            f"images in the {free / 2**30:.1f} GiB of memory that are free"
        )


def available_memory():
    """Returns the bytes of memory that are free for this process; None if the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = dict(line.split(":") for line in file)
        return 1024 * int(sizes["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


def measure(models, options):
    """Returns, for each model, the mean surfaces of some images and the local linearity error of the whole sample.

    The error is in nats: its mean, its median, and Student's interval.
    """
    size = len(models[0].subject)
    rows = np.unique(np.linspace(0, size - 1, min(size, MOST_IMAGES)).astype(int))
    parts = [float(part) for part in np.round(np.linspace(-1.0, 1.0, options.resolution), 6)]
    found = []
    for model in models:
        subject = model.subject
        arguments = {"epsilon": subject.epsilon, "norm": subject.norm, "seed": subject.seed}
        arguments["batch_size"] = subject.batch_size
        error, points = surface.largest_error(subject.network, subject.images, subject.labels, **arguments)
        error = np.nan_to_num(error, nan=loss_curves.MOST, posinf=loss_curves.MOST)
        sample = subject.network, subject.images[rows], subject.labels[rows]
        seconds = {
            ORTHOGONAL: surface.orthogonal,  # Sriramanan et al.
            INDEPENDENT: surface.independent,  # Vivek and Babu
            LARGEST: (points - subject.images)[rows] / subject.epsilon,
        }
        planes = {
            name: np.round(surface.plane(*sample, parts=parts, second=second, **arguments).mean(axis=0), 4).tolist()
            for name, second in seconds.items()
        }
        found.append(
            {
                "name": model.name,
                "error": {
                    "mean": float(np.mean(error)),
                    "interval": loss_curves.interval(error) if size > 1 else None,
                    "median": float(np.median(error)),
                },
                "planes": planes,
            }
        )
    return {"sample": compared.about(models, options), "images_drawn": len(rows), "parts": parts, "models": found}


def draw(data):
    """Returns the figure of what `measure` returns: a row for each model, a column for each plane."""
    panels = tuple(
        Panel(f"{each['name']}: {name}", heights) for each in data["models"] for name, heights in each["planes"].items()
    )
    series = Surface(
        x_label=f"along the {norms.of(data['sample']['norm']).direction_label}, in epsilon",
        y_label="along what is named above, in epsilon",
        z_label=f"loss, share of ln K, at most 1 (mean of {data['images_drawn']} images)",
        x=data["parts"],
        y=data["parts"],
        panels=panels,
    )
    figure = figures.surface(series, columns=PLANES, width=8.4)
    for axes in figure.axes[: len(panels)]:  # inside the diamond, both steps together are at most epsilon long
        axes.plot((1, 0, -1, 0, 1), (0, 1, 0, -1, 0), color="white", linestyle=":", linewidth=1)
    return figure


def caption(data):
    """Returns the caption, with the numbers."""
    errors = "; ".join(
        f"{each['name']} {each['error']['mean']:.3g} (median {each['error']['median']:.2g})" for each in data["models"]
    )
    return (
        f"Mean cross-entropy of {data['images_drawn']} images on planes around them, which the sign of its gradient "
        "spans with random signs that are orthogonal to it (Sriramanan et al., 2021, figure 1) or independent of it "
        "(Vivek and Babu, 2020, equation 12), and with the way to the point within epsilon at which the loss is "
        "farthest from what the gradient at the image predicts. What is inside the dotted diamond is within epsilon. "
        "The local linearity error, how far the loss is from that prediction (Qin et al., 2019), is 0 for a loss that "
        f"is a plane; its mean over all images, in nats: {errors}. {compared.threat(data)}."
    )
