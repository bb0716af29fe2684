"""The leaderboard: the committed pages, rows of several seeds, evaluations beside the cards, sorting."""

import copy
import dataclasses
import hashlib
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from recipes import leaderboard, table
from recipes.pages import evaluations
from tests.recipes.compare_test import card_of, rows_of
from tf_nuat import card, command_line
from tf_nuat.evaluate import wilson
from tf_nuat.training import Recipe

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("leaderboard.md", "leaderboard.html")


def write(folder, card):
    """Writes a card into a new folder and returns its path."""
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(card))
    return folder / "card.json"


def evaluated(card_path, accuracy, *, name="autoattack", images=1000, **changes):
    """Writes what `tf_nuat.evaluate` would have found of the card's network, and returns the file."""
    clean = {"name": "clean", "settings": {}, "accuracy": 0.98, "interval": [0.97, 0.99]}
    attack = {"name": "apgd_ce", "settings": {"steps": 100, "norm": "linf", "epsilon": 0.3}}
    last = {**attack, "accuracy": accuracy, "interval": list(wilson(round(accuracy * images), images))}
    about = {"attacks": [[name, {}]], "dataset": "mnist", "split": "test", "seed": 0}
    content = {**about, "norm": "linf", "epsilon": 0.3, "images": images, "stages": [clean, last], **changes}
    path = card_path.parent / "evaluation" / name / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return path


def rows(folder):
    return rows_of(leaderboard.pages(folder, folder)["leaderboard.md"])


def test_the_committed_pages_are_those_of_the_committed_runs():
    rendered = leaderboard.pages(ROOT / "results", ROOT / "results")
    assert sorted(rendered) == sorted(PAGES)
    for name, text in rendered.items():
        assert (ROOT / "results" / name).read_text(encoding="utf-8") == text, (
            f"{name} is not that of the runs; python -m recipes.leaderboard --cards results --out results makes it anew"
        )


def test_every_committed_card_has_a_row_with_what_it_measured():
    page = leaderboard.pages(ROOT / "results", ROOT / "results")["leaderboard.md"]
    for path in leaderboard.cards_below(ROOT / "results"):
        link = f"({path.relative_to(ROOT / 'results').as_posix()})"
        [group] = [part for part in page.split("\n## ") if link in part]
        [row] = [line for line in group.splitlines() if link in line]
        if row.count("card.json") == 1:  # of several seeds a row has the mean
            [line] = [line for line in group.splitlines() if line.startswith(f"{row.split(' ')[1]}. ")]
            for measured in json.loads(path.read_text(encoding="utf-8"))["measured"].values():
                assert table.percent(measured["accuracy"], measured["interval"]) in line


def test_seeds_of_one_recipe_share_a_row_with_both_intervals(tmp_path):
    for seed, robust in enumerate((0.90, 0.91, 0.95)):
        card = card_of("nuat", 0.98, robust, seed=seed, seconds=100.0 + seed, claimed={"pgd_40": 0.93, "fgsm": 0.5})
        write(tmp_path / f"{'cab'[seed]}_seed_{seed}", card)
    write(tmp_path / "other", card_of("nuat", 0.97, 0.9, seed=3, epochs=2))
    row, other = rows(tmp_path)
    assert (row["seeds"], row["training s"], other["seeds"]) == ("0, 1, 2", "101", "3")
    # The mean is 92; the standard deviation of 90, 91, 95 is the root of 7; Student's t with two degrees: 4.302653.
    half = 100 * 4.302653 * math.sqrt(7 / 3) / 100
    assert row["worst case"] == f"92.00 [{92 - half:.2f}, {92 + half:.2f}]"
    low, high = wilson(2760, 3000)
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]
    assert f"92.00 ± {half:.2f}, pooled 92.00 [{100 * low:.2f}, {100 * high:.2f}]" in page
    assert "pgd_40 93.00 (measured -1.00, within the interval)" in row["paper claims"]
    assert "fgsm 50.00 (measured +45.00, above the claim)" in row["paper claims"]
    names = ("c_seed_0", "a_seed_1", "b_seed_2")  # in the order of the seeds, not of the folders
    assert row["runs"] == " ".join(f"[{name}]({name}/card.json)" for name in names)


