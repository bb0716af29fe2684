"""What a check returns, and its form as JSON.

`results.json`, schema 2, is one object:

- `schema`: the number 2; it grows when a field is renamed or removed, or a value gets another meaning, not when one is
  added. Of schema 1, verdicts were "attack too weak" and "inconclusive" as well, and `masking`, `reported_by_pgd` and
  `adaptive` were not there.
- `verdict`: "genuinely robust", "partly robust", "not robust", "masked gradients suspected", "undecided" or "not
  judged".
- `masking`: "suspected", "not seen" or "undecided".
- `robustness`: "genuinely robust", "partly robust" or "not robust", by the worst case alone.
- `advice`: what to do next.
- `headline`, `accuracies`, `rule`: the verdict in words, what is behind it, and the rule that decided it.
- `clean`, `robust`, `reported_by_pgd`: `{"correct", "images", "accuracy", "interval"}`, without attack, in the worst
  case, and under PGD alone. `robust` has `attacks`, their number; `attack`, the one that fooled most images that PGD
  alone does not, and `fooled`, how many; `left_out`, the attacks that were not run on all images; and `answers`, how
  many answers of the network, their mean, decide on an image: more than 1 where they are random. Of a network that is
  "not judged" the last two are the accuracy without attack.
- `adaptive`: what found a way round hidden gradients, the attributes of `sanity.adaptive.Adaptive`; null where none was
  looked for.
- `subject`: the network, the sample, the threat model, the surrogates and the versions of the packages.
- `settings`: the attributes of `sanity.settings.Settings`.
- `evaluations`: what was run, a list of `{"attack", "label", "settings", "source", "answers", "images", "accuracy",
  "interval", "left", "within_epsilon"}`: `images` of the sample were attacked, and `accuracy` is theirs; `left` is what
  is left of all images by this attack and, where it was not run, by those before it.
- `provenance`: what the command line knows: checkpoint, dataset, command, what a model card beside the checkpoint says.
- `results`: a list of the attributes of `Result`, one object per check.

Accuracies, rates and their differences are fractions in [0, 1] (differences in [-1, 1]); intervals are `[low, high]`.
"""

import dataclasses
import enum
import typing

from sanity.series import Bars, Curves, Histogram, Surface

SCHEMA = 2


class Verdict(enum.StrEnum):
    """What a check says.

    Example:
        >>> result.verdict is Verdict.PASS, Verdict.PASS.value
        (True, 'pass')
    """

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"
    REPORTED = "reported"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a check saw.

    Attributes:
        name: the check's key in `sanity.checks.CHECKS`.
        verdict: a `Verdict`.
        quantity: what `value` is, in words.
        value, threshold: what was measured and what it was compared with, fractions; None where nothing was measured.
        good: "at most" or "at least": where the value is good, relative to the threshold.
        sample_size: number of images.
        interval: (low, high) of `value`, at the confidence of the settings; None where nothing was measured.
        series: `Curves`, `Bars`, `Surface` or `Histogram` for the figure; None where nothing was measured.
        explanation: what was seen and what it means.
        remedy: what to do; empty for a check that passed.
        reference: where the check comes from.
        seconds: how long it took.
        masking: whether it speaks of masked gradients. One that does not has the verdict "reported": it measures, and
            fails nothing.
        question: what the check asks, in words.
        p_value: of "there is no sign of masking", over all comparisons of the check, at most 1: it fails below its
            share of alpha. None where nothing was tested, and where the sign is a fact and no matter of chance.

    Example:
        >>> result.title, result.verdict.value, result.sample_size
        ('iterative beats single step', 'pass', 100)
        >>> print(result.explanation)
        Attacks of many steps fool at least as many images as a single step, as they must.
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
    p_value: float | None = None
    question: str = ""
    good: str = "at most"

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")

    @property
    def shown(self) -> str:
        """What the figure shows; empty where there is none."""
        return "" if self.series is None else self.series.shown


def skipped(name: str, reason: str, *, sample_size: int, remedy: str, reference: str, masking: bool = True) -> Result:
    """Returns the `Result` of a check that does not apply.

    Example:
        >>> skipped("my_check", "It needs colours.", sample_size=100, remedy="", reference="").verdict.value
        'skipped'
    """
    about: dict[str, typing.Any] = {"explanation": reason, "remedy": remedy, "reference": reference, "masking": masking}
    return Result(name, Verdict.SKIPPED, "", None, None, sample_size, None, None, **about)


def to_json(value: typing.Any) -> typing.Any:
    """Returns `value`, of dataclasses, sequences, dicts, numbers and NumPy scalars, as what `json.dumps` takes.

    Fields whose metadata say `json=False` are left out.

    Example:
        >>> to_json(subject.chance), to_json(result)["verdict"]
        (0.1, 'pass')
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
