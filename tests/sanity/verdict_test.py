"""From results to a verdict: two questions, one error probability."""

import dataclasses

import numpy as np
import pytest

from sanity import Result, Verdict, report, statistics, verdict
from sanity.settings import Settings

A, B, C = "gradients_are_available", "step_count_saturates", "white_box_beats_black_box"
FIGURE = "adaptive_attack_is_not_stronger"


def result(name, found, p_value=None):
    words = f"{name} saw it."
    masking = found is not Verdict.REPORTED
    return Result(name, found, "", 0.1, 0.0, 100, (0.0, 0.2), None, words, f"Mend {name}.", "", 0.0, masking, p_value)


def accuracy(share, size=1000):
    return verdict.accuracy(np.arange(size) < share * size, Settings())


@pytest.mark.parametrize(
    ("verdicts", "robust", "masking", "expected"),
    [
        ({A: Verdict.PASS}, 0.6, "not seen", "genuinely robust"),
        ({A: Verdict.PASS, B: Verdict.SKIPPED, FIGURE: Verdict.REPORTED}, 0.3, "not seen", "partly robust"),
        ({A: Verdict.PASS}, 0.08, "not seen", "not robust"),
        ({A: Verdict.PASS, B: Verdict.INCONCLUSIVE}, 0.6, "undecided", "undecided"),
        ({A: Verdict.SKIPPED, FIGURE: Verdict.REPORTED}, 0.6, "undecided", "undecided"),
        ({A: Verdict.PASS, C: Verdict.INCONCLUSIVE, B: Verdict.FAIL}, 0.6, "suspected", "masked gradients suspected"),
        ({A: Verdict.FAIL}, 0.0, "suspected", "masked gradients suspected"),
    ],
)
def test_the_verdict_follows_its_rule(verdicts, robust, masking, expected):
    results = [result(name, found) for name, found in verdicts.items()]
    assert verdict.masking(results) == masking
    found = verdict.overall(results, accuracy(0.9), accuracy(robust), chance=0.1)
    assert found == expected
    assert expected.split(" ")[0].lower() in verdict.headline(found, results).lower()


def test_of_two_classes_a_little_more_than_guessing_is_not_genuinely_robust():
    clean = accuracy(0.98)
    assert verdict.robustness(clean, accuracy(0.56), chance=0.5) == "partly robust"
    assert not verdict.is_sure(clean, accuracy(0.62), chance=0.5)  # the limit is 0.62
    assert verdict.robustness(clean, accuracy(0.7), chance=0.5) == "genuinely robust"
    assert verdict.robustness(accuracy(0.6), accuracy(0.34), chance=0.1) == "genuinely robust"  # half of 0.6


def test_the_headline_names_the_reason_and_not_the_checks():
    results = [result(A, Verdict.FAIL, 1e-5), result(B, Verdict.FAIL, 1e-9), result(C, Verdict.FAIL, 1e-7)]
    assert verdict.headline("genuinely robust", results, is_upper_limit=True).startswith(
        "At most genuinely robust, and"
    )
    said = verdict.headline("masked gradients suspected", results)
    assert said == "Masked gradients suspected. step_count_saturates saw it. 2 other checks say so, too."
    assert verdict.advice(results, accuracy(0.5), "genuinely robust").startswith("Mend step_count_saturates.")
    for options, share in (({}, "95 %"), ({"confidence": 0.9}, "90 %"), ({"confidence": 0.999}, "99.9 %")):
        assert f"({share} interval" in verdict.advice(results, accuracy(0.5), "genuinely robust", **options)
    fact = [*results, result("network_is_deterministic", Verdict.FAIL)]  # no matter of chance
    assert "network_is_deterministic saw it" in verdict.headline("masked gradients suspected", fact)


def test_more_time_is_asked_for_once():
    for remedy, said in (("Judge 73 images.", "Judge 73 images. Give"), ("Give it more time (--minutes).", "Give")):
        undone = dataclasses.replace(result(A, Verdict.INCONCLUSIVE), remedy=remedy)
        advice = verdict.advice([undone], accuracy(0.5), "not robust")
        assert advice == f"{said} it more time (--minutes) or a larger budget (--budget)."