def test_what_one_seed_lacks_is_not_said_of_all(tmp_path):
    """The fewest images, the most gradients, and no passes where those of one are not known."""
    cards = [card_of("nuat", 0.98, 0.9, seed=seed) for seed in range(3)]
    cards[1]["measured"]["pgd_40"]["images"] = 500
    cards[1]["passes"]["input_gradient"] = 1.5
    del cards[2]["passes"]["forward_backward"]
    for seed, each in enumerate(cards):
        write(tmp_path / str(seed), each)
    [row] = rows(tmp_path)
    assert row["training"] == "2 gradients" and "total FBP" not in row
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]
    assert re.search(r"pgd_40 \(pgd, steps 40\): [^;]*, 500 images;", page)


@pytest.mark.parametrize(
    "claim, words", [(0.905, "-0.50, within the interval"), (0.895, "+0.50, within"), (0.89, "+1.00, above the claim")]
)
def test_seeds_that_agree_by_chance_do_not_make_the_images_certain(claim, words, tmp_path):
    for seed in range(2):  # over seeds the interval has no width; of each seed it is [89.20, 90.80]
        write(tmp_path / str(seed), card_of("nuat", 0.98, 0.9, seed=seed, claimed={"pgd_40": claim}))
    assert f"pgd_40 {100 * claim:.2f} (measured {words}" in rows(tmp_path)[0]["paper claims"]


def test_a_seed_that_was_run_twice_is_no_second_seed(tmp_path):
    for name in "one", "two":
        write(tmp_path / name, card_of("nuat", 0.98, 0.9))
    assert [row["seeds"] for row in rows(tmp_path)] == ["0", "0"]


@pytest.mark.parametrize("minutes, seeds", ((4.0, ["0, 1"]), (None, ["0", "1"])))
def test_seeds_of_the_same_minutes_are_one_entry_whatever_epochs_they_had(tmp_path, minutes, seeds):
    for seed, epochs in enumerate((5.5, 6.5)):
        card = card_of("nuat", 0.98, 0.9, seed=seed)
        card["recipe"].update(minutes=minutes, epochs=epochs)
        write(tmp_path / str(seed), card)
    assert [row["seeds"] for row in rows(tmp_path)] == seeds


def test_a_seed_of_today_shares_the_row_of_a_published_run(tmp_path):
    """Recipes have a field more since, which has its default, and what their source says has changed."""
    card = json.loads((ROOT / "results/mnist_nuat/nuat_0/card.json").read_text(encoding="utf-8"))
    published = card["recipe"]
    today = dataclasses.replace(Recipe.from_json(published), seed=3, source="another sentence", claimed={})
    assert "minutes" not in published and published["precision"] != "float32"
    other = dataclasses.replace(today, seed=4, precision="float32")
    recipes = {"a": published, "b": today.to_json(), "c": other.to_json()}
    paths = [write(tmp_path / name, {**card, "recipe": recipe}) for name, recipe in recipes.items()]
    assert [row["seeds"] for row in rows(tmp_path)] == ["0, 3", "4"]
    assert "seed 3" in leaderboard.beside_claims(paths[:2])[0]
    with pytest.raises(ValueError, match="allowed: those of one recipe"):
        leaderboard.beside_claims(paths)


def test_beside_the_claims_each_seed_has_a_column_and_all_have_one(tmp_path):
    cards = [card_of("nuat", 0.98, robust, seed=seed, claimed={"pgd_40": 0.93}) for seed, robust in enumerate((0.9, 1))]
    paths = [write(tmp_path / str(seed), card) for seed, card in enumerate(cards)]
    evaluated(paths[1], 0.88)
    found = {row["measure"]: row for row in leaderboard.beside_claims(reversed(paths))}
    assert list(found["pgd_40"]) == ["measure", "test images", "seed 0", "seed 1", "measured", "claimed"]
    assert found["pgd_40"]["seed 0"] == table.percent(0.9, cards[0]["measured"]["pgd_40"]["interval"])
    assert found["pgd_40"]["claimed"] == "93.00 (measured +2.00, within the interval)"
    assert found["clean"]["claimed"] == "-"
    assert "seed 0" not in found["autoattack"] and found["autoattack"]["test images"] == "1,000"
    assert found["autoattack"]["measured"].endswith("(1 of 2 seeds)")


