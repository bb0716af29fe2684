"""Interpolation and extrapolation of losses to a threshold, against known crossings."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from tf_nuat.critical_epsilon import intersection
from tf_nuat.critical_epsilon import theory as theory

LINE = [0.1 + 2.0 * epsilon for epsilon in (0.1, 0.2, 0.4)]


def test_interpolation_finds_the_crossing_of_straight_and_broken_lines():
    assert intersection.interpolated([0.1, 0.2, 0.4], [LINE], [0.7]).epsilon == pytest.approx(0.3)
    assert intersection.interpolated([0.4, 0.1, 0.2], [LINE[2:] + LINE[:2]], [0.7]).epsilon == pytest.approx(0.3)
    broken = intersection.interpolated([1, 2, 3], [[0.0, 1.0, 5.0]], [3.0])
    assert broken.epsilon == pytest.approx(2.5) and (broken.low, broken.high, broken.lines) == (None, None, None)


def test_of_several_crossings_the_largest_epsilon_counts():
    assert intersection.interpolated([1, 2, 3, 4], [[0.0, 2.0, 0.5, 1.5]], [1.0]).epsilon == pytest.approx(3.5)
    assert intersection.interpolated([1, 2, 3], [[0.0, 1.0, 2.0]], [1.0]).epsilon == pytest.approx(
        2.0
    )  # not above counts


def test_extrapolation_finds_the_crossing_of_a_line_and_fits_by_least_squares():
    found = intersection.extrapolated([0.1, 0.2, 0.4], [LINE], 2.1)
    assert found.epsilon == pytest.approx(1.0) and found.lines[0] == pytest.approx((0.1, 2.0))
    losses = np.array([0.2, 0.5, 0.6, 1.1])
    fit = scipy.stats.linregress([0.1, 0.2, 0.3, 0.4], losses)
    found = intersection.extrapolated([0.1, 0.2, 0.3, 0.4], [losses], 3.0)
    assert found.epsilon == pytest.approx((3.0 - fit.intercept) / fit.slope)


def test_the_interval_is_students_and_is_cut_off_at_zero():
    losses = [[0.0, 1.0], [0.0, 1.0 / 2], [0.0, 1.0 / 3]]  # at threshold 1 the estimates are 1, 2 and 3
    found = intersection.extrapolated([1.0, 2.0], np.cumsum(np.diff(losses, prepend=0.0), axis=1), 1.0)
    assert found.each == pytest.approx((2.0, 3.0, 4.0)) and found.epsilon == pytest.approx(3.0)
    reference = scipy.stats.ttest_1samp(found.each, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))
    wide = intersection.interpolated([0.1, 1.0, 9.0], [[0.0, 0.1, 8.1], [0.0, 1.0, 2.0], [0.0, 2.0, 3.0]], [0.3] * 3)
    assert wide.low == 0.0 < wide.epsilon < wide.high


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator, epsilons = np.random.default_rng(0), np.array([0.1, 0.2, 0.3])
    covered = []
    for _ in range(400):
        losses = 0.1 + 0.5 * epsilons + 0.004 * generator.standard_normal((3, 3))
        found = intersection.extrapolated(epsilons, losses, 0.3)  # at 0.4
        covered.append(found.low <= 0.4 <= found.high)
    assert 0.91 < np.mean(covered) < 0.985


def test_linear_regression_is_estimated_by_both_ways():
    """The epsilon* of the definition, found by root finding on exact minimizers, for samples of linear regression."""
    x, y, theta_0 = theory.sample(60, 6, repeats=3, seed=5)
    thresholds = theory.clean_test_loss(theory.least_squares(x, y), theta_0)

    def loss(epsilon):
        return theory.adversarial_loss(theory.descend(x, y, epsilon, steps=400)[-1], x, y, epsilon)

    roots = np.mean([scipy.optimize.brentq(lambda e, i=i: loss(e)[i] - thresholds[i], 0.0, 1.0) for i in range(3)])
    grid, small = np.linspace(0.02, 0.5, 7), [0.005, 0.01, 0.02]
    exact = intersection.interpolated(grid, np.stack([loss(e) for e in grid], axis=1), thresholds)
    assert exact.epsilon == pytest.approx(roots, rel=0.02) and exact.low < roots < exact.high
    losses = np.stack([loss(e) for e in small], axis=1)
    fast = [intersection.extrapolated(small, losses[i], thresholds[i]).epsilon for i in range(3)]
    assert np.mean(fast) == pytest.approx(theory.first_order_critical(x, y, theta_0).mean(), rel=0.05)
    assert 1 / 1.2 < np.mean(fast) / roots < 1.2


REFUSED = [
    (
        intersection.interpolated,
        ([0.1, 0.2], [[1.0, 2.0]], [0.5]),
        "0.1 as the lowest.* 1 is above .* by smaller ones$",
    ),
    (
        intersection.interpolated,
        ([0.2, 0.1], [[2.0, 1.0]], [2.5]),
        "0.2 as the highest.* 2 is not above .* by larger ones$",
    ),
    (intersection.interpolated, ([0.1], [[1.0]], [1.0]), "epsilons are 0.1; allowed: at least 2 different ones"),
    (intersection.interpolated, ([], [[]], [1.0]), "epsilons are none; allowed: at least 2"),
    (
        intersection.interpolated,
        ([0.1, 0.1], [[1.0, 2.0]], [1.0]),
        "epsilons are 0.1, 0.1; allowed: at least 2 different",
    ),
    (intersection.interpolated, ([0.0, 0.1], [[1.0, 2.0]], [1.0]), "epsilons is 0.0; allowed: a number above 0"),
    (intersection.interpolated, ([0.1, 0.2], [[1.0, np.nan]], [1.0]), "losses are 1, nan; allowed: finite"),
    (
        intersection.extrapolated,
        ([0.1, 0.2], [[1.0, 2.0, 3.0]], 1.0),
        r"losses have shape \(1, 3\); allowed: \(runs, 2\)",
    ),
    (intersection.extrapolated, ([0.1, 0.2], [[1.0, 2.0], [2.0, 1.0]], 5.0), r"losses of run 2 do not rise \(2, 1\)"),
    (
        intersection.extrapolated,
        ([0.1, 0.2], [[1.1, 1.2]], 0.9),
        "is 1 at epsilon 0, not below the clean test loss 0.9",
    ),
]


@pytest.mark.parametrize("estimate, arguments, words", REFUSED)
def test_what_gives_no_estimate_is_refused_in_one_line(estimate, arguments, words):
    with pytest.raises(ValueError, match=words) as refused:
        estimate(*arguments)
    assert "\n" not in str(refused.value)
