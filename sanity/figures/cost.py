"""Figure: robust accuracy against training cost, from the cards (Sriramanan et al., 2021, figure 3b)."""

from sanity.figures.models import NotShownError
from sanity.report import comparison
from tf_nuat.evaluate import runs

TITLE = "Robust accuracy against training cost"


def measure(models, options):
    """Returns the accuracies and the costs from the cards; nothing is measured again.

    Raises:
        NotShownError: a model has no card of a run, or the cards were not measured alike.
    """
    records, conditions = [], []
    for model in models:
        if model.card is None or model.card.missing:
            raise NotShownError(f"{model.name} has no card.json of a run beside it, which says what training cost")
        records.append(runs.record(model.card))
        conditions.append(runs.conditions(model.card))
        if conditions[-1] != conditions[0] or not conditions[0].measures:
            raise NotShownError(f"{models[0].name} and {model.name} were measured by other attacks, see card.json")
    return {"records": records, "conditions": conditions[0].to_json()}


def draw(data):
    """Returns the figure of `sanity.report.comparison.comparison`."""
    return comparison.comparison(data["records"], runs.Conditions.from_json(data["conditions"]))


def caption(data):
    """Returns the caption."""
    conditions = runs.Conditions.from_json(data["conditions"])
    attack = comparison.strongest(data["records"], conditions)
    return (
        "Accuracy under the strongest attack that the cards have, against clean accuracy, training time and "
        "forward-backward passes; times are those of the machines that trained. "
        f"{conditions.images[attack]} test images; {conditions.threat} (pixels in [0, 1]); {attack}: "
        f"{runs.described(conditions.measures[attack])}. Bars: Wilson's 95 % intervals."
    )