def test_beside_the_claims_stands_one_recipe_alone(tmp_path):
    paths = [write(tmp_path / name, card_of(name, 0.98, 0.9)) for name in ("nuat", "nuat_wa")]
    with pytest.raises(ValueError, match="allowed: those of one recipe"):
        leaderboard.beside_claims(paths)
    with pytest.raises(ValueError, match="each seed once"):
        leaderboard.beside_claims([paths[0], paths[0]])
    assert "seed 0" not in leaderboard.beside_claims(paths[:1])[0]


def test_the_worst_case_ranks_and_what_autoattack_has_not_seen_comes_after_it(tmp_path):
    for name, robust, attacked in [("nuat", 0.9, 0.7), ("sat_r2", 0.8, 0.75), ("fgsm_at", 0.95, None)]:
        path = write(tmp_path / name, card_of(name, 0.98, robust))
        if attacked is not None:
            evaluated(path, attacked)
    found = rows(tmp_path)
    assert [(row["defense"], row["under"]) for row in found] == [
        ("sat_r2", "autoattack"),
        ("nuat", "autoattack"),
        ("fgsm_at", "pgd_40 alone: an upper limit"),
    ]
    low, high = wilson(750, 1000)
    assert found[0]["worst case"] == f"75.00 [{100 * low:.2f}, {100 * high:.2f}]"
    assert [row["rank"] for row in found] == ["1", "2", "3"]


def test_an_estimate_for_all_images_takes_the_place_of_its_sample(tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    found = evaluated(path, 0.7)
    estimate = {"accuracy": 0.72, "interval": [0.71, 0.73], "images": 10_000}
    (found.parent / "two_phase.json").write_text(json.dumps(estimate))
    [row] = rows(tmp_path)
    assert (row["worst case"], row["under"]) == ("72.00 [71.00, 73.00]", "autoattack, estimated")


@pytest.mark.parametrize(
    "attacks, under",
    [
        ([["autoattack", {"version": "plus"}]], "autoattack_plus"),
        ([["autoattack", {"version": "v1"}]], "autoattack_v1"),
        ([["autoattack", {"version": "standard"}]], "autoattack"),
        ([["pgd", {"steps": 50}], ["autoattack", {}]], "pgd_50+autoattack"),
        ([["autoattack", {"version": "rand"}]], "autoattack_rand alone: an upper limit"),
        ([["pgd", {"steps": 50}]], "pgd_50 alone: an upper limit"),
    ],
)
def test_autoattack_counts_in_all_its_versions_but_that_of_apgd_alone(attacks, under, tmp_path):
    evaluated(write(tmp_path / "run", card_of("nuat", 0.98, 0.9)), 0.7, attacks=attacks)
    assert rows(tmp_path)[0]["under"] == under


def test_an_attack_with_other_settings_does_not_vanish_behind_its_name(tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9, claimed={"pgd_40": 0.9}))
    evaluated(path, 0.5, attacks=[["pgd", {"steps": 40, "restarts": 10}]])
    [row] = rows(tmp_path)
    assert row["under"] == "pgd_40 (pgd, steps 40, restarts 10) alone: an upper limit"
    assert row["worst case"].startswith("50.00 [") and row["paper claims"].startswith("pgd_40 90.00 (measured +0.00")
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]
    assert "; pgd_40 (pgd, steps 40, restarts 10): 50.00 [" in page


