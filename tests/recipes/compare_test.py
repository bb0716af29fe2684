"""`recipes.compare`: what it trains, what it writes, and what it refuses."""

import contextlib
import copy
import csv
import errno
import io
import json
import os
import pathlib
import sys

import keras
import numpy as np
import pytest
from matplotlib import colors, image

from recipes import compare, table
from sanity.report import comparison
from tf_nuat import command_line, training
from tf_nuat.card import from_json
from tf_nuat.evaluate import runs
from tf_nuat.training import building

RESULTS = sorted(pathlib.Path(__file__).parents[2].glob("results/mnist/*/card.json"))
TINY = "tests.helpers.tiny:network"
SMALL = ["--dataset=digits", "--defenses=standard,nuat", "--epochs=2", "--test_images=40", "--strategy=one"]
SMALL += [f"--network={TINY}"]


def call(monkeypatch, *arguments):
    """Returns the exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        command_line.main(compare.main)
    return stopped.value.code


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a comparison of two defenses, their cards, and what was printed."""
    out = tmp_path_factory.mktemp("compared")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert compare.main([*SMALL, f"--out={out}"]) == 0
    cards = [json.loads((out / name / "card.json").read_text()) for name in ("standard", "nuat")]
    return out, cards, printed.getvalue()


@pytest.fixture
def card():
    """A card of one epoch with all that a comparison shows; no test relies on its numbers alone."""
    return copy.deepcopy(CARD)


CARD = {
    "recipe": {
        "dataset": "mnist",
        "network": "lenet_plus",
        "defense": "nuat",
        "epsilon": 0.3,
        "epochs": 1,
        "seed": 0,
        "measures": {
            "pgd_40": {"attack": "pgd", "steps": 40},
            "fgsm": {"attack": "fgsm"},
        },
    },
    "command": "python -m recipes.mnist",
    "epoch_chosen": 1,
    "measured": {
        "clean": {"accuracy": 0.98, "interval": [0.975, 0.985], "images": 1000},
        "pgd_40": {"accuracy": 0.9, "interval": [0.88, 0.92], "images": 1000},
        "fgsm": {"accuracy": 0.95, "interval": [0.94, 0.96], "images": 1000},
    },
    "claimed": {},
    "passes": {"input_gradient": 1.0, "training": 2.0, "forward": 0.5, "forward_backward": 3.0},
    "training_seconds": 100.0,
    "training_images_per_second": 500.0,
    "history": [{}],
}


def card_of(defense, clean, robust, *, seconds=100.0, passes=3.0, epochs=1, seed=0, claimed=None):
    """Returns a card like `CARD` of another run."""
    card = copy.deepcopy(CARD)
    card["recipe"].update(defense=defense, epochs=epochs, seed=seed)
    for name, accuracy in ("clean", clean), ("pgd_40", robust):
        interval = [max(0.0, accuracy - 0.008), min(1.0, accuracy + 0.008)]
        card["measured"][name].update(accuracy=accuracy, interval=interval)
    card.update(training_seconds=seconds, history=[{}] * epochs, claimed=claimed or {})
    card["passes"]["forward_backward"] = passes
    return card


def as_card(content):
    """Returns the `Card` of what `card.json` has."""
    return from_json(content, "card.json")


def figure_of(*cards):
    """Returns the figure of these cards, and its axes as a list (rows) of lists (panels)."""
    found = list(map(as_card, cards))
    figure = comparison.comparison(list(map(runs.record, found)), runs.conditions(found[0]))
    figure.draw_without_rendering()
    rows = {}
    for axes in figure.axes:
        rows.setdefault(axes.get_subplotspec().rowspan.start, []).append(axes)
    return figure, [rows[number] for number in sorted(rows)]


def marks(axes, hollow=False):
    """Returns the places of the marks, {(x, y), ...}, filled or hollow."""
    lines = [line for line in axes.lines if line.get_markersize() == comparison.MARK and len(line.get_xdata()) == 1]
    is_hollow = [line.get_markerfacecolor() == "white" for line in lines]
    return {tuple(map(float, line.get_xydata()[0])) for line, found in zip(lines, is_hollow) if found == hollow}


