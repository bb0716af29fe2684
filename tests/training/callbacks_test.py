"""The masking alarm, on published accuracies and on networks whose answer to each attack is known; early stopping."""

import functools
import logging
import math

import keras
import numpy as np
import pytest

import tf_nuat
from tf_nuat import evaluate
from tf_nuat.training import callbacks

# Vivek and Babu (2020): accuracies on clean images, under FGSM, and under PGD with the most steps they report.
PSEUDO_ROBUST = {
    "table 3, FGSM-AT": (99.29, 85.86, 3.95),
    "table 3, EAT ens-A": (99.37, 79.63, 0.34),
    "table 3, EAT ens-B": (99.31, 84.12, 0.06),
    "table 3, EAT ens-C": (99.43, 80.08, 0.05),
    "table 4, FGSM-AT": (94.04, 98.54, 0.01),
    "table 4, EAT ens-A": (92.92, 59.56, 7.11),
    "table 4, EAT ens-B": (92.75, 63.40, 0.85),
    "table 4, EAT ens-C": (93.11, 59.74, 3.73),
    "table 5, FGSM-AT": (77.10, 40.51, 2.84),
    "table 5, EAT ens-A": (76.04, 39.21, 2.92),
    "table 5, EAT ens-B": (76.44, 40.83, 3.56),
    "table 5, EAT ens-C": (76.66, 41.72, 3.32),
    "table 7, Ablation-R1-1": (97.71, 91.35, 0.97),
    "table 7, Ablation-R3-1": (97.62, 92.52, 0.78),
    "table 7, Ablation-R3-2": (97.56, 72.35, 0.63),
}
OTHERS = {
    "table 3, NT": (99.24, 11.50, 0.00),
    "table 3, PGD-AT": (98.41, 95.56, 91.18),
    "table 3, TRADES": (98.70, 96.25, 93.60),
    "table 3, SAT-R1": (98.15, 93.42, 88.76),
    "table 3, SAT-R2": (98.23, 94.36, 90.03),
    "table 3, SAT-R3": (98.79, 94.44, 82.88),
    "table 4, NT": (94.75, 28.16, 0.00),
    "table 4, PGD-AT": (86.30, 53.96, 47.92),
    "table 4, TRADES": (86.92, 56.34, 49.92),
    "table 4, SAT-R1": (84.68, 56.85, 46.81),
    "table 4, SAT-R2": (83.51, 56.38, 49.07),
    "table 4, SAT-R3": (80.95, 50.63, 40.13),
    "table 5, NT": (78.74, 4.68, 0.00),
    "table 5, PGD-AT": (68.18, 40.50, 33.72),
    "table 5, TRADES": (67.32, 42.10, 34.34),
    "table 5, SAT-R1": (61.60, 38.20, 30.52),
    "table 5, SAT-R2": (61.56, 37.79, 30.35),
    "table 5, SAT-R3": (67.87, 38.73, 27.67),
    "table 7, Ablation-R2-1": (95.39, 61.60, 33.41),
    "table 7, Ablation-R2-2": (93.92, 57.06, 28.76),
    "table 9, SAT-R1 + SAT-R3": (98.80, 94.42, 87.52),
    "table 9, SAT-R3 + SAT-R2": (98.10, 93.83, 87.44),
}


def first(count, images):
    return np.arange(images) < count


def rings(accuracies, images):
    """The outcomes of a stronger attack are among those of a weaker one; the tables do not say more."""
    clean, fgsm, pgd = (first(round(images * accuracy / 100), images) for accuracy in accuracies)
    return callbacks.overfits_catastrophically(fgsm, pgd, clean)


@pytest.mark.parametrize("images", [300, 10_000])
@pytest.mark.parametrize("row", PSEUDO_ROBUST)
def test_flags_published_networks_that_only_seem_robust(row, images):
    assert rings(PSEUDO_ROBUST[row], images)


@pytest.mark.parametrize("images", [300, 10_000])
@pytest.mark.parametrize("row", OTHERS)
def test_flags_no_published_network_that_is_robust_weak_or_undefended(row, images):
    assert not rings(OTHERS[row], images)


def binomial(count, n, share):
    return math.comb(n, count) * share**count * (1 - share) ** (n - count)


