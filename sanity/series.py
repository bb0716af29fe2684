"""The content of a figure: lines, bars, surfaces or counts, as plain data that is part of a result."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a figure: values `y` at `x`, with the limits `low` and `high` of their intervals, all of one length.

    Example:
        >>> Curve("PGD", x=(1, 10), y=(0.6, 0.4), low=(0.5, 0.3), high=(0.7, 0.5)).name
        'PGD'
    """

    name: str
    x: tuple
    y: tuple
    low: tuple
    high: tuple


@dataclasses.dataclass(frozen=True)
class Curves:
    """A figure of lines; `y` is in fractions.

    Attributes:
        x_label, y_label: what the axes show.
        curves: tuple of `Curve`.
        x_scale: "log", or "ordinal" for equal distances between the values whatever they are.
        levels: tuple of (name, y) to be marked by horizontal lines.
        kind: "curves".

    Example:
        >>> curve = Curve("PGD", x=(1, 10), y=(0.6, 0.4), low=(0.5, 0.3), high=(0.7, 0.5))
        >>> Curves("steps", "accuracy", (curve,)).shown
        'accuracy'
    """

    x_label: str
    y_label: str
    curves: tuple
    x_scale: str = "log"
    levels: tuple = ()
    kind: str = "curves"

    @property
    def shown(self) -> str:
        """What the figure shows."""
        return self.y_label


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar of a figure: its value `y`, the limits of its interval, and the group that it belongs to.

    Example:
        >>> Bar("PGD", 0.4, low=0.3, high=0.5, group="white box").y
        0.4
    """

    name: str
    y: float
    low: float
    high: float
    group: str


@dataclasses.dataclass(frozen=True)
class Bars:
    """A figure of horizontal bars, in fractions.

    Attributes:
        label: what the length of a bar shows.
        bars: tuple of `Bar`, from top to bottom.
        levels: tuple of (name, length) to be marked by vertical lines.
        kind: "bars".

    Example:
        >>> Bars("accuracy", (Bar("PGD", 0.4, 0.3, 0.5, group="white box"),)).shown
        'accuracy'
    """

    label: str
    bars: tuple
    levels: tuple = ()
    kind: str = "bars"

    @property
    def shown(self) -> str:
        """What the figure shows."""
        return self.label


@dataclasses.dataclass(frozen=True)
class Panel:
    """One surface of a figure: its name, and rows of heights `z`, finite, one row per `y` and one height per `x`.

    Example:
        >>> Panel("loss", ((0.0, 0.1), (0.1, 0.3))).z[1]
        (0.1, 0.3)
    """

    name: str
    z: tuple


@dataclasses.dataclass(frozen=True)
class Surface:
    """A figure of heights above a plane, all panels on one scale.

    Attributes:
        x_label, y_label: what the axes of the plane show.
        z_label: what the heights are, in fractions.
        x, y: coordinates, rising.
        panels: tuple of `Panel`.
        kind: "surface".

    Example:
        >>> panel = Panel("loss", ((0.0, 0.1), (0.1, 0.3)))
        >>> Surface("along the gradient", "across", "loss", x=(0.0, 0.1), y=(0.0, 0.1), panels=(panel,)).shown
        'loss'
    """

    x_label: str
    y_label: str
    z_label: str
    x: tuple
    y: tuple
    panels: tuple
    kind: str = "surface"

    @property
    def shown(self) -> str:
        """What the figure shows."""
        return self.z_label


@dataclasses.dataclass(frozen=True)
class Histogram:
    """A histogram on a log axis, with counts of the values that have no place on the axis.

    Attributes:
        x_label: the quantity on the axis.
        edges: above 0, rising, one more than `counts`; empty if no value has a place on the axis.
        counts: whole numbers: bin i is edges[i] <= x < edges[i + 1]; the last bin includes its upper edge.
        apart: tuple of (name, count) of values that have no place on the axis: zeros, for instance.
        kind: "histogram".

    Example:
        >>> Histogram("norm", edges=(0.1, 1.0, 10.0), counts=(3, 5), apart=(("zero", 2),)).shown
        'norm'
    """

    x_label: str
    edges: tuple
    counts: tuple
    apart: tuple = ()
    kind: str = "histogram"

    @property
    def shown(self) -> str:
        """What the figure shows."""
        return self.x_label