def rows_of(markdown):
    """Returns the rows of a Markdown table, dicts of column to cell."""
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], cells)) for cells in lines[2:]]


def test_the_table_has_a_row_per_defense_with_the_numbers_of_its_card(compared):
    out, cards, printed = compared
    text = (out / "table.md").read_text()
    assert text in printed and "digits, L-infinity, epsilon 0.2" in text and "40 test images" in text
    rows = rows_of(text)
    assert [row["defense"] for row in rows] == ["standard", "nuat"]
    for row, card in zip(rows, cards):
        for name in "clean", "pgd_40":
            low, high = card["measured"][name]["interval"]
            accuracy = card["measured"][name]["accuracy"]
            assert row[name] == f"{100 * accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
        assert row["chosen epoch"] == f"{card['epoch_chosen']} of 2" and row["seed"] == "0" and row["network"] == TINY
        assert row["training s"] == f"{card['training_seconds']:.0f}"
        assert float(row["attack FBP"]) == card["passes"]["input_gradient"]
        assert float(row["total FBP"]) == card["passes"]["input_gradient"] + card["passes"]["training"]
    assert float(rows[0]["total FBP"]) == 1.0 < float(rows[1]["total FBP"])  # standard training attacks nobody


def test_the_csv_agrees_with_the_cards_to_the_last_digit(compared):
    out, cards, _ = compared
    with open(out / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row, card in zip(rows, cards):
        assert (row["defense"], row["command"]) == (card["recipe"]["defense"], card["command"])
        assert (row["epochs"], row["seed"], row["clean_claimed"]) == ("2", "0", "")
        assert row["chosen_epoch"] == str(card["epoch_chosen"])
        for name, measured in card["measured"].items():
            assert float(row[name]) == measured["accuracy"]
            assert [float(row[f"{name}_low"]), float(row[f"{name}_high"])] == measured["interval"]
        for kind, passes in card["passes"].items():
            assert float(row[f"{kind}_passes"]) == passes
        for name in "training_seconds", "training_images_per_second":
            assert float(row[name]) == card[name]


def test_the_figure_shows_both_runs(compared):
    out, cards, _ = compared
    pixels = image.imread(out / "comparison.png")[..., :3]
    assert pixels.shape[0] > 400 and pixels.shape[1] > 1200
    for colour in comparison.COLOURS[:2]:
        assert (np.abs(pixels - colors.to_rgb(colour)).max(axis=-1) < 0.02).sum() > 300, colour
    assert (np.abs(pixels - colors.to_rgb(comparison.COLOURS[2])).max(axis=-1) < 0.02).sum() == 0


def test_a_second_call_trains_nothing_and_writes_the_same(compared, monkeypatch):
    out, _, _ = compared
    monkeypatch.setattr(keras.Model, "fit", None)
    monkeypatch.setattr(building, "build", None)
    before = {name: (out / name).read_bytes() for name in ("table.md", "table.csv", "comparison.png")}
    assert compare.main([*SMALL, f"--out={out}"]) == 0
    assert before == {name: (out / name).read_bytes() for name in before}


def test_cards_from_elsewhere_stand_beside_those_trained(compared, tmp_path, monkeypatch):
    out, cards, _ = compared
    other = copy.deepcopy(cards[1])
    other["recipe"]["seed"] = 7
    (tmp_path / "card.json").write_text(json.dumps(other))
    before = (out / "table.md").read_bytes()
    assert compare.main([*SMALL, f"--out={out}", f"--cards={tmp_path / 'card.json'}"]) == 0
    rows = rows_of((out / "table.md").read_text())
    assert [(row["defense"], row["seed"]) for row in rows] == [("standard", "0"), ("nuat", "0"), ("nuat", "7")]
    assert compare.main([*SMALL, f"--out={out}"]) == 0 and (out / "table.md").read_bytes() == before


def test_committed_cards_are_compared_without_training(tmp_path, capsys):
    assert compare.main([f"--cards={','.join(map(str, RESULTS))}", f"--out={tmp_path}"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.png", "table.csv", "table.md"]
    rows = rows_of(capsys.readouterr().out)
    assert len(rows) == len(RESULTS) >= 3
    for row, path in zip(rows, RESULTS):
        assert table.row(path).items() <= row.items()


@pytest.mark.parametrize("name", ["table.md", "table.csv", "comparison.png"])
def test_a_full_disk_is_one_line_and_keeps_the_file_that_was_there(name, card, tmp_path, monkeypatch, capsys):
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / name).write_text("before")
    replace = os.replace

    def full(unfinished, path):
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(unfinished, path)

    monkeypatch.setattr(os, "replace", full)
    assert call(monkeypatch, f"--cards={tmp_path / 'card.json'}", f"--out={tmp_path}") == 1
    assert capsys.readouterr().err.strip() == (
        f"error: {tmp_path / name} cannot be written (No space left on device); what was saved before is kept"
    )
    assert (tmp_path / name).read_text() == "before"


def test_a_run_that_fails_is_named_and_the_others_go_on(compared, tmp_path, monkeypatch, capsys):
    _, cards, _ = compared

    def run(recipe, out, **options):
        if recipe.defense == "standard":
            raise FloatingPointError("the loss became NaN or infinite in epoch 1")
        return as_card(cards[1])

    monkeypatch.setattr(training, "run", run)
    assert call(monkeypatch, *SMALL, f"--out={tmp_path}") == 1
    printed = capsys.readouterr().out
    assert "standard (1 of 2)" in printed and "nuat (2 of 2)" in printed
    assert printed.splitlines()[-1] == "failed: standard: the loss became NaN or infinite in epoch 1"
    text = (tmp_path / "table.md").read_text()
    assert [row["defense"] for row in rows_of(text)] == ["nuat"] and "failed: standard" in text


def test_a_folder_of_another_run_is_refused_before_anything_is_trained(compared, tmp_path, monkeypatch, capsys):
    _, cards, _ = compared
    (tmp_path / "nuat").mkdir()
    (tmp_path / "nuat" / "recipe.json").write_text(json.dumps({**cards[1]["recipe"], "seed": 3}))
    monkeypatch.setattr(keras.Model, "fit", None)
    assert call(monkeypatch, *SMALL, f"--out={tmp_path}") == 2
    assert "another seed" in capsys.readouterr().err
    assert not (tmp_path / "standard").exists()


def changed(card, path, value):
    """Writes `value` where the keys `path` lead."""
    *parents, last = path
    for key in parents:
        card = card[key]
    card[last] = value


DIFFERENCES = [
    (["recipe", "dataset"], "digits", "dataset 'mnist' and 'digits'"),
    (["recipe", "epsilon"], 0.2, "epsilon 0.3 and 0.2"),
    (["recipe", "norm"], "l2", "norm 'linf' and 'l2'"),
    (["recipe", "measures", "fgsm", "seed"], 1, "measures"),
    (["measured", "pgd_40", "images"], 999, "test images"),
]


@pytest.mark.parametrize("path, value, words", DIFFERENCES)
def test_cards_of_other_conditions_are_refused_by_name(card, path, value, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.json").write_text(json.dumps(card))
    changed(card, path, value)
    (tmp_path / "b.json").write_text(json.dumps(card))
    status = call(monkeypatch, f"--cards={tmp_path / 'a.json'},{tmp_path / 'b.json'}", f"--out={tmp_path / 'out'}")
    printed = capsys.readouterr().err
    assert status == 2 and words in printed and printed.count("\n") == 1
    assert "a.json" in printed and "b.json" in printed and not (tmp_path / "out").exists()


def test_a_card_that_lacks_a_measure_is_refused(card, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.json").write_text(json.dumps(card))
    del card["measured"]["fgsm"]
    (tmp_path / "b.json").write_text(json.dumps(card))
    cards = f"--cards={tmp_path / 'a.json'},{tmp_path / 'b.json'}"
    assert call(monkeypatch, cards, f"--out={tmp_path / 'out'}") == 2
    assert "measures" in capsys.readouterr().err


def test_cards_and_a_run_to_be_trained_must_agree_before_it_is_trained(compared, tmp_path, monkeypatch, capsys):
    out, _, _ = compared
    monkeypatch.setattr(keras.Model, "fit", None)
    flags = ["--dataset=digits", "--defenses=nuat", "--epochs=2", "--test_images=41", "--strategy=one"]
    status = call(monkeypatch, *flags, f"--cards={out / 'standard' / 'card.json'}", f"--out={tmp_path / 'out'}")
    printed = capsys.readouterr().err
    assert status == 2 and "test images {'clean': 41, 'pgd_40': 41} and {'clean': 40, 'pgd_40': 40}" in printed
    assert not (tmp_path / "out").exists()


BAD = [
    ([], "neither defenses nor cards are given; allowed: "),
    (["--defenses=nuat"], "dataset is None; allowed: cifar10, cifar100, digits, imagenet100, imagenet2012"),
    (["--dataset=stl10", "--defenses=nuat"], "dataset is 'stl10'; allowed: cifar10, cifar100, digits, imagenet100"),
    (["--dataset=digits", "--defenses=nuat,magic"], "defenses is 'magic'; allowed: "),
    (["--dataset=digits", "--defenses=nuat,nuat"], "defenses has 'nuat' twice; allowed: each once"),
    (["--dataset=digits", "--defenses=nuat", "--network=vgg"], "network is 'vgg'; allowed: "),
    (["--dataset=digits", "--defenses=nuat", "--epochs=0"], "epochs is 0; allowed: "),
    (["--dataset=digits", "--defenses=nuat", "--strategy=tpu"], "strategy is 'tpu'; allowed: "),
    (["--dataset=digits", "--defenses=standard,nuat", "--epsilon=2"], "epsilon is 2.0; allowed: "),
    (["--dataset=digits", "--defenses=nuat", "--batch_size=100000"], "batch_size is 100000; allowed: "),
    (["--defense=nuat"], "defense"),
    (
        ["--dataset=digits", "--defenses=nuat", "--strategy=multiworker"],
        "strategy is 'multiworker'; allowed: one, mirrored",
    ),
    (["--cards=missing.json"], "card is 'missing.json', which is not a file; allowed: "),
    ([f"--cards={RESULTS[0]},{RESULTS[0]}"], "twice; allowed: each once"),
    (["--cards=pyproject.toml"], "which is not JSON (JSONDecodeError"),
    ([f"--cards={RESULTS[0]}", "--dataset=digits"], "dataset is 'digits'; allowed: mnist, that of the cards"),
]


@pytest.mark.parametrize("arguments, words", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(arguments, words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(pathlib.Path(__file__).parents[2])
    assert call(monkeypatch, *arguments, f"--out={tmp_path / 'out'}") == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1, printed
    assert not (tmp_path / "out").exists()


def test_cards_without_an_attack_have_nothing_to_compare(card, tmp_path, monkeypatch, capsys):
    card["measured"] = {"clean": card["measured"]["clean"]}
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert call(monkeypatch, f"--cards={tmp_path / 'card.json'}", f"--out={tmp_path / 'out'}") == 2
    assert "which was not attacked; allowed: runs with an accuracy under attack" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["recipe", "measured", "claimed", "history", "training_seconds", "command"])
def test_json_that_lacks_what_a_card_has_is_refused(card, key, tmp_path):
    del card[key]
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=f"not the card of a run .{key} is missing.; allowed"):
        compare.main([f"--cards={tmp_path / 'card.json'}", f"--out={tmp_path / 'out'}"])


def test_out_must_be_given_and_be_no_file(monkeypatch, tmp_path, capsys):
    assert call(monkeypatch, f"--cards={RESULTS[0]}") == 2
    assert "out is not given; allowed: " in capsys.readouterr().err
    (tmp_path / "file").write_text("kept")
    assert call(monkeypatch, f"--cards={RESULTS[0]}", f"--out={tmp_path / 'file'}") == 2
    assert "cannot be written" in capsys.readouterr().err and (tmp_path / "file").read_text() == "kept"


def test_help_teaches(monkeypatch, capsys):
    assert call(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    assert "python -m recipes.compare" in printed and "--cards" in printed and "--epochs" in printed
    assert "--defense:" not in printed


@pytest.mark.parametrize("planned, trained", [(10, 1), (0.5, 0.5), (1, 1)])
def test_a_record_has_the_epochs_that_were_trained(planned, trained, card):
    card["recipe"]["epochs"] = planned  # the card has one epoch
    assert runs.record(as_card(card))["epochs"] == trained


def test_columns_that_a_row_lacks_keep_their_place(card):
    older = copy.deepcopy(card)
    del older["passes"]
    lines = table.markdown([table.cells_with_costs(as_card(each)) for each in (older, card)]).splitlines()
    assert lines[0].endswith("| training images/s | attack FBP | total FBP | training s | seed | command |")
    assert lines[2].endswith("| 500 | - | - | 100 | 0 | `python -m recipes.mnist` |")
    assert lines[3].endswith("| 500 | 1 | 3 | 100 | 0 | `python -m recipes.mnist` |")


def test_the_caption_says_what_was_measured_and_when_times_are_not_comparable(card):
    other = {**card, "machine": {"processor": "another"}}
    conditions = runs.conditions(as_card(card))
    alike, unlike = (table.caption(list(map(as_card, cards)), conditions) for cards in ([card, card], [card, other]))
    assert (
        "mnist, L-infinity, epsilon 0.3." in alike and "1000 test images; pgd_40: pgd, steps 40; fgsm: fgsm." in alike
    )
    assert "FBP: " in alike
    del card["passes"]
    assert "FBP: " not in table.caption([as_card(card)], conditions)
    assert "different devices" in unlike and "different devices" not in alike
    card["measured"]["fgsm"]["images"] = 500
    counted = "clean: 1000 test images; pgd_40: 1000 test images; fgsm: 500 test images; pgd_40: pgd, steps 40"
    assert counted in table.caption([as_card(card)], runs.conditions(as_card(card)))


def test_marks_are_where_the_cards_say():
    cards = [
        card_of("nuat", 0.98, 0.91, seconds=600.0, passes=3.0, epochs=20),
        card_of(
            "sat_r2", 0.97, 0.89, seconds=1200.0, passes=4.0, epochs=10, claimed={"clean": 0.9823, "pgd_40": 0.9003}
        ),
    ]
    figure, [panels] = figure_of(*cards)
    assert marks(panels[0]) == {(0.98, 0.91), (0.97, 0.89)}
    assert marks(panels[1]) == {(10.0, 0.91), (20.0, 0.89)} and "minutes" in panels[1].get_xlabel()
    assert marks(panels[2]) == {(60.0, 0.91), (40.0, 0.89)}
    assert marks(panels[0], hollow=True) == {(0.9823, 0.9003)}
    assert marks(panels[1], hollow=True) == {(20.0, 0.9003)}
    bars = [segments for lines in panels[0].collections for segments in lines.get_segments()]
    found = {tuple(np.round(bar, 6).ravel().tolist()) for bar in bars}
    assert {(0.98, 0.902, 0.98, 0.918), (0.972, 0.91, 0.988, 0.91)} <= found
    assert "1000 test images" in figure.get_supylabel() and "under pgd_40" in figure.get_supylabel()
    assert "pgd_40: pgd, steps 40" in figure.get_suptitle() and "95 % intervals" in figure.get_suptitle()


@pytest.mark.parametrize(
    "seconds, unit, shown", [(90.0, "seconds", 90.0), (150.0, "minutes", 2.5), (9e3, "hours", 2.5)]
)
def test_the_time_of_training_is_in_a_unit_that_is_easy_to_read(seconds, unit, shown):
    _, [panels] = figure_of(card_of("nuat", 0.98, 0.9, seconds=seconds))
    assert f"training time in {unit}" in panels[1].get_xlabel()
    assert [x for x, _ in marks(panels[1])] == pytest.approx([shown])


def test_a_run_far_below_the_others_breaks_the_axis():
    cards = [card_of("nuat", 0.98, 0.91), card_of("sat_r2", 0.97, 0.89), card_of("standard", 0.99, 0.0)]
    _, (upper, lower) = figure_of(*cards)
    assert all(axes.get_ylim()[0] > 0.8 for axes in upper) and all(axes.get_ylim()[1] < 0.1 for axes in lower)
    ticks = [tick for axes in (*upper, *lower) for tick in axes.get_yticks()]
    assert min(ticks) >= 0.0 and max(ticks) <= 1.0
    assert [text.get_text() for text in lower[0].texts if text.get_text()] == ["standard"]


def test_no_bar_and_no_way_to_a_claim_is_cut_by_a_broken_axis(card):
    card["measured"]["pgd_40"].update(accuracy=0.1, interval=[0.04, 0.23])
    _, rows = figure_of(card, card)
    assert len(rows) == 1 and marks(rows[0][0]) == {(0.98, 0.1)}
    low, high = rows[0][0].get_ylim()
    assert low < 0.04 and high > 0.23
    _, rows = figure_of(card_of("sat_r2", 0.98, 0.1, claimed={"clean": 0.98, "pgd_40": 0.9}))
    assert len(rows) == 1 and rows[0][0].get_ylim()[1] > 0.9


def test_a_cost_that_spans_more_than_tenfold_is_logarithmic():
    slow = card_of("pgd_at", 0.97, 0.92, seconds=150.0, passes=41.0)
    _, [panels] = figure_of(card_of("nuat", 0.98, 0.91, seconds=100.0, passes=1.5), slow)
    assert [axes.get_xscale() for axes in panels] == ["linear", "linear", "log"]
    assert panels[1].get_xlim()[0] == 0.0


def test_a_card_without_passes_is_missing_from_that_panel_and_named_there(card):
    older = card_of("sat_r2", 0.97, 0.89)
    del older["passes"]
    _, [panels] = figure_of(card, older)
    assert len(marks(panels[1])) == 2 and len(marks(panels[2])) == 1
    assert "(not known: sat_r2)" in panels[2].get_xlabel()
    _, [panels] = figure_of(older)
    assert len(panels) == 2


def test_names_are_drawn_as_text_and_not_as_formulas():
    named = card_of("$x^{$", 0.9, 0.5)
    named["recipe"]["dataset"] = "a$\\frac$"
    figure, [panels] = figure_of(named)
    assert figure.get_suptitle().startswith(r"a\$\frac\$, ")
    assert r"\$x^{\$" in [text.get_text() for text in panels[0].texts]


def test_labels_of_a_crowd_cover_neither_each_other_nor_marks():
    rows = [
        ("nuat", 0.9865, 0.914, 1500, 1.5),
        ("nuat_wa", 0.9867, 0.9104, 1600, 2.5),
        ("nuat2", 0.985, 0.905, 2000, 3.0),
        ("sat_r1", 0.98, 0.87, 1200, 2.33),
        ("sat_r2", 0.981, 0.89, 1700, 4.0),
        ("sat_r3", 0.988, 0.80, 900, 2.0),
        ("pgd_at", 0.982, 0.92, 9000, 41.0),
        ("standard", 0.9937, 0.0, 300, 1.0),
    ]
    figure, grid = figure_of(*(card_of(*row[:3], seconds=row[3], passes=row[4]) for row in rows))
    for panels in grid:
        for axes in panels:
            frame = axes.get_window_extent()
            texts = [text for text in axes.texts if text.get_text()]
            boxes = [text.get_window_extent() for text in texts]
            for number, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[number + 1 :]), texts[number]
                assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
                assert not any(box.contains(*axes.transData.transform(mark)) for mark in marks(axes))
    written = [text.get_text() for panels in grid for text in panels[0].texts if text.get_text()]
    assert sorted(written) == sorted(row[0] for row in rows)


def test_runs_of_one_defense_are_told_apart_by_what_differs():
    cards = [card_of("nuat", 0.98, 0.9), card_of("nuat", 0.98, 0.9, seed=1), card_of("sat_r2", 0.98, 0.9, epochs=5)]
    assert comparison.labels([runs.record(as_card(each)) for each in cards]) == [
        "nuat, seed 0",
        "nuat, seed 1",
        "sat_r2",
    ]
    cards[1]["recipe"]["network"] = "mnist_cnn"
    assert comparison.labels([runs.record(as_card(each)) for each in cards])[2] == "sat_r2, lenet_plus"
