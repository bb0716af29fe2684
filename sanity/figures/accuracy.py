"""Figures: accuracy under PGD against its steps and against epsilon (Vivek and Babu, 2020, figures 7 and 8)."""

from sanity import statistics
from sanity.checks.larger_epsilon_is_stronger import epsilons
from sanity.checks.step_count_saturates import STEP_COUNTS, step_size
from sanity.figures import models as compared
from sanity.report import figures
from sanity.series import Curve, Curves

STEPS, EPSILON = "Accuracy against steps", "Accuracy against epsilon"


def against_steps(models, options):
    """Returns the accuracy of each model, with Wilson's intervals, under PGD with 1 step to `settings.most_steps`."""
    settings = options.settings
    counts = [count for count in STEP_COUNTS if count <= settings.most_steps]

    def attack(subject, steps):
        size = step_size(subject.epsilon, steps, settings)
        return {"epsilon": subject.epsilon, "steps": steps, "step_size": size}

    return {**_measured(models, options, counts, attack), "way": settings.way}


def against_epsilon(models, options):
    """Returns the accuracy of each model, with Wilson's intervals, under PGD from epsilon 0 to the largest."""
    subject = models[0].subject
    radii = epsilons(subject.epsilon, subject.largest)
    data = _measured(models, options, radii, lambda _, radius: options.settings.pgd(radius))
    return {**data, "steps": options.settings.steps}


def _measured(models, options, places, attack):
    settings, found = options.settings, []
    for model in models:
        correct = {place: model.subject.correct("pgd", **attack(model.subject, place)) for place in places}
        curve = statistics.curve(model.name, correct, confidence=settings.confidence)
        found.append({name: value if name == "name" else list(value) for name, value in vars(curve).items()})
    return {"sample": compared.about(models, options), "confidence": settings.confidence, "models": found}


def draw_against_steps(data):
    """Returns the figure of what `against_steps` returns."""
    way = data.get("way", 2.5)  # older files lack it
    return _drawn(data, f"steps of PGD (step size {way:g} epsilon / steps, at most epsilon)", "log")


def draw_against_epsilon(data):
    """Returns the figure of what `against_epsilon` returns."""
    return _drawn(data, f"{compared.radius(data['sample'])}, PGD with {data['steps']} steps", "ordinal")


def _drawn(data, label, scale):
    curves = tuple(Curve(**each) for each in data["models"])
    chance = ("chance", data["sample"].get("chance", 1.0 / data["sample"]["num_classes"]))  # older files lack it
    series = Curves(label, "accuracy under attack", curves, x_scale=scale, levels=(chance,))
    return figures.curves(series, data["sample"]["images"], f"{data['confidence']:.0%} interval")


def caption_of_steps(data):
    """Returns the caption, with the numbers."""
    most = data["models"][0]["x"][-1]
    return (
        "Accuracy under PGD with one random start, against the number of steps: it must not rise, and must settle. "
        f"With {most} steps: {_last(data, -1)}. Bands: Wilson's intervals. {compared.threat(data)}."
    )


def caption_of_epsilon(data):
    """Returns the caption, with the numbers."""
    place = data["models"][0]["x"].index(data["sample"]["epsilon"])
    return (
        f"Accuracy under PGD with {data['steps']} steps and one random start, against epsilon: it must fall, and reach "
        f"0 where any image can become any other. At epsilon: {_last(data, place)}. Bands: Wilson's intervals. "
        f"{compared.threat(data)}."
    )


def _last(data, place):
    return ", ".join(f"{each['name']} {each['y'][place]:.1%}" for each in data["models"])
