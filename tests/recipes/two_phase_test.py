"""Estimates for all images from a sample: closed forms, bias and coverage, what is read, shown and refused."""

import json
import os
import pathlib
import shutil
import types

import numpy as np
import pytest

from recipes import leaderboard, table, two_phase
from recipes.pages import evaluations
from tests.helpers.pictures import flat, save_folder
from tests.recipes.compare_test import card_of
from tests.recipes.leaderboard_test import evaluated, rows, write
from tf_nuat import data
from tf_nuat.data import datasets, splits
from tf_nuat.evaluate import wilson

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = 353  # in the test split


def test_an_estimate_is_the_known_share_times_that_of_the_sample():
    withstood = np.array([True] * 6 + [False] * 4)
    found = two_phase.estimate(withstood, np.array([0, 1, 2, 3, 9]), np.array([True, True, True, False, True]))
    assert (found["of_these_in_sample"], found["of_these_withstood_both"]) == (4, 3)
    assert found["accuracy"] == pytest.approx(0.6 * 0.75)
    np.testing.assert_allclose(found["interval"], 0.6 * np.array(wilson(3, 4)))


def test_nothing_is_left_to_estimate_where_no_image_withstands_the_quick_attacks():
    found = two_phase.estimate(np.zeros(10, bool), np.arange(5), np.zeros(5, bool))
    assert (found["accuracy"], found["interval"]) == (0.0, [0.0, 0.0])


def test_a_sample_of_all_images_gives_the_accuracy_in_the_worst_case():
    quick, slow = np.random.default_rng(0).random((2, 500)) < 0.8
    assert two_phase.estimate(quick, np.arange(500), slow)["accuracy"] == pytest.approx(np.mean(quick & slow))


def test_it_is_unbiased_covers_the_truth_and_is_nearer_to_it_than_the_sample_alone():
    generator = np.random.default_rng(0)
    quick = generator.random(4000) < 0.7
    slow = quick & (generator.random(4000) < 0.95)  # what the quick attack fools the slow one does, too
    estimates, samples, covered = [], [], []
    for _ in range(1000):
        chosen = generator.choice(4000, 400, replace=False)
        found = two_phase.estimate(quick, chosen, slow[chosen])
        low, high = found["interval"]
        estimates.append(found["accuracy"])
        samples.append(slow[chosen].mean())
        covered.append(low <= slow.mean() <= high)
    assert abs(np.mean(estimates) - slow.mean()) < 4 * np.std(estimates) / np.sqrt(len(estimates))
    assert np.mean(covered) > 0.93
    assert np.std(estimates) < 0.6 * np.std(samples)


def record(results, robust):
    """Writes the record of each image beside results."""
    np.savez(results.parent / "record.npz", fooled_by=np.where(robust, -1, 0), distance=np.zeros(len(robust)))


@pytest.fixture
def run(tmp_path):
    """A run on the digits with an attack on all test images and another on 100 of them: the card's path."""
    card = card_of("nuat", 0.98, 0.9, claimed={"clean": 0.97, "autoattack": 0.85})
    card["recipe"]["dataset"] = "digits"
    path = write(tmp_path / "run", card)
    quick, slow = np.random.default_rng(1).random((2, DIGITS)) < 0.9
    chosen = data.stratified(data.sample("digits")[1], 100, seed=0)
    record(evaluated(path, quick.mean(), name="gama_pgd", images=DIGITS, dataset="digits"), quick)
    record(evaluated(path, slow[chosen].mean(), images=100, dataset="digits"), slow[chosen])
    return path, quick, slow[chosen], chosen


def test_the_command_writes_what_the_leaderboard_shows_beside_the_claim(run, capsys):
    path, quick, robust, chosen = run
    expected = two_phase.estimate(quick, chosen, robust)
    [before] = rows(path.parent.parent)
    assert two_phase.main([f"--card={path}"]) == 0
    written = path.parent / "evaluation" / "autoattack" / evaluations.ESTIMATE
    content = json.loads(written.read_text())
    assert content == {"attacks_on_sample": "autoattack", "attacks_on_all": ["gama_pgd"], **expected}
    shown = table.percent(expected["accuracy"], expected["interval"])
    assert capsys.readouterr().out == f"{written}: {shown}\n"
    [row] = rows(path.parent.parent)
    assert (row["worst case"], row["under"]) == (shown, "autoattack, estimated")
    assert "autoattack 85.00" in before["paper claims"]
    assert "autoattack, estimated 85.00" in row["paper claims"] and "autoattack 85.00" not in row["paper claims"]
    found = {row["measure"]: row for row in leaderboard.beside_claims([path])}
    assert found["autoattack, estimated"]["test images"] == "353" and found["autoattack"]["test images"] == "100"


