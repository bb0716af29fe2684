"""How much do stronger attacks take of what PGD leaves?"""

import numpy as np

from sanity import costs, statistics
from sanity.result import Result, Verdict, skipped
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "adaptive_attack_is_not_stronger"
WEIGHTS = (4.0, 16.0, 1.0)  # NuAT trains with 1 on MNIST and 4 to 4.5 on CIFAR-10
GAMA_STEPS = 100
FEWEST_CLASSES = 4  # for targeted APGD
MOST_TARGETS = 9  # each costs as much as PGD
REFERENCE = (
    "Croce and Hein, Reliable evaluation of adversarial robustness (AutoAttack), 2020; Tramer et al., On adaptive "
    "attacks to adversarial example defenses, 2020; Sriramanan et al., Towards efficient and effective adversarial "
    "training (NuAT), 2021, section 5.1; Sriramanan et al., Guided adversarial attack (GAMA), 2020"
)


def adaptive_attack_is_not_stronger(subject: Subject, settings: Settings) -> Result:
    """AutoAttack's attacks and those that know the defense, one after the other, each on what those before it left.

    They are PGD with restarts, APGD towards every wrong class (the `MOST_TARGETS` likeliest ones; left out below
    `FEWEST_CLASSES` classes), GAMA-PGD, PGD on the nuclear-norm objective for each of `WEIGHTS`, APGD along the
    cross-entropy, FAB towards the likeliest wrong classes, and Square. The check reports the images that they fool and
    PGD with one start does not. Nearly every network has some: PGD alone is not the attack to report, but that is no
    sign of masked gradients. The worst case counts what is left after all of them.

    Attacks that have no version for the norm, or for which there is no time, are left out.

    Example:
        >>> subject = Subject(network, images, labels, epsilon=0.3)  # PGD leaves nothing to attack
        >>> adaptive_attack_is_not_stronger(subject, settings).verdict.value
        'reported'
    """
    pgd = subject.correct("pgd", **settings.pgd(subject.epsilon))
    left, shown = pgd, {("no attack", "clean"): subject.correct(), ("PGD", "PGD"): pgd}
    too_slow = []
    for name, (attack, keywords) in _attacks(subject, settings).items():
        if not subject.clock.has_time_for(costs.of_attack(keywords) * _new(subject, attack, keywords, left)):
            too_slow.append(name)
            continue
        left = subject.correct(attack, among=left, **keywords)
        shown[f"then {name}", "stronger"] = left
    fooled, size = int(np.sum(pgd & ~left)), len(subject)
    names = [name.removeprefix("then ") for name, group in shown if group == "stronger"]
    if not names:
        reason, remedy = f"There was no time for {'; '.join(too_slow)}.", "Give it more time (--minutes)."
        return skipped(NAME, reason, sample_size=size, remedy=remedy, reference=REFERENCE, masking=False)
    after = f"from {np.mean(pgd):.1%} to {np.mean(left):.1%}"
    return Result(
        name=NAME,
        verdict=Verdict.REPORTED,
        quantity="images that stronger attacks fool and PGD does not",
        value=fooled / size,
        threshold=0.0,
        sample_size=size,
        interval=statistics.wilson(fooled, size, confidence=settings.confidence),
        series=statistics.accuracies(shown, confidence=settings.confidence),
        explanation=(
            f"{len(names)} attacks one after the other ({', '.join(names)}) lower the accuracy that PGD leaves {after}."
            + (f" There was no time for {'; '.join(too_slow)}." if too_slow else "")
        ),
        remedy="Report the accuracy in the worst case, not that under PGD." if fooled else "",
        reference=REFERENCE,
        masking=False,
    )


def attacks_left_out(subject: Subject, settings: Settings) -> list[str]:
    """Returns the names of the attacks of this check that were not run on every image that is still correct."""
    left = subject.worst_case()
    return [
        name
        for name, (attack, keywords) in _attacks(subject, settings).items()
        if _new(subject, attack, keywords, left)
    ]


def _new(subject, attack, keywords, among):
    """Returns the number of images of `among` on which an attack has not been run."""
    return subject.not_attacked(attack, among=among, **keywords)


def _attacks(subject, settings):
    """Returns a dict of names to (attack, its keywords), of those that have a version for the norm."""
    epsilon, pgd = subject.epsilon, settings.pgd(subject.epsilon)
    chosen = {f"PGD, {settings.restarts} restarts": ("pgd", {**pgd, "restarts": settings.restarts})}
    if subject.num_classes >= FEWEST_CLASSES:
        chosen["APGD-T"] = ("apgd_t", targeted(subject, settings))
    chosen["GAMA-PGD"] = ("gama_pgd", {"epsilon": epsilon, "steps": GAMA_STEPS})
    for weight in WEIGHTS:
        chosen[f"PGD on the nuclear norm, weight {weight:g}"] = ("nuclear", {**pgd, "weight": weight})
    chosen["APGD-CE"] = ("apgd_ce", {"epsilon": epsilon, "steps": settings.steps})
    targets = min(subject.num_classes - 1, settings.fab_targets)
    chosen["FAB-T"] = ("fab_t", {"epsilon": epsilon, "steps": settings.steps, "targets": targets})
    chosen["Square"] = ("square", {"epsilon": epsilon, "queries": settings.queries})
    return {name: (attack, keywords) for name, (attack, keywords) in chosen.items() if subject.has(attack)}


def targeted(subject, settings):
    """Returns the keywords of APGD towards every wrong class."""
    targets = min(subject.num_classes - 1, MOST_TARGETS)
    return {"epsilon": subject.epsilon, "steps": settings.steps, "targets": targets}
