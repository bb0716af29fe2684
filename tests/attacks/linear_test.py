"""Every attack of `ATTACKS`, in every norm that it has, against the closed forms of a linear network.

What is known there: how far each image is from its nearest adversary, which change is the best one within epsilon, and
that an image's result is its own. A new attack is held to all of it; where its defaults do not come to the optimum, or
take long, it gets a row in `ROWS`. What only one attack does stands in its own file.
"""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import nearest
from tests.helpers.images import SHAPE, classes_of, images, lengths, margins
from tf_nuat import norms
from tf_nuat.attacks import ATTACKS

CLASSES = 4
SIZE = 16


@dataclasses.dataclass(frozen=True)
class Row:
    """How an attack is called here.

    Attributes:
        settings: with which it comes to the optimum.
        slack: how much farther than its nearest adversary an image may be for the attack to fool the network, a share
            of that distance; None for an attack that need not come near.
        inside: norms in which it comes to the optimum only where no pixel gets to the border of [0, 1].
        few: settings of a short call, whose result shows the draws.
        hides_draws: whether a linear network leads every draw to the same result.
        costly: whether a call takes so long that the attack is only held to the distance.
    """

    settings: dict = dataclasses.field(default_factory=dict)
    slack: float | None = 0.001
    inside: tuple = ("l2",)
    few: dict = dataclasses.field(default_factory=dict)
    hides_draws: bool = False
    costly: bool = False


# Long steps turn a random offset into the right direction.
LONG = {"steps": 10, "step_size": 10.0}
SHORT = {"steps": 1, "step_size": 1e-4}
ROWS = {
    "rfgsm": Row({"alpha": 0.0}, few={"alpha": 0.02}),
    "pgd": Row(LONG, few=SHORT),
    "pgd_cw": Row(LONG, few=SHORT),
    "nuclear": Row({"weight": 0.0, **LONG}, few={"weight": 0.0, **SHORT}),
    "gama_pgd": Row({"steps": 50}, few={"steps": 4}),
    "gama_fw": Row({"steps": 50}, few={"steps": 4}),
    "apgd_ce": Row(few={"steps": 6}),
    "apgd_dlr": Row(few={"steps": 6}),
    "apgd_t": Row({"targets": 1}, few={"targets": 1, "steps": 6}),
    "fab": Row({"steps": 30}, 0.01, inside=(), few={"steps": 6}, hides_draws=True),
    "fab_t": Row({"steps": 30, "targets": 1}, 0.01, inside=(), few={"steps": 6, "targets": 1}, hides_draws=True),
    "square": Row({"queries": 2000}, 0.01, few={"queries": 5}),
    "spsa": Row({"steps": 60, "samples": 64}, 0.05, few={"steps": 4, "samples": 4, "step_size": 0.05}),
    "random_search": Row({"queries": 20}, None, few={"queries": 5}),
    "deepfool": Row(slack=0.01, inside=()),
    "cw": Row(slack=0.01, inside=(), few={"steps": 60, "searches": 3, "initial_weight": 0.1}),
    "autoattack": Row(costly=True),
}
# Where an attack is called otherwise in L1. A step there changes few pixels, and where there are as few as here one
# counts for much: tests/attacks/l1_test.py holds them to one percent of the rise, with more pixels.
IN_L1 = {
    "pgd": Row({"steps": 100, "step_size": 0.05}, 0.03, few=SHORT),
    "apgd_ce": Row(slack=0.08, few={"steps": 6}),
    "apgd_dlr": Row(slack=0.08, few={"steps": 6}),
    "apgd_t": Row({"targets": 1}, 0.08, few={"targets": 1, "steps": 6}),
}
# And in L2: near an image Square asks for few windows there.
IN_L2 = {"square": Row({"queries": 200}, None, few={"queries": 5})}
IN_L1["square"] = IN_L2["square"]
DISTANCE = {"linf": 0.05, "l2": 0.3, "l1": 1.5}  # of all images to their nearest adversaries


def row_of(name, norm):
    """Returns the `Row` of an attack in a norm."""
    return {"l1": IN_L1, "l2": IN_L2}.get(norm, {}).get(name) or ROWS.get(name, Row())


CASES = [(name, norm) for name, attack in ATTACKS.items() for norm in attack.norms]
QUICK = [(name, norm) for name, norm in CASES if not row_of(name, norm).costly]
NAMES = list(dict(QUICK))


