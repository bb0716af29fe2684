"""APGD against the published algorithm written a second time, and what it returns."""

import functools

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tests.helpers import networks
from tests.helpers.images import SHAPE, images, lengths, margins
from tests.helpers.networks import CLASSES
from tests.helpers.recorded import Recorded
from tf_nuat import losses
from tf_nuat.attacks import apgd, apgd_steps

ATTACKS = {"ce": apgd.apgd_ce, "dlr": apgd.apgd_dlr, "t": apgd.apgd_t}


@pytest.mark.parametrize("name, classes", [("dlr", 2), ("t", 3)])
def test_too_few_classes_are_named(name, classes):
    words = rf"number of classes .* is {classes}; allowed: a whole number, at least {classes + 1}"
    with pytest.raises(ValueError, match=words) as raised:
        ATTACKS[name](lambda x: x[:, 0, :1, 0] * tf.ones(classes), images(), np.arange(16) % classes, epsilon=0.1)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name, classes", [("ce", 2), ("dlr", 3), ("t", 4)])
def test_the_fewest_classes_do(name, classes):
    kernel = np.random.default_rng(3).normal(size=(32, classes)).astype(np.float32)

    def logits_fn(x):
        return tf.reshape(x, (-1, 32)) @ kernel

    x = images()
    y = logits_fn(x).numpy().argmax(axis=1)
    x_adv = ATTACKS[name](logits_fn, x, y, epsilon=0.5, steps=10)
    assert np.mean(margins(logits_fn, x_adv, y) > 0) > 0.8


def test_images_that_the_network_does_not_know_need_no_target(network, labelled):
    x, y = labelled
    wrong = np.where(np.arange(16) < 4, (y + 1) % CLASSES, y)
    x_adv = apgd.apgd_t(network, x, wrong, epsilon=0.3, steps=6).numpy()
    np.testing.assert_array_equal(x_adv[:4], x[:4])
    assert np.any(x_adv[4:] != x[4:])


def test_the_first_target_does_not_start_where_the_cross_entropy_did(network, labelled):
    """AutoAttack runs one after the other, on the images that withstood the first."""
    x, y = map(tf.constant, labelled)
    starts = []
    for name in "ce", "t":
        search = ATTACKS[name].search(network, x, y, {"epsilon": 0.1, "seed": 3}, None)
        starts.append(search.first().x_adv.numpy() - x)
    assert all(np.max(np.abs(start)) == pytest.approx(0.1, abs=1e-6) for start in starts)
    assert np.mean(np.abs(starts[0] - starts[1]) > 1e-3) > 0.9


# The algorithm, written a second time.


def gradient_by_hand(exact, x, y, loss):
    """Returns the gradient of the cross-entropy or of the ratio at an image, in float64."""
    z, unit = exact.logits(x.ravel()), np.eye(CLASSES)
    if loss == "ce":
        to_logits = scipy.special.softmax(z) - unit[y]
    else:
        order = np.argsort(-z)
        spread, other = z[order[0]] - z[order[2]], order[order != y][0]
        to_logits = (unit[other] - unit[y] - (z[other] - z[y]) / spread * (unit[order[0]] - unit[order[2]])) / spread
    return exact.gradient(x, to_logits)


