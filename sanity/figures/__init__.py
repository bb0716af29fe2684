"""Figures of both papers, of several networks at once: `python -m sanity.figures`, or functions.

Each figure has a function `measure(models, options)`, which returns plain data, and one that draws a
`matplotlib.figure.Figure` of that data. `models` is a list of `sanity.figures.models.Model`, `options` an `Options`.
"""

import dataclasses
from collections.abc import Callable

from sanity.figures import (
    accuracy,
    connectivity,
    cost,
    distances,
    gradients,
    loss_surface,
    loss_trend,
    nuclear_norms,
    targets,
)
from sanity.figures.models import Model, NotShownError, Options

__all__ = ["FIGURES", "Kind", "Model", "NotShownError", "Options"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes:
        title: its heading.
        measure: function `(models, options) -> data`, a dict that JSON can hold; may raise `NotShownError`.
        draw: function `data -> matplotlib.figure.Figure`.
        caption: function `data -> text`.
        check: function `(models, options)`, called before any figure is measured. It raises `NotShownError` if these
            networks have no such figure, and another `ValueError` if an option is wrong.

    Example:
        >>> kind = FIGURES["gradients"]
        >>> data = kind.measure([Model("linear", subject)], Options(settings))
        >>> type(kind.draw(data)).__name__
        'Figure'
    """

    title: str
    measure: Callable
    draw: Callable
    caption: Callable
    check: Callable = lambda models, options: None


FIGURES = {
    "loss_surface": Kind(
        loss_surface.TITLE, loss_surface.measure, loss_surface.draw, loss_surface.caption, loss_surface.check
    ),
    "loss_trend": Kind(loss_trend.TITLE, loss_trend.measure, loss_trend.draw, loss_trend.caption, loss_trend.check),
    "accuracy_steps": Kind(
        accuracy.STEPS, accuracy.against_steps, accuracy.draw_against_steps, accuracy.caption_of_steps
    ),
    "accuracy_epsilon": Kind(
        accuracy.EPSILON, accuracy.against_epsilon, accuracy.draw_against_epsilon, accuracy.caption_of_epsilon
    ),
    "nuclear_norms": Kind(nuclear_norms.TITLE, nuclear_norms.measure, nuclear_norms.draw, nuclear_norms.caption),
    "targets": Kind(targets.TITLE, targets.measure, targets.draw, targets.caption),
    "gradients": Kind(gradients.TITLE, gradients.measure, gradients.draw, gradients.caption),
    "logit_distances": Kind(distances.TITLE, distances.measure, distances.draw, distances.caption, distances.check),
    "connectivity": Kind(
        connectivity.TITLE, connectivity.measure, connectivity.draw, connectivity.caption, connectivity.check
    ),
    "training_cost": Kind(cost.TITLE, cost.measure, cost.draw, cost.caption, cost.measure),
}