@pytest.mark.parametrize(
    "images, accuracy, of_how_many", [(500, 0.9, "1,000"), (1000, 0.9, "1,000"), (10_000, 0.88, "10,000")]
)
def test_of_the_same_attack_that_on_the_most_images_counts(images, accuracy, of_how_many, tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    evaluated(path, 0.88, images=images, attacks=[["pgd", {"steps": 40}]])
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]
    [shown] = re.findall(r"pgd_40 \(pgd, steps 40\): (\S+) \[[^]]*\], (\S+) images", page)
    assert shown == (f"{100 * accuracy:.2f}", of_how_many)


@pytest.mark.parametrize("whole", ["a", "b"])
def test_an_attack_on_all_images_takes_the_place_of_its_sample_and_of_the_estimate(whole, tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    sample, of_all = (path.parent / "evaluation" / name for name in (("b", "a") if whole == "a" else ("a", "b")))
    for folder, accuracy, images in (sample, 0.7, 1000), (of_all, 0.72, 10_000):
        evaluated(path, accuracy, name=folder.name, images=images, attacks=[["autoattack", {}]])
    estimate = {"accuracy": 0.75, "interval": [0.74, 0.76], "images": 10_000}
    (sample / "two_phase.json").write_text(json.dumps(estimate))
    [row] = rows(tmp_path)
    low, high = wilson(7200, 10_000)
    assert (row["worst case"], row["under"]) == (f"72.00 [{100 * low:.2f}, {100 * high:.2f}]", "autoattack")
    assert ", estimated" not in leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]


def test_seeds_share_a_measure_where_its_attack_is_the_same_and_not_where_its_name_is(tmp_path):
    plain, many = [["pgd", {"steps": 50}]], [["pgd", {"steps": 50, "restarts": 10}]]
    paths = [write(tmp_path / str(seed), card_of("nuat", 0.98, 0.9, seed=seed)) for seed in range(3)]
    evaluated(paths[0], 0.6, name="a", attacks=many)
    for path in paths[1:]:  # in these, what the first has as "pgd_50" comes after another of that name
        evaluated(path, 0.8, name="a", attacks=plain)
        evaluated(path, 0.6, name="b", attacks=many)
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]
    assert "; pgd_50 (pgd, steps 50, restarts 10): 60.00 ± 0.00, pooled 60.00" in page
    assert "; pgd_50 (pgd, steps 50): 80.00 ± 0.00, pooled 80.00" in page and "of 2 of 3 seeds" in page
    assert rows(tmp_path)[0]["under"] == "pgd_50 alone: an upper limit"
    found = {row["measure"]: row for row in leaderboard.beside_claims(paths)}
    assert list(found) == ["clean", "pgd_40", "fgsm", "pgd_50", "pgd_50 (pgd, steps 50)"]
    assert found["pgd_50"]["measured"].startswith("60.00 ± 0.00")


