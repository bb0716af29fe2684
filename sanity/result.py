"""The result of a check, and the JSON form of a judgement.

`results.json`, schema 2, is one object:

- `schema`: the number 2. It grows when a field is renamed or removed or a value changes its meaning, not when a field
  is added. Schema 1 also had the verdicts "attack too weak" and "inconclusive", and lacked `masking`,
  `reported_by_pgd` and `adaptive`.
- `verdict`: "genuinely robust", "partly robust", "not robust", "masked gradients suspected", "undecided" or "not
  judged".
- `masking`: "suspected", "not seen" or "undecided".
- `robustness`: "genuinely robust", "partly robust" or "not robust", by the worst case alone.
- `advice`: what to do next.
- `headline`, `accuracies`, `rule`: the verdict in words, the accuracies in words, and the rule that decided.
- `clean`, `robust`, `reported_by_pgd`: `{"correct", "images", "accuracy", "interval"}`, without attack, in the worst
  case, and under PGD alone. `robust` also has `attacks`, the number of attacks; `attack`, the one that fooled the most
  images that PGD alone does not, and `fooled`, their number; `left_out`, the attacks that were not run on all images;
  and `answers`, the number of network answers whose mean decides on an image: more than 1 if answers are random. Then
  `fooled` counts all images that `attack` fooled, and `left_out` names attempts of the adaptive stage. For a network
  that is "not judged", `robust` and `reported_by_pgd` have the accuracy without attack.
- `adaptive`: the outcome of the adaptive stage, the attributes of `sanity.adaptive.Adaptive`; null if it was not run.
- `subject`: the network and whether its answers are random (`random_answers`), the sample, the threat model, the
  surrogates and the versions of the packages.
- `settings`: the attributes of `sanity.settings.Settings`.
- `evaluations`: the attacks that were run, a list of `{"attack", "label", "settings", "source", "answers", "images",
  "accuracy", "interval", "left", "compared", "within_epsilon"}`. `images` is the number of attacked images, and
  `accuracy` is theirs. `left` is the share of all images that remain correct; earlier attacks decide on images without
  this one. `compared` says whether the attack had its turn on all images that they left: only then `left` compares with
  that of other attacks.
- `provenance`: facts from the command line: checkpoint, dataset, command, and the model card beside the checkpoint.
- `results`: a list of the attributes of `Result`, one object per check.

Accuracies, rates and their differences are fractions in [0, 1] (differences in [-1, 1]); intervals are `[low, high]`.
"""

import dataclasses
import enum
import typing

from sanity.series import Bars, Curves, Histogram, Surface

SCHEMA = 2


class Verdict(enum.StrEnum):
    """The verdict of a check.

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
    """The result of a check.

    Attributes:
        name: the check's key in `sanity.checks.CHECKS`.
        verdict: a `Verdict`.
        quantity: what `value` is, in words.
        value, threshold: the measured fraction and the one that it is compared with; None if nothing was measured.
        good: "at most" or "at least": the side of the threshold on which a value is good.
        sample_size: number of images.
        interval: (low, high) of `value`, at the confidence of the settings; None if nothing was measured.
        series: `Curves`, `Bars`, `Surface` or `Histogram` for the figure; None if nothing was measured.
        explanation: what was seen and what it means.
        remedy: what to do; empty for a check that passed.
        reference: where the check comes from.
        seconds: how long it took.
        masking: whether the check tests for masked gradients. One that does not has the verdict "reported" and never
            fails.
        question: what the check asks, in words.
        p_value: p-value of "there is no sign of masking", over all comparisons of the check, at most 1. The check fails
            if it is below its share of alpha. None if nothing was tested, or if the sign is certain.

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
        """What the figure shows; empty if there is none."""
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
    """Converts dataclasses, sequences, dicts, numbers and NumPy scalars to what `json.dumps` accepts.

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
