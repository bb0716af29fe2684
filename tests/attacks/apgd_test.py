"""APGD against closed forms, and against the published algorithm written a second time."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.recorded import Recorded, minimal_distance
from tf_nuat import losses, norms
from tf_nuat.attacks import apgd, apgd_steps

SHAPE = (4, 4, 2)
CLASSES = 5
ATTACKS = {"ce": apgd.apgd_ce, "dlr": apgd.apgd_dlr, "t": apgd.apgd_t}
FEW = {"ce": {"steps": 6, "restarts": 2}, "dlr": {"steps": 6, "restarts": 2}, "t": {"steps": 6, "targets": 3}}
BOTH = [(name, norm) for name in ATTACKS for norm in norms.NORMS]


def images(size=16, low=0.0, high=1.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, size=(size, *SHAPE)).astype(np.float32)


def lengths(difference, norm):
    flat = np.reshape(difference, (len(difference), -1))
    return np.abs(flat).max(axis=1) if norm == "linf" else np.linalg.norm(flat, axis=1)


def margins(logits_fn, x, y):
    return losses.margin(logits_fn(tf.constant(x, tf.float32)), tf.constant(y)).numpy()


@pytest.fixture(scope="module")
def network():
    generator = np.random.default_rng(1)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="tanh"),
            keras.layers.Dense(CLASSES),
        ]
    )
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def labelled(network):
    """Images, and the classes that the network gives them."""
    x = images()
    return x, network(x).numpy().argmax(axis=1)


# The losses.


def ratio(z, y, target=None):
    """The losses of an example by their definitions, with a sort."""
    ordered = np.sort(z)[::-1]
    if target is None:
        return -(z[y] - np.max(np.delete(z, y))) / (ordered[0] - ordered[2])
    return -(z[y] - z[target]) / (ordered[0] - 0.5 * (ordered[2] + ordered[3]))


@pytest.mark.parametrize("one_hot", [False, True])
def test_the_ratios_are_those_of_the_definitions(one_hot):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(64, CLASSES)).astype(np.float32)
    y, targets = generator.integers(0, CLASSES, (2, 64))
    labels = tf.constant(np.eye(CLASSES, dtype=np.float32)[y] if one_hot else y)
    found = losses.dlr(logits, labels), losses.targeted_dlr(logits, labels, targets)
    np.testing.assert_allclose(found[0], [ratio(z, *other) for z, *other in zip(logits, y)], rtol=1e-4)
    np.testing.assert_allclose(found[1], [ratio(z, *other) for z, *other in zip(logits, y, targets)], rtol=1e-4)
    for scale, shift in (1000.0, 0.0), (0.01, -3.0):
        moved = scale * logits + shift
        np.testing.assert_allclose(losses.dlr(moved, labels), found[0], rtol=2e-3)
        np.testing.assert_allclose(losses.targeted_dlr(moved, labels, targets), found[1], rtol=2e-3, atol=1e-3)


def test_equal_logits_have_finite_ratios():
    logits = tf.Variable(tf.zeros((2, CLASSES)))
    with tf.GradientTape() as tape:
        value = losses.dlr(logits, tf.constant([0, 1])) + losses.targeted_dlr(
            logits, tf.constant([0, 1]), tf.constant([1, 2])
        )
    np.testing.assert_array_equal(value, 0.0)
    assert np.all(np.isfinite(tape.gradient(value, logits)))


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


# Closed forms.


def two_of_four(direction):
    """Logits a, -a and two far below, with a linear: the ratios and the cross-entropy are monotonous in a."""

    def logits_fn(x):
        a = tf.reduce_sum((x - 0.5) * direction, axis=(1, 2, 3))
        return tf.stack([a, -a, tf.fill(tf.shape(a), -30.0), tf.fill(tf.shape(a), -31.0)], axis=1)

    return logits_fn


@pytest.mark.parametrize("name, norm", BOTH)
def test_fools_a_linear_network_from_its_smallest_distance_on(name, norm):
    """At 1.001 times that distance every image, at 0.999 times none."""
    direction = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    # Pixels on the border of [0, 1] are in play in L-infinity. In L2 they change which point is the best.
    x = np.round(images(), 1) if norm == "linf" else images(low=0.35, high=0.65)
    logits_fn = two_of_four(direction)
    y = logits_fn(x).numpy().argmax(axis=1)
    attack, found = functools.partial(ATTACKS[name], logits_fn, steps=100, norm=norm), 0
    for image, label, margin in zip(x, y, margins(logits_fn, x, y)):
        rise = -margin.astype(np.float64) / 2
        if norm == "l2" and rise * np.max(np.abs(direction)) > 0.34 * np.sum(direction**2):
            continue  # the border is in the way
        distance = minimal_distance(direction if label == 1 else -direction, rise, image, norm)
        for factor in (0.999, 1.001):
            x_adv = attack(image[None], label[None], epsilon=factor * distance).numpy()
            assert (margins(logits_fn, x_adv, label[None]) > 0) == (factor > 1), (distance, margin)
            if factor < 1:
                np.testing.assert_array_equal(x_adv[0], image)
        found += 1
    assert found > 8


def test_images_that_the_network_does_not_know_need_no_target(network, labelled):
    x, y = labelled
    wrong = np.where(np.arange(16) < 4, (y + 1) % CLASSES, y)
    x_adv = apgd.apgd_t(network, x, wrong, epsilon=0.3, steps=6).numpy()
    np.testing.assert_array_equal(x_adv[:4], x[:4])
    assert np.any(x_adv[4:] != x[4:])


# The algorithm, written a second time.


def gradient_by_hand(network, x, y, loss):
    """Returns the gradient of the cross-entropy or of the ratio at an image, in float64, for logits W2 tanh(W1 x)."""
    first, first_bias, second, second_bias = (weight.astype(np.float64) for weight in network.get_weights())
    hidden = np.tanh(x.ravel() @ first + first_bias)
    z, unit = hidden @ second + second_bias, np.eye(CLASSES)
    if loss == "ce":
        to_logits = np.exp(z - z.max()) / np.exp(z - z.max()).sum() - unit[y]
    else:
        order = np.argsort(-z)
        spread, other = z[order[0]] - z[order[2]], order[order != y][0]
        to_logits = (unit[other] - unit[y] - (z[other] - z[y]) / spread * (unit[order[0]] - unit[order[2]])) / spread
    return (first @ ((second @ to_logits) * (1 - hidden**2))).reshape(x.shape)


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
def test_takes_the_steps_of_the_published_algorithm(name, norm, epsilon, steps, network, labelled):
    """Until it meets an adversary, which it returns."""
    x, y = labelled
    recorded = Recorded(network)
    x_adv = ATTACKS[name](recorded, x, y, epsilon=epsilon, steps=steps, seed=4, norm=norm).numpy()
    assert len(recorded.seen) == steps + 1 and recorded.returned == steps
    seen = np.stack(recorded.seen, axis=1)  # (images, steps + 1, H, W, C)
    loss = losses.cross_entropy if name == "ce" else losses.dlr
    values = np.stack([loss(network(batch), tf.constant(y)) for batch in recorded.seen], axis=1)
    fooled = np.stack([margins(network, batch, y) > 0 for batch in recorded.seen], axis=1)
    halvings = []
    for i in range(len(x)):
        last = int(np.argmax(fooled[i])) if np.any(fooled[i]) else steps
        gradient_at = functools.partial(gradient_by_hand, network, y=y[i], loss=name)
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


@pytest.mark.parametrize("norm", norms.NORMS)
def test_starts_at_random_on_the_sphere(norm, network):
    x = images(64, low=0.4, high=0.6)
    recorded = Recorded(network)
    apgd.apgd_ce(recorded, x, np.zeros(64, int), epsilon=0.1, steps=1, norm=norm)
    offset = recorded.seen[0] - x
    np.testing.assert_allclose(lengths(offset, norm), 0.1, atol=1e-6)
    assert abs(offset.mean()) < 0.005 and np.all(np.abs(np.corrcoef(offset.reshape(64, -1)) - np.eye(64)) < 0.8)


# What is returned.


@pytest.mark.parametrize("name, norm", BOTH)
def test_is_in_the_ball_and_fools_the_network_or_is_clean(name, norm, network, labelled):
    x, y = labelled
    x = np.round(x, 1)
    for epsilon in (0.05, 2.0):
        x_adv = ATTACKS[name](network, x, y, epsilon=epsilon, norm=norm, **FEW[name]).numpy()
        assert np.all(lengths(x_adv - x, norm) <= epsilon + 1e-6) and x_adv.min() >= 0.0 and x_adv.max() <= 1.0
        fooled = margins(network, x_adv, y) > 0
        np.testing.assert_array_equal(x_adv[~fooled], x[~fooled])
        assert np.any(fooled)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_seed_repeats_itself_and_another_does_not(name, network, labelled):
    attack = functools.partial(ATTACKS[name], network, *labelled, epsilon=0.6, norm="l2", **FEW[name])
    np.testing.assert_array_equal(attack(seed=1), attack(seed=1))
    assert np.mean(np.abs(attack(seed=1) - attack(seed=2)) > 1e-6) > 0.1


@pytest.mark.parametrize("name", ATTACKS)
def test_one_hot_labels_do_what_integers_do(name, network, labelled):
    x, y = labelled
    attack = functools.partial(ATTACKS[name], network, x, epsilon=0.2, **FEW[name])
    np.testing.assert_array_equal(attack(y), attack(np.eye(CLASSES, dtype=np.float32)[y]))


@pytest.mark.parametrize("name, norm", BOTH)
def test_neighbours_make_no_difference(name, norm, network, labelled):
    """Beside neighbours that need more ascents, or none, the first image has the same result."""
    x, y = labelled
    epsilon = 0.1 if norm == "linf" else 0.4
    settings = {"epsilon": epsilon, "steps": 5, "norm": norm, **({"restarts": 4} if name != "t" else {"targets": 4})}
    alone = ATTACKS[name](network, x, y, **settings).numpy()
    wrong = np.where(np.arange(16) % 2 == 0, y, (y + 1) % CLASSES)
    beside = ATTACKS[name](
        network, np.where(np.arange(16)[:, None, None, None] % 2 == 0, x, x[::-1]), wrong, **settings
    )
    np.testing.assert_allclose(alone[::2], beside[::2], atol=1e-6)
    assert np.any(alone[::2] != x[::2])


@pytest.mark.parametrize("name", ATTACKS)
def test_ascents_end_where_all_are_fooled(name, network, labelled):
    """A gradient a step, and one more for the logits of the last point of an ascent that another follows."""
    x, y = labelled
    clean = 1 if name == "t" else 0  # the forward that ranks the targets
    many = {"t": {"targets": 3, "restarts": 2}}.get(name, {"restarts": 6})
    recorded = Recorded(network)
    x_adv = ATTACKS[name](recorded, x, y, epsilon=1e-4, steps=8, **many).numpy()
    np.testing.assert_array_equal(x_adv, x)
    assert recorded.returned == 5 * 9 + 8 and len(recorded.seen) == recorded.returned + clean + 1
    recorded.seen.clear()
    recorded.returned = 0
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


@pytest.mark.parametrize("name", ATTACKS)
def test_more_restarts_fool_the_same_and_more(name):
    """Ripples on a slope: where a short ascent of large steps ends depends on its start."""
    directions = np.random.default_rng(5).normal(size=(32, CLASSES - 1)).astype(np.float32)

    def logits_fn(x):
        along = tf.reshape(x - 0.5, (-1, 32)) @ directions
        wrong = along + 0.7 * tf.sin(30.0 * along)
        return tf.concat([tf.fill((tf.shape(x)[0], 1), 4.0), wrong], axis=1)

    x, y = images(64), np.zeros(64, int)
    settings = {"epsilon": 0.05, "steps": 3, "seed": 2}
    once, often = (margins(logits_fn, ATTACKS[name](logits_fn, x, y, restarts=n, **settings), y) > 0 for n in (1, 8))
    assert np.all(often >= once) and np.any(often & ~once)


@pytest.mark.parametrize("name", ATTACKS)
def test_networks_without_gradients_or_numbers_leave_the_images_clean(name, network, labelled):
    x, y = labelled
    first_half = (tf.range(16) < 8)[:, None]

    def logits_fn(x):
        return tf.where(first_half, tf.round(0.01 * network(x)), float("nan"))

    np.testing.assert_array_equal(ATTACKS[name](logits_fn, x, y, epsilon=0.2, **FEW[name]), x)


@pytest.mark.parametrize("name", ATTACKS)
def test_one_image_without_numbers_does_not_disturb_the_others(name, network, labelled):
    x, y = labelled
    first = (tf.range(16) == 0)[:, None]
    attack = functools.partial(ATTACKS[name], x=x, y=y, epsilon=0.2, **FEW[name])
    x_adv = attack(lambda x: tf.where(first, float("nan"), network(x))).numpy()
    np.testing.assert_array_equal(x_adv[0], x[0])
    np.testing.assert_allclose(x_adv[1:], attack(network)[1:], atol=1e-5)


@pytest.mark.parametrize("name", ATTACKS)
def test_epsilon_0_returns_the_images(name, network, labelled):
    x, y = labelled
    wrong = np.where(np.arange(16) < 4, (y + 1) % CLASSES, y)
    attack = tf.function(functools.partial(ATTACKS[name], network, epsilon=0.0, **FEW[name]), autograph=False)
    np.testing.assert_array_equal(attack(tf.constant(x), tf.constant(wrong)), x)


@pytest.mark.parametrize("name", ATTACKS)
def test_other_settings_do_not_compile_again(name, network, labelled):
    traces = []

    def logits_fn(x):
        traces.append(1)
        return network(x)

    attack = functools.partial(ATTACKS[name], logits_fn, *labelled)
    attack(epsilon=0.1, **FEW[name])
    before = len(traces)
    attack(epsilon=0.2, steps=3, restarts=1, seed=3)
    attack(epsilon=0.3, steps=2, restarts=3, seed=4)
    assert 0 < before == len(traces)


@pytest.mark.parametrize(
    "settings, words",
    [({"steps": 0}, "steps is 0"), ({"restarts": 0}, "restarts is 0"), ({"norm": "l0"}, "norm is 'l0'; allowed")],
)
def test_bad_settings_are_named(settings, words, network, labelled):
    for attack in ATTACKS.values():
        with pytest.raises(ValueError, match=words) as raised:
            attack(network, *labelled, **{"epsilon": 0.1, **settings})
        assert "\n" not in str(raised.value)


def test_a_number_of_targets_below_1_is_named(network, labelled):
    with pytest.raises(ValueError, match="targets is 0; allowed: a whole number, at least 1"):
        apgd.apgd_t(network, *labelled, epsilon=0.1, targets=0)


@pytest.mark.parametrize("name", ["ce", "dlr"])
def test_the_mean_of_passes_sees_through_noise(name, network, labelled):
    """Noise on the pixels hides the gradient of a single pass; the mean over passes fools what that does not."""
    x, y = labelled
    counter = tf.Variable(0)

    def noisy(x):
        draw = tf.random.stateless_normal(tf.shape(x), tf.stack([counter.assign_add(1), 0]))
        return network(x + 1.5 * draw)

    fooled = [
        np.mean(margins(network, ATTACKS[name](noisy, x, y, epsilon=0.12, steps=15, passes=passes), y) > 0)
        for passes in (1, 30)
    ]
    assert fooled[1] > 0.2 and fooled[1] >= 2.5 * fooled[0]


def test_one_pass_or_several_of_a_network_that_draws_nothing_are_the_same(network, labelled):
    attack = functools.partial(apgd.apgd_ce, network, *labelled, epsilon=0.1, steps=8)
    np.testing.assert_allclose(attack(passes=3), attack(), atol=1e-4)
    with pytest.raises(ValueError, match="passes is 0; allowed: a whole number, at least 1"):
        attack(passes=0)