def test_of_two_runs_of_an_attack_on_as_many_images_the_first_counts(tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    for name, accuracy in ("a", 0.8), ("b", 0.7):
        evaluated(path, accuracy, name=name, attacks=[["autoattack", {}]])
    assert rows(tmp_path)[0]["worst case"].startswith("80.00 [")


def test_outcomes_are_those_of_the_run_of_an_attack_that_counts(tmp_path):
    """An evaluation of more images takes the place of the card's; without its record, there are no outcomes."""
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    np.savez(path.with_name("outcomes.npz"), pgd_40=np.arange(1000) < 900, fgsm=np.arange(1000) < 950)
    assert list(evaluations.card_with(path)[1]) == ["pgd_40", "fgsm"]
    folder = evaluated(path, 0.88, images=10_000, attacks=[["pgd", {"steps": 40}]]).parent
    assert list(evaluations.card_with(path)[1]) == ["fgsm"]
    np.savez(folder / "record.npz", fooled_by=np.full(10_000, -1))
    sample, robust = evaluations.card_with(path)[1]["pgd_40"]
    assert sample == ("test", 0, 10_000) and len(robust) == 10_000


@pytest.mark.parametrize("change", [{"epsilon": 0.4}, {"norm": "l2"}, {"norm": "l1", "epsilon": 0.1}])
def test_an_attack_of_another_threat_model_is_not_the_worst_case(change, tmp_path):
    other = card_of("nuat", 0.98, 0.9)
    other["recipe"]["measures"]["pgd_40"].update(change)
    write(tmp_path / "run", other)
    assert rows(tmp_path)[0]["under"] == "fgsm alone: an upper limit"


def test_the_verdict_stands_beside_and_a_masked_network_comes_last(tmp_path):
    said = {"nuat": (0.9, "masked gradients suspected"), "sat_r2": (0.5, "partly robust"), "fbf": (0.4, "not robust")}
    for name, (robust, verdict) in said.items():
        judged = write(tmp_path / name, card_of(name, 0.98, robust)).parent / "sanity" / "results.json"
        judged.parent.mkdir()
        judged.write_text(json.dumps({"verdict": verdict}))
    assert [row["verdict"] for row in rows(tmp_path)] == ["partly robust", "not robust", "masked gradients suspected"]
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.html"]
    for colour, verdict in ("good", "partly robust"), ("open", "not robust"), ("bad", "masked gradients suspected"):
        assert f'badge {colour}">{verdict}<' in page
    for text in ("[]", '{"verdict": "partly robust", "subject": []}'):
        judged.write_text(text)
        with pytest.raises(ValueError, match="results.json"):
            leaderboard.pages(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "change, shown",
    [
        ({}, "not robust"),
        ({"subject": {"norm": "L2"}}, "-"),
        ({"subject": {"epsilon": 0.1}}, "-"),
        ({"provenance": {"dataset": "digits"}}, "-"),
        ({"subject": {}, "provenance": {}}, "not robust"),  # what a judgement does not say is taken for the same
    ],
)
def test_a_verdict_on_another_threat_model_is_left_out(change, shown, tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    (path.parent / "sanity").mkdir()
    content = {"verdict": "not robust", "subject": {"norm": "L-infinity", "epsilon": 0.3}}
    content["provenance"] = {"dataset": "mnist"}
    for name, values in change.items():
        content[name] = {**content[name], **values} if values else {}
    (path.parent / "sanity" / "results.json").write_text(json.dumps(content))
    assert rows(tmp_path)[0]["verdict"] == shown


def test_a_verdict_on_another_checkpoint_in_the_folder_is_left_out(tmp_path):
    """`sanity.run --checkpoint RUN/other.keras` leaves its results where those of RUN/network.keras would be."""
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    (path.parent / "sanity").mkdir()
    for content, shown in (b"other", "-"), (b"judged", "not robust"):
        path.with_name("network.keras").write_bytes(content)
        judged = {"verdict": "not robust", "provenance": {"checkpoint_sha256": hashlib.sha256(b"judged").hexdigest()}}
        (path.parent / "sanity" / "results.json").write_text(json.dumps(judged))
        assert rows(tmp_path)[0]["verdict"] == shown


@pytest.mark.parametrize(
    "claim, words",
    [(0.9, "+0.00, within"), (0.905, "-0.50, within"), (0.95, "-5.00, below the claim"), (0.8, "+10.00, above")],
)
def test_a_claim_of_one_seed_is_judged_by_its_wilson_interval(claim, words, tmp_path):
    write(tmp_path / "run", card_of("nuat", 0.98, 0.9, claimed={"pgd_40": claim}))
    [row] = rows(tmp_path)
    assert row["paper claims"].startswith(f"pgd_40 {100 * claim:.2f} (measured {words}")
    assert "90.00 [89.20, 90.80]" in leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]


def test_evaluations_stand_beside_what_the_card_measured(tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9, claimed={"autoattack": 0.9311}))
    evaluated(path, 0.88)
    older = {"name": "pgd", "settings": {"steps": 500, "step_size": 0.01, "norm": "linf", "epsilon": 0.3}}
    content = json.loads((path.parent / "evaluation" / "autoattack" / "results.json").read_text())
    for name in "attacks", "dataset", "split", "seed":
        del content[name]  # as before they were written
    content["stages"][1].update(older)
    (path.parent / "evaluation" / "results.json").write_text(json.dumps(content))
    [row] = rows(tmp_path)
    assert row["paper claims"] == "autoattack 93.11 (measured -5.11, below the claim)"
    low, high = wilson(880, 1000)
    percent = f"88.00 [{100 * low:.2f}, {100 * high:.2f}], 1,000 images"
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]
    assert f"autoattack (autoattack): {percent}" in page
    assert f"pgd_500 (pgd, steps 500, step_size 0.01): {percent}" in page