def test_the_sample_is_that_of_the_seed_of_its_evaluation(run):
    path, quick, robust, _ = run
    results = path.parent / "evaluation" / "autoattack" / "results.json"
    results.write_text(json.dumps({**json.loads(results.read_text()), "seed": 3}))
    chosen = data.stratified(data.sample("digits")[1], 100, seed=3)
    expected = two_phase.estimate(quick, chosen, robust)
    [content] = two_phase.estimates(path).values()
    assert {name: content[name] for name in expected} == expected


def test_estimates_of_several_seeds_are_not_pooled(run, tmp_path):
    path, *_ = run
    two_phase.main([f"--card={path}"])
    other = shutil.copytree(path.parent, tmp_path / "other") / "card.json"
    card = json.loads(other.read_text())
    card["recipe"]["seed"] = 1
    other.write_text(json.dumps(card))
    [row] = rows(tmp_path)
    assert row["seeds"] == "0, 1"
    found = {row["measure"]: row["measured"] for row in leaderboard.beside_claims([path, other])}
    assert "pooled" in found["gama_pgd"]
    [content] = two_phase.estimates(path).values()  # of both seeds, so their mean, and nothing between them
    low, high = content["interval"]
    interval = f"[{100 * low:.2f}, {100 * high:.2f}]"
    assert found["autoattack, estimated"] == (
        f"{100 * content['accuracy']:.2f} ± 0.00, with the seeds' own intervals {interval}"
    )
    assert row["worst case"] == table.percent(content["accuracy"], content["interval"])


def test_the_worst_of_all_quick_attacks_counts_and_the_clean_accuracy_is_no_attack(run):
    path, quick, robust, chosen = run
    other = np.random.default_rng(2).random(DIGITS) < 0.8
    record(evaluated(path, other.mean(), name="apgd_ce", images=DIGITS, dataset="digits"), other)
    card = json.loads(path.read_text())
    card["measured"] = {"clean": {"accuracy": 1.0, "interval": [0.9, 1.0], "images": DIGITS}}
    path.write_text(json.dumps(card))
    np.savez(path.parent / "outcomes.npz", clean=np.ones(DIGITS, bool))
    for results in path.parent.rglob("results.json"):
        results.write_text(results.read_text().replace('"accuracy": 0.98', '"accuracy": 1.0'))
    [content] = two_phase.estimates(path).values()
    assert content["attacks_on_all"] == ["apgd_ce", "gama_pgd"]
    expected = two_phase.estimate(quick & other, chosen, robust)
    assert {name: content[name] for name in expected} == expected


@pytest.mark.parametrize("beyond", [{"epsilon": 0.4}, {"norm": "l2"}])
def test_an_attack_beyond_the_threat_model_does_not_count(beyond, run):
    path, quick, robust, chosen = run
    card = json.loads(path.read_text())
    card["recipe"]["measures"]["pgd_40"].update(beyond)
    card["measured"]["pgd_40"] = {"accuracy": 0.0, "interval": [0.0, 0.01], "images": DIGITS}
    path.write_text(json.dumps(card))
    np.savez(path.parent / "outcomes.npz", pgd_40=np.zeros(DIGITS, bool))
    [content] = two_phase.estimates(path).values()
    assert content["attacks_on_all"] == ["gama_pgd"]
    assert content["accuracy"] == two_phase.estimate(quick, chosen, robust)["accuracy"] > 0.5


def test_a_run_that_was_measured_on_fewer_images_has_its_estimate_all_the_same(run):
    path, quick, robust, chosen = run
    card = json.loads(path.read_text())
    card["recipe"]["test_images"] = 100
    card["measured"] = {"clean": {"accuracy": 0.5, "interval": [0.4, 0.6], "images": 100}}
    path.write_text(json.dumps(card))
    np.savez(path.parent / "outcomes.npz", clean=np.arange(100) % 2 == 0)
    [content] = two_phase.estimates(path).values()
    assert content["accuracy"] == two_phase.estimate(quick, chosen, robust)["accuracy"]


def test_images_need_not_fit_into_memory_nor_be_whole(run, tmp_path, monkeypatch):
    """The labels are read, and the first image at most, for its shape."""
    path, *_ = run
    labels = data.sample("digits")[1]
    images = {str(label): [flat(0)] + [b"no image"] * (count - 1) for label, count in enumerate(np.bincount(labels))}
    save_folder(tmp_path / "digits" / "test", images)
    save_folder(tmp_path / "digits" / "train", {name: [flat(0)] * 10 for name in images})
    monkeypatch.setattr(splits, "MOST_BYTES", 1)
    [content] = two_phase.estimates(path, dataset=str(tmp_path / "digits")).values()
    assert content["images"] == DIGITS and content["of_these_in_sample"] <= 100


