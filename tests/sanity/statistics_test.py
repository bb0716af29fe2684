import itertools

import numpy as np
import pytest
import scipy.stats

from sanity import statistics
from sanity.result import Verdict
from sanity.settings import Settings


def outcomes(gained, lost, both=0, neither=0):
    """Returns two bool arrays with these numbers of images: true in the second only, in the first only, in both..."""
    first = np.repeat([False, True, True, False], [gained, lost, both, neither])
    second = np.repeat([True, False, True, False], [gained, lost, both, neither])
    return first, second


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_published_intervals(successes, n, low, high):
    np.testing.assert_allclose(statistics.wilson(successes, n), (low, high), atol=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 10), (500, 1000), (1000, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(successes, n, confidence):
    expected = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(statistics.wilson(successes, n, confidence=confidence), expected, atol=1e-12)


def test_wilson_limits_are_where_the_score_test_rejects():
    low, high = statistics.wilson(7, 50)
    for limit in (low, high):
        assert abs(7 / 50 - limit) / np.sqrt(limit * (1 - limit) / 50) == pytest.approx(scipy.stats.norm.ppf(0.975))


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [(8, 1, 10 / 512), (9, 0, 1 / 512), (1, 8, 511 / 512), (3, 3, 42 / 64), (0, 0, 1.0)],
)
def test_mcnemar_counts_the_coin_flips(gained, lost, p_value):
    assert statistics.mcnemar(*outcomes(gained, lost, both=30, neither=5)) == pytest.approx(p_value)


@pytest.mark.parametrize("gained, lost", [(8, 0), (0, 8), (5, 3), (4, 4), (0, 0)])
def test_two_sided_mcnemar_is_the_binomial_test(gained, lost):
    expected = scipy.stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert statistics.mcnemar_two_sided(*outcomes(gained, lost, both=30, neither=5)) == pytest.approx(expected)


def test_exceeds_is_the_binomial_tail():
    # P(at least 2 of 3 with probability 1/10) = 3 * 0.01 * 0.9 + 0.001
    assert statistics.exceeds(2, 3, 0.1) == pytest.approx(0.028)


def test_paired_difference_by_hand():
    # 10 gained and 4 lost of 98: with one more of each and 100 images the shares are 0.11 and 0.05.
    difference, low, high = statistics.paired_difference(*outcomes(10, 4, both=84))
    half = 1.959964 * np.sqrt((0.16 - 0.06**2) / 100)
    np.testing.assert_allclose((difference, low, high), (6 / 98, 0.06 - half, 0.06 + half), atol=1e-6)


def test_paired_difference_changes_its_sign_with_the_order():
    first, second = outcomes(10, 4, both=60)
    difference, low, high = statistics.paired_difference(first, second)
    np.testing.assert_allclose(statistics.paired_difference(second, first), (-difference, -high, -low))


@pytest.mark.parametrize(("gained", "lost"), [(0.02, 0.02), (0.3, 0.1), (0.01, 0.001)])
def test_paired_intervals_cover_the_truth(gained, lost):
    generator = np.random.default_rng(0)
    covered = 0
    for counts in generator.multinomial(200, [gained, lost, 1 - gained - lost], size=1000):
        _, low, high = statistics.paired_difference(*outcomes(counts[0], counts[1], both=counts[2]))
        covered += low <= gained - lost <= high
    assert covered >= 930  # 95 % of 1,000 intervals, less three standard deviations


def test_clearest_increase_corrects_for_the_number_of_comparisons():
    comparisons = {"small": outcomes(3, 2, both=95), "large": outcomes(9, 0, both=91), "none": outcomes(0, 0, both=100)}
    found = statistics.clearest_increase(comparisons)
    assert (found.name, found.difference) == ("large", 0.09)
    assert found.p_value == pytest.approx(3 / 512)


def test_every_comparison_has_to_rule_an_increase_out():
    """The clearest is of 1.5 points, 3.7 at most. Of the other, whose outcomes differ often, it may be 7.6 points."""
    comparisons = {"clear": outcomes(3, 0, both=197), "wide": outcomes(30, 30, both=140)}
    found = statistics.clearest_increase(comparisons)
    assert found.name == "clear" and found.high < 0.05 < found.highest
    assert found.verdict(Settings()) is Verdict.INCONCLUSIVE


def test_honest_outcomes_fail_no_more_often_than_alpha():
    """Nine attacks of one true strength, all 36 pairs compared: 200 judgements, of which alpha is 2."""
    generator = np.random.default_rng(1)
    failures = 0
    for _ in range(200):
        correct = generator.random((9, 100)) < 0.5
        pairs = {f"{i} {j}": (correct[i], correct[j]) for i, j in itertools.combinations(range(9), 2)}
        failures += statistics.clearest_increase(pairs).verdict(Settings()) is Verdict.FAIL
    assert failures <= 6


@pytest.mark.parametrize(
    ("pair", "verdict"),
    [
        (outcomes(0, 0, both=1000), Verdict.PASS),
        (outcomes(20, 0, both=980), Verdict.FAIL),
        (outcomes(0, 300, both=700), Verdict.PASS),
        (outcomes(0, 0, both=20), Verdict.INCONCLUSIVE),  # nothing was seen, and nothing could have been
        (outcomes(3, 0, both=7), Verdict.INCONCLUSIVE),  # a large difference on a small sample
    ],
)
def test_verdicts_need_enough_images(pair, verdict):
    assert statistics.clearest_increase({"only": pair}).verdict(Settings()) is verdict


@pytest.mark.parametrize(
    ("name", "value"), [("alpha", 0.0), ("alpha", 1.0), ("confidence", 2.0), ("detectable", "much"), ("steps", 0)]
)
def test_settings_name_what_is_wrong(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*allowed"):
        Settings(**{name: value})