@pytest.mark.parametrize("change", [{"split": "validation"}, {"epsilon": 0.2}, {"norm": "l2"}, {"dataset": "digits"}])
def test_evaluations_of_another_question_are_left_out(change, tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    evaluated(path, 0.88, **change)
    assert rows(tmp_path)[0]["under"] == "pgd_40 alone: an upper limit"
    assert evaluations.beside(path, card.read(path)) == []


def test_an_evaluation_of_another_network_is_refused(tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.97, 0.9))  # the evaluation has 98 % of as many images
    evaluated(path, 0.88)
    with pytest.raises(ValueError, match="results are .*98.00% of 1000 clean images correct; allowed: 97.00%"):
        leaderboard.pages(tmp_path, tmp_path)


def test_the_first_of_the_test_images_are_not_a_sample_of_them(tmp_path):
    card = card_of("nuat", 0.97, 0.9)
    card["recipe"]["test_images"] = 1000  # the evaluation has 98 % of as many, and of others
    evaluated(write(tmp_path / "run", card), 0.88)
    assert rows(tmp_path)[0]["under"] == "autoattack"


@pytest.mark.parametrize("text", ["{", "[]", '{"norm": "linf"}', '{"norm": "linf", "epsilon": 0.3, "stages": []}'])
def test_what_is_no_evaluation_is_named(text, tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    evaluated(path, 0.88).write_text(text)
    with pytest.raises(ValueError, match="autoattack/results.json', which are not those of an evaluation .*; allowed"):
        leaderboard.pages(tmp_path, tmp_path)


def test_the_record_of_each_image_is_read(tmp_path):
    path = write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    folder = evaluated(path, 0.88).parent
    [found] = evaluations.beside(path, card.read(path))
    assert found.robust() is None and found.sample == ("test", 0, 1000)
    np.savez(folder / "record.npz", fooled_by=np.array([-1, -2, 0, -1]), distance=np.zeros(4))
    np.testing.assert_array_equal(found.robust(), [True, False, False, True])


def test_groups_are_datasets_and_threat_models_and_neither_sources_nor_tutorials_are_runs(tmp_path):
    write(tmp_path / "a", card_of("eat", 0.98, 0.9))
    write(tmp_path / "a" / "sources" / "lenet_plus", card_of("standard", 0.98, 0.0))
    write(tmp_path / "tutorial" / "run", card_of("standard", 0.98, 0.0))
    other = card_of("nuat", 0.98, 0.9)
    other["recipe"].update(epsilon=0.2, network="resnet18", network_options={"width": 16})
    write(tmp_path / "b", other)
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]
    titles = re.findall(r"^## (.*)$", page, flags=re.MULTILINE)
    assert titles == ["mnist, L-infinity, epsilon 0.2", "mnist, L-infinity, epsilon 0.3"]
    assert "| nuat | 1 gradient | resnet18, width 16 |" in page and "| standard |" not in page


def test_an_upper_limit_does_not_look_like_a_worst_case(tmp_path):
    """A run without AutoAttack may stand higher in the plot, because it was attacked less."""
    evaluated(write(tmp_path / "attacked", card_of("nuat", 0.98, 0.9)), 0.8)
    write(tmp_path / "limit", card_of("fbf", 0.97, 0.9))
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.html"]
    marks = re.findall(r'<circle class="(.*?)" .*?>(\d+)</text>', page)
    assert marks == [("mark", "1"), ("mark limit", "2")]
    assert "Hollow marks are upper limits" in page
    shutil.rmtree(tmp_path / "limit")
    evaluated(write(tmp_path / "other", card_of("fbf", 0.98, 0.9)), 0.7)
    assert "Hollow" not in leaderboard.pages(tmp_path, tmp_path)["leaderboard.html"]


