"""Random draws of single images: the generator against its published vectors, the draws against their distributions."""

import functools
import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.helpers import networks
from tests.helpers.images import classes_of, images
from tests.helpers.recorded import Recorded
from tf_nuat import attacks, draws
from tf_nuat.core import threefry

SHAPE = (4, 3, 2)


def uint32(*words):
    return tuple(tf.constant(word, tf.uint32) for word in words)


# The generator.


@pytest.mark.parametrize(
    "key, counter, expected",
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_words_of_its_authors(key, counter, expected):
    """Those of the known answers of Random123 for threefry2x32 with 20 rounds."""
    assert tuple(int(word) for word in threefry.threefry(uint32(*key), uint32(*counter))) == expected


def test_threefry_works_on_many_counters_at_once():
    keys, counters = np.random.default_rng(0).integers(0, 2**32, (2, 2, 50), dtype=np.uint64).astype(np.uint32)
    together = threefry.threefry(uint32(*keys), uint32(*counters))
    for i in range(50):
        alone = threefry.threefry(uint32(*keys[:, i]), uint32(*counters[:, i]))
        assert [int(word) for word in alone] == [int(word[i]) for word in together]


def threefry_by_hand(key, counter):
    """Written a second time, with Python's integers."""
    words = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    x, y = (counter[0] + words[0]) % 2**32, (counter[1] + words[1]) % 2**32
    for round_number in range(20):
        rotation = [13, 15, 26, 6, 17, 29, 16, 24][round_number % 8]
        x = (x + y) % 2**32
        y = ((y << rotation) % 2**32 | y >> (32 - rotation)) ^ x
        if round_number % 4 == 3:
            group = round_number // 4 + 1
            x, y = (x + words[group % 3]) % 2**32, (y + words[(group + 1) % 3] + group) % 2**32
    return x, y


@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 3, 2)])
def test_draws_are_the_generators_words_for_the_key_and_the_pixels_number(shape):
    """Pixels of the first half take the first words of the blocks, the others the second ones."""
    keys, count = threefry.keys((5, 9), [3, 8]), int(np.prod(shape))
    half = (count + 1) // 2
    for row, key in enumerate(keys.numpy().tolist()):
        blocks = [threefry_by_hand(key, (number, 0)) for number in range(half)]
        bits = np.array([block[0] for block in blocks] + [block[1] for block in blocks], np.uint64)[:count]
        np.testing.assert_array_equal(threefry.uniform(keys, shape)[row], np.reshape((bits >> 8) / 2.0**24, shape))
        np.testing.assert_array_equal(threefry.signs(keys, shape)[row], np.reshape(np.where(bits >> 31, 1, -1), shape))
        normal = scipy.stats.norm.ppf(((bits >> 9) + 0.5) / 2.0**23)
        np.testing.assert_allclose(threefry.normal(keys, shape)[row], np.reshape(normal, shape), atol=1e-4)
        assert tuple(key) == threefry_by_hand((5, 9), ([3, 8][row], 1))


# Distributions.


@pytest.fixture(scope="module")
def many():
    return threefry.keys((1, 2), np.arange(400))


def test_uniform_draws_are_uniform_and_below_1(many):
    drawn = threefry.uniform(many, (25, 20)).numpy()
    assert drawn.dtype == np.float32 and drawn.min() >= 0.0 and drawn.max() < 1.0
    assert scipy.stats.kstest(drawn.ravel(), "uniform").pvalue > 0.01
    # Each image's mean, over the standard deviation of a mean of 500.
    means = (drawn.reshape(400, -1).mean(axis=1) - 0.5) * np.sqrt(12 * 500)
    assert scipy.stats.kstest(means, "norm").pvalue > 0.01


def test_normal_draws_are_normal(many):
    drawn = threefry.normal(many, (25, 20)).numpy()
    assert np.all(np.isfinite(drawn)) and np.abs(drawn).max() > 4.0
    assert scipy.stats.kstest(drawn.ravel(), "norm").pvalue > 0.01
    assert abs(scipy.stats.kurtosis(drawn.ravel())) < 0.05


