"""PGD, along each of its losses, against steps computed by hand."""

import functools

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tests.helpers import networks
from tests.helpers.images import SHAPE, images, lengths, margins
from tests.helpers.networks import CLASSES
from tests.helpers.recorded import Recorded, constant, reluctant
from tests.helpers.small import Remainder, before
from tf_nuat import evaluate, norms
from tf_nuat.attacks.pgd import LOSSES, pgd
from tf_nuat.attacks.pgd_cw import pgd_cw
from tf_nuat.core import threefry

NORMS = ("linf", "l2")


def antisymmetric():
    """Two classes, whose logits are a and -a with a linear: the direction of every loss's slope is that of a's."""
    model = networks.drawn(classes=2, hidden=0)
    kernel, bias = model.get_weights()
    model.set_weights([kernel * [1, 0] - kernel[:, :1] * [0, 1], bias * 0])
    return model


@pytest.mark.parametrize("norm", NORMS)
def test_steps_have_the_length_of_the_step_size(norm):
    linear, x, y = antisymmetric(), images(low=0.4, high=0.6), np.arange(16) % 2
    recorded = Recorded(reluctant(linear, y))
    pgd(recorded, x, y, epsilon=0.1, step_size=0.03, steps=5, random_start=False, norm=norm)
    slope = (linear.get_weights()[0] @ [-1, 1]).reshape(SHAPE)
    steepest = np.sign(slope) if norm == "linf" else slope / np.linalg.norm(slope)
    steepest = steepest * np.where(y == 0, 1, -1)[:, None, None, None]
    for taken, seen in enumerate(recorded.seen):
        np.testing.assert_allclose(seen, x + min(0.03 * taken, 0.1) * steepest, atol=1e-6)
    assert len(recorded.seen) == 6


def test_an_operation_for_which_tensorflow_has_no_gradient_is_named():
    network = before(networks.drawn(), Remainder())
    x = images()
    y = np.argmax(network(x), axis=1)
    with pytest.raises(ValueError, match="^network uses Mod, for which TensorFlow has no gradient; allowed: "):
        pgd(network, x, y, epsilon=0.1, steps=1)
    with pytest.raises(ValueError, match="^network uses Mod, "):  # compiled, it is a graph that lacks the gradient
        evaluate.correct(network, (x, y), functools.partial(pgd, epsilon=0.1, steps=1))


# Steps by hand.


def loss_gradient(loss, z, y, clean, target):
    """Returns the gradient of a loss with respect to the logits z of one image."""
    unit, order = np.eye(len(z)), np.argsort(-z)
    other = order[order != y][0]
    if target is not None:
        return unit[target] - scipy.special.softmax(z)
    if loss == "ce":
        return scipy.special.softmax(z) - unit[y]
    if loss == "kl":
        return scipy.special.softmax(z) - scipy.special.softmax(clean)
    to_margin = unit[other] - unit[y]
    if loss == "margin":
        return to_margin
    spread = z[order[0]] - z[order[2]]
    return (to_margin - (z[other] - z[y]) / spread * (unit[order[0]] - unit[order[2]])) / spread


def step_by_hand(exact, at, x, y, loss, target, epsilon, size, norm):
    """Returns an image after a step, and which of its pixels are beyond rounding, in float64."""
    z, clean = (exact.logits(image.ravel()) for image in (at, x))
    gradient = exact.gradient(at, loss_gradient(loss, z, y, clean, target))
    if norm == "linf":
        moved = np.clip(np.clip(at + size * np.sign(gradient), x - epsilon, x + epsilon), 0, 1)
        return moved, np.abs(gradient) > 1e-3 * np.abs(gradient).max()
    if np.linalg.norm(gradient) < 1e-5:
        return at, np.full(x.shape, False)
    moved = at + size * gradient / np.linalg.norm(gradient)
    return np.clip(x + (moved - x) * min(1.0, epsilon / np.linalg.norm(moved - x)), 0, 1), np.full(x.shape, True)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", [*LOSSES, "target"])
