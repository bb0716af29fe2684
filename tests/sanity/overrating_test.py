"""A sign of masking counts where more than chance is left; where the sample is too small to tell, it stays open."""

import importlib

import numpy as np
import pytest
import scipy.stats

from sanity import Verdict, statistics
from sanity.checks import random_search_is_not_stronger
from sanity.measure import survivors
from sanity.settings import Settings
from sanity.statistics import Overrating, clearest_overrating
from sanity.statistics.tolerance import Share

# The package has the function by that name.
attack_does_not_fail = importlib.import_module("sanity.checks.attack_does_not_fail")
TOO_FEW = Overrating(False, False, " Too few to tell.")
LOSS = survivors.loss(np.arange(200) < 27, np.zeros(200, bool), Settings(), tolerance=0.005)


class Judged:
    chance = 0.1

    def __init__(self, size=200):
        self.size = size

    def __len__(self):
        return self.size


def outcome(left, size=200):
    return np.arange(size) < left


def of(left, size=200):
    return Overrating.of("PGD", outcome(left, size), Judged(size), Settings())


@pytest.mark.parametrize(
    ("left", "size", "verdicts", "words"),
    [
        (40, 200, ("fail", "inconclusive", "pass"), ""),
        (29, 200, ("fail", "inconclusive", "pass"), ""),  # by chance in 3 of 100 cases: less than the intervals allow
        (27, 200, ("inconclusive", "inconclusive", "pass"), "13.5% of the images, and they are too few to tell that"),
        (22, 200, ("inconclusive", "inconclusive", "pass"), "11.0% of the images, and they are too few to tell that"),
        (216, 1600, ("fail", "inconclusive", "pass"), ""),  # 13.5 %, too
        (176, 1600, ("pass", "pass", "pass"), "11.0% of the images, no more than chance (10.0%): there is nothing"),
        (15, 200, ("pass", "pass", "pass"), "7.5% of the images, no more than chance (10.0%): there is nothing"),
        (0, 80, ("pass", "pass", "pass"), "0.0% of the images, no more than chance"),
        (0, 20, ("inconclusive", "inconclusive", "pass"), "too few"),  # none of 20: up to 16 %
    ],
)
def test_a_sign_counts_by_how_much_is_left(left, size, verdicts, words):
    found = of(left, size)
    assert tuple(found.verdict(sign).value for sign in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)) == verdicts
    assert words in found.words and bool(words) is bool(found.words)
    assert found.p_value(0.001) == (0.001 if verdicts[0] == "fail" else 1.0)
    chance = scipy.stats.binom.sf(left - 1, size, 0.1)
    assert found.possible == (chance < 0.05) == statistics.is_overratable(outcome(left, size), Judged(size), Settings())
    high = scipy.stats.binomtest(left, size).proportion_ci(0.95, method="wilson").high
    assert found.ruled_out == (high < 0.15 and not found.possible)


def test_what_is_detectable_says_how_much_more_than_chance_matters():
    assert not of(22).ruled_out
    assert Overrating.of("PGD", outcome(22), Judged(), Settings(detectable=0.1)).ruled_out


@pytest.mark.parametrize(
    ("comparisons", "verdict", "name", "p_value"),
    [
        ({"a": (40, 80)}, Verdict.FAIL, "a", 0.5**40),
        ({"a": (80, 80)}, Verdict.PASS, "a", 1.0),
        ({"a": (0, 10)}, Verdict.PASS, "a", 1.0),  # nothing is overrated
        ({"a": (4, 27)}, Verdict.INCONCLUSIVE, "a", 1.0),
        ({"a": (27, 27)}, Verdict.PASS, "a", 1.0),
        ({"a": (80, 80), "b": (4, 27)}, Verdict.INCONCLUSIVE, "b", 1.0),
        ({"a": (80, 80), "b": (27, 27), "c": (0, 10)}, Verdict.PASS, "a", 1.0),
        ({"a": (40, 80), "b": (4, 27)}, Verdict.FAIL, "a", 2 * 0.5**40),
    ],
)
def test_of_several_increases_those_count_whose_second_outcome_may_be_overrated(comparisons, verdict, name, p_value):
    outcomes = {each: tuple(map(outcome, pair)) for each, pair in comparisons.items()}
    increase, found, p, words = clearest_overrating(outcomes, Judged(), Settings())
    assert (found, increase.name) == (verdict, name)
    open_words = " The weaker attack leaves 13.5% of the images, and they are too few to tell that from chance (10.0%)."
    assert words == (open_words if verdict is Verdict.INCONCLUSIVE else "")
    assert p == pytest.approx(p_value, abs=0.0)


def test_indicators_that_may_count_leave_the_attack_undecided():
    tolerated = attack_does_not_fail.TOLERATED
    found = {name: Share.of(0, 190, tolerance, Settings(), tests=4) for name, tolerance in tolerated.items()}
    found["lost adversaries"] = Share.of(27, 190, 0.01, Settings(), tests=4)
    verdict, main, explanation, remedy = attack_does_not_fail._decided(found, 190, 190, TOO_FEW)
    assert (verdict, main) == (Verdict.INCONCLUSIVE, "lost adversaries")
    assert explanation == "The attack shows lost adversaries on 14.2% of the images. Too few to tell."
    assert remedy == "Judge more images (--samples)."
    assert attack_does_not_fail._decided(found, 190, 190, Overrating(True, False, ""))[0] is Verdict.FAIL
    found["lost adversaries"] = found["transfer failure"]
    assert attack_does_not_fail._decided(found, 190, 190, TOO_FEW)[0] is Verdict.PASS


class Guessed(Judged):
    """Its attacks: PGD leaves 27 of 200 images, all of which random points fool."""

    epsilon = 0.1

    def correct(self, attack=None, **settings):
        return outcome({"pgd": 27, "random_search": 0}.get(attack, self.size))


def test_where_a_sign_is_significant_only_what_pgd_leaves_is_said_to_be_open():
    result = random_search_is_not_stronger(Guessed(), Settings())
    assert result.verdict is Verdict.INCONCLUSIVE and result.p_value == 1.0
    seen = "PGD leaves 27 of 200 images; one of 100 random points of the ball fools 27 of them, 13.5% of all."
    assert result.explanation == f"{seen}{of(27).words}"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("gradients_are_available", (0.135, "images", TOO_FEW.words, "more", Settings())),
        ("gradient_free_is_not_stronger", ("Seen", LOSS, TOO_FEW.words, Settings())),
        ("loss_surface_is_smooth", (LOSS, 0.5, TOO_FEW.words)),
    ],
)
def test_where_a_sign_is_significant_nothing_else_is_said_to_be_open(name, arguments):
    check = importlib.import_module(f"sanity.checks.{name}")
    explanation, _ = check._words(Verdict.INCONCLUSIVE, *arguments)
    assert explanation.endswith(TOO_FEW.words) and explanation.count("too ") == 0
