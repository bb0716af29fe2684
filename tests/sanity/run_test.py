"""The command as its user sees it: exit status, one line for bad input, and what is in the folder."""

import html.parser
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from sanity import judgement, measure, report, run, verdict
from sanity.checks import CHECKS
from sanity.result import Verdict
from sanity.settings import BUDGETS
from tests.helpers import small
from tf_nuat import data, evaluate
from tf_nuat.core import files

QUICK = ["--dataset", "digits", "--epsilon", "0.2", "--checks", "large_epsilon_reaches_chance", "--samples", "200"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `network.keras`, which learned the digits, `masked.keras`, and other files that are no such thing.

    Tests that judge write into folders of their own; whatever else appears here is a leftover of bad input.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    digits = data.load("digits")
    keras.utils.set_random_seed(0)
    inputs = keras.Input(digits.input_shape)
    x = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(inputs))
    network = keras.Model(inputs, keras.layers.Dense(10)(x), name="dense")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss, steps_per_execution=small.EPOCH)
    network.fit(*digits.arrays("train"), epochs=20, batch_size=32, verbose=0)
    others = {
        "network": network.output,
        "masked": keras.layers.Rescaling(1e4)(network.output),
        "softmax": keras.layers.Softmax(name="softmax")(network.output),
        "untrained": keras.layers.Dense(10)(x),
        "five_outputs": keras.layers.Dense(5)(network.output),
        "not_finite": keras.ops.log(network.output * 0.0 - 1.0),
        "two_outputs": [network.output, network.output],
    }
    for name, outputs in others.items():
        keras.Model(inputs, outputs).save(folder / f"{name}.keras")
    large = keras.Input((28, 28, 1))
    keras.Model(large, keras.layers.Dense(10)(keras.layers.Flatten()(large))).save(folder / "large.keras")
    whole = (folder / "network.keras").read_bytes()
    (folder / "truncated.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "text.keras").write_text("not a network")
    with zipfile.ZipFile(folder / "zip.keras", "w") as archive:
        archive.writestr("hello", "there")
    return folder


@pytest.fixture(scope="module")
def judged_once(folder, tmp_path_factory):
    """The folder of a judgement of `network.keras` with the flags `QUICK`; tests work on copies."""
    out = tmp_path_factory.mktemp("judged_once")
    assert run.main(["--checkpoint", str(folder / "network.keras"), *QUICK, "--out", str(out)]) == 0
    return out


@pytest.fixture
def judged(judged_once, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(judged_once, tmp_path, dirs_exist_ok=True)


def written(out):
    return sorted(path.name for path in out.iterdir() if path.name != "evaluations.npz")


def test_an_honest_network_exits_with_0_and_leaves_a_whole_report(folder, tmp_path, capsys, monkeypatch):
    """The network to transfer from is a smaller one than the command's own, which `zoo_test` has."""

    def surrogate(images, labels, **options):
        np.testing.assert_array_equal(labels, data.load("digits").labels("train"))
        return small.undefended(1)

    monkeypatch.setattr(measure.surrogate, "train", surrogate)
    out = tmp_path / "judged"
    arguments = ["--checkpoint", str(folder / "network.keras"), "--dataset", "digits", "--epsilon", "0.2"]
    assert run.main([*arguments, "--budget", "quick", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for name in CHECKS:
        # PGD leaves next to no image: too few for what is reported of those that it leaves, and nothing is overrated.
        left_out = name in ("nuclear_norm_separates", "decision_boundary_binarization")
        reported = name in ("adaptive_attack_is_not_stronger", "second_opinion")
        said = "skipped" if left_out else "reported" if reported else "pass"
        if name != "second_opinion":  # which needs CleverHans
            assert re.search(rf"^{name} +{said} ", shown.out, re.MULTILINE)
    assert "Not robust, and no sign of masked gradients" in shown.out
    assert shown.out.startswith("After ") and "masked gradients not seen" in shown.out

    results = json.loads((out / "results.json").read_text())
    assert_schema(results)
    drawn = {f"{each['name']}.png" for each in results["results"] if each["series"] is not None}
    assert set(written(out)) == {*drawn, "examples.png", "card.md", "junit.xml", "report.html", "results.json"}
    # As many as decide.
    assert results["subject"]["images"] == sum(results["subject"]["images_per_class"]) == 200
    assert [result["name"] for result in results["results"]] == list(CHECKS)
    assert results["provenance"]["dataset"] == "digits"
    assert results["provenance"]["command"].startswith("python -m sanity.run --checkpoint")
    page = (out / "report.html").read_text()
    assert_self_contained(page)
    assert_every_result_has_its_row_section_and_figure(results, out)

    # A second, shorter run leaves nothing of the first, and touches nothing that is not its own.
    (out / "notes.txt").write_text("mine")
    assert run.main(["--checkpoint", str(folder / "network.keras"), *QUICK, "--out", str(out)]) == 0
    kept = {
        "card.md",
        "junit.xml",
        "large_epsilon_reaches_chance.png",
        "examples.png",
        "notes.txt",
        "report.html",
        "results.json",
    }
    assert set(written(out)) == kept


def assert_schema(results):
    """`results` is what the docstring of `sanity.result` says."""
    assert results["schema"] == 2
    assert set(results) == {
        *("schema", "verdict", "masking", "robustness", "headline", "accuracies", "advice", "rule"),
        *(
            "clean",
            "robust",
            "reported_by_pgd",
            "adaptive",
            "subject",
            "settings",
            "evaluations",
            "provenance",
            "results",
        ),
    }
    assert results["robust"]["attacks"] > 0 and results["robust"]["attack"]
    for accuracy in (results["clean"], results["robust"], results["reported_by_pgd"]):
        assert accuracy["correct"] / accuracy["images"] == accuracy["accuracy"]
        assert accuracy["interval"][0] <= accuracy["accuracy"] <= accuracy["interval"][1]
    for result in results["results"]:
        assert result["verdict"] in [verdict.value for verdict in Verdict]
        assert result["explanation"] and result["reference"] and result["sample_size"] > 0
        if result["verdict"] in ("pass", "fail"):
            assert isinstance(result["value"], float) and isinstance(result["threshold"], float)
            assert len(result["interval"]) == 2
            assert result["series"]["kind"] in ("curves", "bars", "surface", "histogram")
        if result["verdict"] == "fail":
            assert result["remedy"]
    for evaluation in results["evaluations"]:
        assert 0.0 <= evaluation["accuracy"] <= 1.0


class Loads(html.parser.HTMLParser):
    """Collects what a page would load, and its elements."""

    def __init__(self):
        super().__init__()
        self.loaded, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def assert_self_contained(page):
    parser = Loads()
    parser.feed(page)
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in parser.loaded)
    assert not parser.tags & {"script", "link", "iframe", "object", "form"}
    assert "url(" not in page and "@import" not in page


def test_of_test_images_alone_nothing_is_trained_to_transfer_from(folder, tmp_path):
    images, labels = data.load("digits").arrays("test")
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    flags = ["--dataset", str(tmp_path / "images.npz"), "--epsilon", "0.2", "--samples", "50", "--out", str(tmp_path)]
    flags += ["--checks", "white_box_beats_black_box,network_is_deterministic"]
    assert run.main(["--checkpoint", str(folder / "network.keras"), *flags]) == 3  # 50 images are too few
    found = {each["name"]: each for each in json.loads((tmp_path / "results.json").read_text())["results"]}
    assert found["white_box_beats_black_box"]["verdict"] == Verdict.SKIPPED.value
    assert "--surrogate" in found["white_box_beats_black_box"]["remedy"]


def test_a_masked_network_exits_with_1(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(judgement, "ADAPTIVE_SECONDS", 60.0)
    given = ["--checkpoint", str(folder / "masked.keras"), "--dataset", "digits", "--epsilon", "0.2"]
    given += ["--surrogate", str(folder / "network.keras"), "--checks", "white_box_beats_black_box"]
    assert run.main([*given, "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "Masked gradients suspected. With " in shown and "more images are fooled" in shown
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["masking"] == "suspected" and found["adaptive"]["tried"]
    low = min(each["accuracy"] for each in found["adaptive"]["tried"])
    assert found["robust"]["accuracy"] <= low <= found["reported_by_pgd"]["accuracy"]
    assert "masked gradients suspected" in (tmp_path / "report.html").read_text()


def test_the_card_beside_the_checkpoint_is_the_default(folder, tmp_path):
    checkpoint = tmp_path / "network.keras"
    checkpoint.write_bytes((folder / "network.keras").read_bytes())
    (tmp_path / "card.json").write_text(json.dumps({"recipe": {"dataset": "digits", "epsilon": 0.125}}))
    given = ["--checkpoint", str(checkpoint), *QUICK[4:]]
    assert run.main(given) == 0
    judged = json.loads((tmp_path / "sanity" / "results.json").read_text())
    assert (judged["subject"]["epsilon"], judged["provenance"]["dataset"]) == (0.125, "digits")
    assert run.main([*given, "--epsilon", "0.25"]) == 0
    assert json.loads((tmp_path / "sanity" / "results.json").read_text())["subject"]["epsilon"] == 0.25


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--checkpoint", "missing.keras"], "--checkpoint .*not a file"),
        (["--checkpoint", "truncated.keras"], "--checkpoint .*cannot read"),
        (["--checkpoint", "text.keras"], "--checkpoint .*cannot read"),
        (["--checkpoint", "zip.keras"], "--checkpoint .*cannot read"),
        (["--checkpoint", "untrained.keras"], "--checkpoint .*right on .*commonest class is on .*no accuracy"),
        (["--checkpoint", "softmax.keras", "--output", "box"], "--output .*softmax.keras is 'box'; allowed: softmax"),
        (["--pixels", "0..256"], "--pixels .*0..256.*allowed: 0..1, 0..255, -1..1, caffe, torch"),
        (["--import", "no_such_module"], "--import is 'no_such_module', whose module cannot be imported"),
        (["--network", "missing.json"], "--network .*missing.json"),
        (["--checkpoint", "not_finite.keras"], "--checkpoint .*not finite"),
        (["--checkpoint", "two_outputs.keras"], "--checkpoint .*several"),
        (["--checkpoint", "five_outputs.keras"], "--checkpoint .* 5 outputs.*10"),
        (["--checkpoint", "large.keras"], r"--checkpoint .*\(28, 28, 1\).*\(8, 8, 1\)"),
        (["--checkpoint="], "--checkpoint is not given"),
        (["--surrogate", "missing.keras"], "--surrogate .*not a file"),
        (["--surrogate", "large.keras"], "--surrogate .*28"),
        (["--surrogate", "five_outputs.keras"], "--surrogate .* 5 outputs.*10"),
        (["--dataset", "imagenet"], "--dataset is 'imagenet'; allowed: .*digits"),
        (["--checks", "large_epsilon_reaches_chance,magic"], "--checks is 'magic'; allowed: .*step_count_saturates"),
        (["--epsilon", "0"], "--epsilon is 0"),
        (["--epsilon", "1.5"], "--epsilon is 1.5"),
        (["--epsilon", "nan"], "--epsilon is nan"),
        (["--epsilon", "much"], "--epsilon"),
        (["--norm", "l0"], "--norm is 'l0'; allowed: "),
        (["--norm", "l2", "--epsilon", "9"], "epsilon is 9.0; allowed: .*at most 8"),
        (["--samples", "0"], "--samples is 0"),
        (["--samples", "9"], "--samples leaves 9 images; allowed: at least as many as the network has classes, 10"),
        (["--minutes", "0"], "--minutes is 0.0; allowed: a number above 0"),
        (["--minutes", "nan"], "--minutes is nan; allowed: a number above 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--budget", "huge"], "--budget is 'huge'; allowed: quick, standard, thorough"),
        (["--budget="], "--budget is ''; allowed: quick"),
        (["--resume=perhaps"], "--resume"),
        (["--out", "text.keras/inside"], "--out .*cannot be written"),
        (["--out="], "--out is ''; allowed: a folder"),
        (["--outt", "x"], "outt"),
        (["extra"], "extra"),
    ],
)
def test_bad_input_is_one_line_that_names_it_and_leaves_nothing(folder, tmp_path, monkeypatch, capsys, changed, said):
    monkeypatch.chdir(folder)
    before = written(folder)
    out = tmp_path / "judged"
    assert run.main(["--checkpoint", "network.keras", *QUICK, "--out", str(out), *changed]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert re.search(said, shown.err), shown.err
    assert not out.exists() and written(folder) == before


@pytest.mark.parametrize(
    ("flags", "budget", "images"),
    [
        (["--budget", "quick"], "quick", 353),  # all there are
        ([], "standard", 353),
        (["--budget", "thorough"], "thorough", 353),
        (["--budget", "thorough", "--samples", "40"], "thorough", 40),
    ],
)
def test_the_budget_says_how_hard_and_how_many(folder, tmp_path, monkeypatch, flags, budget, images):
    asked = {}

    def judge_nothing(subject, **options):
        clock = subject.clock
        before = clock.seconds
        clock.extend()
        asked.update(options, images=len(subject), seconds=[before, clock.seconds])
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "judge_subject", judge_nothing)
    given = ["--checkpoint", str(folder / "network.keras"), "--out", str(tmp_path / "out"), *QUICK[:6]]
    assert run.main([*given, *flags]) == 130
    assert asked["settings"] == BUDGETS[budget].settings and asked["images"] == images
    # The report is made within the minutes, too.
    seconds = {"quick": [720 / 7, 155.0], "standard": [695.0] * 2, "thorough": [3575.0] * 2}
    assert asked["seconds"] == pytest.approx(seconds[budget])
    assert asked["checks"] == ("large_epsilon_reaches_chance",)


def test_an_interrupted_judgement_goes_on(folder, judged, tmp_path, monkeypatch, capsys):
    given = ["--checkpoint", str(folder / "network.keras"), *QUICK, "--out", str(tmp_path)]
    expected = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "correct", None)  # nothing is evaluated again
        assert run.main([*given, "--resume"]) == 0
        assert run.main(given) == 2  # without --resume it is, which also replaces the file
    found = json.loads((tmp_path / "results.json").read_text())
    for name in ("verdict", "robust", "clean", "evaluations"):
        assert found[name] == expected[name]
    capsys.readouterr()


def test_resume_without_anything_begins_anew(folder, tmp_path):
    given = ["--checkpoint", str(folder / "network.keras"), *QUICK, "--out", str(tmp_path / "new")]
    assert run.main([*given, "--resume"]) == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--seed", "1"], "--resume: .*evaluations.npz belongs to other images, seed; allowed: another --out"),
        (["--samples", "100"], "--resume: .* belongs to other images; allowed"),
        (["--checkpoint", "masked.keras", "--surrogate", "network.keras"], "--resume: .* other network, surrogates;"),
        (["--checkpoint", "masked.keras"], "--resume: .* belongs to other network;"),  # which has the same weights
        (b"", "--resume: .*evaluations.npz cannot be read .*; allowed: without --resume, to begin anew"),
        (b"nothing", "--resume: .* cannot be read"),
        (None, "--resume: .* cannot be read"),
    ],
)
def test_resume_from_something_else_is_named_and_leaves_it(
    folder, judged, tmp_path, monkeypatch, capsys, changed, said
):
    monkeypatch.chdir(folder)
    given = ["--checkpoint", "network.keras", *QUICK, "--out", str(tmp_path)]
    kept = tmp_path / "evaluations.npz"
    if not isinstance(changed, list):
        kept.write_bytes(kept.read_bytes()[:-30] if changed is None else changed)
        changed = []
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert run.main([*given, "--resume", *changed]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and re.search(said, shown.err), shown.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_check_has_a_row_and_a_section_even_without_a_figure(folder, tmp_path):
    """Of 20 images it measures nothing."""
    arguments = ["--checkpoint", str(folder / "network.keras"), "--dataset", "digits", "--epsilon", "0.2"]
    arguments += ["--checks", "loss_rises_with_epsilon,large_epsilon_reaches_chance", "--samples", "20"]
    assert run.main([*arguments, "--out", str(tmp_path)]) == 3  # undecided
    results = json.loads((tmp_path / "results.json").read_text())
    assert [each["series"] is None for each in results["results"]] == [True, False]
    assert_every_result_has_its_row_section_and_figure(results, tmp_path)


def assert_every_result_has_its_row_section_and_figure(results, out):
    page = (out / "report.html").read_text()
    for result in results["results"]:
        name, drawn = result["name"], result["series"] is not None
        assert f'<a href="#{name}">' in page and f'id="{name}"' in page
        assert (out / f"{name}.png").exists() == drawn
        assert (result["value"] is None) == (result["interval"] is None) == (not drawn)
    drawn = sum(result["series"] is not None for result in results["results"])
    assert page.count("data:image/png;base64,") == drawn + 1  # and the examples
    assert "None" not in page


@pytest.mark.parametrize("card", [None, "{", "[]", '{"recipe": {}}', '{"recipe": 3}'])
def test_without_a_card_the_flags_have_to_say_it(folder, tmp_path, capsys, card):
    checkpoint = tmp_path / "network.keras"
    checkpoint.write_bytes((folder / "network.keras").read_bytes())
    if card is not None:
        (tmp_path / "card.json").write_text(card)
    for flags, missing in [([], "--dataset"), (["--dataset", "digits"], "--epsilon")]:
        assert run.main(["--checkpoint", str(checkpoint), *flags]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"give {missing}" in error
    assert not (tmp_path / "sanity").exists()


@pytest.mark.parametrize(("name", "value"), [("dataset", ["digits"]), ("dataset", "<b>"), ("epsilon", "0.3")])
def test_a_card_is_not_trusted(folder, tmp_path, capsys, name, value):
    checkpoint = tmp_path / "network.keras"
    checkpoint.write_bytes((folder / "network.keras").read_bytes())
    (tmp_path / "card.json").write_text(json.dumps({"recipe": {"dataset": "digits", "epsilon": 0.1, name: value}}))
    assert run.main(["--checkpoint", str(checkpoint)]) == 2
    assert re.search(rf"{name} in .*card.json", capsys.readouterr().err)


def test_a_defect_does_not_exit_with_the_status_of_a_red_flag(folder, tmp_path, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise RuntimeError("a defect")

    monkeypatch.setattr(run, "judge_subject", broken)
    given = ["--checkpoint", str(folder / "network.keras"), *QUICK, "--out", str(tmp_path)]
    assert run.main(given) == 2
    assert "a defect" in capsys.readouterr().err

    def too_large(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(run, "judge_subject", too_large)
    assert run.main(given) == 2
    line = "error: memory is not enough (MemoryError); allowed: fewer images (--samples), or a smaller network"
    assert capsys.readouterr().err.splitlines()[-1] == line
    assert written(tmp_path) == []


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "evaluations.npz"}


def test_an_interrupted_report_leaves_the_earlier_one_and_says_how_to_go_on(
    folder, judged, tmp_path, monkeypatch, capsys
):
    given = ["--checkpoint", str(folder / "network.keras"), *QUICK, "--out", str(tmp_path)]
    earlier = contents(tmp_path)

    def killed(content, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "save_bytes", killed)
    assert run.main([*given, "--seed", "1"]) == 130
    assert contents(tmp_path) == earlier and "with --resume" in capsys.readouterr().err


def test_what_cannot_be_written_or_drawn_costs_itself_alone(folder, judged, tmp_path, monkeypatch, capsys):
    """A full disk for one file, a figure that cannot be drawn, a check that breaks: the judgement is printed."""
    given = ["--checkpoint", str(folder / "network.keras"), *QUICK, "--out", str(tmp_path)]
    save, earlier = files.save_bytes, contents(tmp_path)

    def full(content, path):
        if path.name == "report.html":
            raise files.NotSavedError(f"{path} cannot be written (No space left on device)")
        save(content, path)

    def broken(*arguments, **options):
        raise ZeroDivisionError("a defect")

    (first,) = json.loads(earlier["results.json"])["results"]
    monkeypatch.setattr(files, "save_bytes", full)
    monkeypatch.setattr(report.pictures, "png", broken)
    monkeypatch.setitem(CHECKS, first["name"], broken)
    assert run.main([*given, "--resume"]) == 3
    shown = capsys.readouterr()
    assert "report.html cannot be written" in shown.err and "cannot be drawn (ZeroDivisionError: a defect)" in shown.err
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["verdict"] == "undecided" and results["headline"] in shown.out
    assert results["results"][0]["verdict"] == "inconclusive" and "ZeroDivision" in results["results"][0]["explanation"]
    assert contents(tmp_path)["report.html"] == earlier["report.html"]


def test_a_folder_into_which_another_process_writes_is_refused(folder, tmp_path, capsys):
    given = ["--checkpoint", str(folder / "network.keras"), *QUICK, "--out", str(tmp_path)]
    with files.owned("--out", tmp_path):
        assert run.main(given) == 2
    assert re.search(rf"--out .* into which process {os.getpid()} on .* writes; allowed", capsys.readouterr().err)


def test_the_results_of_another_command_are_kept(folder, tmp_path, capsys):
    (tmp_path / "results.json").write_text('{"stages": []}')
    assert run.main(["--checkpoint", str(folder / "network.keras"), *QUICK, "--out", str(tmp_path)]) == 2
    assert "--out is " in capsys.readouterr().err and written(tmp_path) == ["results.json"]


def test_hostile_names_are_escaped(folder, tmp_path, monkeypatch, capsys):
    # UTF-8 has no lone surrogate.
    hostile = "\ud800<script>alert('x')</script>\"><img src=http://example.com/x>"
    place = tmp_path / "<b onload=1>&amp;"
    place.mkdir()
    checkpoint = place / "network.keras"
    checkpoint.write_bytes((folder / "network.keras").read_bytes())
    measured = {hostile: {"accuracy": 0.5, "interval": [0.2, 0.8], "images": 10}}
    recipe = {"defense": hostile, "defense_options": [hostile]}
    card = {"recipe": recipe, "measured": measured, "command": hostile * 100}
    (place / "card.json").write_text(json.dumps(card))
    pages = []
    original = report.render

    def with_hostile_names(judgement, drawn, figures_page):
        judgement.provenance["class_names"] = [hostile] * 10
        judgement.subject["network"] = hostile
        pages.append(original(judgement, drawn, figures_page))
        return pages[-1]

    monkeypatch.setattr(report, "render", with_hostile_names)
    assert run.main(["--checkpoint", str(checkpoint), *QUICK]) == 0
    assert_self_contained(pages[0])
    assert "<script" not in pages[0] and "<b onload" not in pages[0]
    assert "&lt;script&gt;" in pages[0] and "50.00% of 10 images" in pages[0]


def test_a_card_that_is_none_is_named_and_not_used_where_the_flags_say_everything(folder, tmp_path, capsys):
    checkpoint = tmp_path / "network.keras"
    checkpoint.write_bytes((folder / "network.keras").read_bytes())
    (tmp_path / "card.json").write_text(json.dumps({"measured": {"not ours": 3}, "command": "python"}))
    assert run.main(["--checkpoint", str(checkpoint), *QUICK]) == 0
    assert f"not used: measured.not ours in {tmp_path / 'card.json'} is 3; allowed: " in capsys.readouterr().out
    assert json.loads((tmp_path / "sanity" / "results.json").read_text())["provenance"]["card"] == {}


def test_help_teaches_every_flag(capsys):
    with pytest.raises(SystemExit) as exit_:
        run.main(["--help"])
    shown = capsys.readouterr().out
    assert exit_.value.code == 0
    for name in run.flag_values():
        assert f"--{name}: " in shown
    assert "Exit status" in shown and "8/255" in shown and "3, undecided" in " ".join(shown.split())
    assert set(run.STATUS) == {verdict.NOT_SEEN, verdict.SUSPECTED, verdict.UNSURE}


def test_as_a_process(folder, tmp_path):
    """Which CleverHans, where it cannot be imported, does not keep from its other checks."""
    (tmp_path / "cleverhans.py").write_text("raise ImportError")
    given = [sys.executable, "-m", "sanity.run", "--checkpoint", str(folder / "network.keras"), "--epsilon", "7"]
    done = subprocess.run(
        [*given, "--dataset", "digits", "--out", str(tmp_path / "out")],
        cwd=pathlib.Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: --epsilon is 7.0; allowed: a number above 0 and at most 1"
    assert "Traceback" not in done.stderr


def test_what_there_is_no_time_for_is_left_out_and_leaves_the_answer_open(folder, tmp_path, capsys):
    """Less time than starting takes: one look, at the fewest images, in which most checks are left out."""
    given = ["--checkpoint", str(folder / "network.keras"), *QUICK[:4], "--minutes", "0.001", "--out", str(tmp_path)]
    assert run.main([*given, "--checks", "large_epsilon_reaches_chance,step_count_saturates,second_opinion"]) == 3
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["subject"]["images"] == 80 and found["masking"] == "undecided" and found["adaptive"] is None
    second, *_ = [each for each in found["results"] if each["name"] == "second_opinion"]
    assert second["verdict"] == "skipped"
    open_one, *_ = [each for each in found["results"] if each["name"] == "step_count_saturates"]
    assert open_one["verdict"] == "inconclusive"
    assert re.match("Too little time is left for step_count_saturates: it may take [1-9]", open_one["explanation"])
    assert "--minutes" in found["advice"]
