"""The attack of Carlini and Wagner against closed forms, its descents written a second time, and a search."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from tests.helpers import nearest, networks
from tests.helpers.images import SHAPE, images, lengths, margins
from tests.helpers.networks import CLASSES
from tests.helpers.recorded import Recorded
from tf_nuat.attacks.cw import cw

FEW = {"steps": 60, "searches": 4, "initial_weight": 0.1}


# The distance.


def test_comes_within_one_percent_of_the_distance_of_a_linear_network():
    """Distances must not be too short for `step_size`, as long as which a first step of Adam is in each coordinate."""
    x = images(800, low=0.35, high=0.65)
    kernel, logits_fn = networks.linear(7)
    y = logits_fn(x).numpy().argmax(axis=1)
    shortest = nearest.of_linear(kernel, logits_fn(x), y)
    for step_size, shortest_taken in (0.01, 0.1), (0.001, 0.01):
        chosen = np.flatnonzero((shortest > shortest_taken) & (shortest < 0.3))[:32]
        x_adv = cw(logits_fn, x[chosen], y[chosen], step_size=step_size).numpy()
        assert len(chosen) == 32 and np.all(margins(logits_fn, x_adv, y[chosen]) > 0)
        ratio = lengths(x_adv - x[chosen]) / shortest[chosen]
        assert ratio.min() > 0.9999 and ratio.max() < 1.01


def test_comes_within_one_percent_of_the_distance_of_a_curved_network():
    model = networks.drawn((1, 3, 1), 3, 6, seed=3)
    logits_of = networks.Exact(model).logits
    x = images(20, shape=(1, 3, 1))
    points = x.reshape(20, 3)
    y = logits_of(points).argmax(axis=1)
    shortest = nearest.by_search(logits_of, points, y)
    x_adv = cw(model, x, y).numpy()
    assert np.all(margins(model, x_adv, y) > 0) and x_adv.min() >= 0 and x_adv.max() <= 1
    ratio = lengths(x_adv - x) / shortest
    # One comes to the second nearest of two boundaries.
    assert ratio.min() > 0.9999 and np.mean(ratio < 1.01) >= 0.9 and ratio.max() < 1.1


def test_comes_close_to_the_distance_within_the_box():
    """Pixels that are near the border reach it."""
    kernel, linear = networks.linear(2)
    logits_fn = lambda x: linear(x) + [6.0, 0.0]  # noqa: E731
    x = images(32, low=0.02, high=0.98)
    y = np.zeros(32, int)
    gap = -margins(logits_fn, x, y)
    assert gap.min() > 0
    shortest = nearest.distances(x, (kernel[:, 1] - kernel[:, 0]).reshape(SHAPE), gap, "l2")
    assert np.mean(shortest > 1.02 * nearest.of_linear(kernel, logits_fn(x), y)) > 0.5
    x_adv = cw(logits_fn, x, y).numpy()
    ratio = lengths(x_adv - x) / shortest
    assert ratio.min() > 0.9999 and ratio.max() < 1.01


def test_confidence_is_how_far_the_highest_wrong_logit_exceeds_the_true_one():
    kernel, logits_fn = networks.linear(2)
    x, confidence = images(32, low=0.4, high=0.6), 1.0
    y = logits_fn(x).numpy().argmax(axis=1)
    x_adv = cw(logits_fn, x, y, confidence=confidence, step_size=0.003, steps=300, searches=6).numpy()
    assert np.all(margins(logits_fn, x_adv, y) > confidence)
    shortest = (confidence - margins(logits_fn, x, y)) / np.linalg.norm(kernel[:, 1] - kernel[:, 0])
    np.testing.assert_allclose(lengths(x_adv - x), shortest, rtol=0.01)


def test_comes_within_one_percent_of_the_distance_of_a_target():
    """The nearest point where a linear network says the target, not merely no longer y."""
    kernel, logits_fn = networks.linear(4)
    x = images(24, low=0.4, high=0.6)
    z = np.float64(logits_fn(x))
    y = z.argmax(axis=1)
    target = (y + 1 + np.arange(24) % 3) % 4
    x_adv = cw(logits_fn, x, y, target=target, step_size=0.001, initial_weight=0.01, searches=6).numpy()
    np.testing.assert_array_equal(logits_fn(x_adv).numpy().argmax(axis=1), target)
    for i in range(24):
        others = np.delete(np.arange(4), target[i])
        ahead, needed = np.float64(kernel[:, [target[i]]] - kernel[:, others]).T, z[i, others] - z[i, target[i]]
        least = scipy.optimize.minimize(
            lambda change: change @ change,
            np.linalg.pinv(ahead) @ needed,
            jac=lambda change: 2 * change,
            constraints={
                "type": "ineq",
                "fun": lambda change, ahead=ahead, needed=needed: ahead @ change - needed,
                "jac": lambda change, ahead=ahead: ahead,
            },
            method="SLSQP",
        )
        assert least.success and np.abs(least.x).max() < 0.4
        np.testing.assert_allclose(lengths(x_adv - x)[i], np.sqrt(least.fun), rtol=0.01)


def test_the_true_class_as_a_target_returns_the_images(network, labelled):
    x, y = labelled
    np.testing.assert_array_equal(cw(network, x, y, target=y, **FEW), x)


# The search.


class Written:
    """The search of an image by the published algorithm, in float64."""

    def __init__(self, exact, x, y, *, steps, searches, step_size, initial_weight):
        self.exact, self.x, self.y = exact, x.ravel().astype(np.float64), y
        self.iterates, self.used, self.best, self.distance = [], [], self.x, np.inf
        z, jacobian = self.logits(self.x)
        lengths = np.linalg.norm(jacobian - jacobian[:, [y]], axis=0)
        self.towards = min(np.delete(np.arange(CLASSES), y), key=lambda k: (z[y] - z[k]) / lengths[k])
        low, high, weight = 0.0, 1e10, initial_weight
        for _ in range(searches):
            self.used.append(weight)
            if self.descend(weight, steps, step_size):
                high = weight
            else:
                low = weight
            weight = (low + high) / 2 if high < 1e10 else 10 * weight

    def logits(self, x):
        return self.exact.logits(x), self.exact.jacobian(x)

    def descend(self, weight, steps, step_size):
        w = np.arctanh((2 * self.x - 1) * 0.999999)
        m, v, last, found = np.zeros_like(w), np.zeros_like(w), np.inf, False
        for number in range(1, steps + 1):
            images = (np.tanh(w) + 1) / 2
            self.iterates.append(images)
            z, jacobian = self.logits(images)
            hinge, distance = z[self.y] - z[self.towards], np.sum((images - self.x) ** 2)
            if z.argmax() != self.y:
                found = True
                if distance < self.distance:
                    self.best, self.distance = images, distance
            gradient = 2 * (images - self.x)
            if hinge > 0:
                gradient += weight * (jacobian[:, self.y] - jacobian[:, self.towards])
            gradient *= (1 - np.tanh(w) ** 2) / 2
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            w = w - step_size * (m / (1 - 0.9**number)) / (np.sqrt(v / (1 - 0.999**number)) + 1e-8)
            if number % (steps // 10) == 0:
                loss = distance + weight * max(hinge, 0)
                if loss > 0.9999 * last:
                    break
                last = loss
        return found


def test_takes_the_steps_of_the_published_algorithm(network):
    x = images(low=0.2, high=0.8)
    y = network(x).numpy().argmax(axis=1)
    settings = {"steps": 40, "searches": 5, "step_size": 0.005, "initial_weight": 0.004}
    search = cw.search(network, tf.constant(x), tf.constant(y), cw.as_tensors(settings), tf.range(16))
    step, state = tf.function(search.step, autograph=False), search.first()
    seen = []
    while not np.all(state.spent | state.fooled):
        seen.append(state)
        state = step(state)
    exact, successes = networks.Exact(network), set()
    for i in range(16):
        written = Written(exact, x[i], y[i], **settings)
        places = np.stack([each.place[i].numpy().ravel() for each in seen[: len(written.iterates)]])
        np.testing.assert_allclose(0.5 + 0.5 * np.tanh(places), written.iterates, atol=5e-4, err_msg=f"image {i}")
        used = [float(each.weight[i]) for each in seen if not (each.spent | each.fooled)[i]]
        np.testing.assert_allclose(sorted(set(used)), sorted(set(np.float32(written.used))), rtol=1e-5)
        assert len(used) == len(written.iterates)
        np.testing.assert_allclose(state.x_adv[i].numpy().ravel(), written.best, atol=2e-3)
        successes.add(written.used[1] > written.used[0])
    assert successes == {True, False}  # of the first weight


def test_epsilon_is_the_farthest_that_an_adversary_may_be(network, recorded, labelled):
    x, y = labelled
    distances = lengths(cw(network, x, y, **FEW) - x)
    assert np.all(distances > 0)
    for epsilon in np.quantile(distances, [0.31, 0.77]):
        recorded.forget()
        x_adv = cw(recorded, x, y, epsilon=float(epsilon), **FEW).numpy()
        found = margins(network, x_adv, y) > 0
        np.testing.assert_array_equal(found, distances <= epsilon)
        np.testing.assert_array_equal(x_adv[~found], x[~found])
        assert np.all(lengths(x_adv - x) <= epsilon + 1e-6)
    needed = len(recorded.seen)
    recorded.forget()
    x_adv = cw(recorded, x, y, epsilon=2.0, **{**FEW, "initial_weight": 10.0}).numpy()
    # It stops where it first comes across, not where it is nearest.
    assert np.all(margins(network, x_adv, y) > 0) and np.any(lengths(x_adv - x) > 1.1 * distances)
    assert len(recorded.seen) < needed / 2


def test_epsilon_0_returns_the_images_at_once(recorded, labelled):
    np.testing.assert_array_equal(cw(recorded, *labelled, epsilon=0.0), labelled[0])
    assert len(recorded.seen) == 2


def test_a_misclassified_image_is_returned_as_it_is(network, recorded, labelled):
    x, y = labelled
    wrong = np.where(np.arange(16) < 4, (y + 1) % CLASSES, y)
    x_adv = cw(network, x, wrong, **FEW).numpy()
    np.testing.assert_array_equal(x_adv[:4], x[:4])
    np.testing.assert_allclose(x_adv[4:], cw(network, x, y, **FEW)[4:], atol=1e-5)
    np.testing.assert_array_equal(cw(recorded, x, (y + 1) % CLASSES), x)
    assert len(recorded.seen) == 2


def test_a_descent_ends_where_the_loss_does_not_decrease():
    """Logits that do not change, and others that are no numbers: at the second tenth of the steps, and at the first."""
    x, y = images(), np.zeros(16, int)
    for value, tenths in (1.0, 2), (float("nan"), 1):
        recorded = Recorded(lambda x, value=value: value * tf.tile([[1.0, 0.0, 0.0]], (tf.shape(x)[0], 1)))
        np.testing.assert_array_equal(cw(recorded, x, y, steps=50, searches=3), x)
        assert len(recorded.seen) == 3 * 5 * tenths + 2  # and one before, and one that judges the result


@pytest.mark.parametrize("steps", [1, 9])
def test_each_step_is_checked_where_a_descent_has_fewer_than_ten(steps, recorded, labelled):
    x, y = labelled
    x_adv = cw(recorded, x, y, epsilon=1e-3, steps=steps, searches=2, initial_weight=0.1).numpy()
    np.testing.assert_array_equal(x_adv, x)
    assert len(recorded.seen) <= 2 * steps + 2  # and one before, and one that judges the result


def test_is_traced_once_for_any_number_of_images_and_steps(network, labelled):
    x, y = labelled
    traces = []

    @tf.function(
        input_signature=[tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int32)]
    )
    def attack(x, y, steps):
        traces.append(1)
        return cw(network, x, y, **{**FEW, "steps": steps})

    whole = {steps: cw(network, x, y, **{**FEW, "steps": steps}) for steps in (10, 20)}
    for size, steps in (1, 10), (16, 10), (5, 20):
        expected = whole[steps][:size]
        np.testing.assert_allclose(attack(x[:size], y[:size], steps), expected, atol=1e-4)
    assert len(traces) == 1


@pytest.mark.parametrize("epsilon", [None, 0.5])
def test_those_that_are_done_stay_as_they_are(epsilon, network, labelled):
    """Whatever steps the others in a batch still need."""
    x, y = tf.constant(labelled[0]), tf.constant(labelled[1])
    search = cw.search(network, x, y, cw.as_tensors({"epsilon": epsilon, "steps": 20, "searches": 2}), tf.range(16))
    step, state = tf.function(search.step, autograph=False), search.first()
    for _ in range(50):
        before, state = state, step(state)
        done = (before.fooled | before.spent).numpy()
        for name in ("x_adv", "fooled", "spent"):
            np.testing.assert_array_equal(getattr(before, name)[done], getattr(state, name)[done])
        assert epsilon is None or np.all(lengths(state.x_adv - x) <= epsilon)
        if epsilon is None:  # nothing is final before the last descent has ended
            assert not np.any(state.fooled & ~(state.search >= 2))
    assert np.all(done) and np.array_equal(state.fooled, margins(network, state.x_adv, y) > 0)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"searches": 0}, "searches is 0; allowed: a whole number, at least 1"),
        ({"initial_weight": 0.0}, "initial_weight is 0.0; allowed: a number above 0"),
        ({"confidence": -1.0}, "confidence is -1.0; allowed: a number at least 0"),
        ({"target": np.full(16, CLASSES)}, "target has values from 5 to 5; allowed: integers from 0 to 4"),
    ],
)
def test_bad_settings_are_named(settings, words, network, labelled):
    with pytest.raises(ValueError, match=words):
        cw(network, *labelled, **settings)