def test_takes_the_steps_of_the_algorithm_until_it_has_an_adversary(loss, norm, network, recorded, labelled):
    x, y = labelled
    epsilon, steps = (0.05, 8) if norm == "linf" else (0.25, 8)
    target = np.argsort(network(x), axis=1)[:, -2] if loss == "target" else None
    settings = {"target": target} if loss == "target" else {"loss": loss}
    x_adv = pgd(recorded, x, y, epsilon=epsilon, steps=steps, seed=3, norm=norm, **settings).numpy()
    clean = int(loss == "kl")
    assert len(recorded.seen) == steps + 1 + clean and recorded.returned == steps
    on_the_way = recorded.on_the_way(x) if clean else recorded.seen
    seen = np.stack(on_the_way, axis=1).astype(np.float64)
    found = np.stack([margins(network, batch, y) > 0 for batch in on_the_way], axis=1)
    assert 2 < np.sum(found[:, -1]) < 14  # some are fooled, some are not
    exact, certain = networks.Exact(network), []
    for i, image in enumerate(x):
        last = int(np.argmax(found[i])) if np.any(found[i]) else steps
        for taken in range(last):
            own_target = None if target is None else target[i]
            step = step_by_hand(
                exact, seen[i, taken], image, y[i], loss, own_target, epsilon, 2.5 * epsilon / steps, norm
            )
            np.testing.assert_allclose(seen[i, taken + 1][step[1]], step[0][step[1]], atol=1e-5)
            certain.append(np.mean(step[1]))
        np.testing.assert_array_equal(seen[i, last:], np.broadcast_to(seen[i, last], seen[i, last:].shape))
        np.testing.assert_array_equal(x_adv[i], seen[i, last] if np.any(found[i]) else image)
    assert np.mean(certain) > 0.8


def test_pgd_cw_is_pgd_along_the_margin(network, labelled):
    settings = {"epsilon": 0.06, "steps": 5, "restarts": 2, "seed": 3}
    expected = pgd(network, *labelled, loss="margin", **settings)
    np.testing.assert_array_equal(pgd_cw(network, *labelled, **settings), expected)
    assert np.any(expected != labelled[0])


# Starts, restarts, what is forwarded.


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_are_draws_from_the_ball_of_which_a_gradient_more_than_steps_is_taken(norm, labelled):
    """Where the gradient is 0 an ascent stays where it starts."""
    x, y = images(low=0.4, high=0.6), np.zeros(16, int)
    recorded = Recorded(constant)
    x_adv = pgd(recorded, x, y, epsilon=0.1, steps=3, restarts=3, seed=7, norm=norm)
    np.testing.assert_array_equal(x_adv, x)
    assert len(recorded.seen) == 4 + 4 + 4 and recorded.returned == 4 + 4 + 3
    keys = threefry.keys((7, 0), np.arange(16))
    for restart in range(3):
        start = norms.of(norm).random_point(tf.constant(x), 0.1, threefry.fold_in(keys, restart))
        for seen in recorded.seen[4 * restart : 4 * restart + 4]:
            np.testing.assert_allclose(seen, start, atol=1e-6)
    assert np.all(lengths(recorded.seen[0] - recorded.seen[4], norm) > 0.01)


def test_a_start_is_that_of_the_first_ascent_alone_and_within_the_ball(labelled):
    x, y = labelled
    recorded = Recorded(constant)
    pgd(recorded, x, y * 0, epsilon=0.1, steps=1, restarts=2, start=x + 0.3, random_start=False)
    np.testing.assert_allclose(recorded.seen[0], np.clip(x + 0.1, 0, 1), atol=1e-6)
    np.testing.assert_allclose(recorded.seen[2], x, atol=1e-6)


def test_an_ascent_stops_at_the_first_adversary_and_the_batch_with_its_last(network, recorded, labelled):
    x, y = labelled
    x_adv = pgd(recorded, x, y, epsilon=1.0, steps=40, step_size=0.1, restarts=3)
    found = np.stack([margins(network, batch, y) > 0 for batch in recorded.seen])
    assert np.all(margins(network, x_adv, y) > 0)
    # The last gradient of all was taken where the last image was fooled, and a forward looks at all once more.
    assert recorded.returned == np.max(np.argmax(found, axis=0)) + 1 == len(recorded.seen) - 1
    assert 2 < recorded.returned < 30


