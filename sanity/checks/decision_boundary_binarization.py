"""Does the attack find adversaries that are known to be there?"""

import numpy as np
import tensorflow as tf

from sanity import measure, statistics
from sanity.measure.batches import compiled, specs
from sanity.result import Result, Verdict, skipped
from sanity.settings import Settings
from sanity.statistics.tolerance import Share
from sanity.subject import Subject
from tf_nuat import losses
from tf_nuat.attacks import pgd, random_search

NAME = "decision_boundary_binarization"
# Points inside the ball. With fewer, guessing finds more adversaries: on a small robust convolutional network, 40
# random points find 38 % with 99, 40 % with 199, 25 % with 499 and 21 % with the paper's 999, which cost twice as much.
INNER = 499
FOUND = 0.95  # of the planted adversaries, by the attack
EASY = 0.5  # of them, by random search
REFERENCE = "Zimmermann et al., Increasing confidence in adversarial robustness evaluations, 2022, section 3"


def decision_boundary_binarization(subject: Subject, settings: Settings) -> Result:
    """PGD must find the adversaries of networks whose last layer was replaced by one that has them.

    For each of the first `settings.planted_images` images, a linear function of the inputs of the last `Dense` layer
    separates `INNER` points inside the ball from one point on its surface. It replaces the layer, with its decision
    boundary next to that point. The point is then an adversary, and PGD with unchanged settings has to find it or a
    better one. An image counts if its points are separable and its planted point is an adversary in float32, too.

    Fails if the attack misses significantly more than 5 % of the adversaries (exact binomial), whatever random search
    finds; passes if the sample rules out `settings.detectable` more. Skipped if the network has no last `Dense` layer,
    if less than half of the images can be set up, or if success would show nothing: PGD leaves no more than chance, or
    as many random points as PGD takes steps find half of the adversaries. Passing is necessary, not sufficient: in
    honest networks, one step of length 2.5 epsilon finds all adversaries; within half of the ball none is found.

    Example:
        >>> decision_boundary_binarization(subject, settings).verdict.value
        'inconclusive'
    """
    left = subject.correct("pgd", **settings.pgd(subject.epsilon))
    overrating = statistics.Overrating.of("PGD", left, subject, settings)
    if overrating.ruled_out:
        return _skipped(f"It is of no use here.{overrating.words}", len(subject))
    looked_at = min(settings.planted_images, len(subject))

    def measured(images, labels, first):
        return attacked(subject, settings, np.arange(first, first + len(images)))

    key = (NAME, *settings.pgd(subject.epsilon).items())
    try:
        planted, found, drawn = subject.per_image(key, measured, most=looked_at)
    except NotDenseError as error:
        return _skipped(str(error), looked_at)
    size = int(np.sum(planted))
    if size < looked_at / 2:
        return _skipped(
            f"Adversaries can be planted for {size} of {looked_at} images only: the features of the others do not tell "
            "points inside of the ball from one on its surface.",
            size,
        )
    return _judged(found[planted], drawn[planted], settings, looked_at, overrating)


def _judged(found, drawn, settings, looked_at, overrating):
    """Returns the `Result`; `found` and `drawn` say which planted adversaries PGD and random points find."""
    size = len(found)
    missed = Share.of(size - int(np.sum(found)), size, 1.0 - FOUND, settings)
    by_chance = float(np.mean(drawn))
    seen = (
        f"In {size} networks that are this one but for the last layer an adversary was planted within epsilon. PGD "
        f"finds {1.0 - missed.value:.1%} of them, {settings.steps} random points find {by_chance:.1%}"
    )
    if missed.verdict is not Verdict.FAIL and by_chance >= EASY:
        return _skipped(f"{seen}: it is of no use here, as whatever finds what guessing does shows nothing.", size)
    verdict = overrating.verdict(missed.verdict)
    is_small = looked_at < settings.planted_images or overrating.words
    remedy = missed.more if is_small else "Attack with more steps, and judge again."
    explanation, remedy = _words(verdict, seen, overrating.words, remedy)
    shown = {
        (f"PGD, {settings.steps} steps", "white box"): found,
        (f"{settings.steps} random points", "without gradients"): drawn,
    }
    return Result(
        name=NAME,
        verdict=verdict,
        quantity="planted adversaries that the attack finds",
        value=1.0 - missed.value,
        threshold=FOUND,
        sample_size=size,
        interval=(1.0 - missed.high, 1.0 - missed.low),
        series=statistics.bars(
            "planted adversaries that are found",
            shown,
            confidence=settings.confidence,
            levels=(("required of PGD", FOUND),),
        ),
        explanation=explanation,
        remedy=remedy,
        reference=REFERENCE,
        p_value=overrating.p_value(missed.p_value),
        good="at least",
    )