def published(iterates, values, gradient_at, x, epsilon, norm, steps):
    """Returns where the algorithm goes from all iterates but the last, which pixels are beyond doubt, and how often it
    halves its steps.

    The iterates are those of an attack, so that no error of rounding grows from one step to the next.

    Args:
        iterates: (n + 1, H, W, C), the first of one image x.
        values: the losses there.
        gradient_at: function of an image.
        steps: how many there are to be, n or more.
    """

    def project(z):
        if norm == "linf":
            return np.clip(np.clip(z, x - epsilon, x + epsilon), 0, 1)
        return np.clip(x + (z - x) * min(1.0, epsilon / np.linalg.norm(z - x)), 0, 1)

    p = [0.0, 0.22]
    while p[-1] < 1.0:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    w = sorted({int(np.ceil(share * steps - 1e-9)) for share in p})

    size, halved, highest = 2 * epsilon, {0}, {}
    before, moved, certain = iterates[0], [np.zeros((0, *x.shape))], [np.zeros((0, *x.shape), bool)]
    for k in range(len(iterates) - 1):
        at = iterates[k]
        if k in w[1:]:
            last, best = w[w.index(k) - 1], int(np.argmax(values[: k + 1]))
            highest[k] = values[best]
            climbed = sum(values[i + 1] > values[i] for i in range(last, k))
            if climbed <= 0.75 * (k - last) or (last not in halved and highest[last] == highest[k]):
                size, at = size / 2, iterates[best]
                halved.add(k)
        gradient = gradient_at(at)
        # Rounding decides on the sign of a number that is nearly zero.
        sure = np.abs(gradient) > 1e-3 * np.abs(gradient).max() if norm == "linf" else np.full(x.shape, True)
        certain.append((sure & (np.abs(gradient).max() > 1e-6))[None])
        step = np.sign(gradient) if norm == "linf" else gradient / np.linalg.norm(gradient)
        z = project(at + size * step)
        moved.append((z if k == 0 else project(at + 0.75 * (z - at) + 0.25 * (at - before)))[None])
        before = at
    return np.concatenate(moved), np.concatenate(certain), len(halved) - 1


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.02), ("l2", 0.08)])
@pytest.mark.parametrize("name, steps", [("ce", 7), ("ce", 100), ("dlr", 100)])
def test_takes_the_steps_of_the_published_algorithm(name, norm, epsilon, steps, network, recorded, labelled):
    """Until it meets an adversary, which it returns."""
    x, y = labelled
    x_adv = ATTACKS[name](recorded, x, y, epsilon=epsilon, steps=steps, seed=4, norm=norm).numpy()
    assert len(recorded.seen) == steps + 1 and recorded.returned == steps
    seen = np.stack(recorded.seen, axis=1)  # (images, steps + 1, H, W, C)
    loss = losses.cross_entropy if name == "ce" else losses.dlr
    values = np.stack([loss(network(batch), tf.constant(y)) for batch in recorded.seen], axis=1)
    fooled = np.stack([margins(network, batch, y) > 0 for batch in recorded.seen], axis=1)
    exact, halvings = networks.Exact(network), []
    for i in range(len(x)):
        last = int(np.argmax(fooled[i])) if np.any(fooled[i]) else steps
        gradient_at = functools.partial(gradient_by_hand, exact, y=y[i], loss=name)
        moved, certain, halved = published(
            seen[i, : last + 1].astype(np.float64), values[i], gradient_at, x[i], epsilon, norm, steps
        )
        after = seen[i, 1 : last + 1]
        np.testing.assert_allclose(after[certain], moved[certain], atol=epsilon / 200, err_msg=f"image {i}")
        assert last < 7 or np.mean(certain) > 0.9
        np.testing.assert_array_equal(seen[i, last:], np.broadcast_to(seen[i, last], seen[i, last:].shape))
        np.testing.assert_array_equal(x_adv[i], seen[i, last] if np.any(fooled[i]) else x[i])
        halvings.append(halved)
    assert 0 < np.sum(fooled[:, -1]) < 12
    assert steps < 100 or max(halvings) == 8
    assert steps < 100 or norm == "linf" or len(set(halvings)) > 2  # each image has step sizes of its own


def test_checkpoints_are_those_of_the_paper():
    p = [0.0, 0.22]
    while p[-1] < 1.0:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    np.testing.assert_allclose(np.array(apgd_steps.CHECKPOINTS) / 100, p[1:-1])


