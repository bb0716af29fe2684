"""Figure: robust accuracy against training cost, of the cards (Sriramanan et al., 2021, figure 3b)."""

from recipes import table
from sanity.figures.models import NotShownError
from sanity.report import comparison

TITLE = "Robust accuracy against training cost"


def measure(models, options):
    """Returns what the cards say of accuracies and costs: nothing is measured again.

    Raises:
        NotShownError: a model has no card of a run, or the cards were not measured alike.
    """
    records, conditions = [], []
    for model in models:
        try:
            records.append(table.record(model.card or {}))
            conditions.append(table.conditions(model.card))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise NotShownError(
                f"{model.name} has no card.json of a run beside it, which says what training cost"
            ) from error
        if conditions[-1] != conditions[0] or not conditions[0]["measures"]:
            raise NotShownError(f"{models[0].name} and {model.name} were measured by other attacks, see card.json")
    return {"records": records, "conditions": conditions[0]}


def draw(data):
    """Returns the figure of `sanity.report.comparison.comparison`."""
    return comparison.comparison(data["records"], data["conditions"])


def caption(data):
    """Returns what one sees."""
    attack = comparison.strongest(data["records"], data["conditions"])
    return (
        "Accuracy under the strongest attack that the cards have, against clean accuracy, training time and "
        "forward-backward passes; times are those of the machines that trained. "
        f"{data['conditions']['test images'][attack]} test images; {table.threat(data['conditions'])} (pixels in "
        f"[0, 1]); {attack}: {table.described(data['conditions']['measures'][attack])}. Bars: Wilson's 95 % intervals."
    )