def test_signs_are_balanced(many):
    drawn = threefry.signs(many, (25, 20)).numpy()
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert scipy.stats.binomtest(int(np.sum(drawn > 0)), drawn.size).pvalue > 0.01
    ups = np.sum(drawn > 0, axis=(1, 2))
    assert scipy.stats.kstest((ups - 250) / np.sqrt(125), "norm").pvalue > 0.001  # discrete, nearly normal


@pytest.mark.parametrize("draw", [threefry.uniform, threefry.normal, threefry.signs])
def test_images_and_pixels_and_purposes_are_independent(draw, many):
    drawn = draw(many, (500,)).numpy()
    bound = 4.5 / np.sqrt(drawn.size)
    other_purpose = draw(threefry.fold_in(many, 1), (500,)).numpy()
    other_seed = draw(threefry.keys((1, 3), np.arange(400)), (500,)).numpy()
    pairs = {
        "neighbours": (drawn[1:], drawn[:-1]),
        "pixels": (drawn[:, 1:], drawn[:, :-1]),
        "halves": (drawn[:, 250:], drawn[:, :250]),
        "purposes": (drawn, other_purpose),
        "seeds": (drawn, other_seed),
    }
    for name, (one, other) in pairs.items():
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < bound * (2 if name == "halves" else 1), name


def test_keys_of_many_images_purposes_and_seeds_all_differ():
    keys = [threefry.keys((seed, 0), np.arange(2000)).numpy() for seed in range(3)]
    keys += [threefry.fold_in(keys[0], number).numpy() for number in range(3)]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 12000


# Of composition.


def test_draws_of_an_image_do_not_depend_on_the_others():
    index = np.array([7, 3, 3, 100000, 0])
    keys = threefry.keys((4, 5), index)
    assert keys.shape == (5, 2) and keys.dtype == tf.uint32
    for draw in (threefry.uniform, threefry.normal, threefry.signs):
        drawn = draw(keys, SHAPE).numpy()
        for row, number in enumerate(index):
            np.testing.assert_array_equal(draw(threefry.keys((4, 5), [number]), SHAPE)[0], drawn[row])
        np.testing.assert_array_equal(drawn[1], drawn[2])
        assert np.any(drawn[0] != drawn[1])


def test_numbers_folded_in_image_by_image_are_those_folded_in_alone():
    keys, numbers = threefry.keys((4, 5), np.arange(6)), np.array([0, 1, 2, 0, 7, 1])
    together = threefry.fold_in(keys, numbers)
    for row, number in enumerate(numbers):
        np.testing.assert_array_equal(threefry.fold_in(keys, int(number))[row], together[row])
        np.testing.assert_array_equal(threefry.fold_in(keys[row : row + 1], [number])[0], together[row])
    assert np.all(np.any(together != keys, axis=1))


@pytest.mark.parametrize("draw", [draws.signs, draws.normal, draws.uniform])
def test_purposes_are_told_apart_for_the_global_batch_too(draw):
    """A defense that draws twice for a batch folds a number each into its pair of integers."""
    x = tf.zeros((8, *SHAPE))
    drawn = [draw(x, seed).numpy() for seed in ((3, 4), *(draws.fold_in((3, 4), number) for number in (1, 2)))]
    for one, other in itertools.combinations(drawn, 2):
        assert np.mean(one != other) > 0.4


def test_the_draws_of_the_global_batch_have_their_distributions():
    x = tf.zeros((200, *SHAPE))
    assert scipy.stats.kstest(draws.uniform(x, (3, 4)).numpy().ravel(), "uniform").pvalue > 0.01
    assert scipy.stats.kstest(draws.normal(x, (3, 4)).numpy().ravel(), "norm").pvalue > 0.01
    signs = draws.signs(x, (3, 4)).numpy()
    assert set(np.unique(signs)) == {-1.0, 1.0} and abs(signs.mean()) < 0.05


def test_images_of_several_devices_have_keys_of_their_own(two_devices):
    whole = draws.image_keys(5, tf.zeros((8, *SHAPE)))
    parts = two_devices.run(tf.function(lambda: draws.image_keys(5, tf.zeros((4, *SHAPE)))))
    np.testing.assert_array_equal(np.concatenate(two_devices.experimental_local_results(parts)), whole)


