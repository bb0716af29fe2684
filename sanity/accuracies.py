"""The accuracies of a judgement, as data and in words: in the worst case, and after each attack."""

import dataclasses

import numpy as np

from sanity import labels as attack_labels
from sanity import verdict
from sanity.verdict import WorstCase


def worst_case(subject, settings, left_out, cut_short=()):
    """Returns the `WorstCase`.

    `left_out` are names of attacks that were not run on all images. If the mean of many answers decides, these attacks
    do not count, and the attempts of the adaptive stage in `cut_short` take their place.
    """
    pgd = subject.correct("pgd", **settings.pgd(subject.epsilon))
    found = subject.counted()
    within, answers = [each for each in found if each.attack is not None], found[0].answers
    before = pgd if answers == 1 else subject.correct()  # PGD is judged by single answers
    fooled = [int(np.sum(before & ~each.correct)) for each in within]
    strongest = int(np.argmax(fooled))
    return WorstCase(
        **dataclasses.asdict(verdict.accuracy(subject.worst_case(), settings)),
        attacks=len(within),
        attack=attack_labels.of(within[strongest]) if any(fooled) or answers > 1 else "PGD",
        fooled=fooled[strongest],
        left_out=tuple(left_out if answers == 1 else cut_short),
        answers=answers,
    )


def _left(subject):
    """Returns triples (`Evaluation`, which of all images remain correct after it, bool (N,), whether it is compared).

    On images on which the attack was not run, the earlier attacks with the same number of answers decide. If they left
    some of these, the attack cannot be compared with others: it did not have its turn on them.
    """
    worst, found = {}, []
    for each in subject.evaluations():
        before = worst.get(each.answers, subject.correct())
        attacked = np.ones(len(subject), bool) if each.among is None else each.among
        found.append((each, np.where(attacked, each.correct, before), not np.any(before & ~attacked)))
        if subject.within_epsilon(each):
            worst[each.answers] = before & each.correct
    return found


def described(subject, settings):
    """Returns the evaluations of a subject as dicts; see `sanity.result`."""
    found = []
    for each, remaining, is_compared in _left(subject):
        among = slice(None) if each.among is None else each.among
        accuracy = verdict.accuracy(each.correct[among], settings)
        found.append(
            {
                "attack": each.attack,
                "label": attack_labels.of(each),
                "settings": each.settings,
                "source": each.source,
                "answers": each.answers,
                "images": accuracy.images,
                "accuracy": accuracy.accuracy,
                "interval": accuracy.interval,
                "left": float(np.mean(remaining)),
                "compared": is_compared,
                "within_epsilon": subject.within_epsilon(each),
            }
        )
    return found


def sentence(clean, robust, pgd, way_round, subject, settings, *, is_random, is_upper_limit):
    """Returns the accuracies in words.

    `is_random` says whether the network's answers are random, `is_upper_limit` whether the accuracy in the worst case
    is no figure to publish: attacks were left out, or masked gradients are not ruled out.
    """
    low, high = robust.interval
    beyond = " that PGD did not" if robust.answers == 1 else ""
    stronger = f"{robust.attack} fooled {robust.fooled} images{beyond}. " if robust.fooled else ""
    missing = f"Not run on all of them: {'; '.join(robust.left_out)}. " if robust.left_out else ""
    most = "At most " if robust.left_out else ""
    alone = f"PGD alone says {pgd.accuracy:.1%}" + ("" if is_upper_limit else f", publish {robust.accuracy:.1%}")
    if pgd.correct == robust.correct:
        alone = f"PGD alone says the same, {pgd.accuracy:.1%}"
    if robust.answers > 1:
        counts = f"Its answers are random: an image counts by the mean of {robust.answers} answers. "
        alone = f"{counts}By one answer each PGD alone leaves {pgd.accuracy:.1%}"
    elif is_random:
        alone = f"Its answers are random, and one that is wrong counts. {alone}"
    elif way_round is not None and way_round.best is not None:
        alone += f". Round what may hide the gradients {way_round.best.attack} fooled {way_round.best.fooled} images"
    return (
        f"{most}{robust.accuracy:.1%} of {robust.images} images withstand {robust.against} within epsilon "
        f"{subject.epsilon:.4g} in {subject.norm.label} ({settings.confidence:.0%} interval {low:.1%} to "
        f"{high:.1%}). {missing}{stronger}{alone}. {clean.accuracy:.1%} are classified correctly without attack."
    )