class Linear:
    """Logits a, -a and two far below, with a linear: every loss of these is monotonous in a.

    Attributes:
        slope: of a; 0 for a network without gradients.
        dark: the mean of pixels below which logits are no numbers.
        traces: how often it was traced.
    """

    def __init__(self):
        self.weights = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
        self.slope, self.dark, self.traces = tf.Variable(self.weights), tf.Variable(-1.0), 0

    def __call__(self, x):
        self.traces += 1
        a = tf.reduce_sum((x - 0.5) * self.slope, axis=(1, 2, 3))
        logits = tf.stack([a, -a, tf.fill(tf.shape(a), -30.0), tf.fill(tf.shape(a), -31.0)], axis=1)
        return tf.where(tf.reduce_mean(x, axis=(1, 2, 3))[:, None] < self.dark, float("nan"), logits)

    def value(self, x):
        """Returns a, in float64."""
        return np.sum((np.float64(x) - 0.5) * self.weights, axis=(1, 2, 3))


@pytest.fixture(scope="module")
def network():
    """One for the whole file, so that each attack is compiled once."""
    return Linear()


def called(network, name, norm, x, y, *, full=False, **more):
    """Calls an attack with few steps, or with the settings that come to the optimum."""
    attack, row = ATTACKS[name], row_of(name, norm)
    settings = dict(row.settings if full else row.few)
    if "norm" in attack.keywords:
        settings["norm"] = norm
    if "surrogate" in attack.needs:
        settings["surrogate"] = network
    return attack(network, x, y, **{**settings, **more}).numpy()


def all_at(network, distance, norm, *, inside):
    """Returns images of two classes that are so far from the other one, their classes, and the slopes towards it."""
    x = images(SIZE, 0.35, 0.65) if inside else np.clip(images(SIZE, -0.3, 1.3), 0, 1)
    y = np.arange(SIZE) % 2
    for k, sign in enumerate((-1.0, 1.0)):
        x[y == k] = nearest.all_at(
            distance, norm, x[y == k], sign * network.weights, lambda z, sign=sign: sign * network.value(z)
        )
    return x, y, slopes_of(network, y)


def slopes_of(network, y):
    """Returns the directions (B, H, W, C) that lead out of the classes y."""
    return np.where(y == 0, -1.0, 1.0)[:, None, None, None] * network.weights


@pytest.fixture(scope="module")
def labelled(network):
    """Images, some of whose pixels are 0 or 1, at all distances from the other class, and their classes."""
    x = np.clip(images(SIZE, -0.3, 1.3), 0, 1)
    return x, classes_of(network, x)


@pytest.fixture(autouse=True)
def whole(network):
    """The network is whole again after each test."""
    yield
    network.slope.assign(network.weights)
    network.dark.assign(-1.0)


@pytest.mark.parametrize("name, norm", CASES)
def test_fools_the_network_from_the_smallest_distance_on(name, norm, network):
    """All images farther than that, and none nearer; an attack that goes a fixed way ends at the best change."""
    row, distance = row_of(name, norm), DISTANCE[norm]
    x, y, slopes = all_at(network, distance, norm, inside=norm in row.inside)
    best = nearest.to_plane(x, slopes, np.abs(network.value(x)), norm)
    np.testing.assert_allclose(lengths(best, norm), distance, rtol=1e-4)
    if norm in row.inside:
        assert np.all(x + 1.01 * best > 0) and np.all(x + 1.01 * best < 1)
    else:
        assert np.mean((x == 0) | (x == 1)) > 0.2

    slack = row.slack
    if not row.costly:
        x_adv = called(network, name, norm, x, y, full=True, epsilon=(1 - min(slack or 0.01, 0.01)) * distance)
        assert not np.any(margins(network, x_adv, y) > 0)
        if ATTACKS[name].searches:
            np.testing.assert_array_equal(x_adv, x)
    if slack is not None:
        x_adv = called(network, name, norm, x, y, full=True, epsilon=(1 + slack) * distance)
        assert np.all(margins(network, x_adv, y) > 0)
        assert np.all(lengths(x_adv - x, norm) <= (1 + slack) * distance + 1e-5)
    if not ATTACKS[name].searches:
        change = (1 + slack) * distance * norms.of(norm).steepest(tf.constant(slopes))
        np.testing.assert_allclose(x_adv, np.clip(x + change, 0, 1), atol=1e-5)


