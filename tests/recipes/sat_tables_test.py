"""`recipes.sat_tables` on a network whose accuracy and distances are known in closed form."""

import json
import pathlib

import keras
import numpy as np
import pytest

from recipes import mnist, sat_tables
from tests.recipes.compare_test import as_card, card_of, rows_of
from tf_nuat import evaluate

EPSILON = 0.11
MEANS = np.linspace(0.2, 0.8, 25)  # none is at a distance of exactly 0.11 from 0.5
LABELS = (MEANS > 0.5).astype(int)
LABELS[[0, 24]] = [1, 0]  # two are wrong


def network(sign=1.0):
    """Returns a network that says class 1 where the mean of 16 pixels exceeds 0.5, or, with -1, where it does not."""
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    kernel = np.zeros((16, 3))
    kernel[:, 1] = sign
    model.set_weights([kernel, np.array([0.0, -8.0 * sign, -50.0])])
    return model


def name_dataset(folder, dataset):
    """Writes the card of a run that names this dataset."""
    card = card_of("sat_r1", 0.92, 0.5)
    card["recipe"].update(dataset=dataset, epsilon=EPSILON)
    (folder / "card.json").write_text(json.dumps(card))


@pytest.fixture
def run(tmp_path):
    """The folder of a run of that network, with the sources: C like it, D its opposite."""
    images = np.tile(MEANS[:, None, None, None], (1, 4, 4, 1)).astype(np.float32)
    folder = tmp_path / "run"
    folder.mkdir()
    np.savez(folder / "data.npz", images=images, labels=LABELS)
    name_dataset(folder, str(folder / "data.npz"))
    for path, sign in ((folder / "network.keras", 1.0), (tmp_path / "c.keras", 1.0), (tmp_path / "d.keras", -1.0)):
        network(sign).save(path)
    return folder


def arguments(run, *more):
    sources = [f"--source_{name}={run.parent / name}.keras" for name in "cd"]
    return [f"--runs={run}", *sources, f"--out={run.parent / 'out'}", *more]


def test_every_attack_finds_what_the_closed_form_says(run):
    assert sat_tables.main(arguments(run)) == 0
    found = json.loads((run / "sat_tables.json").read_text())["measured"]
    distance, right = np.abs(MEANS - 0.5), (MEANS > 0.5) == LABELS
    assert list(found) == ["clean", *sat_tables.WITHIN, "deepfool", "cw"]
    withstand = int(np.sum(right & (distance > EPSILON)))
    assert 0 < withstand < right.sum()
    for name in "fgsm", "ifgsm_100", "pgd_100", "pgd_cw_100", "c_fgsm", "c_mifgsm_100":
        assert (found[name]["accuracy"], found[name]["images"]) == (withstand / 25, 25), name
        assert found[name]["interval"] == list(evaluate.wilson(withstand, 25))
    for name in "clean", "d_fgsm", "d_mifgsm_100":  # the adversaries of D go the wrong way
        assert found[name]["accuracy"] == right.sum() / 25, name
    for name in "deepfool", "cw":  # 16 pixels: L2 is 4 times the change of the mean
        assert found[name]["fooled"] == 1.0
        assert found[name]["mean_l2"] == pytest.approx(4 * distance[right].mean(), rel=0.02), name
        half = 1.96 * 4 * np.std(distance[right], ddof=1) / np.sqrt(right.sum())
        assert found[name]["mean_l2_half_interval"] == pytest.approx(half, rel=0.02)


def test_what_is_measured_is_not_measured_again_and_a_kill_loses_one_attack(run, monkeypatch, capsys):
    monkeypatch.setattr(sat_tables, "NEAREST", ())
    monkeypatch.setattr(sat_tables, "render", lambda pairs: f"{len(pairs[0][1]['measured'])} measures\n")
    counted, correct = [], evaluate.correct

    def counting(*given, **options):
        counted.append(options["progress"])
        if len(counted) == 4:
            raise KeyboardInterrupt
        return correct(*given, **options)

    monkeypatch.setattr(sat_tables.evaluate, "correct", counting)
    with pytest.raises(KeyboardInterrupt):
        sat_tables.main(arguments(run))
    assert list(json.loads((run / "sat_tables.json").read_text())["measured"]) == ["clean", "fgsm", "ifgsm_100"]
    assert sat_tables.main(arguments(run)) == 0
    assert counted == ["clean", "fgsm", "ifgsm_100", *list(sat_tables.WITHIN)[2:3], *list(sat_tables.WITHIN)[2:]]
    (run / "network.keras").unlink()
    assert sat_tables.main([f"--runs={run}", f"--out={run.parent / 'out'}"]) == 0
    assert len(counted) == 4 + 6 and "9 measures" in capsys.readouterr().out


def test_measures_of_a_network_with_the_same_weights_and_another_activation_are_refused(run, monkeypatch):
    monkeypatch.setattr(sat_tables, "NEAREST", ())
    monkeypatch.setattr(sat_tables, "WITHIN", {"fgsm": sat_tables.WITHIN["fgsm"]})
    monkeypatch.setattr(sat_tables, "render", lambda pairs: "a page\n")
    assert sat_tables.main(arguments(run)) == 0
    monkeypatch.setattr(sat_tables, "WITHIN", {"fgsm": {"attack": "fgsm"}, "c_fgsm": {"attack": "fgsm"}})
    other = network()
    other.layers[-1].activation = keras.activations.tanh
    other.save(run / "network.keras")
    with pytest.raises(ValueError, match="runs has .*sat_tables.json', of other network; allowed: "):
        sat_tables.main(arguments(run))


