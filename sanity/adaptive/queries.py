"""The attack without gradients of the network: Square, started from the adversaries of a surrogate."""

import time

import keras
import numpy as np
import tensorflow as tf

from sanity.adaptive.standing import BATCH as ANSWERED_AT_A_TIME
from sanity.adaptive.standing import Standing, pixel_epsilon
from sanity.measure import surrogate
from sanity.subject import Subject
from tf_nuat.attacks import ATTACKS

QUERIES = 5000
FEWEST = 200  # fewer are not worth the time
SHARE = 0.7  # share of the remaining time for queries; the rest is for the surrogate
COPIES = 4000  # noisy copies of the sample's images, on which the surrogate is trained
STEPS = 20  # of MI-FGSM on the surrogate
BATCH = 64
WHY = "no gradient of the network is taken: Square goes on from where a surrogate of its answers is fooled"


def ask(standing: Standing, subject: Subject) -> None:
    """Trains a surrogate on the network's answers; runs Square from its adversaries, with the queries time allows."""
    if not (subject.has("mifgsm") and subject.has("square")):
        return
    per_query = _seconds_per_image(standing, subject)
    queries = int(min(QUERIES, SHARE * standing.seconds_left / (per_query * len(standing.rows))))
    if queries < FEWEST:
        return
    imitated = _imitation(standing, subject, seconds=(1.0 - SHARE) * standing.seconds_left)
    settings = {"epsilon": subject.epsilon, "queries": queries}
    with standing.attempt("square from the adversaries of a surrogate", settings, WHY) as attacked:
        rows = standing.rows
        for first in range(0, len(rows), BATCH):
            chosen = np.resize(rows[first : first + BATCH], BATCH)  # one shape, one compilation
            x, y = tf.constant(subject.images[chosen]), tf.constant(subject.labels[chosen], tf.int64)
            start = ATTACKS["mifgsm"](imitated, x, y, epsilon=subject.epsilon, steps=STEPS, **subject.threat("mifgsm"))
            attacked[chosen] = True
            standing.fool(chosen, start.numpy())
            options = {**settings, **subject.threat("square"), "seed": subject.seed, "index": chosen}
            standing.fool(chosen, ATTACKS["square"](subject.network, x, y, start=start, **options).numpy())
            if standing.is_over:
                break


def _imitation(standing: Standing, subject: Subject, *, seconds: float) -> keras.Model:
    draws = np.random.default_rng(subject.seed)
    images = subject.images[np.resize(np.arange(len(subject)), max(COPIES, len(subject)))]
    radius = pixel_epsilon(subject)
    images = np.clip(images + draws.uniform(-radius, radius, images.shape), 0.0, 1.0).astype(np.float32)
    labels, classes = standing.answers(images), subject.num_classes
    return surrogate.train(images, labels, num_classes=classes, seed=subject.seed, seconds=seconds)


def _seconds_per_image(standing: Standing, subject: Subject) -> float:
    """Returns the seconds per image that an answer of the network takes, in a batch."""
    images = subject.images[np.resize(np.arange(len(subject)), ANSWERED_AT_A_TIME)]
    standing.answers(images)  # compiles, if it is the first call
    started = time.perf_counter()
    standing.answers(images)
    return (time.perf_counter() - started) / len(images)