def _words(verdict, seen, left, more):
    """Returns the explanation and the remedy.

    `left` is what PGD leaves if no sign counts, `more` what to do if the sample does not decide.
    """
    return {
        Verdict.FAIL: (
            f"{seen}. An attack that misses adversaries that are there cannot show that there are none.",
            "Do not report the accuracy under this attack. Adapt it until it finds the planted adversaries: more "
            "steps, another loss, a differentiable version of whatever hides the gradients.",
        ),
        Verdict.INCONCLUSIVE: (f"{seen}.{left or f' That cannot be told from {FOUND:.0%}.'}", more),
        Verdict.PASS: (f"{seen}. Significantly less than {FOUND:.0%} by PGD would have been a sign.{left}", ""),
    }[verdict]


def _skipped(reason, size):
    options = {"sample_size": size, "remedy": "Rely on the other checks.", "reference": REFERENCE}
    return skipped(NAME, reason, **options)


class NotDenseError(Exception):
    """The network has no last `Dense` layer that could be replaced."""


def attacked(subject, settings, rows):
    """Returns three bool arrays for the images `rows`: adversary planted, found by PGD, found by random search.

    Raises:
        NotDenseError: there is no last layer to replace.
    """
    layer = measure.readout.last_dense(subject.network)
    if layer is None:
        raise NotDenseError("The network does not end in a dense layer, which would be replaced.")
    features_of = measure.readout.features_of(subject.network, layer)
    features = _compiled_features(features_of, layer, subject)
    outcomes = _compiled_outcomes(features_of, layer, subject, settings)
    points = compiled(
        lambda x, row: measure.readout.points(x, row, inner=INNER, **_ball(subject)),
        tf.TensorSpec(subject.images.shape[1:]),
        tf.TensorSpec((), tf.int32),
    )

    def planted(row):
        """Returns the adversary, weights, bias, and whether the points are separable."""
        near = points(tf.constant(subject.images[row]), tf.constant(row, tf.int32))
        size = subject.batch_size
        seen = tf.concat([features(near[first : first + size]) for first in range(0, INNER + 1, size)], axis=0)
        return near[-1], *measure.readout.planted(seen.numpy(), layer(seen).numpy())

    found = []
    for first in range(0, len(rows), subject.batch_size):
        batch = rows[first : first + subject.batch_size]
        adversaries, weights, biases, separable = zip(*map(planted, batch))
        x, index = tf.constant(subject.images[batch]), tf.constant(batch, tf.int32)
        readouts = tf.constant(weights, tf.float32), tf.constant(biases, tf.float32)
        seen = outcomes(x, tf.stack(adversaries), *readouts, index)
        found.append([seen[0] & separable, *seen[1:]])
    return np.concatenate(found, axis=1)


def _ball(subject):
    return {"epsilon": subject.epsilon, "norm": subject.norm.name, "seed": subject.seed}


def _compiled_features(features_of, layer, subject):
    """Returns the function from images to the inputs of the layer; raises `NotDenseError` if there is none."""
    unfit = NotDenseError("The network without its last dense layer does not return the features of an image.")
    try:
        features = compiled(features_of, tf.TensorSpec((None, *subject.images.shape[1:])))
    except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:  # later layers do not accept the features
        raise unfit from error
    if features.outputs[0].shape.as_list() != [None, layer.kernel.shape[0]]:
        raise unfit
    return features


def _compiled_outcomes(features_of, layer, subject, settings):
    """Returns a function that says whether planted points are adversaries, and whether PGD and random search find one.

    It takes images, planted adversaries, weights and biases of read-outs, and numbers of the images.
    """
    white_box = {**_ball(subject), **settings.pgd(subject.epsilon)}

    def outcomes(x, adversary, weights, biases, index):
        inside = tf.zeros_like(index)

        def binary_logits(images):
            g = tf.reduce_sum(features_of(images) * weights, axis=1) + biases
            return tf.stack([-g, g], axis=1)

        results = [
            adversary,
            pgd(binary_logits, x, inside, index=index, **white_box),
            random_search(binary_logits, x, inside, index=index, queries=settings.steps, **_ball(subject)),
        ]
        return [losses.fooled(binary_logits(each), inside) for each in results]

    images, _, numbers = specs(subject.images)
    width = layer.kernel.shape[0]
    return compiled(outcomes, images, images, tf.TensorSpec((None, width)), tf.TensorSpec((None,)), numbers)
