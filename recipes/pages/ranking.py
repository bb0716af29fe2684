"""Ranks runs within a threat model by their worst case; the runs of one recipe form one entry."""

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
    """The results of one or several seeds of a recipe, combined.

    Attributes:
        accuracy: mean over the seeds, in [0, 1].
        interval: 95 % interval. For one seed, its own; for several, the one over seeds (Student's t), or the mean of
            the seeds' own on a side where that is wider: few seeds may agree by chance, and share their test images.
        images: test images of a seed; the fewest if seeds differ.
        seeds: number of seeds.
        half: half the width of the interval over seeds; None for one seed.
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
    """The runs of one recipe, which differ only in the seed.

    Attributes:
        paths: of their cards, in the order of the seeds.
        cards: with the evaluations beside them, `named_alike`.
        measured: dict of the measure's name to `Together`; "clean" among them.
        worst: name of the measure with the lowest accuracy within the threat model; None if no attack was run.
        by_autoattack: whether AutoAttack is among the attacks; without it the worst case is an upper limit.
        verdicts: the verdicts of `sanity.run` on the networks, without repetitions.
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
        """The results under the worst attack."""
        return None if self.worst is None else self.measured[self.worst]

    @property
    def masked(self) -> bool:
        """Whether one of the networks is suspected of masked gradients."""
        return any("masked" in verdict for verdict in self.verdicts)

    @property
    def gradients(self) -> str:
        """How many gradients the attack in training takes per image, in words; one is single-step training."""
        if self.first.defense == "standard":
            return "no attack"
        passes = [card.passes["input_gradient"] for card in self.cards if "input_gradient" in card.passes]
        if not passes:
            return "gradients not known"
        return next((f"{most} gradient{'s'[: most - 1]}" for most in (1, 2) if max(passes) <= most), "more gradients")

    @property
    def claims(self) -> dict[str, tuple[float, Together]]:
        """The claims of the recipe's source: dict of measure to (claim, measured result)."""
        claimed = self.first.claimed
        return {name: (claimed[name], found) for name, found in self.measured.items() if name in claimed}


def ranked(found: Sequence[tuple[pathlib.Path, Card]]) -> list[Entry]:
    """Returns the entries of runs of one threat model, the most robust first.

    Entries without AutoAttack only have an upper limit, so they come after those with it. Entries that are suspected of
    masked gradients come last.

    Args:
        found: pairs (path, card with the evaluations beside it).
    """

    def place(entry: Entry) -> tuple[bool, bool, float, str]:
        robust = -1.0 if entry.robust is None else entry.robust.accuracy
        return entry.masked, not entry.by_autoattack, -robust, str(entry.paths[0])

    return sorted(map(_entry, of_one_recipe(found)), key=place)


def of_one_recipe(found: Sequence[tuple[pathlib.Path, Card]]) -> list[list[tuple[pathlib.Path, Card]]]:
    """Groups runs, pairs (path, card), into lists of recipes that differ only in the seed, with each seed once.

    The measures may differ, too. So may the epochs if the minutes of training are given: they depend on the machine.
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
    """Returns the cards of several seeds, renamed so that equal names of measures stand for the same attack.

    If different attacks have one name, the first keeps it, and the others are `told_apart`.
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
    """Returns the attack of a measure with its settings as text; "" if there is none."""
    return runs.described(run.measures[name]) if name in run.measures else ""


def together(outcomes: Sequence[Measured]) -> Together:
    """Returns the combined results of several seeds; see `Together`."""
    accuracies = [outcome.accuracy for outcome in outcomes]
    images, mean = min(outcome.images for outcome in outcomes), float(np.mean(accuracies))
    if len(outcomes) == 1:
        return Together(mean, outcomes[0].interval, images, 1)
    half = float(scipy.stats.t.ppf(0.975, len(outcomes) - 1) * scipy.stats.sem(accuracies))
    own = np.mean([outcome.interval for outcome in outcomes], axis=0)
    interval = (float(min(mean - half, own[0])), float(max(mean + half, own[1])))
    pooled = None
    if not any(outcome.estimated for outcome in outcomes):  # estimates have no images to count
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
    # An estimate for all images replaces the result on the sample, which may be easier.
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

    Its version for randomized networks does not count.
    """
    attacks = [each.split(", ") for each in _attack(name.removesuffix(ESTIMATED), run).split(evaluations.THEN)]
    return any(attack == AUTOATTACK and RANDOMIZED not in settings for attack, *settings in attacks)
