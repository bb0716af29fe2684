"""EAT attacks the network or one of its sources, at random, and changes the network alone."""

import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import counting, linear
from tf_nuat.defenses.eat import EAT
from tf_nuat.defenses.fgsm_at import FGSMAT
from tf_nuat.models import averaging

STEPS = 300


def candidates(model, sources, x, y):
    """Returns the images that FGSM makes of x on each network, as the closed form says."""
    return [
        linear.step(network.get_weights(), x, y, x, linear.EPSILON) for network in (model.trained_network, *sources)
    ]


def drawn(x_adv, images):
    """Returns the index of the network that every second image was attacked on."""
    distances = [np.max(np.abs(x_adv[::2] - candidate[::2])) for candidate in images]
    assert np.sum(np.array(distances) < 1e-6) == 1
    return int(np.argmin(distances))


def test_each_network_is_drawn_equally_often():
    sources = [linear.network(seed) for seed in (1, 2)]
    model = linear.compiled(EAT, sources=sources)
    x, y = linear.batch()
    images = candidates(model, sources, x, y)
    perturb = tf.function(model.perturb)
    counts = np.zeros(3)
    for step in range(STEPS):
        model.optimizer.iterations.assign(step)
        x_adv = perturb(tf.constant(x), tf.constant(y)).numpy()
        counts[drawn(x_adv, images)] += 1
        np.testing.assert_array_equal(x_adv[1::2], x[1::2])
    # Four standard deviations of a binomial with probability 1/3.
    assert np.max(np.abs(counts - STEPS / 3)) < 4 * np.sqrt(STEPS * 2 / 9)


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}])
def test_training_moves_the_network_and_no_source(options):
    sources = [linear.network(seed) for seed in (1, 2)]
    before = [source.get_weights() for source in sources]
    model = linear.compiled(EAT, sources=sources, **options)
    start = model.network.get_weights()
    model.fit(*linear.batch(64), batch_size=8, epochs=2, verbose=0)
    for source, weights in zip(sources, before):
        for weight, expected in zip(source.get_weights(), weights):
            np.testing.assert_array_equal(weight, expected)
    assert all(np.max(np.abs(one - other)) > 1e-3 for one, other in zip(model.network.get_weights(), start))


def test_sources_are_no_part_of_the_saved_state(tmp_path):
    model = linear.compiled(EAT, sources=[linear.network(1), linear.network(2)])
    assert len(model.weights) == len(linear.compiled(FGSMAT).weights)
    model.save_weights(tmp_path / "state.weights.h5")
    other = linear.compiled(EAT, network=linear.network(3), sources=[linear.network(4)])
    other.load_weights(tmp_path / "state.weights.h5")
    for weight, expected in zip(other.network.get_weights(), model.network.get_weights()):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("convert", [str, pathlib.Path])
def test_a_source_may_be_a_file(convert, tmp_path):
    linear.network(1).save(tmp_path / "source.keras")
    x, y = map(tf.constant, linear.batch())
    from_file, from_memory = (
        linear.compiled(EAT, sources=[source]) for source in (convert(tmp_path / "source.keras"), linear.network(1))
    )
    for step in range(8):
        for model in from_file, from_memory:
            model.optimizer.iterations.assign(step)
        np.testing.assert_array_equal(from_file.perturb(x, y), from_memory.perturb(x, y))


def test_two_devices_draw_the_same_network(two_devices):
    x, y = linear.batch(8)
    with two_devices.scope():
        sources = [linear.network(1), linear.network(2)]
        model = linear.compiled(EAT, sources=sources)
    images = candidates(model, sources, x, y)
    perturb = tf.function(model.perturb)
    shares = [
        two_devices.experimental_distribute_values_from_function(
            lambda context, whole=whole: np.split(whole, 2)[context.replica_id_in_sync_group]
        )
        for whole in (x, y)
    ]
    seen = set()
    for step in range(8):
        model.optimizer.iterations.assign(step)
        parts = two_devices.experimental_local_results(two_devices.run(perturb, args=shares))
        seen.add(drawn(np.concatenate([part.numpy() for part in parts]), images))
    assert len(seen) > 1


def test_passes():
    models = []

    def make_model(network):
        models.append(linear.compiled(EAT, network=network, sources=[averaging.copy_of(network)]))
        return models[0]

    assert counting.passes(make_model, *counting.batch(5)) == pytest.approx(models[0].passes(5))


def other_shape():
    return keras.Sequential([keras.Input((5, 5, 1)), keras.layers.Flatten(), keras.layers.Dense(linear.CLASSES)])


def other_classes():
    return keras.Sequential([keras.Input(linear.SHAPE), keras.layers.Flatten(), keras.layers.Dense(7)])


@pytest.mark.parametrize(
    "sources, words",
    [
        (list, r"sources is \[\]; allowed: a list"),
        (lambda: "source.keras", "sources is 'source.keras'; allowed: a list"),
        (lambda: [linear.network(1), os.devnull], r"sources\[1\] is '/dev/null', which is not a file"),
        (lambda: ["missing.keras"], r"sources\[0\] is 'missing.keras', which is not a file"),
        (lambda: [linear.network(1), 5], r"sources\[1\] is a int; allowed: a keras.Model"),
        (lambda: [other_shape()], r"sources\[0\] has input shape \(5, 5, 1\); allowed: the network's, \(4, 4, 1\)"),
        (lambda: [other_classes()], r"sources\[0\] has output shape \(7,\); allowed: the network's, \(3,\)"),
    ],
)
def test_bad_sources_are_named(sources, words):
    with pytest.raises(ValueError, match=words) as raised:
        linear.compiled(EAT, sources=sources())
    assert "\n" not in str(raised.value)
