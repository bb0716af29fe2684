"""`recipes.orderings` on made-up cards: what is significant, what is not, and how many comparisons are counted."""

import errno
import json
import os
import sys
import types

import numpy as np
import pytest
import scipy.stats

from recipes import cifar10, orderings
from tests.recipes.compare_test import card_of, rows_of
from tests.recipes.leaderboard_test import evaluated, write
from tf_nuat import command_line
from tf_nuat.card import Measured
from tf_nuat.core import files
from tf_nuat.evaluate import wilson

IMAGES = 1000


def run(folder, defense, clean, pgd, robust, record=None):
    """Writes a card of these accuracies, with its evaluation by AutoAttack, and the outcome of each image."""
    card = card_of(defense, clean, pgd)
    card["recipe"]["measures"] = {"pgd_50": {"attack": "pgd", "steps": 50}}
    card["measured"] = {
        name: {"accuracy": share, "interval": list(wilson(round(share * IMAGES), IMAGES)), "images": IMAGES}
        for name, share in (("clean", clean), ("pgd_50", pgd))
    }
    path = write(folder / defense, card)
    clean_stage = {"name": "clean", "settings": {}, "accuracy": clean, "interval": [0, 1]}
    interval = list(wilson(round(robust * IMAGES), IMAGES))
    stages = [clean_stage, {"name": "apgd_ce", "settings": {}, "accuracy": robust, "interval": interval}]
    results = evaluated(path, robust, stages=stages)
    if record is not None:
        np.savez(results.parent / "record.npz", fooled_by=np.where(record, -1, 0), distance=np.zeros(len(record)))
    return path


def tables(page):
    """Returns the summary, and the rows of each measure by its ordering."""
    summary, *parts = page.split("\n## ")
    found = {part.split(",")[0]: {row["ordering"]: row for row in rows_of(part)} for part in parts}
    return {row["measure"]: row for row in rows_of(summary)}, found


def test_orderings_hold_fail_or_are_noise(tmp_path):
    run(tmp_path, "nuat", 0.80, 0.50, 0.45)
    run(tmp_path, "fbf", 0.60, 0.51, 0.55)
    run(tmp_path, "standard", 0.95, 0.0, 0.0)
    summary, found = tables(orderings.page(tmp_path))
    assert {name: list(rows) for name, rows in found.items()} == {  # the largest difference of the paper first
        "clean": ["standard > nuat", "standard > fbf", "fbf > nuat"],
        "pgd_50": ["nuat > standard", "fbf > standard", "nuat > fbf"],
        "autoattack": ["nuat > standard", "fbf > standard", "nuat > fbf"],
    }
    verdicts = {name: [row["verdict"] for row in rows.values()] for name, rows in found.items()}
    assert verdicts == {
        "clean": ["holds", "holds", "does not hold"],
        "pgd_50": ["holds", "holds", "within noise"],
        "autoattack": ["holds", "holds", "does not hold"],
    }
    assert summary["clean"]["orderings"] == "3" and summary["clean"]["does not hold"] == "1"
    row = found["clean"]["fbf > nuat"]
    assert (row["paper"], row["ours"], row["test"]) == ("82.83 > 81.01", "60.00, 80.00", "unpaired")
    expected = scipy.stats.fisher_exact([[500, 500], [510, 490]]).pvalue
    assert found["pgd_50"]["nuat > fbf"]["p (Holm)"] == f"{expected:.2g}"  # the largest p-value is as it is


def test_what_the_paper_ties_is_no_ordering(tmp_path):
    run(tmp_path, "fgsm_at", 0.80, 0.10, 0.10)
    run(tmp_path, "standard", 0.95, 0.0, 0.0)
    summary, found = tables(orderings.page(tmp_path))
    assert {name: list(rows) for name, rows in found.items()} == {"clean": ["fgsm_at > standard"]}
    assert summary["pgd_50"]["orderings"] == "0"
    assert found["clean"]["fgsm_at > standard"]["verdict"] == "does not hold"


