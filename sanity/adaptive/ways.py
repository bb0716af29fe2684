"""Attacks that bypass what hides gradients, in the order in which they are tried."""

import dataclasses
import functools
import time
import typing
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from sanity.adaptive import queries, surfaces
from sanity.adaptive.outcome import Adaptive
from sanity.adaptive.standing import Standing, pixel_epsilon
from sanity.adaptive.surfaces import Signs, Surface
from sanity.checks.network_is_deterministic import is_random
from sanity.result import Result, Verdict
from sanity.settings import Settings
from sanity.subject import Subject
from tf_nuat import losses
from tf_nuat.attacks import Averaged, averaged
from tf_nuat.attacks.ascent import ascend
from tf_nuat.core import validation

STEPS = 60
ATTACKING = 1 / 3  # share of the seconds that attacks get even if inspecting the network takes long
TARGETS = 4  # wrong classes of the first targeted attack; the second takes all of them
POINTS = 10  # of an averaged gradient
RADII = (0.125, 0.25, 0.5, 1.0)  # shares of epsilon
TRIED_ON = 32  # images, for choosing a radius


@dataclasses.dataclass(frozen=True)
class Way:
    """An attack on a surface, and why it is tried."""

    attack: str
    settings: dict[str, typing.Any]
    surface: Surface
    why: str
    cost: int = 1  # gradients a step


def find_way_round(subject: Subject, results: Sequence[Result], settings: Settings, *, seconds: float) -> Adaptive:
    """Runs attacks that are chosen for what hides a network's gradients, and returns the outcomes.

    Each attack is run on the images that are still standing: those in `subject.worst_case()` that no earlier attempt
    has fooled. The network itself decides whether an image is fooled. If its answers are random, the mean of many
    decides, and earlier outcomes by single answers do not count. The outcomes are recorded in the subject, whose worst
    case counts them from then on.

    Args:
        subject: the network, the sample and the threat model.
        results: results of the checks. Failures are named among the reasons for the attacks. If
            `network_is_deterministic` passed, the answers are not random; else, repeated passes decide.
        settings: `sanity.settings.Settings`, for the confidence of the intervals.
        seconds: time limit, above 0, which cuts the running attack short. If the cause of hidden gradients is found, it
            takes less time. If inspecting the network takes most of the time, attacks still get a third.

    Raises:
        ValueError: `seconds` is out of its range.

    Source: Athalye et al., "Obfuscated gradients give a false sense of security", 2018; Tramer et al., "On adaptive
    attacks to adversarial example defenses", 2020.

    Example:
        >>> subject = Subject(network, images, labels, epsilon=0.02)
        >>> found = find_way_round(subject, [], settings, seconds=0.5)
        >>> found.correct.shape
        (100,)
    """
    validation.number("seconds", seconds, above=0.0)
    started = time.monotonic()
    looked: dict[str, typing.Any] = {"epsilon": pixel_epsilon(subject), "is_random": is_random(subject, results)}
    surface, signs = surfaces.of(subject.network, subject.images, subject.labels, seed=subject.seed, **looked)
    failed = [f'"{each.title}" failed' for each in results if each.verdict is Verdict.FAIL and each.masking]
    seen = "; ".join([signs.words(), *failed])
    until = max(started + seconds, time.monotonic() + ATTACKING * seconds)
    standing = Standing(subject, settings, is_random=signs.random, until=until)
    for way in _ways(subject, surface, signs, standing, seen):
        if not subject.has(way.attack):
            continue
        if standing.is_over:
            standing.leave_out(way.attack, way.surface)
        else:
            standing.attack(way.attack, way.settings, way.surface, way.why, cost=way.cost)
    if not (standing.is_over or signs.random or (signs.explained and standing.fooled)):
        queries.ask(standing, subject)
    return standing.outcome()


def _ways(subject: Subject, surface: Surface, signs: Signs, standing: Standing, seen: str) -> Iterator[Way]:
    """Yields the attacks along gradients, the cheapest and most promising first."""
    passes = surfaces.PASSES if signs.random else 1
    few, many = _targeted(subject, 1, TARGETS), _targeted(subject, 2, subject.num_classes - 1)
    margin = {"steps": STEPS, "loss": "margin"}
    around = functools.partial(_around, subject, surface, signs, standing, seen)
    targeted = Way(*few, surface, f"one class after the other: {seen}", passes)
    if surface.coarse is not None:
        # MI-FGSM does not stop early; other attacks stop at the first draw by which an image seems to be fooled.
        momentum = {"steps": STEPS // 3, "step_size": 2.5 * subject.epsilon / (STEPS // 3)}
        yield Way("mifgsm", momentum, Surface(surface.name, surface.coarse), f"few passes a step: {seen}")
    yield Way("pgd", margin, surface, f"along the margin, which does not saturate: {seen}", passes)
    if signs.agreement < surfaces.SHATTERED:
        yield from around("pgd", margin, "gradients")
    yield targeted
    yield Way(*many, surface, f"every class, twice: {seen}", passes)
    if signs.explained and standing.fooled:
        return
    if signs.agreement >= surfaces.SHATTERED:
        yield from around("pgd", margin, "gradients")
    yield from around(*few, "gradients")
    if signs.without_gradient > 0.0:
        yield from around("pgd", margin, "differences")


def _targeted(subject: Subject, restarts: int, targets: int) -> tuple[str, dict[str, typing.Any]]:
    if subject.num_classes < 4:
        return "pgd", {"steps": STEPS, "loss": "margin", "restarts": 2 * restarts + 1}
    return "apgd_t", {"steps": STEPS, "targets": targets, "restarts": restarts}


def _around(
    subject: Subject,
    surface: Surface,
    signs: Signs,
    standing: Standing,
    seen: str,
    attack: str,
    settings: dict[str, typing.Any],
    by: str,
) -> Iterator[Way]:
    """Yields the attack along the mean gradient around an image, with the best radius on a few images."""
    if signs.random or standing.is_over:
        return
    points = POINTS if by == "gradients" else 5 * POINTS
    mean = averaged(surface.logits, radius=RADII[0] * pixel_epsilon(subject), points=points, by=by, seed=subject.seed)
    radius = _best_radius(subject, mean, standing)
    mean.radius.assign(radius)
    name = f"the mean of {points} {'gradients' if by == 'gradients' else 'slopes'} around the image, on {surface.name}"
    yield Way(attack, settings, Surface(name, mean), f"with radius {radius:.3g}: {seen}", 2 * points)


def _best_radius(subject: Subject, mean: Averaged, standing: Standing) -> float:
    """Returns the radius at which a short ascent fools most of a few images; if several do, that of the best margin."""
    rows = np.resize(standing.rows, TRIED_ON)
    x, y = tf.constant(subject.images[rows]), tf.constant(subject.labels[rows], tf.int64)

    @tf.function(autograph=False)
    def margins() -> tf.Tensor:
        def objective(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = mean(images)
            return losses.margin(logits, y), logits

        epsilon, norm = subject.epsilon, subject.norm.name
        ended = ascend(objective, x, x, epsilon=epsilon, step_size=0.2 * epsilon, steps=tf.constant(12), norm=norm)
        return objective(ended)[0]

    found: dict[float, tuple[float, float]] = {}
    for share in RADII:
        radius = share * pixel_epsilon(subject)
        mean.radius.assign(radius)
        after = margins().numpy()
        found[radius] = (float(np.mean(after > 0.0)), float(np.mean(after)))
        if standing.is_over:
            break
    return max(found, key=lambda radius: found[radius])
