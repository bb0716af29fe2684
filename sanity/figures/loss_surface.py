"""Figure: the loss on the planes of both papers around images, and the local linearity error that sums it up."""

import numpy as np

from sanity import measure_losses, measure_surface
from sanity.figures import models as compared
from sanity.report import figures
from sanity.result import Panel, Surface

TITLE = "Loss surface"
MOST_IMAGES = 50  # in the mean of a panel
REACH = 1.0  # of the planes, in epsilon
BYTES = 8  # of a height
COPIES = 4  # of the heights, while they are summed up and drawn
PLANES = {
    "gradient, orthogonal signs": measure_surface.orthogonal,  # Sriramanan et al.
    "gradient, independent signs": measure_surface.independent,  # Vivek and Babu
}


def check(models, options):
    """Raises `ValueError` where the surfaces at this resolution do not fit in the memory that is free."""
    free = available_memory()
    if free is None:
        return
    images = min(MOST_IMAGES, len(models[0].subject))
    room = free // (COPIES * BYTES * (images + len(models) * (len(PLANES) + 1)))
    if options.resolution**2 > room:
        raise ValueError(
            f"resolution is {options.resolution}; allowed: at most {int(room**0.5)}, for the surfaces of {images} "
            f"images in the {free / 2**30:.1f} GiB of memory that are free"
        )


def available_memory():
    """Returns the bytes of memory that are free for this process, None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = dict(line.split(":") for line in file)
        return 1024 * int(sizes["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


def measure(models, options):
    """Returns, of each model, the mean surfaces of some images, that of the image with the median local linearity
    error of those classified correctly, and the mean, median and interval of that error over the sample, in nats."""
    size = len(models[0].subject)
    chosen = np.unique(np.linspace(0, size - 1, min(size, MOST_IMAGES)).astype(int))
    parts = [float(part) for part in np.round(np.linspace(-REACH, REACH, options.resolution), 6)]
    found = []
    for model in models:
        subject = model.subject
        arguments = {"epsilon": subject.epsilon, "norm": subject.norm, "seed": subject.seed}
        arguments["batch_size"] = subject.batch_size
        error = measure_surface.largest_error(subject.network, subject.images, subject.labels, **arguments)
        error = np.nan_to_num(error, nan=measure_losses.MOST, posinf=measure_losses.MOST)
        linearity = measure_surface.linearity(subject.network, subject.images, subject.labels, points=10, **arguments)
        typical = _median(error, subject.correct())
        planes = {}
        for name, second in PLANES.items():
            rows = np.append(chosen, typical)
            heights = measure_surface.plane(
                subject.network, subject.images[rows], subject.labels[rows], parts=parts, second=second, **arguments
            )
            planes[name] = _rounded(heights[:-1].mean(axis=0))
            if second is measure_surface.orthogonal:
                at_typical = _rounded(heights[-1])
        found.append(
            {
                "name": model.name,
                "error": {
                    "mean": float(np.mean(error)),
                    "interval": measure_losses.interval(error) if size > 1 else None,
                    "median": float(np.median(error)),
                },
                "error_of_margin_at_random_points": float(np.mean(linearity.error)),
                "planes": planes,
                "typical": {"image": typical, "error": float(error[typical]), "heights": at_typical},
            }
        )
    return {"sample": compared.about(models, options), "images_drawn": len(chosen), "parts": parts, "models": found}


def _median(error, among):
    """Returns the number of the image with the median error among those for which `among` holds, or of all."""
    (rows,) = np.nonzero(among if np.any(among) else np.ones_like(among))
    return int(rows[np.argsort(error[rows], kind="stable")[len(rows) // 2]])


def _rounded(heights):
    return np.round(heights, 4).tolist()


def draw(data):
    """Returns the figure of what `measure` returns: a row for each model."""
    panels = []
    for each in data["models"]:
        (first, second), drawn = each["planes"].values(), data["images_drawn"]
        panels += [
            Panel(f"{each['name']}: mean of {drawn}, orthogonal", first),
            Panel(f"{each['name']}: mean of {drawn}, independent", second),
            Panel(f"{each['name']}: image {each['typical']['image']}, orthogonal", each["typical"]["heights"]),
        ]
    along, random = (
        ("sign of the gradient", "random signs")
        if data["sample"]["norm"] == "linf"
        else (
            "gradient",
            "a random direction",
        )
    )
    series = Surface(
        x_label=f"along the {along}, in epsilon",
        y_label=f"along {random}, in epsilon",
        z_label="loss, share of ln K, at most 1",
        x=data["parts"],
        y=data["parts"],
        panels=panels,
    )
    return figures.surface(series, columns=3, width=8.4)


def caption(data):
    """Returns what one sees, and the numbers."""
    errors = "; ".join(
        f"{each['name']} {each['error']['mean']:.3g} (median {each['error']['median']:.2g})" for each in data["models"]
    )
    return (
        "Cross-entropy on planes around images, spanned by the sign of its gradient and by random signs that are "
        "orthogonal to it (Sriramanan et al., 2021, figure 1) or independent of it (Vivek and Babu, 2020, equation "
        f"12): the mean of {data['images_drawn']} images, and the image with the median local linearity error of "
        "those classified correctly. The diamond between the middles of the sides is within epsilon in L-infinity. Local linearity error (Qin et al., 2019), how far the loss within epsilon is at "
        "most from what the gradient at the image predicts, in nats, mean over all images; 0 for a loss that is a "
        f"plane: {errors}. {compared.threat(data)}."
    )