def test_both_limits_are_exact_tests():
    """The most images under PGD, and the fewest under FGSM, that it rings at, from the binomial distribution."""
    n, level = 80, 0.01
    everything, nothing = first(n, n), first(0, n)
    most = max(k for k in range(n) if sum(binomial(i, n, 1 / 3) for i in range(k + 1)) < level)
    assert callbacks.overfits_catastrophically(everything, first(most, n), everything)
    assert not callbacks.overfits_catastrophically(everything, first(most + 1, n), everything)
    fewest = min(k for k in range(n) if sum(binomial(i, n, 0.4) for i in range(k, n + 1)) < level)
    assert callbacks.overfits_catastrophically(first(fewest, n), nothing, everything)
    assert not callbacks.overfits_catastrophically(first(fewest - 1, n), nothing, everything)


def test_outcomes_are_compared_image_by_image():
    """Accuracies 100, 60 and 40 %, twice: PGD fools a third of what FGSM leaves, or all of it."""
    n = 100
    clean, fgsm, pgd = first(n, n), first(60, n), first(40, n)
    assert not callbacks.overfits_catastrophically(fgsm, pgd, clean)
    assert callbacks.overfits_catastrophically(fgsm, pgd[::-1], clean)
    # Of the images that are correct under FGSM, PGD fools all: also those that are wrong as they are.
    assert callbacks.overfits_catastrophically(first(n, n), first(0, n), first(60, n))


def test_a_network_that_has_learnt_nothing_is_not_flagged():
    n = 300
    for correct in (0, 30):
        outcomes = first(correct, n)
        assert not callbacks.overfits_catastrophically(outcomes, outcomes, outcomes)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"fgsm_correct": np.ones(9, bool)},
            "fgsm_correct has dtype bool and shape .9,.; allowed: bool, one per",
        ),
        ({"pgd_correct": np.ones(10)}, "pgd_correct has dtype float64 and shape .10,.; allowed: bool, one per"),
        ({"fgsm_share": 0.0}, "fgsm_share is 0.0; allowed: "),
        ({"pgd_share": 1}, "pgd_share is 1; allowed: "),
        ({"significance": 1.5}, "significance is 1.5; allowed: "),
    ],
)
def test_wrong_outcomes_are_refused(change, words):
    outcomes = dict.fromkeys(("fgsm_correct", "pgd_correct", "clean_correct"), np.ones(10, bool))
    with pytest.raises(ValueError, match=words):
        callbacks.overfits_catastrophically(**{**outcomes, **change})


EPSILON = 0.1
IMAGES = np.full((40, 4, 4, 1), 0.5, np.float32)
LABELS = np.array([0] * 30 + [1] * 10)
# The margin of class 0 is a function of t = (mean pixel - 0.5) / epsilon: 0 at the images, at most 1 in the ball, where
# FGSM goes. Its pieces: (slope inside the hinge, offset inside it), weight; and a constant.
MARGINS = {
    "masked": ([(1, -0.5), (-1, 0.5)], [1, 1], -0.25),  # |t - 0.5| - 0.25: below 0 only on the way to t = 1
    "robust": ([(-1, 5), (1, 0)], [1, 0], -3.5),  # 1.5 - t
    "undefended": ([(-1, 5), (1, 0)], [1, 0], -4.5),  # 0.5 - t
}
ACCURACIES = {"masked": (0.75, 0.0), "robust": (0.75, 0.75), "undefended": (0.0, 0.0)}  # under FGSM, under PGD


class CountedFlatten(keras.layers.Flatten):
    calls = 0

    def call(self, inputs):
        type(self).calls += 1
        return super().call(inputs)


def shape(network, kind):
    hinges, weights, constant = MARGINS[kind]
    pixels = IMAGES[0].size
    slopes = np.array([slope for slope, _ in hinges], float)
    network.set_weights(
        [
            np.tile(slopes / (pixels * EPSILON), (pixels, 1)),
            np.array([offset for _, offset in hinges]) - slopes * 0.5 / EPSILON,
            np.stack([weights, np.zeros(2)], axis=1),
            np.array([constant, 0.0]),
        ]
    )


def build(**options):
    inputs = keras.Input(IMAGES.shape[1:])
    hidden = keras.layers.Dense(2, activation="relu")(CountedFlatten()(inputs))
    model = tf_nuat.Standard(keras.Model(inputs, keras.layers.Dense(2)(hidden)), epsilon=EPSILON, **options)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    return model


