"""Figure: nuclear norms of robust and of fooled samples, for each defense (Sriramanan et al., 2021, figure 3a)."""

import numpy as np
from matplotlib.figure import Figure

from sanity.checks.nuclear_norm_separates import FEWEST, measured
from sanity.figures import models as compared
from sanity.report.figures import COLOURS, HATCHES, literal

TITLE = "Nuclear norms of robust and fooled samples"
BAR = 0.38


def measure(models, options):
    """Returns, for each model, the nuclear norm per image of the change of the logits of robust and of fooled images.

    It is that of `sanity.checks.nuclear_norm_separates`, of batches of equal size under PGD; the intervals and the
    ratio are those of the draws. Models with too few images of a kind have only the sizes.
    """
    settings, found = options.settings, []
    tails = 0.5 - settings.confidence / 2, 0.5 + settings.confidence / 2
    for model in models:
        norms, sizes, size = measured(model.subject, settings)
        entry = {"name": model.name, "images": sizes, "rows": size, "norms": None, "ratio": None}
        if norms is not None:
            entry["norms"] = {
                kind: {"mean": float(np.mean(drawn)), "interval": np.quantile(drawn, tails).tolist()}
                for kind, drawn in norms.items()
            }
            entry["ratio"] = entry["norms"]["robust"]["mean"] / entry["norms"]["fooled"]["mean"]
        found.append(entry)
    sample = compared.about(models, options)
    return {"sample": sample, "confidence": settings.confidence, "fewest": FEWEST, "models": found}


def draw(data):
    """Returns the figure of what `measure` returns: two bars for each model."""
    entries = data["models"]
    figure = Figure(figsize=(6.4, 1.2 + 0.75 * len(entries)), layout="constrained")
    axes = figure.add_subplot()
    for place, each in enumerate(entries):
        if each["norms"] is None:
            sizes = each["images"]
            text = f"{sizes['robust']} robust, {sizes['fooled']} fooled: too few (at least {data['fewest']} of each)"
            axes.text(0.0, place, f" {text}", va="center", fontsize=8)
            continue
        for number, (kind, found) in enumerate(each["norms"].items()):
            at = place + (number - 0.5) * BAR
            low, high = found["interval"]
            axes.barh(
                at,
                found["mean"],
                height=BAR,
                xerr=[[max(0.0, found["mean"] - low)], [max(0.0, high - found["mean"])]],
                color=COLOURS[number],
                hatch=HATCHES[number],
                edgecolor="white",
                error_kw={"ecolor": "black", "capsize": 3},
            )
            text = f"  {kind}: {found['mean']:.3g}"
            axes.text(max(high, found["mean"]), at, text, va="center", fontsize=8)
    names = [f"{literal(each['name'])}\n({each['images']['robust']} / {each['images']['fooled']})" for each in entries]
    axes.set_yticks(range(len(entries)), names)
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.margins(x=0.2)
    axes.set_xlim(left=0.0)
    axes.set_xlabel(
        "nuclear norm of the change of the logits under PGD, per image\n"
        f"(in brackets: robust / fooled of {data['sample']['images']} images; lines: {data['confidence']:.0%} of draws)"
    )
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def caption(data):
    """Returns the caption, with the numbers."""
    ratios = ", ".join(
        f"{each['name']} {each['ratio']:.2f}" if each["ratio"] is not None else f"{each['name']} not known"
        for each in data["models"]
    )
    return (
        "Nuclear norm of the matrix of logit changes (a row for each image: the logits where PGD ends, minus those of "
        "the image), of images that withstand PGD and of images that it fools, in batches of equal size. Robust over "
        f"fooled: {ratios} (not known: fewer than {data['fewest']} images of a kind). {compared.threat(data)}."
    )
