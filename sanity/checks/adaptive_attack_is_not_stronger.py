"""Do attacks that know the defense find more than PGD with restarts?"""

from sanity import measure, statistics
from sanity.result import Result, Verdict, skipped
from sanity.settings import Settings
from sanity.subject import Subject

NAME = "adaptive_attack_is_not_stronger"
WEIGHTS = (1.0, 4.0, 16.0)  # NuAT trains with 1 on MNIST and 4 to 4.5 on CIFAR-10
GAMA_STEPS = 100
FEWEST_CLASSES = 4  # of targeted APGD
MOST_TARGETS = 9  # each costs as much as PGD
TOLERANCE = 0.02  # of the images
REFERENCE = (
    "Tramer et al., On adaptive attacks to adversarial example defenses, 2020; Sriramanan et al., Towards efficient "
    "and effective adversarial training (NuAT), 2021, section 5.1; Sriramanan et al., Guided adversarial attack "
    "(GAMA), 2020; Croce and Hein, Reliable evaluation of adversarial robustness (AutoAttack), 2020"
)


def adaptive_attack_is_not_stronger(subject: Subject, settings: Settings) -> Result:
    """Attacks that know the defense, each on the images that withstood PGD with restarts.

    They are PGD on the nuclear-norm objective for each of `WEIGHTS`, GAMA-PGD, and APGD towards every wrong class (the
    `MOST_TARGETS` likeliest ones; left out below `FEWEST_CLASSES` classes). Fails where one of them lowers the accuracy
    by significantly more than `TOLERANCE` (exact binomial, alpha divided among the attacks); passes where the sample
    rules out `settings.detectable` more than that. To fail is no sign of masked gradients by itself.

    Attacks that have no version for the norm are left out; skipped where none has one.
    """
    chosen = _attacks(subject, settings)
    if not chosen:
        return skipped(
            NAME,
            f"None of the attacks that know the defense has a version for {subject.norm.label}.",
            sample_size=len(subject),
            remedy="Rely on the other checks.",
            reference=REFERENCE,
        )
    pgd = subject.correct("pgd", **settings.pgd(subject.epsilon), restarts=settings.restarts)
    outcomes = {name: subject.correct(attack, among=pgd, **keywords) for name, (attack, keywords) in chosen.items()}
    losses = {
        name: measure.survivors.loss(pgd, outcome, settings, tolerance=TOLERANCE, tests=len(outcomes))
        for name, outcome in outcomes.items()
    }
    strongest = max(losses, key=lambda name: losses[name].fooled)
    loss = losses[strongest]  # the others' verdicts cannot be worse
    explanation, remedy = _words(strongest, loss, chosen, settings)
    shown = {
        ("no attack", "clean"): subject.correct(),
        (f"PGD, {settings.restarts} restarts", "white box"): pgd,
        **{(f"then {name}", "knows the defense"): outcome for name, outcome in outcomes.items()},
    }
    return Result(
        name=NAME,
        verdict=loss.verdict,
        quantity=f"images that {strongest} fools and PGD with {settings.restarts} restarts does not",
        value=loss.value,
        threshold=TOLERANCE,
        sample_size=loss.images,
        interval=(loss.low, loss.high),
        series=statistics.accuracies(shown, confidence=settings.confidence),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        masking=False,
    )


def _words(strongest, loss, chosen, settings):
    """Returns the explanation and the remedy."""
    after = f"from {loss.left / loss.images:.1%} to {(loss.left - loss.fooled) / loss.images:.1%}"
    return {
        Verdict.FAIL: (
            f"{strongest} lowers the accuracy that PGD with {settings.restarts} restarts leaves {after}. By itself "
            "this is no sign of masked gradients: PGD is just not the strongest attack on this network, and the "
            "accuracy under it is too high.",
            f"Report the accuracy under PGD and {strongest} together ({_settings(chosen[strongest][1])}), or under "
            "AutoAttack, instead of that under PGD alone.",
        ),
        Verdict.INCONCLUSIVE: (
            f"{strongest}, the strongest of {len(chosen)} attacks that know the defense, lowers the accuracy {after}. "
            f"The sample is too small to rule out a loss of {TOLERANCE + settings.detectable:.0%}.",
            loss.more,
        ),
        Verdict.PASS: (
            f"Of {len(chosen)} attacks that know the defense none lowers the accuracy by significantly more than "
            f"{TOLERANCE:.0%}; the strongest, {strongest}, lowers it {after}.",
            "",
        ),
    }[loss.verdict]


def _attacks(subject, settings):
    """Returns a dict of names to (attack, its keywords), of those that have a version for the norm."""
    pgd = settings.pgd(subject.epsilon)
    chosen = {
        f"PGD on the nuclear norm, weight {weight:g}": ("nuclear", {**pgd, "weight": weight}) for weight in WEIGHTS
    }
    chosen["GAMA-PGD"] = ("gama_pgd", {"epsilon": subject.epsilon, "steps": GAMA_STEPS})
    if subject.num_classes >= FEWEST_CLASSES:
        chosen["targeted APGD"] = ("apgd_t", targeted(subject, settings))
    return {name: (attack, keywords) for name, (attack, keywords) in chosen.items() if subject.has(attack)}


def targeted(subject, settings):
    """Returns the keywords of APGD towards every wrong class."""
    targets = min(subject.num_classes - 1, MOST_TARGETS)
    return {"epsilon": subject.epsilon, "steps": settings.steps, "targets": targets}


def _settings(keywords):
    return ", ".join(f"{name} {value:.4g}" for name, value in keywords.items())