def test_where_attacks_were_left_out_the_figure_is_an_upper_limit():
    whole = verdict.WorstCase(**dataclasses.asdict(accuracy(0.6)), attacks=3, attack="PGD")
    part, passed = dataclasses.replace(whole, left_out=("FAB-T", "Square")), [result(A, Verdict.PASS)]
    for found, words in (("genuinely robust", "Do not publish 60.0% ("), ("not robust", "publish 60.0% (")):
        said = verdict.advice(passed, part, found)
        assert words in said and "an upper limit: FAB-T; Square did not run on all images" in said
        assert "upper limit" not in verdict.advice(passed, whole, found)
    assert verdict.advice(passed, whole, "genuinely robust").startswith("Publish 60.0%")


def test_more_images_are_needed_where_a_limit_lies_within_the_interval():
    clean = accuracy(0.9)
    assert not verdict.is_sure(clean, accuracy(0.46, 200), 0.1) and verdict.is_sure(clean, accuracy(0.6, 200), 0.1)
    assert not verdict.is_sure(clean, accuracy(0.4, 200), 0.1)  # 33.5 to 46.9 %: half of 90 % is near the upper end
    assert not verdict.is_sure(clean, accuracy(0.11, 200), 0.1) and verdict.is_sure(clean, accuracy(0.0, 200), 0.1)


@pytest.mark.parametrize(
    ("robust", "masking", "upper_limit", "expected"),
    [
        ("genuinely robust", "not seen", False, ("good", "good")),
        ("genuinely robust", "not seen", True, ("fair", "good")),  # attacks were left out
        ("genuinely robust", "suspected", True, ("fair", "bad")),
        ("genuinely robust", "undecided", True, ("fair", "fair")),
        ("partly robust", "not seen", False, ("fair", "good")),
        ("not robust", "not seen", True, ("bad", "good")),
    ],
)
def test_what_may_be_overrated_is_never_green(robust, masking, upper_limit, expected):
    class Judged:
        robustness = robust
        is_upper_limit = upper_limit

    Judged.masking = masking
    assert tuple(report.tones(Judged()).values()) == expected


def test_holm_by_hand():
    assert statistics.holm_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm_adjusted([0.6, 0.5]) == [1.0, 1.0] and statistics.holm_adjusted([]) == []


def test_the_levels_are_those_of_holm():
    levels = statistics.holm({"a": 0.02, "b": 0.001, "c": 0.004, "d": 0.9}, 0.01)
    assert levels == pytest.approx({"b": 0.01 / 4, "c": 0.01 / 3, "a": 0.01 / 3, "d": 0.01 / 3})
    assert statistics.holm({"a": 0.02, "b": 0.001, "c": 0.003}, 0.01) == pytest.approx(
        {"b": 0.01 / 3, "c": 0.01 / 2, "a": 0.01}
    )
    assert statistics.holm({}, 0.01) == {}


def test_the_family_errs_no_more_often_than_alpha():
    """Twelve tests without a sign, of which each p-value is uniform, or discrete and larger: at most 1 % in all."""
    generator, rejected, rounds = np.random.default_rng(0), 0, 4000
    for _ in range(rounds):
        p_values = {str(number): each for number, each in enumerate(generator.uniform(size=12))}
        levels = statistics.holm(p_values, 0.01)
        rejected += any(p_values[name] < level for name, level in levels.items())
    assert rejected / rounds < 0.01 + 3 * np.sqrt(0.01 * 0.99 / rounds)
    assert rejected > 0  # the level is used


@pytest.mark.parametrize("discordant", [0.02, 0.05])
def test_equal_attacks_on_samples_that_grow_are_seldom_told_apart(discordant):
    """Paired tests of attacks that are equally strong, at 200, 400 and 800 images, alpha shared among the looks."""
    generator, rejected, rounds = np.random.default_rng(1), 0, 2000
    for _ in range(rounds):
        kind = generator.choice(3, size=800, p=[1 - 2 * discordant, discordant, discordant])
        first, second = kind == 1, kind == 2
        rejected += any(statistics.mcnemar(first[:n], second[:n]) < 0.01 / 3 for n in (200, 400, 800))
    assert rejected / rounds < 0.01