def test_a_run_on_a_part_of_the_training_images_says_so(tmp_path):
    card = card_of("nuat", 0.98, 0.9)
    write(tmp_path / "all", card)
    write(tmp_path / "part", {**card, "recipe": {**card["recipe"], "images_per_class": 2000}})
    for page in leaderboard.pages(tmp_path, tmp_path).values():
        assert page.count("training images per class") == page.count(", of 2000 training images per class") == 1


def test_settings_are_those_of_the_ranks_that_are_named(tmp_path):
    for name, defense, robust, source in (
        ("a", "nuat", 0.9, "one paper; its code"),
        ("b", "fbf", 0.8, "another"),
        ("c", "gat", 0.7, "one paper; its code"),
        ("d", "sat_r2", 0.6, ""),
    ):
        card = card_of(defense, 0.98, robust)
        card["recipe"]["source"] = source
        write(tmp_path / name, card)
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]
    assert "\n\n- Rank 1, 3: one paper; its code\n- Rank 2: another\n\n" in page


def test_the_page_needs_no_network_and_escapes_what_it_shows(tmp_path):
    card = card_of("nuat", 0.98, 0.9)
    card["recipe"]["network"] = "<b>mine</b>"
    write(tmp_path / "run", card)
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.html"]
    assert "<b>" not in page and "&lt;b&gt;mine" in page
    assert not re.search(r"https?:|src=|@import|url\(", page)
    assert re.findall('href="([^"]*)"', page) == ["run/card.json"]


def test_the_name_of_a_folder_is_part_of_an_address_and_no_scheme(tmp_path):
    for name in ("run#2 100%", "javascript:alert(1)"):
        write(tmp_path / name / "\udcff", card_of(f"{name}\ud800", 0.98, 0.9))
    leaderboard.main([f"--cards={tmp_path}", f"--out={tmp_path}"])
    links = {"javascript%3Aalert%281%29/%FF/card.json", "run%232%20100%25/%FF/card.json"}
    assert {*re.findall('href="([^"]*)"', (tmp_path / "leaderboard.html").read_text(encoding="utf-8"))} == links
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert {*re.findall(r"\]\((.*)\)", page)} == links and "100%\\ud800" in page