def test_the_same_images_are_compared_in_pairs(tmp_path):
    """25 images withstand NuAT's network alone, 5 FBF's: in pairs that is significant, in two samples it is not."""
    both, neither = np.ones(400, bool), np.zeros(570, bool)
    nuat = np.concatenate([both, neither, np.ones(25, bool), np.zeros(5, bool)])
    fbf = np.concatenate([both, neither, np.zeros(25, bool), np.ones(5, bool)])
    for records, test, verdict in ((nuat, fbf), "paired", "holds"), ((nuat, None), "unpaired", "within noise"):
        folder = tmp_path / test
        run(folder, "nuat", 0.9, 0.5, float(nuat.mean()), records[0])
        run(folder, "fbf", 0.9, 0.5, float(fbf.mean()), records[1])
        _, found = tables(orderings.page(folder))
        row = found["autoattack"]["nuat > fbf"]
        assert (row["test"], row["verdict"], row["ours"]) == (test, verdict, "42.50, 40.50")
    # 30 coins, at most 5 of them heads, or tails; three comparisons, of which this is the clearest.
    p_value = 3 * 2 * scipy.stats.binom.cdf(5, 30, 0.5)
    _, found = tables(orderings.page(tmp_path / "paired"))
    assert found["autoattack"]["nuat > fbf"]["p (Holm)"] == f"{p_value:.2g}"


def test_what_runs_kept_of_each_image_is_compared_in_pairs(tmp_path):
    """NuAT's network loses 30 images under PGD that FBF's does not, and no other."""
    clean, nuat = np.arange(IMAGES) < 900, np.arange(IMAGES) < 500
    for name, pgd in ("nuat", nuat), ("fbf", nuat & (np.arange(IMAGES) >= 30)):
        path = run(tmp_path, name, 0.9, float(pgd.mean()), 0.4)
        np.savez(path.parent / "outcomes.npz", clean=clean, pgd_50=pgd)
    _, found = tables(orderings.page(tmp_path))
    row = found["pgd_50"]["nuat > fbf"]
    assert (row["test"], row["verdict"], row["ours"]) == ("paired", "holds", "50.00, 47.00")
    assert row["p (Holm)"] == f"{3 * 2 * 0.5**30:.2g}"
    assert (found["clean"]["fbf > nuat"]["test"], found["clean"]["fbf > nuat"]["verdict"]) == ("paired", "within noise")
    assert found["autoattack"]["nuat > fbf"]["test"] == "unpaired"


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        ({"pgd_50": np.arange(IMAGES) < 400}, "of another pgd_50 than the card; allowed: those of its run"),
        ({"clean": np.arange(10) < 9}, "of another clean than the card"),
        ({"pgd_7": np.arange(IMAGES) < 400}, "of another pgd_7 than the card"),
        (None, "which cannot be read .*; allowed: what the run wrote"),
    ],
)
def test_outcomes_of_another_run_are_named(outcomes, words, tmp_path):
    path = run(tmp_path, "nuat", 0.9, 0.5, 0.4).parent / "outcomes.npz"
    run(tmp_path, "fbf", 0.9, 0.5, 0.4)
    path.write_bytes(b"no archive") if outcomes is None else np.savez(path, **outcomes)
    with pytest.raises(ValueError, match=rf"outcomes are '.*outcomes.npz', {words}"):
        orderings.page(tmp_path)


def test_records_of_other_images_are_not_paired(tmp_path):
    record = np.arange(IMAGES) < 425
    run(tmp_path, "nuat", 0.9, 0.5, 0.425, record)
    path = run(tmp_path, "fbf", 0.9, 0.5, 0.425, record)
    results = path.parent / "evaluation" / "autoattack" / "results.json"
    results.write_text(json.dumps({**json.loads(results.read_text()), "seed": 1}))
    _, found = tables(orderings.page(tmp_path))
    assert found["autoattack"]["nuat > fbf"]["test"] == "unpaired"


def test_the_figures_of_the_paper_are_those_that_the_recipes_claim():
    """Two places that were copied from the paper at different times."""
    compared = 0
    for name in set(orderings.PAPER) - {"sat_r2"}:  # whose recipe has the claims of its own paper
        claimed = cifar10.RECIPES[name].claimed
        for measure, figure in zip(("clean", "pgd_500"), orderings.PAPER[name]):
            compared += measure in claimed
            assert measure not in claimed or round(100 * claimed[measure], 2) == figure, (name, measure)
    assert compared >= 20


