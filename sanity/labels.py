"""The names of attacks in reports."""

from sanity.evaluation import Evaluation

NAMES = {
    "fgsm": "FGSM",
    "ifgsm": "I-FGSM",
    "mifgsm": "MI-FGSM",
    "rfgsm": "R-FGSM",
    "pgd": "PGD",
    "pgd_cw": "PGD on the margin",
    "nuclear": "PGD on the nuclear norm",
    "gama_pgd": "GAMA-PGD",
    "apgd_ce": "APGD-CE",
    "apgd_dlr": "APGD-DLR",
    "apgd_t": "APGD-T",
    "fab": "FAB",
    "fab_t": "FAB-T",
    "square": "Square",
    "random_search": "random points",
    "spsa": "SPSA",
}
TOLD = ("loss", "weight", "steps", "restarts", "targets", "queries")  # settings that distinguish attacks


def of(evaluation: Evaluation) -> str:
    """Returns the name of an evaluation's attack, with its distinguishing settings and its source."""
    if evaluation.attack is None:
        return "no attack"
    words = [NAMES.get(evaluation.attack, evaluation.attack)]
    for name in TOLD:
        value = evaluation.settings.get(name)
        if value is not None and not (name == "restarts" and value == 1):
            words.append(f"{name} {value}" if name in ("loss", "weight") else f"{value:,} {name}")
    source = f" from {evaluation.source}" if evaluation.source else ""
    return ", ".join(words) + source
