"""Do attacks that others wrote fool the network more often than ours of the same kind?"""

import importlib
import unittest.mock

import numpy as np
import tensorflow as tf

from sanity import statistics
from sanity.result import Result, Verdict, skipped
from sanity.settings import Settings
from sanity.subject import Subject
from tf_nuat import evaluate
from tf_nuat.models.inference import graph_of

NAME = "second_opinion"
ORDERS = (np.inf, 2)  # of the norms that CleverHans' PGD supports
MODULES = ("projected_gradient_descent", "momentum_iterative_method")
REFERENCE = (
    "Papernot et al., Technical report on the CleverHans v2.1.0 adversarial examples library, 2018; Carlini et al., On "
    "evaluating adversarial robustness, 2019 (compare with implementations of others)"
)


def second_opinion(subject: Subject, settings: Settings) -> Result:
    """CleverHans' PGD and MIM on the network, with the steps of ours, on the first `settings.slow_images` images.

    The check reports how many more images one of them fools than our attack of the same kind. The worst case counts
    what they leave. The difference says nothing about the network: masked gradients mislead both. Skipped if
    CleverHans, which no other part of the package needs, cannot be imported or has no version for the norm.

    Example:
        >>> second_opinion(subject, settings).verdict.value
        'reported'
    """
    try:
        modules = [importlib.import_module(f"cleverhans.tf2.attacks.{module}") for module in MODULES]
    except ImportError as error:
        reason = f"CleverHans, whose attacks are the second opinion, cannot be imported ({error})."
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("cleverhans"):
            reason = "cleverhans is not installed; pip install cleverhans"
        return _skipped(reason, "Install it: pip install cleverhans.", subject)
    if subject.norm.order not in ORDERS:
        reason = f"CleverHans, whose attacks are the second opinion, has no PGD for {subject.norm.label}."
        return _skipped(reason, "Rely on the other checks.", subject)
    size = min(settings.slow_images, len(subject))
    pgd = settings.pgd(subject.epsilon)
    ours = {"PGD": subject.correct("pgd", **pgd)[:size], "MIM": subject.correct("mifgsm", **pgd)[:size]}
    attacks = _attacks(modules, subject, pgd)

    def withstood(images, labels, first):
        network, sample, size = subject.network, (images, labels), subject.batch_size
        return [evaluate.correct(network, sample, attack, batch_size=size) for attack in attacks]

    found = subject.per_image((NAME, *pgd.items()), withstood, most=size)
    clean, among = subject.correct(), np.arange(len(subject)) < size
    theirs = {label: clean[:size] & outcome for label, outcome in zip(ours, found)}
    for label, outcome in theirs.items():
        left = np.concatenate([outcome, clean[size:]])
        subject.record(f"CleverHans' {label}", pgd, left, among=among)
    excess = statistics.clearest_increase(
        {label: (theirs[label], ours[label]) for label in ours}, confidence=settings.confidence
    )
    explanation, remedy = _words(excess, size, settings)
    shown = {
        (f"{attack}, {whose}", whose): outcome
        for whose, by_attack in {"ours": ours, "CleverHans": theirs}.items()
        for attack, outcome in by_attack.items()
    }
    return Result(
        name=NAME,
        verdict=Verdict.REPORTED,
        quantity=f"images that CleverHans' {excess.name} fools in addition to ours",
        value=excess.difference,
        threshold=0.0,
        sample_size=size,
        interval=(excess.low, excess.high),
        series=statistics.accuracies(shown, confidence=settings.confidence),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        masking=False,
    )


def _skipped(reason, remedy, subject):
    return skipped(NAME, reason, sample_size=len(subject), remedy=remedy, reference=REFERENCE)


def _words(excess, size, settings):
    """Returns the explanation and the remedy; `size` is the number of images that both attacked."""
    if excess.verdict(settings) is Verdict.FAIL:
        return (
            f"{excess.name} of CleverHans fools {excess.difference:.1%} more of {size} images than ours with the same "
            "steps. Our own attack is failing on this network.",
            "Tell us: with the network or how it was built this can be repaired. The worst case counts what CleverHans "
            "found.",
        )
    return (
        f"{excess.name} of CleverHans fools {excess.difference:+.1%} of {size} images beyond ours with the same steps, "
        "and the other one no more than that.",
        "",
    )


def _attacks(modules, subject, pgd):
    """Returns CleverHans' PGD and MIM with the settings of `pgd`, functions `(network, x, y) -> x_adv`.

    CleverHans draws the start of PGD from TensorFlow's global generator, whose seed belongs to the caller; here our own
    generator draws it.
    """
    generator = np.random.default_rng(subject.seed)
    ours = graph_of(subject.network)
    radius, steps = pgd["epsilon"], pgd["steps"]
    step_size = min(pgd["step_size"], radius)  # the longest that CleverHans accepts
    norm = subject.norm.order
    box = {"clip_min": 0.0, "clip_max": 1.0}

    def logits_fn(x):
        """Adds 0 so that a network without a gradient has the gradient 0; CleverHans does not accept None."""
        return tf.cast(ours(x), tf.float32) + 0.0 * tf.reduce_sum(x, axis=(1, 2, 3))[:, None]

    def finite(x_adv, x):
        """Restores pixels that are not finite, because a gradient was not: they must not count as an adversary."""
        return tf.where(tf.math.is_finite(x_adv), x_adv, x)

    def start(shape, ord, eps, dtype=tf.float32, seed=None):
        if ord == np.inf:
            return tf.constant(generator.uniform(-1.0, 1.0, tuple(shape)), dtype) * eps
        drawn = generator.normal(size=(shape[0], int(np.prod(shape[1:]))))
        length = generator.uniform(size=(len(drawn), 1)) ** (1.0 / drawn.shape[1])
        drawn *= length / np.linalg.norm(drawn, axis=1, keepdims=True)
        return tf.constant(drawn.reshape(shape), dtype) * eps

    def theirs_pgd(network, x, y):
        with unittest.mock.patch.object(modules[0], "random_lp_vector", start):
            x_adv = modules[0].projected_gradient_descent(
                logits_fn, x, radius, step_size, steps, norm, y=y, rand_init=True, **box
            )
        return finite(x_adv, x)

    def theirs_mim(network, x, y):
        x_adv = modules[1].momentum_iterative_method(
            logits_fn, x, radius, step_size, steps, norm, y=y, sanity_checks=False, **box
        )
        return finite(x_adv, x)

    return theirs_pgd, theirs_mim