def test_a_number_of_images_known_only_at_run_time_draws_the_same():
    keys = threefry.keys((4, 5), np.arange(6))

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.uint32), tf.TensorSpec((None, *SHAPE))])
    def drawn(keys, x):
        return draws.uniform(x, keys)

    np.testing.assert_array_equal(drawn(keys, tf.zeros((6, *SHAPE))), threefry.uniform(keys, SHAPE))


# Of attacks.

CASES = {
    "rfgsm": {},
    "nuclear": {"weight": 0.0},
    "pgd": {"steps": 3, "restarts": 2},
    "pgd_cw": {"steps": 3, "restarts": 2},
    "apgd_ce": {"steps": 3, "restarts": 2},
    "apgd_dlr": {"steps": 3, "restarts": 2},
    "apgd_t": {"steps": 3, "targets": 2},
    "gama_pgd": {"steps": 3, "restarts": 2},
    "gama_fw": {"steps": 3, "restarts": 2},
}
CLEAN = ("nuclear", "apgd_t", "gama_pgd", "gama_fw")  # those that look at the clean images once
IN_L2 = ("pgd", "apgd_ce", "nuclear", "gama_pgd")  # one for each way to start there
NORMED = [*((name, "linf") for name in CASES), *((name, "l2") for name in IN_L2)]


@pytest.fixture(scope="module")
def network():
    return networks.drawn(SHAPE, 4, 8)


@pytest.fixture(scope="module")
def labelled(network):
    x = images(6, shape=SHAPE)
    return x, classes_of(network, x)


@pytest.mark.parametrize("name, norm", NORMED)
def test_an_attack_on_an_image_depends_on_its_number_and_the_seed_alone(name, norm, network, labelled):
    """Every image that the network sees on the way, too."""
    x, y = labelled
    recorded = Recorded(network)
    norm = {"norm": norm} if "norm" in attacks.ATTACKS[name].keywords else {}
    attack = functools.partial(attacks.ATTACKS[name], recorded, epsilon=0.05, **CASES[name], **norm)
    index = np.array([10, 2, 33, 4, 5, 60])

    def all_of(rows, **options):
        recorded.seen.clear()
        x_adv = attack(x[rows], y[rows], **options).numpy()
        return [*(recorded.on_the_way(x[rows]) if name in CLEAN else recorded.seen), x_adv]

    together = all_of(np.arange(6), index=index, seed=3)
    rows = np.array([4, 1, 2])
    apart = all_of(rows, index=index[rows], seed=3)
    # Those of the smaller batch may be done sooner. What is looked at last is what is returned, or is not clean.
    for one, other in zip(apart[:-2], together):
        np.testing.assert_allclose(one, other[rows], atol=1e-6)
    np.testing.assert_allclose(apart[-1], together[-1][rows], atol=1e-6)
    start = together[0]
    assert np.all(np.any(start != x, axis=(1, 2, 3)))
    places = all_of(np.arange(6), seed=3)
    for other in (places, all_of(np.arange(6), index=index, seed=4)):
        assert np.all(np.any(np.abs(other[0] - start) > 1e-6, axis=(1, 2, 3)))
    np.testing.assert_array_equal(all_of(np.arange(6), index=np.arange(6), seed=3)[0], places[0])


@pytest.mark.parametrize("name", ["pgd", "apgd_ce", "gama_pgd"])
def test_a_seed_that_is_not_given_is_0_in_a_compiled_function_too(name, network, labelled):
    x, y = labelled
    attack = functools.partial(attacks.ATTACKS[name], network, epsilon=0.3, steps=3)
    given = attack(x, y, seed=0, index=np.arange(6) + 5)
    inside = tf.function(lambda x, y: attack(x, y, index=tf.range(5, 11)), autograph=False)
    np.testing.assert_allclose(inside(tf.constant(x), tf.constant(y)), given, atol=1e-6)
    assert np.any(given != x)