@pytest.mark.parametrize("name, norm", [case for case in CASES if ATTACKS[case[0]].keywords["epsilon"] is None])
def test_finds_the_nearest_adversary_where_no_epsilon_is_given(name, norm, network):
    x, y, _ = all_at(network, DISTANCE[norm], norm, inside=norm in row_of(name, norm).inside)
    x_adv = called(network, name, norm, x, y, full=True)
    assert np.all(margins(network, x_adv, y) > 0) and x_adv.min() >= 0.0 and x_adv.max() <= 1.0
    ratio = lengths(x_adv - x, norm) / DISTANCE[norm]
    assert ratio.min() > 0.9999 and ratio.max() < 1.01


@pytest.mark.parametrize("name, norm", QUICK)
def test_is_in_the_ball_and_in_the_range_of_pixels_and_fools_the_network_or_is_clean(name, norm, network, labelled):
    x, y = labelled
    moved = []
    for epsilon in (0.3 * DISTANCE[norm], 3.0 * DISTANCE[norm], 4.0):
        x_adv = called(network, name, norm, x, y, epsilon=epsilon)
        assert np.all(lengths(x_adv - x, norm) <= epsilon + 1e-5) and x_adv.min() >= 0.0 and x_adv.max() <= 1.0
        fooled = margins(network, x_adv, y) > 0
        if ATTACKS[name].searches:
            np.testing.assert_array_equal(x_adv[~fooled], x[~fooled])
        moved.append(np.any(x_adv != x, axis=(1, 2, 3)))
    assert np.any(moved)


# In its first norm, and where its steps are others: what a norm makes of an image, `tests/norms_test.py` says.
OTHER_STEPS = [(name, "l1") for name in ("pgd", "apgd_ce")] + [("square", "l2"), ("square", "l1")]


@pytest.mark.parametrize("name, norm", [*((name, ATTACKS[name].norms[0]) for name in NAMES), *OTHER_STEPS])
def test_an_image_has_a_result_of_its_own(name, norm, network, labelled):
    """It repeats itself, whatever stands beside it, at whatever place; another seed draws something else."""
    (x, y), seeded = labelled, "seed" in ATTACKS[name].keywords
    attack = functools.partial(
        called, network, name, norm, epsilon=4.0 * DISTANCE[norm], **({"seed": 1} if seeded else {})
    )
    together = attack(x, y)
    np.testing.assert_array_equal(attack(x, y), together)
    assert np.any(together != x)

    some = np.array([9, 2, 5])
    np.testing.assert_allclose(attack(x[some], y[some], index=some), together[some], atol=1e-5)
    even = np.arange(SIZE) % 2 == 0
    others = np.where(even[:, None, None, None], x, x[::-1])
    np.testing.assert_allclose(attack(others, np.where(even, y, 1 - y))[even], together[even], atol=1e-5)

    if seeded and not row_of(name, norm).hides_draws:
        assert np.mean(np.abs(attack(x, y, seed=2) - together) > 1e-6) > 0.02
        elsewhere = attack(x, y, index=np.arange(SIZE) + 100)
        assert np.mean(np.abs(elsewhere - together) > 1e-6) > 0.02


@pytest.mark.parametrize("name", ["fgsm", "apgd_t", "square"])  # all are called by one function
def test_one_hot_labels_do_what_integers_do(name, network, labelled):
    x, y = labelled
    attack = functools.partial(called, network, name, ATTACKS[name].norms[0], x, epsilon=0.2)
    np.testing.assert_array_equal(attack(np.eye(CLASSES, dtype=np.float32)[y]), attack(y))


@pytest.mark.parametrize("name, norm", QUICK)
def test_epsilon_0_returns_the_images(name, norm, network, labelled):
    x, y = labelled
    wrong = np.where(np.arange(SIZE) < 4, 1 - y, y)
    np.testing.assert_array_equal(called(network, name, norm, x, wrong, epsilon=0.0), x)