def test_test_images_are_enough_and_training_images_are_not_read(run, tmp_path, monkeypatch):
    path, *_ = run
    images, labels, _ = data.sample("digits")
    expected = two_phase.estimates(path)
    np.savez(tmp_path / "test.npz", images=images, labels=labels)
    assert two_phase.estimates(path, dataset=str(tmp_path / "test.npz")) == expected
    whole = data.load("digits").examples

    def read(data_dir, only):
        return {only: whole[only]}, map(str, range(10)), "none"

    monkeypatch.setitem(data.DATASETS, "digits", read)
    assert two_phase.estimates(path) == expected


def test_a_card_runs_no_code_and_opens_no_file_elsewhere(run, tmp_path, monkeypatch):
    path, *_ = run
    expected = two_phase.estimates(path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own_digits.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(elsewhere)
    for dataset in ("own_digits:splits", str(elsewhere)):
        for written in (path, *path.parent.rglob("results.json")):
            content = json.loads(written.read_text())
            (content["recipe"] if written == path else content)["dataset"] = dataset
            written.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="dataset in .*card.json is '.*'; allowed in a card: .*--dataset"):
            two_phase.main([f"--card={path}"])
        assert not (elsewhere / "ran").exists()
        assert two_phase.estimates(path, dataset="digits") == expected  # who says what it is knows


def test_a_dataset_that_is_none_is_named(run):
    with pytest.raises(ValueError, match="dataset is 'nowhere'; allowed: "):
        two_phase.main([f"--card={run[0]}", "--dataset=nowhere"])


def test_records_of_other_images_are_refused(run):
    path, _, robust, chosen = run
    clean = np.ones(DIGITS, bool)
    clean[chosen[robust][0]] = False  # withstands an attack, but is wrong without one
    card = json.loads(path.read_text())
    card["measured"] = {"clean": {"accuracy": float(clean.mean()), "interval": [0.9, 1.0], "images": DIGITS}}
    path.write_text(json.dumps(card))
    np.savez(path.parent / "outcomes.npz", clean=clean)
    results = path.parent / "evaluation" / "gama_pgd" / "results.json"
    results.write_text(results.read_text().replace('"accuracy": 0.98', f'"accuracy": {clean.mean()}'))
    with pytest.raises(ValueError, match="autoattack' is not of 100 images of digits; allowed"):
        two_phase.estimates(path)


@pytest.mark.parametrize("missing", ["gama_pgd/results.json", "autoattack/results.json", "gama_pgd/record.npz"])
def test_what_is_missing_is_named_and_nothing_is_written(missing, run):
    path, *_ = run
    (path.parent / "evaluation" / missing).unlink()
    with pytest.raises(ValueError, match="attacks were evaluated on all 353 test images and .*; allowed: at least one"):
        two_phase.main([f"--card={path}"])
    assert not list(path.parent.rglob(evaluations.ESTIMATE))


def test_a_broken_estimate_is_named(run):
    path, *_ = run
    (path.parent / "evaluation" / "autoattack" / evaluations.ESTIMATE).write_text('{"accuracy": 0.5}')
    with pytest.raises(ValueError, match="two_phase.json beside it is not what recipes.two_phase writes: delete it"):
        leaderboard.beside_claims([path])


def labels_of(dataset):
    """Returns the labels of the test split, in its order."""
    tfds = pytest.importorskip("tensorflow_datasets")
    where = os.environ.get("TFDS_DATA_DIR", "")
    if not os.path.isdir(os.path.join(where, dataset)):
        pytest.skip(f"{dataset} is not prepared in TFDS_DATA_DIR")
    split = tfds.builder(dataset, data_dir=where).as_dataset("test", decoders={"image": tfds.decode.SkipDecoding()})
    return np.array([each["label"] for each in split.as_numpy_iterator()])


@pytest.mark.parametrize("dataset, folder", [("mnist", "mnist_nuat"), ("cifar10", "cifar10_small")])
def test_the_committed_estimates_are_those_of_the_committed_records(dataset, folder, monkeypatch):
    """The labels are read once: they are the same for every record."""
    labels = labels_of(dataset)
    read = types.SimpleNamespace(labels=lambda split: labels)
    monkeypatch.setattr(datasets, "one_split", lambda name, split, **_: {(dataset, "test"): read}[name, split])
    found = sorted((ROOT / "results" / folder).rglob(evaluations.ESTIMATE))
    assert found
    for path in found:
        assert two_phase.estimates(path.parents[2] / "card.json")[path] == json.loads(path.read_text("utf-8"))