# A table of the two columns of `texts`, as much of a document as the script asks for.
STUB = """
const cell = text => ({ textContent: text });
const rows = texts.map(line => ({ cells: line.map(cell) }));
const head = () => {
  const attributes = {}, button = { addEventListener(_, action) { button.click = action; } };
  return { button, attributes, querySelector: () => button, getAttribute: name => attributes[name],
    setAttribute(name, value) { attributes[name] = value; }, removeAttribute(name) { delete attributes[name]; } };
};
const heads = [head(), head()];
const bodies = rows.map(row => ({ rows: [row], dataset: { network: row.cells[0].textContent }, hidden: false }));
const table = { tHead: { rows: [{ cells: heads }] }, tBodies: bodies, append(...sorted) { table.tBodies = sorted; } };
const choice = { dataset: { filter: "network" }, value: "", append() {},
  addEventListener(_, action) { choice.change = action; } };
const section = { querySelectorAll: () => bodies }, filters = { hidden: true };
const found = { table: [table], "[data-filter]": [choice], tbody: bodies, section: [section] };
const document = { querySelectorAll: name => found[name], querySelector: () => filters };
class Option { constructor(text) { this.text = text; } }
"""
CLICKS = """
const seen = () => table.tBodies.map(body => body.rows[0].cells[0].textContent).join(" ");
for (const place of [1, 1, 0, 1]) {
  heads[place].button.click();
  console.log(seen() + " " + JSON.stringify(heads.map(each => each.attributes["aria-sort"] || "")));
}
for (const value of ["c", "none", ""]) {
  choice.value = value;
  choice.change();
  console.log(bodies.filter(body => !body.hidden).length + " " + section.hidden);
}
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node, which runs the page's script, is not installed")
def test_a_click_on_a_heading_sorts_and_a_choice_filters(tmp_path):
    write(tmp_path / "run", card_of("nuat", 0.98, 0.9))
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.html"]
    [script] = re.findall(r"<script>\n(.*)</script>", page, flags=re.DOTALL)
    assert len(script.splitlines()) < 60
    texts = [["b", "9.50 [9, 10]"], ["d", "-"], ["a", "100.00 (claimed 3)"], ["c", "20.00 ± 1"]]
    program = f"const texts = {json.dumps(texts)};{STUB}{script}{CLICKS}"
    printed = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [
        'a c b d ["","descending"]',
        'b c a d ["","ascending"]',
        'd c b a ["descending",""]',
        'a c b d ["","descending"]',
        "1 false",
        "0 true",
        "4 false",
    ]


BAD = [
    ([], "cards is not given; allowed: "),
    (["--cards=results"], "out is not given; allowed: "),
    (["--cards=recipes", "--out=OUT"], "cards is 'recipes', which has no card.json; allowed: "),
    (["--cards=results", "--out=OUT", "--speed=3"], "speed"),
]


@pytest.mark.parametrize("arguments, words", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(arguments, words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    given = [argument.replace("OUT", str(tmp_path / "out")) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["leaderboard", *given])
    with pytest.raises(SystemExit) as stopped:
        command_line.main(leaderboard.main)
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and words in printed and printed.count("\n") == 1, printed
    assert not (tmp_path / "out").exists()


def test_a_broken_card_is_named(tmp_path):
    card = card_of("nuat", 0.98, 0.9)
    del card["training_seconds"]
    write(tmp_path / "run", card)
    with pytest.raises(ValueError, match="run/card.json', which is not the card of a run .training_seconds is missing"):
        leaderboard.pages(tmp_path, tmp_path)


def test_a_card_without_the_clean_accuracy_is_named_where_it_lies(tmp_path):
    path = write(tmp_path / "run", {**card_of("nuat", 0.98, 0.9), "measured": {}})
    evaluated(path, 0.8)
    with pytest.raises(ValueError, match="run/card.json', which is not the card of a run .measured.clean is missing"):
        leaderboard.pages(tmp_path, tmp_path)


def test_the_command_writes_both_pages(tmp_path, capsys):
    write(tmp_path / "runs" / "run", card_of("nuat", 0.98, 0.9))
    before = copy.deepcopy(sorted(tmp_path.rglob("*")))
    assert leaderboard.main([f"--cards={tmp_path / 'runs'}", f"--out={tmp_path / 'pages'}"]) == 0
    written = sorted(set(tmp_path.rglob("*")) - set(before))
    assert [path.name for path in written] == ["pages", "leaderboard.html", "leaderboard.md"]
    assert "(../runs/run/card.json)" in (tmp_path / "pages" / "leaderboard.md").read_text()
    assert "leaderboard.html" in capsys.readouterr().out


def test_what_a_card_says_is_text_in_markdown(tmp_path):
    hostile = card_of("nuat", 0.9, 0.5)
    hostile["recipe"].update(network="<img src=x onerror=y>", defense="[x](javascript:y)|a\n# b", source="<b>[z](y)")
    hostile["command"] = "`</code><script>`|"
    write(tmp_path / "](x) <i>", hostile)
    page = leaderboard.pages(tmp_path, tmp_path)["leaderboard.md"]
    (row,) = [line for line in page.splitlines() if "javascript" in line and line.startswith("|")]
    assert "| [x]\\(javascript:y)\\|a # b | 1 gradient | &lt;img src=x onerror=y> |" in row
    assert not re.search(r"<(?!!)", re.sub("`[^`]*`", "", page)) and "](y)" not in page
    assert row.count("](") == 1 and "%3Ci%3E" in row  # the link to the run, its name escaped
    assert table.code("`x` | y") == "`'x' | y`" and table.escaped("`a|b<c>`") == "`a\\|b<c>`"
