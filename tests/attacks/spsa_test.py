"""SPSA against the published algorithm written a second time, and against closed forms."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import images as pictures
from tests.helpers import networks
from tests.helpers.images import classes_of, margins
from tests.helpers.recorded import Recorded
from tf_nuat.attacks.search import choose
from tf_nuat.attacks.spsa import spsa

SHAPE = (3, 3, 1)
CLASSES = 3

images = functools.partial(pictures.images, 8, shape=SHAPE)


@pytest.fixture(scope="module")
def network():
    return networks.drawn(SHAPE, CLASSES, 8, scale=0.5, centred=True)


@pytest.fixture(scope="module")
def labelled(network):
    x = images()
    return x, classes_of(network, x)


def two_classes(weights, offset):
    def logits_fn(x):
        a = tf.reduce_sum((x - 0.5) * weights, axis=(1, 2, 3)) - offset
        return tf.stack([-a, a], axis=1)

    return logits_fn


def test_takes_the_steps_of_the_published_algorithm(network, labelled):
    """Signs are those that the network was asked for; estimate, Adam and projection are by hand."""
    x, y = np.round(labelled[0], 1), labelled[1]
    epsilon, steps, pairs, delta, step_size = 0.003, 5, 6, 0.02, 0.001
    recorded = Recorded(network)
    spsa(recorded, x, y, epsilon=epsilon, steps=steps, samples=2 * pairs, delta=delta, step_size=step_size)
    assert len(recorded.seen) == 2 * steps + 1  # all pairs fit into one forward; and whoever runs it looks at the end
    at = x.astype(np.float64)
    mean, mean_square, drawn = np.zeros_like(at), np.zeros_like(at), []
    for t in range(steps):
        samples = recorded.seen[2 * t].reshape(2, pairs, *x.shape).astype(np.float64)
        signs = (samples[0] - at) / delta
        np.testing.assert_allclose(np.abs(signs), 1.0, atol=2e-4)
        np.testing.assert_allclose(samples[1] - at, -delta * np.sign(signs), atol=4e-6)
        drawn.append(np.sign(signs))
        values = np.stack([[margins(network, one, y) for one in half] for half in samples]).astype(np.float64)
        slopes = (values[0] - values[1]) / (2 * delta)
        gradient = np.mean(slopes[..., None, None, None] * np.sign(signs), axis=0)
        mean = 0.9 * mean + 0.1 * gradient
        mean_square = 0.999 * mean_square + 0.001 * gradient**2
        step = mean / (1 - 0.9 ** (t + 1)) / (np.sqrt(mean_square / (1 - 0.999 ** (t + 1))) + 1e-8)
        at = np.clip(np.clip(at + step_size * step, x - epsilon, x + epsilon), 0, 1)
        not_fooled = margins(network, recorded.seen[2 * t + 1], y) < 0
        assert np.sum(not_fooled) > 4
        np.testing.assert_allclose(recorded.seen[2 * t + 1][not_fooled], at[not_fooled], atol=2e-5)
        at = recorded.seen[2 * t + 1].astype(np.float64)
    drawn = np.reshape(drawn, (-1, 9))
    assert abs(drawn.mean()) < 0.06 and len(np.unique(drawn, axis=0)) > 150  # of 240, with 512 to draw from


@pytest.mark.parametrize("size", [1, 8, 100, 300])
def test_forwards_are_of_bounded_size(size):
    """The estimate is the same, and takes the same number of samples, however many go together."""
    weights = np.ones(SHAPE, np.float32)
    recorded = Recorded(two_classes(weights, 100.0))
    x = np.tile(images()[:1], (size, 1, 1, 1))
    spsa(recorded, x, np.zeros(size, int), epsilon=0.1, steps=2, samples=11)
    sizes = [len(batch) for batch in recorded.seen]
    assert sum(sizes) == 2 * (10 + 1) * size + size  # of 11 samples one has no partner
    assert max(sizes) <= max(256, 2 * size)


def test_how_many_go_together_makes_no_difference(network, labelled):
    """Alone, beside others, and beside many, an image has the same adversary."""
    x, y = labelled
    settings = {"epsilon": 0.1, "steps": 6, "samples": 16, "seed": 3}
    together = spsa(network, x, y, **settings).numpy()
    moved = np.flatnonzero(np.any(together != x, axis=(1, 2, 3)))
    assert len(moved) > 2
    for i in moved[:2]:
        alone = spsa(network, x[i : i + 1], y[i : i + 1], index=[i], **settings)
        np.testing.assert_allclose(alone[0], together[i], atol=1e-5)
    many = [np.concatenate([part, np.tile(part, (12,) + (1,) * (part.ndim - 1))]) for part in (x, y)]
    np.testing.assert_allclose(spsa(network, *many, **settings)[:8], together, atol=1e-5)


def test_climbs_where_gradients_are_none():
    """Steps as high as a finite difference is wide: their gradient is 0, their slope is not."""
    weights = np.random.default_rng(4).normal(size=SHAPE).astype(np.float32)
    smooth = two_classes(weights, 0.0)

    def steps(x):
        return tf.round(50.0 * smooth(x))

    x = pictures.images(32, shape=SHAPE)
    y = steps(x).numpy().argmax(axis=1)
    optimum = np.clip(x + 0.1 * np.sign(weights) * np.where(y == 0, 1, -1)[:, None, None, None], 0, 1)
    wins = steps(optimum).numpy().argmax(axis=1) != y
    fooled = steps(spsa(steps, x, y, epsilon=0.1, steps=30, samples=64)).numpy().argmax(axis=1) != y
    assert 4 < np.sum(wins) < 32 and np.sum(fooled) >= 0.9 * np.sum(wins) and not np.any(fooled & ~wins)


def test_ends_where_all_are_fooled(network, labelled):
    x, y = labelled
    recorded = Recorded(network)
    spsa(recorded, x, (y + 1) % CLASSES, epsilon=0.001, steps=50, samples=4)
    assert len(recorded.seen) == 3  # one step, and a look at the end


def test_those_that_are_done_stay_as_they_are(network, labelled):
    """Whatever steps the others in a batch still need: half of them begin later."""
    x, y = map(tf.constant, labelled)
    search = spsa.search(network, x, y, spsa.as_tensors({"epsilon": 0.1, "steps": 6, "samples": 4}), tf.range(8))
    step, state = tf.function(search.step, autograph=False), search.first()
    state = tf.nest.map_structure(functools.partial(choose, tf.range(8) % 2 == 0), state, step(step(step(state))))
    for _ in range(7):
        before, state = state, step(state)
        done = (before.fooled | before.spent).numpy()
        for name in ("x_adv", "fooled", "spent"):
            np.testing.assert_array_equal(getattr(before, name)[done], getattr(state, name)[done])
    assert np.all(done) and np.any(state.fooled) and np.any(state.spent)


@pytest.mark.parametrize("nothing", [float("inf"), 1e38])
def test_one_image_without_numbers_does_not_disturb_the_others(nothing, network, labelled):
    x, y = labelled
    x = np.clip(x, 0.3, 0.7)
    x[0] = 0.0  # with what is near it, the only image so dark
    attack = functools.partial(spsa, x=x, y=y, epsilon=0.1, steps=6, samples=16)

    def logits_fn(x):
        dark = tf.reduce_mean(x, axis=(1, 2, 3)) < 0.15
        # Logits 0, 0, -1e38 and 0, 0, 0 in turn have differences, as large as numbers can be, and fool no one.
        spoilt = tf.constant([0.0, 0.0, 0.0]) if nothing == 1e38 else tf.fill((3,), nothing)
        large = -nothing * tf.cast(x[:, 0, 0, :1] > 0.0, tf.float32) * (1.0 - tf.one_hot(y[:1], 3))
        return tf.where(dark[:, None], spoilt + large, network(x))

    x_adv = attack(logits_fn).numpy()
    assert np.all(np.isfinite(x_adv))
    np.testing.assert_array_equal(x_adv[0], x[0])
    np.testing.assert_allclose(x_adv[1:], attack(network)[1:], atol=1e-5)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"samples": 1}, "samples is 1; allowed: a whole number, at least 2"),
        ({"delta": 0.0}, "delta is 0.0; allowed: a number above 0"),
    ],
)
def test_bad_settings_are_named(settings, words, network, labelled):
    with pytest.raises(ValueError, match=words) as raised:
        spsa(network, *labelled, epsilon=0.1, **settings)
    assert "\n" not in str(raised.value)