def train(kinds, *, part="trained_network", model=None, extra=(), **options):
    """Trains one epoch for each of `kinds`, which the network is as the epoch ends; returns the history."""
    model = model or build()

    class Become(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            shape(getattr(model, part), kinds[epoch])

    alarm = callbacks.MaskingAlarm(IMAGES, LABELS, epsilon=EPSILON, **options)
    became = [Become(), alarm, *extra]
    return model.fit(IMAGES, LABELS, batch_size=20, epochs=len(kinds), verbose=0, callbacks=became).history


def test_rings_where_fgsm_fails_and_pgd_succeeds(caplog):
    kinds = ["undefended", "robust", "masked", "robust"]
    with caplog.at_level(logging.WARNING):
        history = train(kinds)
    assert history["masking_alarm"] == [0.0, 0.0, 1.0, 0.0]
    assert history["val_fgsm_accuracy"] == [ACCURACIES[kind][0] for kind in kinds]
    assert history["val_pgd_accuracy"] == [ACCURACIES[kind][1] for kind in kinds]
    (warning,) = (record.getMessage() for record in caplog.records if record.name == "absl")
    assert "\n" not in warning
    for words in ("epoch 3", "75.0% under FGSM", "0.0% under PGD-10", "NuAT", "SAT-R1"):
        assert words in warning
    assert "stops" not in warning


def test_stops_training_where_told_so(caplog):
    with caplog.at_level(logging.WARNING):
        history = train(["robust", "masked", "robust"], action="stop")
    assert history["masking_alarm"] == [0.0, 1.0]
    assert "training stops" in caplog.text


@pytest.mark.parametrize("part, alarm", [("trained_network", 1.0), ("network", 0.0)])
def test_judges_what_is_trained_and_not_its_average(part, alarm):
    model = build(ema_decay=0.5)
    for network in (model.network, model.trained_network):
        shape(network, "robust")
    assert train(["masked"], part=part, model=model)["masking_alarm"] == [alarm]


def test_later_epochs_trace_nothing():
    counts = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: counts.append(CountedFlatten.calls))
    train(["robust", "masked", "robust"], extra=[count], batch_size=15)
    assert counts[0] > 0 and counts == [counts[0]] * 3


@pytest.mark.parametrize(
    "steps, step_size, low, high",
    [
        (1, 0.5, 0.0, 0.2),  # from a start near t = 0 to the bottom of the dip
        (1, None, 0.5, 0.75),  # 2.5: across the dip, to the edge of the ball
        (1, 0.05, 0.5, 0.75),  # less far than the dip
        (10, 0.05, 0.0, 0.2),
    ],
)
def test_steps_and_step_size_reach_pgd(steps, step_size, low, high):
    step_size = None if step_size is None else step_size * EPSILON
    (accuracy,) = train(["masked"], steps=steps, step_size=step_size)["val_pgd_accuracy"]
    assert low <= accuracy <= high


@pytest.mark.parametrize(
    "change, words",
    [
        ({"images": np.full((40, 4, 4, 1), 5)}, "images has dtype int64; allowed: "),
        ({"images": IMAGES + 1}, "images has values from 1.5 to 1.5; allowed: "),
        ({"images": IMAGES[:5]}, "images has 5 entries; allowed: so many that the alarm can ring"),
        ({"epsilon": 0.0}, "epsilon is 0.0; allowed: "),
        ({"epsilon": 8}, "epsilon is 8; allowed: "),
        ({"steps": 0}, "steps is 0; allowed: "),
        ({"step_size": -0.1}, "step_size is -0.1; allowed: "),
        ({"action": "raise"}, "action is 'raise'; allowed: stop, warn"),
        ({"pgd_share": 0.0}, "pgd_share is 0.0; allowed: "),
        ({"batch_size": 0}, "batch_size is 0; allowed: "),
    ],
)
def test_wrong_arguments_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        callbacks.MaskingAlarm(**{"images": IMAGES, "labels": LABELS, "epsilon": EPSILON, **change})


