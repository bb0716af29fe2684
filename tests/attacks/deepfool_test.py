"""DeepFool against closed forms, its step written a second time, and a search for the nearest adversary."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import nearest, networks
from tests.helpers.images import SHAPE, classes_of, images, lengths, margins
from tests.helpers.networks import CLASSES
from tests.helpers.recorded import Recorded
from tf_nuat.attacks.deepfool import deepfool

# The distance.


@pytest.mark.parametrize("classes", [3, 7])
def test_comes_within_one_percent_of_the_distance_of_a_linear_network(classes):
    x = images(64, low=0.4, high=0.6)
    kernel, logits_fn = networks.linear(classes)
    y = logits_fn(x).numpy().argmax(axis=1)
    shortest = nearest.of_linear(kernel, logits_fn(x), y)
    assert shortest.max() < 0.3 and np.sum(shortest > 0.02) > 30
    x_adv = deepfool(logits_fn, x, y).numpy()
    assert np.all(margins(logits_fn, x_adv, y) > 0)
    measured = lengths(x_adv - x)
    assert np.all(measured >= 0.9999 * shortest)
    assert np.all(measured <= np.maximum(1.01 * shortest, 1.01e-4))


@pytest.mark.parametrize("overshoot", [0.0, 0.02, 0.3])
def test_goes_as_much_too_far_as_it_is_told(overshoot):
    x = images(64, low=0.4, high=0.6)
    kernel, logits_fn = networks.linear(CLASSES)
    y = logits_fn(x).numpy().argmax(axis=1)
    shortest = nearest.of_linear(kernel, logits_fn(x), y)
    long = shortest > 0.02
    expected = (1 + overshoot) * shortest[long]
    # Without overshoot rounding may ask for a second step, the shortest there is.
    measured = lengths(deepfool(logits_fn, x, y, overshoot=overshoot) - x)[long]
    np.testing.assert_allclose(measured, expected, rtol=1e-4, atol=0 if overshoot else 1.1e-4)


def test_few_steps_suffice_within_the_box():
    """Most pixels are on the border, or so near that they reach it, and it knows which."""
    kernel, logits_fn = networks.linear(2)
    x = np.clip(images(64, low=-0.6, high=1.6), 0, 1)
    y = classes_of(logits_fn, x)
    towards = (kernel[:, 1] - kernel[:, 0]).reshape(SHAPE) * np.where(y == 0, 1, -1)[:, None, None, None]
    shortest = nearest.distances(x, towards, -margins(logits_fn, x, y), "l2")
    assert np.mean(shortest > 1.05 * nearest.of_linear(kernel, logits_fn(x), y)) > 0.7
    x_adv = deepfool(logits_fn, x, y, steps=3).numpy()
    assert np.all(margins(logits_fn, x_adv, y) > 0) and x_adv.min() >= 0 and x_adv.max() <= 1
    ratio = lengths(x_adv - x) / shortest
    assert ratio.min() > 0.9999 and ratio.max() < 1.01


def test_comes_close_to_the_distance_of_a_curved_network():
    """It is a walk to the boundary, not along it."""
    model = networks.drawn((1, 3, 1), 3, 6, seed=3)
    logits_of = networks.Exact(model).logits
    x = images(20, shape=(1, 3, 1))
    points = x.reshape(20, 3)
    y = logits_of(points).argmax(axis=1)
    shortest = nearest.by_search(logits_of, points, y)
    x_adv = deepfool(model, x, y).numpy()
    fooled = margins(model, x_adv, y) > 0
    ratio = lengths(x_adv - x) / shortest
    assert np.all(fooled)
    assert ratio.min() > 0.9999 and np.median(ratio) < 1.05 and ratio.max() < 1.7


# The step.


def published(exact, x, y, overshoot):
    """Returns all iterates of an image by the algorithm of the paper, in float64."""
    total, iterates = np.zeros(x.size), []
    while len(iterates) < 50:
        iterates.append(x.ravel() + (1 + overshoot) * total)
        z, jacobian = exact.logits(iterates[-1]), exact.jacobian(iterates[-1])
        if z.argmax() != y:
            break
        wrong = np.delete(np.arange(CLASSES), y)
        w, f = (jacobian[:, wrong] - jacobian[:, [y]]).T, z[wrong] - z[y]
        distances = np.abs(f) / np.linalg.norm(w, axis=1)
        nearest_one = distances.argmin()
        total += max(distances[nearest_one], 1e-4) * w[nearest_one] / np.linalg.norm(w[nearest_one])
    return np.array(iterates)


def test_takes_the_steps_of_the_paper_away_from_the_border(network, recorded):
    x = images(low=0.4, high=0.6)
    y = classes_of(network, x)
    x_adv = deepfool(recorded, x, y, overshoot=0.02).numpy()
    exact, steps = networks.Exact(network), []
    for i in range(len(x)):
        expected = published(exact, x[i], y[i], 0.02)
        assert expected.min() > 0 and expected.max() < 1
        seen = np.stack([batch[i].ravel() for batch in recorded.seen[: len(expected)]])
        np.testing.assert_allclose(seen, expected, atol=1e-5)
        np.testing.assert_allclose(x_adv[i].ravel(), expected[-1], atol=1e-5)
        steps.append(len(expected) - 1)
    assert len(set(steps)) > 1
    # A forward for each iterate of the slowest image, the last one's without gradients, and one that judges the result.
    assert len(recorded.seen) == max(steps) + 2 and recorded.returned == max(steps) * (CLASSES - 1)


def test_considers_the_classes_with_the_highest_logits():
    """The class that is second by its logit is nearer than the first, and the third nearest of all."""
    x = np.full((1, *SHAPE), 0.5, np.float32)
    scales = np.array([0.5, 4.0, 50.0], np.float32)

    def logits_fn(x):
        own = tf.reduce_sum(x - 0.5, axis=(2, 3))[:, :3]  # a row of 8 pixels for each wrong class
        return tf.concat([tf.zeros((tf.shape(x)[0], 1)), own * scales - [0.1, 0.2, 0.3]], axis=1)

    for classes, row in (2, 0), (3, 1), (4, 2), (10, 2):
        change = (deepfool(logits_fn, x, np.array([0]), classes=classes) - x).numpy()
        expected = 1.005 * np.array([0.1, 0.2, 0.3])[row] / scales[row] / 8
        np.testing.assert_allclose(change[0, row], expected, rtol=1e-4)
        np.testing.assert_array_equal(np.delete(change[0], row, axis=0), 0.0)


# What is returned.


def test_epsilon_keeps_the_adversaries_within_it_and_no_others(network, labelled):
    x, y = labelled
    anywhere = deepfool(network, x, y).numpy()
    distances = lengths(anywhere - x)
    for epsilon in np.quantile(distances, [0.31, 0.77]):
        x_adv = deepfool(network, x, y, epsilon=float(epsilon)).numpy()
        near = (distances <= epsilon)[:, None, None, None]
        np.testing.assert_allclose(x_adv, np.where(near, anywhere, x), atol=1e-6)
    np.testing.assert_array_equal(deepfool(network, x, y, epsilon=0.0), x)


def test_the_point_after_the_last_step_is_looked_at(network):
    """Where the network is linear one step suffices."""
    x = images(low=0.4, high=0.6)
    _, logits_fn = networks.linear(CLASSES)
    y = logits_fn(x).numpy().argmax(axis=1)
    assert np.all(margins(logits_fn, deepfool(logits_fn, x, y, steps=1), y) > 0)
    y = network(x).numpy().argmax(axis=1)
    once, often = (deepfool(network, x, y, steps=steps).numpy() for steps in (1, 50))
    fooled = margins(network, once, y) > 0
    assert 0 < np.sum(fooled) < len(x)
    np.testing.assert_array_equal(once[~fooled], x[~fooled])
    np.testing.assert_allclose(once[fooled], often[fooled], atol=1e-6)


def test_a_misclassified_image_is_returned_as_it_is(network, labelled):
    x, y = labelled
    wrong = np.where(np.arange(16) < 4, (y + 1) % CLASSES, y)
    x_adv = deepfool(network, x, wrong).numpy()
    np.testing.assert_array_equal(x_adv[:4], x[:4])
    np.testing.assert_allclose(x_adv[4:], deepfool(network, x, y)[4:], atol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_scale_of_the_logits_makes_no_difference(scale, network, labelled):
    x, y = labelled
    np.testing.assert_allclose(deepfool(lambda x: scale * network(x), x, y), deepfool(network, x, y), atol=1e-3)


def test_networks_without_gradients_or_numbers_leave_the_images_clean(network, labelled):
    x, y = labelled
    for logits_fn in (lambda x: tf.round(0.01 * network(x)), lambda x: network(x) * float("nan")):
        recorded = Recorded(logits_fn)
        np.testing.assert_array_equal(deepfool(recorded, x, y), x)
        assert len(recorded.seen) == 2  # nothing is in sight after one step


def test_is_traced_once_for_any_number_of_images_and_classes(network, labelled):
    x, y = labelled
    traces = []

    @tf.function(
        input_signature=[tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int32)]
    )
    def attack(x, y, classes):
        traces.append(1)
        return deepfool(lambda x: network(x)[:, CLASSES - classes :], x, y - tf.cast(CLASSES - classes, y.dtype))

    for size, classes in (1, 5), (16, 5), (5, 3):
        dropped = CLASSES - classes
        assert y[:size].min() >= dropped
        expected = deepfool(lambda x, dropped=dropped: network(x)[:, dropped:], x[:size], y[:size] - dropped)
        np.testing.assert_allclose(attack(x[:size], y[:size], classes), expected, atol=1e-5)
    assert len(traces) == 1


def test_those_that_are_done_stay_as_they_are(network, labelled):
    """Whatever steps the others in a batch still need."""
    x, y = tf.constant(labelled[0]), tf.constant(labelled[1])
    settings = deepfool.as_tensors({"epsilon": 0.3})
    search = deepfool.search(network, x, y, settings, tf.range(16))
    state = search.first()
    for _ in range(8):
        before, state = state, search.step(state)
        done = (before.fooled | before.spent).numpy()
        for name in ("x_adv", "fooled", "spent"):
            np.testing.assert_array_equal(getattr(before, name)[done], getattr(state, name)[done])
        assert np.all(lengths(state.x_adv - x) <= 0.3)
    assert np.all(done) and np.any(before.fooled) and np.any(before.spent)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"overshoot": -1.0}, "overshoot is -1.0; allowed: a number at least 0"),
        ({"classes": 1}, "classes is 1; allowed: a whole number, at least 2"),
    ],
)
def test_bad_settings_are_named(settings, words, network, labelled):
    with pytest.raises(ValueError, match=words):
        deepfool(network, *labelled, **settings)