@pytest.mark.parametrize("name, norm", QUICK)
def test_one_image_without_numbers_does_not_disturb_the_others(name, norm, network, labelled):
    x, y = labelled[0].copy(), labelled[1]
    x[0] = 0.0  # the only image so dark, wherever it goes within epsilon
    attack = functools.partial(called, network, name, norm, x, y, epsilon=0.5 * DISTANCE[norm])
    expected = attack()
    network.dark.assign(0.1)
    assert np.all(x[1:].mean(axis=(1, 2, 3)) > 0.2)
    x_adv = attack()
    np.testing.assert_allclose(x_adv[1:], expected[1:], atol=1e-5)
    assert np.all(np.isfinite(x_adv[0])) and lengths(x_adv[:1] - x[:1], norm) <= 0.5 * DISTANCE[norm] + 1e-5
    if ATTACKS[name].searches:
        np.testing.assert_array_equal(x_adv[0], x[0])


# But for attacks that go a fixed way from noise, and end there: tests/attacks/attacks_test.py.
STAY = [(name, norm) for name, norm in QUICK if ATTACKS[name].searches or "seed" not in ATTACKS[name].keywords]


@pytest.mark.parametrize("name, norm", STAY)
def test_without_a_gradient_or_numbers_all_images_stay_clean(name, norm, network, labelled):
    x, y = labelled[0], np.zeros(SIZE, int)
    network.slope.assign(0.0 * network.weights)
    for dark in (-1.0, 2.0):
        network.dark.assign(dark)
        np.testing.assert_array_equal(called(network, name, norm, x, y, epsilon=DISTANCE[norm]), x)


@pytest.mark.parametrize("name", NAMES)
def test_other_numbers_do_not_compile_again(name, network, labelled):
    """Another epsilon, seed, number of steps or length of a step."""
    attack = ATTACKS[name]
    few = {**attack.keywords, **ROWS.get(name, Row()).few}
    other = {key: few[key] + 1 for key in few if type(few[key]) is int and key != "eot_iterations"}
    other |= {key: 0.99 * few[key] for key in few if type(few[key]) is float}
    call = functools.partial(called, network, name, attack.norms[0], *labelled)
    call(epsilon=0.1)
    before = network.traces
    call(epsilon=0.2, **other)
    assert 0 < before == network.traces


@pytest.mark.parametrize("name", [name for name in NAMES if "restarts" in ATTACKS[name].keywords])
def test_more_restarts_fool_the_same_images_and_more(name):
    """Ripples on a slope: where a short search ends depends on its start."""
    directions, ripples = np.random.default_rng(5).normal(size=(32, 4)).astype(np.float32), tf.Variable(0.0)

    def rippled(x):
        along = tf.reshape(x - 0.5, (-1, 32)) @ directions
        wrong = along + 0.7 * tf.sin(ripples * along)
        return tf.concat([tf.fill((tf.shape(x)[0], 1), 4.0), wrong], axis=1)

    x, y = images(64), np.zeros(64, int)
    short = {key: value for key, value in {"steps": 3, "queries": 10}.items() if key in ATTACKS[name].keywords}
    attack = functools.partial(ATTACKS[name], rippled, x, y, seed=2, **short)
    gained = 0
    for number, epsilon in (30.0, 0.05), (30.0, 0.08), (8.0, 0.15):
        ripples.assign(number)
        clean = margins(rippled, x, y) > 0
        once, often = (attack(epsilon=epsilon, restarts=number).numpy() for number in (1, 8))
        fooled, fooled_often = (margins(rippled, x_adv, y) > 0 for x_adv in (once, often))
        assert np.all(fooled_often >= fooled)
        if "targets" not in ATTACKS[name].keywords:  # where a second start comes before a second target
            np.testing.assert_allclose(often[fooled & ~clean], once[fooled & ~clean], atol=1e-6)
        gained += np.any(fooled & ~clean) and np.any(fooled_often & ~fooled)
    assert gained


@pytest.mark.parametrize("name", ATTACKS)
def test_norms_that_it_does_not_have_are_refused(name, network, labelled):
    for norm in {*norms.NORMS, "l0"} - set(ATTACKS[name].norms):
        needs = dict.fromkeys(ATTACKS[name].needs, network)
        with pytest.raises(ValueError, match="norm.*; allowed: ") as raised:
            ATTACKS[name](network, *labelled, epsilon=0.1, norm=norm, **needs)
        assert "\n" not in str(raised.value)
        with pytest.raises(ValueError, match=f"norm of {name} is '{norm}'; allowed: "):
            ATTACKS[name].check_norm(norm)