def test_steps_are_halved_where_exactly_three_quarters_of_them_increased_the_loss():
    """12 of the 16 between two checkpoints, and not 13."""
    x = tf.constant(images(2))
    steps = apgd_steps.HalvedSteps(x, 0.1, 100, "linf")
    given = {"taken": tf.fill(2, 57), "checked": tf.fill(2, 41), "increases": tf.constant([12, 13])}
    _, after = steps.move(x, steps.begin(x)._replace(**given), tf.ones_like(x), tf.zeros(2))
    np.testing.assert_allclose(np.ravel(after.step_size), [0.1, 0.2], rtol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_at_random_on_the_sphere(norm, recorded):
    x = images(64, low=0.4, high=0.6)
    apgd.apgd_ce(recorded, x, np.zeros(64, int), epsilon=0.1, steps=1, norm=norm)
    offset = recorded.seen[0] - x
    np.testing.assert_allclose(lengths(offset, norm), 0.1, atol=1e-6)
    assert abs(offset.mean()) < 0.005 and np.all(np.abs(np.corrcoef(offset.reshape(64, -1)) - np.eye(64)) < 0.8)


# What is returned.


@pytest.mark.parametrize("name", ATTACKS)
def test_ascents_end_where_all_are_fooled(name, network, recorded, labelled):
    """A gradient a step, and one more for the logits of the last point of an ascent that another follows."""
    x, y = labelled
    clean = 1 if name == "t" else 0  # the forward that ranks the targets
    many = {"t": {"targets": 3, "restarts": 2}}.get(name, {"restarts": 6})
    x_adv = ATTACKS[name](recorded, x, y, epsilon=1e-4, steps=8, **many).numpy()
    np.testing.assert_array_equal(x_adv, x)
    assert recorded.returned == 5 * 9 + 8 and len(recorded.seen) == recorded.returned + clean + 1
    recorded.forget()
    x_adv = ATTACKS[name](recorded, x, y, epsilon=1.0, steps=8, **many).numpy()
    assert np.all(margins(network, x_adv, y) > 0)
    # The last gradient of all was taken where the last image was fooled, and a forward looks at all once more.
    on_the_way = recorded.on_the_way(x) if clean else recorded.seen
    found = np.argmax([margins(network, batch, y) > 0 for batch in on_the_way], axis=0)
    assert recorded.returned == np.max(found) + 1 == len(recorded.seen) - 1 - clean
    assert recorded.returned < 2 * 9


def test_targets_are_the_wrong_classes_in_the_order_of_their_logits():
    """Each class has pixels of its own, which the ascent towards it makes brighter, and those of no other."""
    x = np.full((1, *SHAPE), 0.5, np.float32)

    def logits_fn(x):
        own = tf.reduce_mean(x, axis=(2, 3))  # rows 0 to 3 speak for the classes 1 to 4
        return tf.concat([tf.fill((tf.shape(x)[0], 1), 10.0), own + [2.0, 4.0, 1.0, 3.0]], axis=1)

    recorded = Recorded(logits_fn)
    apgd.apgd_t(recorded, x, np.array([0]), epsilon=0.1, steps=1, targets=9, restarts=2)
    starts, ends = recorded.on_the_way(x)[::2], recorded.on_the_way(x)[1::2]
    assert len(starts) == len(ends) == 8  # 4 wrong classes, twice each
    # Classes with logits of rank 3 and 4 stand in the denominator as well: the target alone always gains most.
    gains = [np.mean(np.where(end[0] > start[0], 1, -1), axis=(1, 2)) for start, end in zip(starts, ends)]
    for gain, target in zip(gains, np.repeat([2, 4, 1, 3], 2)):
        assert gain[target - 1] > 0.5


def test_fewer_targets_are_the_first_of_more(network, labelled):
    x, y = labelled
    one, three = (apgd.apgd_t(network, x, y, epsilon=0.1, steps=20, targets=targets).numpy() for targets in (1, 3))
    fooled = margins(network, one, y) > 0
    np.testing.assert_allclose(three[fooled], one[fooled], atol=1e-6)
    assert np.mean(margins(network, three, y) > 0) > np.mean(fooled) > 0
    all_wrong = apgd.apgd_t(network, x, y, epsilon=0.1, steps=20, targets=CLASSES - 1)
    np.testing.assert_array_equal(apgd.apgd_t(network, x, y, epsilon=0.1, steps=20), all_wrong)


def test_a_number_of_targets_below_1_is_named(network, labelled):
    with pytest.raises(ValueError, match="targets is 0; allowed: a whole number, at least 1"):
        apgd.apgd_t(network, *labelled, epsilon=0.1, targets=0)


@pytest.mark.parametrize("name", ["ce", "dlr"])
def test_the_mean_of_iterations_sees_through_noise(name, network, labelled):
    """Noise on the pixels hides a single gradient; the mean of several fools what that does not."""
    x, y = labelled
    counter = tf.Variable(0)

    def noisy(x):
        draw = tf.random.stateless_normal(tf.shape(x), tf.stack([counter.assign_add(1), 0]))
        return network(x + 1.5 * draw)

    fooled = [
        np.mean(margins(network, ATTACKS[name](noisy, x, y, epsilon=0.12, steps=15, eot_iterations=number), y) > 0)
        for number in (1, 30)
    ]
    assert fooled[1] > 0.2 and fooled[1] >= 2.5 * fooled[0]


def test_one_iteration_or_several_of_a_network_that_draws_nothing_are_the_same(network, labelled):
    attack = functools.partial(apgd.apgd_ce, network, *labelled, epsilon=0.1, steps=8)
    np.testing.assert_allclose(attack(eot_iterations=3), attack(), atol=1e-4)
    with pytest.raises(ValueError, match="eot_iterations is 0; allowed: a whole number, at least 1"):
        attack(eot_iterations=0)