def test_a_card_runs_no_code_and_opens_no_file_elsewhere(run, monkeypatch):
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own_means.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(elsewhere)
    data = (run / "data.npz").rename(elsewhere / "data.npz")
    for dataset in ("own_means:splits", str(data)):
        name_dataset(run, dataset)
        with pytest.raises(ValueError, match="dataset in .*card.json is '.*'; allowed in a card: .*--dataset"):
            sat_tables.main(arguments(run))
        assert not (elsewhere / "ran").exists() and not (run.parent / "out").exists()
    monkeypatch.setattr(sat_tables, "NEAREST", ())
    monkeypatch.setattr(sat_tables, "WITHIN", {"fgsm": sat_tables.WITHIN["fgsm"]})
    monkeypatch.setattr(sat_tables, "render", lambda pairs: "a page\n")
    assert sat_tables.main(arguments(run, f"--dataset={data}")) == 0  # who says what it is knows
    assert json.loads((run / "sat_tables.json").read_text())["measured"]["clean"]["images"] == 25


def measured(accuracy):
    share = {"accuracy": accuracy, "interval": [accuracy - 0.01, accuracy + 0.01], "images": 10000}
    nearest = {"fooled": 0.9, "interval": [0.88, 0.92], "images": 1000, "mean_l2": 4.5, "mean_l2_half_interval": 0.1}
    return {"measured": {**dict.fromkeys(("clean", *sat_tables.WITHIN), share), "deepfool": nearest, "cw": nearest}}


def test_their_figures_stand_beside_ours():
    cards = [card_of("sat_r3+sat_r2", 0.9, 0.9), card_of("sat_r1", 0.9, 0.9, seed=1), card_of("sat_r1", 0.9, 0.9)]
    cards[1]["recipe"]["epsilon"] = 0.2
    page = sat_tables.render([(as_card(card), measured(0.9)) for card in cards])
    within, nearest = (rows_of(part) for part in page.split("## Table 6"))
    assert [(row["defense"], row["seed"]) for row in within] == [
        ("sat_r1", "0"),
        ("sat_r1", "1"),
        ("sat_r3+sat_r2", "0"),
    ]
    assert within[0]["clean"] == "90.00 [89.00, 91.00] (98.15)"
    assert within[0]["d_mifgsm_100"] == "90.00 [89.00, 91.00] (94.23)"
    assert within[2]["pgd_100"].endswith("(87.44)") and within[2]["ifgsm_100"] == "90.00 [89.00, 91.00]"
    assert not any("(" in cell for cell in within[1].values())  # they have nothing at 0.2
    assert nearest[0]["deepfool, fooled"] == "90.00 [88.00, 92.00] (89)"
    assert nearest[0]["cw, mean L2"] == "4.50 ± 0.10 (3.34)"
    assert nearest[1]["cw, mean L2"] == "4.50 ± 0.10"


def test_their_figures_are_those_that_the_recipes_claim():
    """Two places that were copied from the paper at different times."""
    for name, row in sat_tables.THEIRS.items():
        for measure, place in ("clean", 0), ("pgd_100", 1 + list(sat_tables.WITHIN).index("pgd_100")):
            claimed = mnist.RECIPES[name].claimed.get(measure)
            assert claimed is None or round(100 * claimed, 2) == row[place], (name, measure)
        assert len(row) == 1 + len(sat_tables.WITHIN)


BAD = [
    (lambda run: [], "runs is not given; allowed: "),
    (lambda run: [f"--runs={run}"], "out is not given; allowed: "),
    (lambda run: [f"--runs={run}", "--out=OUT"], "source_c is not given; allowed: a .keras file, for .* not measured"),
    (lambda run: arguments(run, "--samples=0"), "samples is 0; allowed: "),
    (lambda run: arguments(run, "--l2_samples=0"), "l2_samples is 0; allowed: "),
    (lambda run: arguments(run, f"--runs={run.parent}"), "card is .* which is not a file; allowed: "),
    (lambda run: arguments(run, "--source_d=none.keras"), "source_d is 'none.keras', which is not a file"),
    (lambda run: arguments(run, "--dataset=nowhere"), "dataset is 'nowhere'; allowed: "),
]


@pytest.mark.parametrize("given, words", BAD)
def test_bad_input_is_named_before_any_work(given, words, run):
    with pytest.raises(ValueError, match=words):
        sat_tables.main(given(run))
    assert not (run / "sat_tables.json").exists() and not (run.parent / "out").exists()
    assert not pathlib.Path("OUT").exists()


def test_results_of_another_network_are_refused(run, monkeypatch):
    (run / "sat_tables.json").write_text(json.dumps({"of": {"network": "another"}, "measured": {}}))
    with pytest.raises(ValueError, match="runs has .*sat_tables.json', of other network, .*; allowed: "):
        sat_tables.main(arguments(run))
    (run / "sat_tables.json").write_text("{}")
    with pytest.raises(ValueError, match="which cannot be read .content of sat_tables.json is .*with of.; remove it"):
        sat_tables.main(arguments(run))