@pytest.mark.parametrize(
    "images, labels, words",
    [
        (IMAGES[:, :3], LABELS, "images has images of shape .3, 4, 1.; the network takes .4, 4, 1."),
        (IMAGES, LABELS[:-1], "labels has 39 entries for 40 images"),
        (IMAGES, LABELS + 1, "labels has values from 1 to 2; allowed: integers from 0 to 1"),
    ],
)
def test_what_the_network_does_not_take_is_refused_before_training(images, labels, words):
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    alarm = callbacks.MaskingAlarm(images, labels, epsilon=EPSILON)
    with pytest.raises(ValueError, match=words):
        build().fit(IMAGES, LABELS, verbose=0, callbacks=[count, alarm])
    assert not steps


@pytest.mark.parametrize(
    "change, words",
    [
        ({"images": np.uint8(IMAGES)}, "images has dtype uint8; allowed: floating point in .0, 1."),
        ({"images": IMAGES[:, :3]}, "images has images of shape .3, 4, 1.; the network takes .4, 4, 1."),
        ({"labels": LABELS + 1}, "labels has values from 1 to 2; allowed: integers from 0 to 1"),
        ({"attack": "pgd"}, "attack is 'pgd'; allowed: None, or a function of network, x and y"),
        ({"attack": functools.partial(tf_nuat.attacks.pgd, steps=3)}, "epsilon is not given; allowed: a number"),
        ({"attack": functools.partial(tf_nuat.attacks.fgsm, epsilon=0.1, step=3)}, "argument of fgsm is 'step'"),
        ({"path": "best"}, "path is 'best'; allowed: None, or a name that ends in .keras"),
        ({"path": "/proc/no/best.keras"}, "folder of path is '/proc/no', which cannot be written"),
        ({"best": None}, "best is None; allowed: a number"),
        ({"batch_size": 0}, "batch_size is 0; allowed: a whole number, at least 1"),
    ],
)
def test_robust_validation_refuses_before_training(change, words):
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    with pytest.raises(ValueError, match=words):
        keep = callbacks.RobustValidation(**{"images": IMAGES, "labels": LABELS, "attack": None, **change})
        build().fit(IMAGES, LABELS, verbose=0, callbacks=[count, keep])
    assert not steps


def test_robust_validation_makes_its_folder(tmp_path):
    keep = callbacks.RobustValidation(IMAGES, LABELS, None, path=str(tmp_path / "new" / "best.keras"))
    build().fit(IMAGES, LABELS, verbose=0, callbacks=[keep])
    assert (tmp_path / "new" / "best.keras").exists()


def test_a_monitor_that_is_not_logged_is_named(tmp_path):
    keep = callbacks.RobustValidation(IMAGES, LABELS, None, path=tmp_path / "network.keras", monitor="val_magic")
    with pytest.raises(ValueError, match="monitor is 'val_magic'; allowed: None, .*val_robust_accuracy"):
        build().fit(IMAGES, LABELS, verbose=0, callbacks=[keep])
    assert not (tmp_path / "network.keras").exists()


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_early_stopping_follows_robust_validation(ema_decay, monkeypatch, tmp_path):
    """Prescribed accuracies; with patience 2, training ends two epochs after the best, whose network it restores."""
    accuracies = [0.2, 0.6, 0.4, 0.5, 0.9]
    prescribed = iter(accuracies)
    monkeypatch.setattr(evaluate, "accuracy", lambda *_, **__: next(prescribed))
    images = np.random.default_rng(0).uniform(size=IMAGES.shape).astype(np.float32)
    inputs = keras.Input(images.shape[1:])
    model = tf_nuat.Standard(
        keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs))), epsilon=0.1, ema_decay=ema_decay
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    keep = callbacks.RobustValidation(images, LABELS, None, path=tmp_path / "network.keras")
    stop = keras.callbacks.EarlyStopping(
        monitor="val_robust_accuracy", mode="max", patience=2, restore_best_weights=True
    )
    weights = []
    last = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: weights.append(model.network.get_weights()[0]))
    history = model.fit(images, LABELS, epochs=5, verbose=0, callbacks=[keep, stop, last]).history
    assert history["val_robust_accuracy"] == accuracies[:4]
    best = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    for restored, kept in zip(model.network.get_weights(), best.get_weights()):
        np.testing.assert_array_equal(restored, kept)
    np.testing.assert_array_equal(best.get_weights()[0], weights[1])
    assert np.any(weights[3] != weights[1])
