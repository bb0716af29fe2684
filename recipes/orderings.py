"""Tests whether each ordering of table 1a of Sriramanan et al. (2021) holds on our runs.

    python -m recipes.orderings --cards results/cifar10_small --out results/cifar10_small

Reads the cards below the folder, one per defense, and the results beside them (see `recipes.pages.evaluations`), and
writes orderings.md. Compares every pair of defenses that both the paper and the folder have: by clean accuracy, under
PGD, and under AutoAttack. Each ordering of the paper holds, does not hold, or is within noise. If a run lacks one of
the three measures, the page says so, and compares it by the others.

The tests are exact and two-sided: McNemar's, for pairs, if both runs have per-image outcomes on the same images; else
Fisher's, which assumes independent images and so finds less. Holm's method adjusts the p-values for all comparisons of
the page: with 95 % confidence, no verdict is wrong. The tests only cover the noise of drawing test images: one training
of each defense says nothing about how trainings differ.
"""

import dataclasses
import itertools
import math

import scipy.stats
from absl import flags

from recipes import compare, leaderboard, table
from recipes.pages import evaluations
from sanity import statistics
from tf_nuat import command_line
from tf_nuat.core import files, validation
from tf_nuat.evaluate import runs

LEVEL = 0.05  # error probability of all comparisons together

# Our measures, and the column of the paper's table that each is compared with.
COLUMNS = {"clean": "clean", "pgd_50": "PGD-500", "autoattack": "AutoAttack (v1)"}
# In percent, in the order of `COLUMNS`.
PAPER = {
    "standard": (92.30, 0.00, 0.00),
    "fgsm_at": (92.89, 0.00, 0.00),
    "rfgsm_at": (89.24, 34.17, 33.16),
    "free_at": (71.77, 43.52, 40.22),
    "fbf": (82.83, 46.03, 43.12),
    "sat_r2": (82.29, 45.79, 43.72),
    "gat": (80.49, 53.08, 47.30),
    "gat_wa": (79.47, 54.37, 48.28),
    "nuat": (81.01, 52.97, 49.24),
    "nuat_wa": (82.21, 53.95, 50.75),
    "pgd_at": (81.12, 52.89, 48.75),
    "trades": (81.47, 52.61, 49.06),
    "trades_wa": (80.19, 52.88, 49.39),
    "awp": (81.99, 55.52, 51.45),
}
OTHER_NAMES = {"sat_r2": "R-MGM, the first publication of SAT-R2", "free_at": "ATF"}  # in the paper's table


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An ordering of the paper beside ours.

    Attributes:
        measure: name of the measure, a key of `COLUMNS`.
        higher, lower: defenses, in the order of the paper.
        paper: the paper's accuracies (`higher`, `lower`), in percent.
        ours: our accuracies (`higher`, `lower`), in [0, 1].
        difference, low, high: ours of `higher` minus ours of `lower`, with a 95 % interval for this one alone.
        p_value: p-value of no difference, for this comparison alone.
        test: "paired" or "unpaired".
    """

    measure: str
    higher: str
    lower: str
    paper: tuple
    ours: tuple
    difference: float
    low: float
    high: float
    p_value: float
    test: str


NOTE = (
    "An ordering holds, or does not, where the difference is significant at {level} for all {comparisons} comparisons "
    "together (Holm); else it is within noise, that of drawing test images. Paired: McNemar's exact test on the same "
    "images; unpaired: Fisher's exact test, which takes them for independent. Intervals are at 95 % for each "
    "comparison alone (Bonett and Price; Newcombe). There is one training of each defense: how trainings differ is not "
    "in it."
)


def flag_values():
    """Returns the flags of this command, not yet parsed."""
    values = flags.FlagValues()
    flags.DEFINE_string("cards", None, "folder with a card.json of each defense below it; required", flag_values=values)
    flags.DEFINE_string("out", None, "folder for the page; required", flag_values=values)
    return values


def main(arguments):
    """Writes the page; returns the exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    command_line.require(
        values, cards="a folder with a card.json of each defense (--cards DIR)", out="a folder for the page (--out DIR)"
    )
    text = page(values.cards)
    path = validation.output_folder("out", values.out) / "orderings.md"
    files.save_text(text, path)
    print(text)
    print(path)
    return 0


def page(folder):
    """Returns the page, Markdown, of the runs below `folder`.

    Raises:
        ValueError: there are fewer than two runs to compare, two of one defense, or runs with different conditions.
    """
    found = _runs(folder)
    having = {measure: {name: run for name, run in found.items() if measure in run[1].measured} for measure in COLUMNS}
    conditions = {measure: _conditions(measure, measured) for measure, measured in having.items() if measured}
    ours = [name for name in found if name in PAPER]
    if len(ours) < 2:
        raise ValueError(
            f"cards is {str(folder)!r}, with {len(ours)} of table 1a; allowed: at least 2 of {', '.join(PAPER)}"
        )
    comparisons = [each for measure in COLUMNS for each in _comparisons(measure, having[measure])]
    p_values = statistics.holm_adjusted([each.p_value for each in comparisons])
    verdicts = [(each, p_value, verdict_of(each, p_value)) for each, p_value in zip(comparisons, p_values)]
    rows = {measure: [_row(*each) for each in verdicts if each[0].measure == measure] for measure in COLUMNS}
    parts = [
        "# Orderings of table 1a of Sriramanan et al. (2021)",
        _settings(conditions, [run for _, run, _ in found.values()]),
        NOTE.format(level=f"{LEVEL:.0%}", comparisons=len(comparisons)),
        table.markdown([_counts(measure, verdicts) for measure in COLUMNS]),
    ]
    missing = [name for name in found if name not in PAPER]
    if missing:
        parts.append(f"Not in table 1a: {', '.join(missing)}.")
    parts += [f"In table 1a, {name} is called {other}." for name, other in OTHER_NAMES.items() if name in found]
    for measure, measured in having.items():
        if len(measured) < len(found):
            parts.append(f"Not measured by {measure}: {', '.join(name for name in found if name not in measured)}.")
    for measure, column in COLUMNS.items():
        if rows[measure]:
            parts += [f"## {measure}, and {column} of the paper", table.markdown(rows[measure])]
    return "\n\n".join(parts) + "\n"


