"""The engine of evaluations: an image gets the result that it would get alone, whatever comes and goes beside it."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.images import margins
from tf_nuat import attacks
from tf_nuat.attacks.pool import MOST_DOUBTS, NEAR, Pool
from tf_nuat.attacks.search import run_search
from tf_nuat.models import precision

SHAPE = (6, 6, 1)
CLASSES = 5
IMAGES = 40
EPSILON = 0.08
SEARCHES = {
    "pgd": {"steps": 12, "restarts": 2},
    "apgd_ce": {"steps": 20},
    "apgd_t": {"steps": 10, "targets": 3},
    "square": {"queries": 60},
    "fab_t": {"steps": 10, "targets": 2},
    "fgsm": {},
    "rfgsm": {},
}


def build(seed=1, scale=2.0):
    generator = np.random.default_rng(seed)
    layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    model = keras.Sequential([keras.Input(SHAPE), *layers])
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([scale * generator.normal(size=shape) / np.sqrt(np.prod(shape[:-1])) for shape in shapes])
    return model


@pytest.fixture(scope="module")
def network():
    return build()


@pytest.fixture(scope="module")
def labelled(network):
    x = np.random.default_rng(0).uniform(size=(IMAGES, *SHAPE)).astype(np.float32)
    return x, network(x).numpy().argmax(axis=1).astype(np.int64)


def outcome(pool, x):
    """Returns which rows are fooled and their images, after checking that each row comes once."""
    fooled, x_adv, seen = np.zeros(len(x), bool), x.copy(), []
    for rows, outcomes, images in pool:
        fooled[rows], x_adv[rows] = outcomes, images
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(x)))
    return fooled, x_adv


@pytest.mark.parametrize("name, batch_size", [*((name, 7) for name in SEARCHES), ("square", 100)])
def test_an_image_gets_what_the_attack_alone_gives_it(name, batch_size, network, labelled):
    x, y = labelled
    settings = {"epsilon": EPSILON, **SEARCHES[name]}
    expected = attacks.ATTACKS[name](network, x, y, **settings).numpy()
    pool = Pool(attacks.ATTACKS[name], network, x, y, np.arange(IMAGES), settings, batch_size=batch_size)
    fooled, x_adv = outcome(pool, x)
    expected_fooled = margins(network, expected, y) > 0
    np.testing.assert_array_equal(fooled, expected_fooled)
    assert 3 < fooled.sum() < IMAGES - 3  # so that there is something to compare
    np.testing.assert_allclose(x_adv[fooled], expected[fooled], atol=1e-5)
    np.testing.assert_array_equal(x_adv[~fooled], x[~fooled])


def test_there_is_an_occasion_to_save_while_none_is_done(network, labelled):
    x, y = labelled
    settings = {"epsilon": 1e-5, "queries": 200}
    pool = Pool(attacks.square, network, x, y, np.arange(IMAGES), settings)
    sizes = [len(rows) for rows, _, _ in pool]
    assert len(sizes) == 200 // 25 and sizes[:-1] == [0] * 7 and sizes[-1] == IMAGES


def test_rows_and_their_numbers_can_be_chosen(network, labelled):
    x, y = labelled
    settings, rows = {"epsilon": EPSILON, "steps": 5}, np.array([30, 3, 11, 4])
    attack = functools.partial(attacks.pgd, network, x[rows], y[rows], **settings)
    for index in (None, np.arange(IMAGES)[::-1]):
        pool = Pool(attacks.pgd, network, x, y, rows, settings, index=index, batch_size=3)
        found = {row: image for done, _, images in pool for row, image in zip(done, images)}
        numbers = rows if index is None else index[rows]
        np.testing.assert_allclose(np.stack([found[row] for row in rows]), attack(index=numbers), atol=1e-5)


def test_fooled_images_leave_and_full_batches_go_on(network, labelled):
    x, y = labelled
    everyone = np.arange(IMAGES)
    undefended = Pool(attacks.pgd, network, x, y, everyone, {"epsilon": 0.9, "steps": 40}, batch_size=8)
    fooled, _ = outcome(undefended, x)
    assert fooled.all()
    assert undefended.steps["exact"] + undefended.steps["fast"] < 0.25 * 40 * IMAGES

    safe = Pool(attacks.pgd, network, x, y, everyone, {"epsilon": 1e-5, "steps": 40}, batch_size=8)
    fooled, _ = outcome(safe, x)
    assert not fooled.any()
    assert safe.steps["exact"] + safe.steps["fast"] == 40 * IMAGES  # one gradient a step, and none that is for nothing


def test_batches_of_all_sizes_are_compiled_once(labelled):
    traces = []
    inner = build(seed=4)

    def logits_fn(x):
        traces.append(x.shape[0])
        return inner(x)

    x, y = labelled
    settings = {"epsilon": EPSILON, "steps": 6}
    outcome(Pool(attacks.pgd, logits_fn, x, y, np.arange(IMAGES), settings, batch_size=9), x)
    before = len(traces)
    for batch_size, epsilon in (4, 0.1), (16, 0.02):
        settings = {"epsilon": epsilon, "steps": 7}
        outcome(Pool(attacks.pgd, logits_fn, x, y, np.arange(IMAGES), settings, batch_size=batch_size), x)
    assert len(traces) == before and set(traces) == {None}


@pytest.mark.parametrize("name", ["apgd_t", "square"])
def test_a_pool_goes_on_from_any_snapshot(name, network, labelled):
    x, y = labelled
    arguments = (attacks.ATTACKS[name], network, x, y, np.arange(IMAGES), {"epsilon": EPSILON, **SEARCHES[name]})
    expected = outcome(Pool(*arguments, batch_size=9), x)
    fooled, x_adv = np.zeros(IMAGES, bool), x.copy()
    pool = Pool(*arguments, batch_size=9)
    snapshots = [({key: value.copy() for key, value in pool.snapshot().items()}, fooled.copy(), x_adv.copy())]
    for rows, outcomes, images in pool:
        fooled[rows], x_adv[rows] = outcomes, images
        snapshots.append((pool.snapshot(), fooled.copy(), x_adv.copy()))
    assert len(snapshots) > 4
    for arrays, fooled, x_adv in snapshots[:: max(1, len(snapshots) // 5)]:
        again = Pool(*arguments, batch_size=9)
        again.restore(arrays)
        for rows, outcomes, images in again:
            fooled[rows], x_adv[rows] = outcomes, images
        np.testing.assert_array_equal(fooled, expected[0])
        np.testing.assert_array_equal(x_adv, expected[1])
        assert again.steps == pool.steps


@pytest.mark.parametrize("name", ["pgd", "fab_t"])
def test_what_the_twin_takes_for_an_adversary_is_attacked_again_in_float32(name, network, labelled, monkeypatch):
    """The twin says that everything is fooled by anything: each image is doubted, and has the result of float32.

    FAB looks for adversaries nearer than the last one: a false one, at a distance of almost 0, must be forgotten.
    """
    x, y = labelled
    settings = {"epsilon": EPSILON, **SEARCHES[name]}
    arguments = (attacks.ATTACKS[name], network, x, y, np.arange(IMAGES), settings)
    expected = outcome(Pool(*arguments, precision="float32"), x)
    liar = build()
    kernel, _ = liar.layers[-1].get_weights()
    liar.layers[-1].set_weights([kernel * 0.0, 10.0 * (np.arange(CLASSES) == 4)])
    monkeypatch.setattr(precision, "attacked", lambda *_: liar)
    pool = Pool(*arguments, batch_size=9)
    fooled, x_adv = outcome(pool, x)
    assert np.all(y != 4) and pool.steps["exact"] >= IMAGES
    np.testing.assert_array_equal(fooled, expected[0])
    np.testing.assert_allclose(x_adv, expected[1], atol=1e-5)


def test_an_image_that_waited_with_a_false_adversary_has_all_its_steps_again(network, labelled, monkeypatch):
    """The twin lies about three images, from the first step on: they wait until the others are at the last."""
    x, y = labelled
    lied_about, steps = x[:3], 12

    def liar(images):
        apart = tf.reduce_max(tf.abs(images[:, None] - lied_about), axis=(2, 3, 4))
        is_one = tf.reduce_any(apart < 1e-3, axis=1)
        return tf.where(is_one[:, None], 10.0 * tf.one_hot(4, CLASSES), network(images))

    monkeypatch.setattr(precision, "attacked", lambda *_: liar)
    settings = {"epsilon": 1e-5, "steps": steps}
    pool = Pool(attacks.pgd, network, x, y, np.arange(IMAGES), settings, batch_size=IMAGES)
    fooled, _ = outcome(pool, x)
    assert not fooled.any() and pool.steps["fast"] == steps * IMAGES
    near = -margins(network, x, y) < NEAR * np.ptp(network(x).numpy(), axis=1)
    assert pool.steps["exact"] == steps * np.sum(near | (np.arange(IMAGES) < 3))


def test_an_adversary_that_the_search_alone_sees_does_not_hold_an_image_for_ever(labelled):
    """The network answers otherwise with each forward: 4 in the search, 0 when the adversary is looked at."""
    x, y = labelled
    forwards = tf.Variable(0)

    def logits_fn(images):
        answer = tf.where(tf.equal(forwards.assign_add(1, read_value=True) % 2, 1), 4, 0)
        return tf.tile(tf.one_hot(answer, CLASSES)[None], [tf.shape(images)[0], 1])

    pool = Pool(attacks.pgd, logits_fn, x, 0 * y, np.arange(5), {"epsilon": EPSILON, "steps": 3})
    turns = [fooled for (_, fooled, _), _ in zip(pool, range(2 * MOST_DOUBTS))]
    assert pool.ended == 5 and not np.concatenate(turns).any()


def test_an_adversary_that_the_search_alone_sees_does_not_hide_those_farther_away(network, labelled):
    """FAB's first step, which two forwards belong to, takes the clean images for adversaries, at a distance of 0."""
    x, y = labelled
    forwards = tf.Variable(0)

    def lies_once(images):
        lies = tf.equal(forwards.assign_add(1, read_value=True) // 2, 1)
        return tf.where(lies, 10.0 * tf.one_hot([4], CLASSES), network(images))

    found = []
    for before in 0, 100:
        forwards.assign(before)
        settings = {"epsilon": EPSILON, **SEARCHES["fab_t"]}
        found.append(outcome(Pool(attacks.fab_t, lies_once, x, y, np.arange(IMAGES), settings), x)[0])
    np.testing.assert_array_equal(*found)
    assert np.sum(found) > 6


def test_a_false_adversary_at_the_end_of_the_last_ascent_does_not_end_the_evaluation(network, labelled):
    """The last gradient of all: the image goes on, although it has no target left."""
    x, y = labelled
    forwards, steps, targets = tf.Variable(0), 3, CLASSES - 1
    last = 1 + targets * (steps + 1) - 1  # one of the clean images, and of all ascents but the last their last points

    def lies_once(images):
        lies = tf.equal(forwards.assign_add(1, read_value=True), last)
        return tf.where(lies, 10.0 * tf.one_hot([4], CLASSES), network(images))

    settings = {"epsilon": 1e-6, "steps": steps, "targets": targets}
    pool = Pool(attacks.apgd_t, lies_once, x, y, np.arange(IMAGES), settings)
    fooled, _ = outcome(pool, x)
    assert not fooled.any() and forwards.numpy() > last + 2


def test_what_the_twin_misses_by_a_small_margin_is_attacked_again_in_float32(network, labelled, monkeypatch):
    """The twin has no gradient, and finds nothing: images far from the boundary are not tried again."""
    x, y = labelled
    arguments = (attacks.pgd, network, x, y, np.arange(IMAGES), {"epsilon": 0.01, "steps": 12, "random_start": False})
    expected, _ = outcome(Pool(*arguments, precision="float32"), x)
    logits = network(x).numpy()
    near = -margins(network, x, y) < NEAR * np.ptp(logits, axis=1)
    assert 0 < np.sum(expected & near) < np.sum(near) < IMAGES

    def flat(images):
        return tf.stop_gradient(network(images)) + 0.0 * tf.reduce_sum(images, axis=(1, 2, 3))[:, None]

    monkeypatch.setattr(precision, "attacked", lambda *_: flat)
    pool = Pool(*arguments, batch_size=IMAGES)
    fooled, _ = outcome(pool, x)
    np.testing.assert_array_equal(fooled, expected & near)


def test_every_verdict_on_bfloat16_is_that_of_float32(network, labelled):
    x, y = labelled
    settings = {"epsilon": EPSILON, "steps": 20}
    arguments = (attacks.apgd_ce, network, x, y, np.arange(IMAGES), settings)
    fooled, x_adv = outcome(Pool(*arguments, precision="bfloat16", batch_size=9), x)
    np.testing.assert_array_equal(margins(network, x_adv, y) > 0, fooled)
    in_float32, _ = outcome(Pool(*arguments, precision="float32", batch_size=9), x)
    assert np.sum(fooled != in_float32) <= 2
    assert np.max(np.abs(x_adv - x)) <= EPSILON + 1e-6


def test_the_twin_has_the_weights_of_today(network):
    twin = precision.attacked(network, "bfloat16")
    x = np.random.default_rng(3).uniform(size=(4, *SHAPE)).astype(np.float32)
    assert twin is not network and twin.layers[-2].compute_dtype == "bfloat16" and twin(x).dtype == tf.float32
    np.testing.assert_allclose(twin(x), network(x), rtol=0.05, atol=0.05)
    other = build(seed=7)
    first = precision.attacked(other, "bfloat16")(x).numpy()
    other.set_weights(network.get_weights())
    np.testing.assert_allclose(precision.attacked(other, "bfloat16")(x), twin(x))
    assert np.max(np.abs(first - twin(x))) > 0.1
    assert precision.attacked(network, "float32") is network


def test_a_network_that_cannot_be_cloned_is_named():
    def logits_fn(x):
        return x[:, 0, :, 0]

    assert precision.attacked(logits_fn, "auto") is logits_fn
    with pytest.raises(ValueError, match="precision is 'bfloat16', and the network cannot be cloned"):
        precision.attacked(logits_fn, "bfloat16")
    with pytest.raises(ValueError, match="precision is 'half'; allowed: auto, bfloat16, float32"):
        precision.attacked(logits_fn, "half")


@pytest.mark.parametrize("name", ["apgd_t", "fgsm"])
def test_two_devices_do_what_one_does(name, two_devices, labelled):
    x, y = labelled
    settings, outcomes = {"epsilon": EPSILON, **SEARCHES[name]}, []
    for strategy in (None, two_devices):
        with (strategy or tf.distribute.get_strategy()).scope():
            network = build()
        pool = Pool(attacks.ATTACKS[name], network, x, y, np.arange(IMAGES), settings, batch_size=9, strategy=strategy)
        outcomes.append(outcome(pool, x))
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    np.testing.assert_allclose(outcomes[0][1], outcomes[1][1], atol=1e-5)


def test_logits_that_are_not_finite_count_as_fooled(labelled):
    x, y = labelled

    def logits_fn(x):
        moved = tf.reduce_mean(x, axis=(1, 2, 3)) > 0.5
        return tf.where(moved[:, None], float("nan"), tf.one_hot(tf.zeros(tf.shape(x)[:1], tf.int32), CLASSES))

    fooled, x_adv = outcome(Pool(attacks.pgd, logits_fn, x, 0 * y, np.arange(IMAGES), {"epsilon": 0.0, "steps": 2}), x)
    np.testing.assert_array_equal(fooled, x.mean(axis=(1, 2, 3)) > 0.5)
    np.testing.assert_array_equal(x_adv, x)


def test_logits_that_differ_in_float64_alone_are_no_tie(labelled):
    """In float32 both are 1e8: the first class would be the answer."""
    x, _ = labelled

    def logits_fn(x):
        nothing = 0.0 * tf.cast(tf.reduce_sum(x, axis=(1, 2)), tf.float64)
        return nothing + tf.constant([1e8, 1e8 + 1.0], tf.float64)

    pool = Pool(attacks.pgd, logits_fn, x, np.ones(IMAGES, int), np.arange(IMAGES), {"epsilon": 0.0, "steps": 2})
    fooled, _ = outcome(pool, x)
    assert not fooled.any()


def test_a_setting_for_single_images_is_named(network, labelled):
    x, y = labelled
    with pytest.raises(ValueError, match="start has an entry for each image; allowed: one value, for all of them"):
        Pool(attacks.pgd, network, x, y, np.arange(IMAGES), {"epsilon": 0.1, "start": x})
    with pytest.raises(ValueError, match="steps is 0; allowed: a whole number, at least 1"):
        Pool(attacks.pgd, network, x, y, np.arange(IMAGES), {"epsilon": 0.1, "steps": 0})
    with pytest.raises(ValueError, match="batch_size is 0"):
        Pool(attacks.pgd, network, x, y, np.arange(IMAGES), {"epsilon": 0.1}, batch_size=0)


def test_a_run_ends_at_its_number_of_steps_or_of_images_that_are_done(network, labelled):
    """`run` stops at the number of steps, or of images that are done."""
    x, y = labelled
    search = attacks.pgd.search(network, tf.constant(x), tf.constant(y), {"epsilon": 0.9, "steps": 9, "seed": 0}, None)
    taken, state = run_search(search, search.first(), steps=3)
    assert taken == 3
    taken, state = run_search(search, search.first(), until_done=5)
    done = (state.fooled | state.spent).numpy().sum()
    assert done >= 5 and taken < 9
