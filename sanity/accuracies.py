"""The accuracies of a judgement, as facts and in words: in the worst case, and what each attack left."""

import dataclasses

import numpy as np

from sanity import labels as attack_labels
from sanity import verdict
from sanity.evaluation import counted
from sanity.verdict import WorstCase


def worst_case(subject, settings, left_out):
    """Returns the `WorstCase`; `left_out`: names of attacks that were not run on all images."""
    pgd = subject.correct("pgd", **settings.pgd(subject.epsilon))
    found = counted(subject.evaluations(), subject.epsilon)
    within = [each for each in found if each.attack is not None]
    fooled = [int(np.sum(pgd & ~each.correct)) for each in within]
    strongest, answers = int(np.argmax(fooled)), found[0].answers
    return WorstCase(
        **dataclasses.asdict(verdict.accuracy(subject.worst_case(), settings)),
        attacks=len(within),
        attack=attack_labels.of(within[strongest]) if any(fooled) else "PGD",
        fooled=fooled[strongest],
        left_out=tuple(left_out) if answers == 1 else (),  # by single answers, none of them would count
        answers=answers,
    )


def _left(subject):
    """Returns what each attack leaves of all images, pairs (`Evaluation`, bool (N,)).

    An attack that was run on what others left leaves no more than those before it where it was not run. Those before
    it are of as many answers of the network.
    """
    worst, found = {}, []
    for each in subject.evaluations():
        before = worst.get(each.answers, subject.correct())
        attacked = np.ones(len(subject), bool) if each.among is None else each.among
        found.append((each, np.where(attacked, each.correct, before)))
        if subject.within_epsilon(each):
            worst[each.answers] = before & each.correct
    return found


def described(subject, settings):
    """Returns the evaluations of a subject as dicts; see `sanity.result`."""
    found = []
    for each, remaining in _left(subject):
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
                "within_epsilon": subject.within_epsilon(each),
            }
        )
    return found


def sentence(clean, robust, pgd, way_round, subject, settings, *, is_random):
    """Returns the accuracies in words; `is_random` says whether the network's answers are."""
    low, high = robust.interval
    stronger = f"{robust.attack} fooled {robust.fooled} images that PGD did not. " if robust.fooled else ""
    missing = f"Not run on all of them: {'; '.join(robust.left_out)}. " if robust.left_out else ""
    alone = f"PGD alone says {pgd.accuracy:.1%}, publish {robust.accuracy:.1%}"
    if pgd.correct == robust.correct:
        alone = f"PGD alone says the same, {pgd.accuracy:.1%}"
    if robust.answers > 1:
        counts = f"Its answers are random: an image counts by the mean of {robust.answers} answers. "
        alone = f"{counts}By one answer each PGD alone leaves {pgd.accuracy:.1%}"
    elif is_random:
        alone = f"Its answers are random, and one that is wrong counts. {alone}"
    if way_round is not None and way_round.best is not None:
        alone += f". Round what may hide the gradients {way_round.best.attack} fooled {way_round.best.fooled} images"
    return (
        f"{robust.accuracy:.1%} of {robust.images} images withstand the worst of {robust.attacks} attacks within "
        f"epsilon {subject.epsilon:.4g} in {subject.norm.label} ({settings.confidence:.0%} interval {low:.1%} to "
        f"{high:.1%}). {missing}{stronger}{alone}. {clean.accuracy:.1%} are classified correctly without attack."
    )
