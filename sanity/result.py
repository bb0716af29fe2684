"""What a check returns, and its form as JSON.

`results.json`, schema 1, is one object:

- `schema`: the number 1; it grows when a field is renamed or removed, not when one is added.
- `verdict`: "genuinely robust", "partly robust", "not robust", "masked gradients suspected", "attack too weak"
  or "inconclusive".
- `headline`, `accuracies`, `rule`: the verdict in words, what is behind it, and the rule that decided it.
- `clean`, `robust`: `{"correct", "images", "accuracy", "interval"}`, without attack and in the worst case.
- `subject`: the network, the sample, the threat model, the surrogates and the versions of the packages.
- `settings`: the attributes of `sanity.settings.Settings`.
- `evaluations`: what was run, a list of `{"attack", "settings", "source", "images", "accuracy", "interval",
  "within_epsilon"}`: `images` of the sample were attacked, and `accuracy` is theirs.
- `provenance`: what the command line knows: checkpoint, dataset, command, what a model card beside the checkpoint says.
- `results`: a list of the attributes of `Result`, one object per check.

Accuracies, rates and their differences are fractions in [0, 1] (differences in [-1, 1]); intervals are `[low, high]`.
"""

import dataclasses
import enum

SCHEMA = 1


class Verdict(enum.StrEnum):
    """What a check says."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a figure: values `y` at `x`, with the limits `low` and `high` of their intervals, all of one length."""

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
    """

    x_label: str
    y_label: str
    curves: tuple
    x_scale: str = "log"
    levels: tuple = ()
    kind: str = "curves"


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar of a figure: its value `y`, the limits of its interval, and the group that it belongs to."""

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
    """

    label: str
    bars: tuple
    levels: tuple = ()
    kind: str = "bars"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One surface of a figure: its name, and rows of heights `z`, finite, one row per `y` and one height per `x`."""

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
    """

    x_label: str
    y_label: str
    z_label: str
    x: tuple
    y: tuple
    panels: tuple
    kind: str = "surface"


@dataclasses.dataclass(frozen=True)
class Histogram:
    """A figure of counts between edges on a log axis, and of counts that have no place on it.

    Attributes:
        x_label: what is counted by its size.
        edges: above 0, rising, one more than `counts`; none where nothing has a place.
        counts: whole numbers: bin i is edges[i] <= x < edges[i + 1], the last one with its upper edge.
        apart: tuple of (name, count) of what has no place on the axis: zeros, for instance.
        kind: "histogram".
    """

    x_label: str
    edges: tuple
    counts: tuple
    apart: tuple = ()
    kind: str = "histogram"


@dataclasses.dataclass(frozen=True)
class Example:
    """An adversarial example for the report's pictures; it is not part of `results.json`.

    Attributes:
        image, adversary: arrays (H, W, C) in [0, 1].
        label: the true class.
        predicted, attacked_as: what the network takes the image and the adversary for.
    """

    image: object
    adversary: object
    label: int
    predicted: int
    attacked_as: int


@dataclasses.dataclass(frozen=True)
class Result:
    """What a check saw.

    Attributes:
        name: the check's key in `sanity.checks.CHECKS`.
        verdict: a `Verdict`.
        quantity: what `value` is, in words.
        value, threshold: what was measured and what it was compared with, fractions; None where nothing was measured.
        sample_size: number of images.
        interval: (low, high) of `value`, at the confidence of the settings; None where nothing was measured.
        series: `Curves`, `Bars`, `Surface` or `Histogram` for the figure; None where nothing was measured.
        explanation: what was seen and what it means.
        remedy: what to do; empty for a check that passed.
        reference: where the check comes from.
        seconds: how long it took.
        masking: whether its failure is a sign of masked gradients, rather than of an attack that is too weak.
    """

    name: str
    verdict: Verdict
    quantity: str
    value: float | None
    threshold: float | None
    sample_size: int
    interval: tuple | None
    series: Curves | Bars | Surface | Histogram | None
    explanation: str
    remedy: str
    reference: str
    seconds: float = 0.0
    masking: bool = True

    @property
    def title(self):
        """The name in words."""
        return self.name.replace("_", " ")

    @property
    def shown(self):
        """What the figure shows; empty where there is none."""
        labels = {"curves": "y_label", "bars": "label", "surface": "z_label", "histogram": "x_label"}
        return "" if self.series is None else getattr(self.series, labels[self.series.kind])


def skipped(name, reason, *, sample_size, remedy, reference):
    """Returns the `Result` of a check that does not apply."""
    return Result(name, Verdict.SKIPPED, "", None, None, sample_size, None, None, reason, remedy, reference)


def to_json(value):
    """Returns `value`, of dataclasses, sequences, dicts, numbers and NumPy scalars, as what `json.dumps` takes.

    Fields whose metadata say `json=False` are left out.
    """
    if dataclasses.is_dataclass(value):
        kept = [field.name for field in dataclasses.fields(value) if field.metadata.get("json", True)]
        return {name: to_json(getattr(value, name)) for name in kept}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value.item() if hasattr(value, "item") else value