def test_the_interval_of_an_unpaired_difference_is_newcombes():
    """Newcombe (1998), table II, method 10: 56 of 70 and 48 of 80."""
    first, second = (Measured(k / n, wilson(k, n), n) for k, n in ((56, 70), (48, 80)))
    assert orderings.unpaired_difference(first, second) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("p_value, verdict", [(0.049, "holds"), (0.05, "within noise")])
def test_the_level_is_five_percent(p_value, verdict):
    assert orderings.verdict_of(types.SimpleNamespace(difference=0.1), p_value) == verdict


def test_defenses_that_the_table_lacks_are_named(tmp_path):
    for name in "nuat", "sat_r2", "nuat2_wa":
        run(tmp_path, name, 0.9, 0.5, 0.4)
    page = orderings.page(tmp_path)
    assert "In table 1a, sat_r2 is called R-MGM" in page and "free_at" not in page
    assert "Not in table 1a: nuat2_wa." in page and "nuat2_wa >" not in page
    assert "all 3 comparisons together" in page and "PGD-500 of the paper" in page


def test_runs_that_were_not_measured_by_all_are_compared_by_the_others(tmp_path):
    for name, lacks in ("nuat", "autoattack"), ("fbf", "autoattack"), ("gat", "pgd_50"), ("standard", None):
        path = run(tmp_path, name, 0.9, 0.5, 0.4)
        if lacks == "autoattack":
            (path.parent / "evaluation" / "autoattack" / "results.json").unlink()
        elif lacks:
            spoiled(path, lambda card: card["measured"].pop("pgd_50"))
    page = orderings.page(tmp_path)
    assert "Not measured by pgd_50: gat." in page and "Not measured by autoattack: fbf, nuat." in page
    summary, found = tables(page)
    assert {name: int(row["orderings"]) for name, row in summary.items()} == {"clean": 6, "pgd_50": 3, "autoattack": 1}
    assert "all 10 comparisons together" in page and list(found["autoattack"]) == ["gat > standard"]


def test_where_no_run_was_measured_so_nothing_is_said_of_it(tmp_path):
    for name in "nuat", "fbf":
        (run(tmp_path, name, 0.9, 0.5, 0.4).parent / "evaluation" / "autoattack" / "results.json").unlink()
    page = orderings.page(tmp_path)
    assert "## autoattack" not in page and "Not measured by autoattack: fbf, nuat." in page


def spoiled(path, change):
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


BAD = [
    (lambda path: path.unlink(), "with 1 of table 1a; allowed: at least 2 of standard, fgsm_at"),
    (lambda path: spoiled(path, lambda c: c["recipe"].update(defense="nuat")), "both nuat; allowed: each once"),
    (lambda path: spoiled(path, lambda c: c["measured"]["pgd_50"].update(images=900)), "test images {'pgd_50': 900}"),
]


@pytest.mark.parametrize("spoil, words", BAD)
def test_runs_that_cannot_be_compared_are_refused(spoil, words, tmp_path, monkeypatch, capsys):
    run(tmp_path / "runs", "nuat", 0.9, 0.5, 0.4)
    spoil(run(tmp_path / "runs", "fbf", 0.9, 0.5, 0.4))
    monkeypatch.setattr(sys, "argv", ["orderings", f"--cards={tmp_path / 'runs'}", f"--out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit) as stopped:
        command_line.main(orderings.main)
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and words in printed and printed.count("\n") == 1, printed
    assert not (tmp_path / "out").exists()


def test_the_command_writes_the_page(tmp_path, capsys):
    for name in "nuat", "fbf":
        run(tmp_path, name, 0.9, 0.5, 0.4)
    for missing in ["--cards=x"], ["--out=x"]:
        with pytest.raises(ValueError, match="(out|cards) is not given; allowed: "):
            orderings.main(missing)
    assert orderings.main([f"--cards={tmp_path}", f"--out={tmp_path}"]) == 0
    assert (tmp_path / "orderings.md").read_text() in capsys.readouterr().out


def test_a_full_disk_keeps_the_page_that_was_there(tmp_path, monkeypatch):
    for name in "nuat", "fbf":
        run(tmp_path, name, 0.9, 0.5, 0.4)
    (tmp_path / "orderings.md").write_text("before")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(files.NotSavedError, match="orderings.md cannot be written"):
        orderings.main([f"--cards={tmp_path}", f"--out={tmp_path}"])
    assert (tmp_path / "orderings.md").read_text() == "before"