@pytest.mark.parametrize("norm", NORMS)
def test_every_image_on_the_way_is_in_the_ball(norm, recorded, labelled):
    x, y = np.round(labelled[0], 1), labelled[1]
    for epsilon in (0.05, 2.0):
        recorded.forget()
        pgd(recorded, x, y, epsilon=epsilon, steps=5, loss="kl", restarts=2, norm=norm)
        for seen in recorded.seen:
            assert np.all(lengths(seen - x, norm) <= epsilon + 1e-6) and seen.min() >= 0.0 and seen.max() <= 1.0


def test_towards_a_target_any_other_class_is_an_adversary_too():
    """The target grows with the first pixel, and so, but faster, does a third class."""
    x, y, target = np.full((1, *SHAPE), 0.5, np.float32), np.array([0]), np.array([1])

    def logits_fn(x):
        first = x[:, 0, 0, 0] - 0.5
        return tf.stack([0.0 * first, first - 0.2, 1.2 * first - 0.1], axis=1)

    recorded = Recorded(logits_fn)
    x_adv = pgd(recorded, x, y, target=target, epsilon=0.3, steps=30, step_size=0.01, random_start=False)
    assert np.argmax(logits_fn(x_adv)) == 2 and recorded.returned == len(recorded.seen) - 1
    np.testing.assert_allclose(x_adv[0, 0, 0, 0], 0.59, atol=1e-5)  # 1.2 * 0.08 < 0.1


# Edges.


@pytest.mark.parametrize("loss", ["dlr", "kl", "margin"])
def test_along_other_losses_too_networks_without_gradients_or_numbers_leave_the_images_clean(loss, network, labelled):
    x, y = labelled[0], np.zeros(16, int)  # what both halves answer
    first_half = (tf.range(16) < 8)[:, None]

    def logits_fn(x):
        return tf.where(first_half, tf.round(0.01 * network(x)), float("nan"))

    np.testing.assert_array_equal(pgd(logits_fn, x, y, epsilon=0.2, steps=3, restarts=2, loss=loss), x)


def test_kl_without_a_random_start_stays_at_its_maximum(network, labelled):
    """The divergence of the clean prediction from itself has no slope."""
    x, y = labelled
    flat = pgd(network, x, y, epsilon=0.5, loss="kl", random_start=False)
    assert np.mean(np.any(flat.numpy() != x, axis=(1, 2, 3))) < 0.5  # rounding may move some
    assert np.mean(np.any(pgd(network, x, y, epsilon=0.5, loss="kl").numpy() != x, axis=(1, 2, 3))) > 0.6


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"loss": "cw"}, "loss is 'cw'; allowed: ce, dlr, kl, margin"),
        ({"loss": None}, "loss is None; allowed"),
        ({"target": np.full(16, CLASSES)}, "target has values from 5 to 5; allowed: integers from 0 to 4"),
        ({"target": np.full(16, -1)}, "target has values from -1 to -1"),
        ({"target": np.zeros(15, int)}, "target has 15 entries for 16 images"),
        ({"target": np.full(16, 0.5)}, r"target has shape \(16,\) and dtype float32; allowed: integers from 0 to 4"),
    ],
)
def test_bad_settings_are_named(settings, words, network, labelled):
    with pytest.raises(ValueError, match=words) as raised:
        pgd(network, *labelled, **{"epsilon": 0.1, **settings})
    assert "\n" not in str(raised.value)


def test_dlr_of_two_classes_is_named():
    with pytest.raises(ValueError, match="number of classes .DLR loss. is 2; allowed: a whole number, at least 3"):
        pgd(networks.drawn(classes=2, hidden=0), images(), np.arange(16) % 2, epsilon=0.1, loss="dlr")