def _settings(conditions, cards):
    """Returns the threat model, what each measure is, and where the settings come from, as text."""
    sources = filter(None, dict.fromkeys(run.source for run in cards))
    return (
        f"{conditions['clean'].threat}; made by `python -m recipes.orderings`. "
        + "; ".join(_beside(measure, found) for measure, found in conditions.items())
        + f". Settings: {'; '.join(sources) or 'see the cards'}."
    )


def _counts(measure, verdicts):
    """Returns the row of the summary that counts the orderings of a measure by their verdict."""
    found = [verdict for each, _, verdict in verdicts if each.measure == measure]
    counts = {verdict: str(found.count(verdict)) for verdict in ("holds", "within noise", "does not hold")}
    return {"measure": measure, "orderings": str(len(found)), **counts}


def _beside(name, conditions):
    """Returns as text our measure `name`, and the column of the paper that it is compared with."""
    attack = conditions.measures.get(name)
    images = f"{conditions.images[name]:,} test images"
    return f"{name}: {', '.join([*([runs.described(attack)] if attack else []), images])}, beside {COLUMNS[name]}"


def _runs(folder):
    """Returns the runs below `folder`, a dict of defense to (path, card, outcomes); see `evaluations.card_with`."""
    found = {}
    for path in leaderboard.cards_below(folder):
        run, outcomes = evaluations.card_with(path)
        if run.defense in found:
            raise ValueError(
                f"cards has {str(found[run.defense][0])!r} and {str(path)!r}, both {run.defense}; allowed: each once"
            )
        found[run.defense] = (path, run, outcomes)
    return found


def _conditions(measure, found):
    """Returns the conditions that the runs `found` share for `measure`, which all of them have."""
    conditions = {}
    for path, run, _ in found.values():
        alone = dataclasses.replace(run, measured={measure: run.measured[measure]})
        conditions[str(path)] = runs.conditions(alone)
    return compare.same_conditions(conditions)


def _comparisons(measure, ours):
    """Returns the `Comparison`s of all pairs that the paper orders by a measure, its largest difference first."""
    place, found = list(COLUMNS).index(measure), []
    for pair in itertools.combinations([name for name in ours if name in PAPER], 2):
        higher, lower = sorted(pair, key=lambda name: -PAPER[name][place])
        paper = PAPER[higher][place], PAPER[lower][place]
        if paper[0] > paper[1]:
            found.append(_comparison(measure, higher, lower, paper, ours))
    return sorted(found, key=lambda each: each.paper[1] - each.paper[0])


def _comparison(measure, higher, lower, paper, found):
    pair_of_runs = found[higher], found[lower]
    measured = [run.measured[measure] for _, run, _ in pair_of_runs]
    ours = tuple(each.accuracy for each in measured)
    pair = _of_the_same_images(*(outcomes.get(measure) for _, _, outcomes in pair_of_runs))
    if pair is not None:
        ours, difference = (float(pair[1].mean()), float(pair[0].mean())), statistics.paired_difference(*pair)
        p_value, test = statistics.mcnemar_two_sided(*pair), "paired"
    else:
        difference = unpaired_difference(*measured)
        correct = [round(each.accuracy * each.images) for each in measured]
        counts = [[right, each.images - right] for right, each in zip(correct, measured)]
        p_value, test = float(scipy.stats.fisher_exact(counts).pvalue), "unpaired"
    return Comparison(measure, higher, lower, paper, ours, *difference, p_value, test)


def _of_the_same_images(higher, lower):
    """Returns the outcomes (lower, higher) if both are known and of the same images; else None."""
    if higher is None or lower is None or higher[0] != lower[0]:
        return None
    return lower[1], higher[1]


def unpaired_difference(first, second) -> tuple[float, float, float]:
    """Returns (difference, low, high) of the accuracy of `first` minus that of `second`, both `card.Measured`.

    Source: Newcombe, "Interval estimation for the difference between independent proportions", 1998, method 10.
    """
    (p, (p_low, p_high)), (q, (q_low, q_high)) = ((each.accuracy, each.interval) for each in (first, second))
    return p - q, p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low)


def verdict_of(comparison, p_value):
    """Returns "holds", "does not hold" or "within noise", by the p-value adjusted for all comparisons."""
    if p_value >= LEVEL:
        return "within noise"
    return "holds" if comparison.difference > 0 else "does not hold"


def _row(each, p_value, verdict):
    return {
        "ordering": f"{each.higher} > {each.lower}",
        "paper": f"{each.paper[0]:.2f} > {each.paper[1]:.2f}",
        "ours": f"{100 * each.ours[0]:.2f}, {100 * each.ours[1]:.2f}",
        "difference": table.percent(each.difference, (each.low, each.high)),
        "p (Holm)": f"{p_value:.2g}",
        "test": each.test,
        "verdict": verdict,
    }


if __name__ == "__main__":
    command_line.main(main)
