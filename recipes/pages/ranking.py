"""Which run is the most robust: runs of one recipe together, ranked within a threat model by their worst case."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import scipy.stats

from recipes.pages import evaluations
from tf_nuat import evaluate
from tf_nuat.card import Card, Measured
from tf_nuat.evaluate import runs
from tf_nuat.training import Recipe
from tf_nuat.training.recipe_json import differences

AUTOATTACK = "autoattack"
RANDOMIZED = "version rand"  # of AutoAttack: APGD alone, for networks that draw random numbers
ESTIMATED = ", estimated"


@dataclasses.dataclass(frozen=True)
class Together:
    """What the seeds of a recipe measured together.

    Attributes:
        accuracy: mean over the seeds, in [0, 1].
        interval: 95 %: of one seed its own; of several that over seeds (Student's t), or the mean of the seeds' own
            where that is wider: few seeds may agree by chance, and all are measured on the same images.
        images: test images of a seed; the fewest where seeds differ.
        seeds: number of seeds.
        half: half of the interval over seeds; None for one seed.
        pooled: (accuracy, (low, high)) of all images of all seeds; None for one seed and for estimates.
    """

    accuracy: float
    interval: tuple[float, float]
    images: int
    seeds: int
    half: float | None = None
    pooled: tuple[float, tuple[float, float]] | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """The runs of one recipe, which differ in the seed alone.

    Attributes:
        paths: of their cards, in the order of the seeds.
        cards: with the evaluations beside them, `named_alike`.
        measured: dict of the measure's name to `Together`; "clean" among them.
        worst: name of the measure that left least within the threat model; None where no attack was run.
        by_autoattack: whether AutoAttack is among what was run: without it the worst case is an upper limit.
        verdicts: what `sanity.run` said of each network of which it was asked, without repetitions.
    """

    paths: tuple[pathlib.Path, ...]
    cards: tuple[Card, ...]
    measured: dict[str, Together]
    worst: str | None
    by_autoattack: bool
    verdicts: tuple[str, ...]

    @property
    def first(self) -> Card:
        """The card of the first seed."""
        return self.cards[0]

    @property
    def robust(self) -> Together | None:
        """What the worst attack left."""
        return None if self.worst is None else self.measured[self.worst]

    @property
    def masked(self) -> bool:
        """Whether masked gradients are suspected of one of the networks."""
        return any("masked" in verdict for verdict in self.verdicts)

    @property
    def gradients(self) -> str:
        """How many gradients of an image its adversary in training takes, in words: one is single-step training."""
        if self.first.defense == "standard":
            return "no attack"
        passes = [card.passes["input_gradient"] for card in self.cards if "input_gradient" in card.passes]
        if not passes:
            return "gradients not known"
        return next((f"{most} gradient{'s'[: most - 1]}" for most in (1, 2) if max(passes) <= most), "more gradients")

    @property
    def claims(self) -> dict[str, tuple[float, Together]]:
        """What the recipe's source claims of what was measured: dict of measure to (claim, what was measured)."""
        claimed = self.first.claimed
        return {name: (claimed[name], found) for name, found in self.measured.items() if name in claimed}


def ranked(found: Sequence[tuple[pathlib.Path, Card]]) -> list[Entry]:
    """Returns the entries of runs of one threat model, the most robust first.

    An upper limit is not ranked above what was measured well: entries without AutoAttack come after those with it, and
    those whose gradients are suspected to be masked come last.

    Args:
        found: pairs (path, card with the evaluations beside it).
    """

    def place(entry: Entry) -> tuple[bool, bool, float, str]:
        robust = -1.0 if entry.robust is None else entry.robust.accuracy
        return entry.masked, not entry.by_autoattack, -robust, str(entry.paths[0])

    return sorted(map(_entry, of_one_recipe(found)), key=place)


def of_one_recipe(found: Sequence[tuple[pathlib.Path, Card]]) -> list[list[tuple[pathlib.Path, Card]]]:
    """Returns runs, pairs (path, card), as lists of those whose recipes differ in the seed alone, each seed once.

    What was measured may differ, too. Where the minutes of training are given, the epochs follow from the machine.
    """
    entries: list[list[tuple[pathlib.Path, Card]]] = []
    for path, run in found:
        for alike in entries:
            if _is_alike(alike[0][1], run) and run.seed not in [each.seed for _, each in alike]:
                alike.append((path, run))
                break
        else:
            entries.append([(path, run)])
    return [sorted(alike, key=lambda each: each[1].seed) for alike in entries]


def _is_alike(first: Card, second: Card) -> bool:
    return set(differences(Recipe, first.recipe, second.recipe)) <= {"seed", "measures"}


def named_alike(cards: Sequence[Card]) -> tuple[Card, ...]:
    """Returns the cards of several seeds, in all of which the name of a measure stands for the same attack.

    Where different attacks have one name, the first keeps it, and the others are `told_apart`.
    """
    attacks: dict[str, str] = {}  # by name
    alike = []
    for run in cards:
        names: dict[str, str] = {}
        for name in run.measured:
            text, sample = _attack(name, run), name.removesuffix(ESTIMATED)
            plain = name.removesuffix(evaluations.told_apart("", text))  # what another seed may call it
            if sample != name and sample in names:
                names[name] = names[sample] + ESTIMATED
            elif attacks.setdefault(plain, text) == text:
                names[name] = plain
            else:
                names[name] = evaluations.told_apart(plain, text)
        measured = {names[name]: outcome for name, outcome in run.measured.items()}
        measures = {names.get(name, name): attack for name, attack in run.measures.items()}
        alike.append(dataclasses.replace(run, recipe={**run.recipe, "measures": measures}, measured=measured))
    return tuple(alike)


def _attack(name: str, run: Card) -> str:
    """Returns the attack of a measure with its settings as text; "" where there is none."""
    return runs.described(run.measures[name]) if name in run.measures else ""


def together(outcomes: Sequence[Measured]) -> Together:
    """Returns what several seeds measured, taken together; see `Together`."""
    accuracies = [outcome.accuracy for outcome in outcomes]
    images, mean = min(outcome.images for outcome in outcomes), float(np.mean(accuracies))
    if len(outcomes) == 1:
        return Together(mean, outcomes[0].interval, images, 1)
    half = float(scipy.stats.t.ppf(0.975, len(outcomes) - 1) * scipy.stats.sem(accuracies))
    own = np.mean([outcome.interval for outcome in outcomes], axis=0)
    interval = (float(min(mean - half, own[0])), float(max(mean + half, own[1])))
    pooled = None
    if not any(outcome.estimated for outcome in outcomes):  # of which there are no images to count
        correct = sum(round(outcome.accuracy * outcome.images) for outcome in outcomes)
        total = sum(outcome.images for outcome in outcomes)
        pooled = (correct / total, evaluate.wilson(correct, total))
    return Together(mean, interval, images, len(outcomes), half, pooled)


def _entry(alike: Sequence[tuple[pathlib.Path, Card]]) -> Entry:
    paths, cards = zip(*alike)
    cards = named_alike(cards)
    outcomes: dict[str, list[Measured]] = {}
    for run in cards:
        for name, outcome in run.measured.items():
            outcomes.setdefault(name, []).append(outcome)
    measured = {name: together(each) for name, each in outcomes.items()}
    attacks = [name for name in measured if name != "clean" and all(is_within(name, run) for run in cards)]
    # A sample that may be easier than the whole gives way to what it says of the whole.
    attacks = [name for name in attacks if f"{name}{ESTIMATED}" not in measured]
    return Entry(
        paths=paths,
        cards=cards,
        measured=measured,
        worst=min(attacks, key=lambda name: measured[name].accuracy, default=None),
        by_autoattack=any(_is_autoattack(name, run) for name in attacks for run in cards),
        verdicts=tuple(dict.fromkeys(filter(None, map(evaluations.verdict, paths, cards)))),
    )


def is_within(name: str, run: Card) -> bool:
    """Returns whether a measure of a card is an attack of its threat model."""
    attack = run.measures.get(name, {})
    return attack.get("epsilon", 0.0) <= run.epsilon and attack.get("norm", run.norm) == run.norm


def _is_autoattack(name: str, run: Card) -> bool:
    """Returns whether AutoAttack is among the attacks of a measure, or of the sample that it is estimated from.

    What it is for randomized networks does not count.
    """
    attacks = [each.split(", ") for each in _attack(name.removesuffix(ESTIMATED), run).split(evaluations.THEN)]
    return any(attack == AUTOATTACK and RANDOMIZED not in settings for attack, *settings in attacks)
