"""`tf_nuat.critical_epsilon` and `recipes.phase_transition`, against losses of which the crossing is known."""

import dataclasses
import json
import re
import sys

import keras
import numpy as np
import pytest

from recipes import phase_transition
from recipes.pages import phase_transition_plots, phase_transition_report
from tf_nuat import card as cards
from tf_nuat import command_line, critical_epsilon, networks, training
from tf_nuat.critical_epsilon import intersection, training_runs
from tf_nuat.training import ScheduleSpec, Stage

RECIPE = training.Recipe(
    dataset="digits",
    network="two_conv",
    network_options={"width": 16},
    defense="pgd_at",
    epsilon=0.2,
    epochs=10,
    batch_size=32,
    learning_rate=ScheduleSpec("triangle", peak=0.05, up=3, down=7),
    chosen_by="last",
)
SMALL = ["--dataset=digits", "--network=tests.helpers.tiny:network", "--epochs=12", "--warm_up=5", "--strategy=one"]
WAYS = ["--fast=2/255,4/255", "--runs=1", "--exact=6/255,24/255", "--loss_images=300"]
CLEAN = training_runs.Clean("clean.keras", 0.01, 0.5, 0.97, 100, 7.0)


def call(monkeypatch, *arguments):
    """Returns the exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["phase_transition", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        command_line.main(phase_transition.main)
    return stopped.value.code


@pytest.fixture(scope="module")
def estimated(tmp_path_factory):
    """The folder of both estimates of a small network on a part of the digits, and the results."""
    out = tmp_path_factory.mktemp("critical")
    assert phase_transition.main([*SMALL, *WAYS, f"--out={out}"]) == 0
    return out, json.loads((out / "results.json").read_text())


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Replaces training: the loss at an epsilon is 0.1 + 2 epsilon + 0.1 of the seed. Lists the recipes."""
    recipes = []
    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]).save(
        tmp_path / "clean.keras"
    )
    clean = training_runs.Clean(str(tmp_path / "clean.keras"), 0.01, 0.5, 0.97, 100, 7.0)

    def train_and_measure(recipe, folder, splits, loss_images, options):
        recipes.append(recipe)
        loss = 0.1 + 2.0 * recipe.epsilon + 0.1 * recipe.seed
        return (loss if recipe.epsilon < 0.9 else 2.3), 3.0

    monkeypatch.setattr(training_runs, "clean_network", lambda *arguments: clean)
    monkeypatch.setattr(training_runs, "train_and_measure", train_and_measure)
    return recipes


@pytest.mark.parametrize("norm, dual", [("linf", 1), ("l2", 2)])
def test_the_loss_under_attack_is_that_of_the_closed_form_for_a_linear_network(norm, dual):
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(12, 1)).astype(np.float32)
    network = keras.Sequential([keras.Input((2, 3, 2)), keras.layers.Flatten(), keras.layers.Dense(2, use_bias=False)])
    network.set_weights([np.concatenate([np.zeros_like(weights), weights], axis=1)])
    images = generator.uniform(0.3, 0.7, (260, 2, 3, 2)).astype(np.float32)  # more than a batch, and not two
    labels = generator.integers(0, 2, 260)
    margins = (2 * labels - 1) * (images.reshape(260, -1) @ weights)[:, 0]
    for epsilon in (0.0, 0.1):
        worst = margins - epsilon * np.linalg.norm(weights, dual)
        found = training_runs.mean_loss(network, images, labels, epsilon=epsilon, norm=norm)
        exact = np.log1p(np.exp(-worst)).mean()  # in L2, ten steps along the sphere come near it
        assert (1 - 5e-3) * exact < found < (1 + 1e-5) * exact, epsilon


def test_exact_trains_the_ends_first_and_finds_the_crossing(trained, tmp_path):
    found = critical_epsilon.exact(RECIPE, tmp_path, epsilons=[0.15, 0.1, 0.3, 0.25], runs=2)
    assert [recipe.epsilon for recipe in trained] == [0.1, 0.3, 0.15, 0.25] * 2
    assert [recipe.seed for recipe in trained] == [0] * 4 + [1] * 4
    assert all(recipe.defense == "pgd_at" and recipe.epochs == 10 and not recipe.measures for recipe in trained)
    assert found.estimate.each == pytest.approx((0.2, 0.15)) and found.epsilons == (0.1, 0.15, 0.25, 0.3)
    assert found.losses[0] == pytest.approx((0.3, 0.4, 0.6, 0.7)) and found.seconds == 8 * 3.0


def test_a_warm_up_is_a_stage_before_that_of_the_defense(trained, tmp_path):
    critical_epsilon.exact(RECIPE, tmp_path, epsilons=[0.1, 0.3], warm_up=2)
    assert trained[0].plan() == [Stage("standard", 2), Stage("pgd_at", 8)]


def test_a_warm_up_that_does_not_fit_is_refused_before_the_clean_network_is_trained(monkeypatch, tmp_path):
    monkeypatch.setattr(training_runs, "clean_network", lambda *_: pytest.fail("trained"))
    recipe = dataclasses.replace(RECIPE, epochs=5, schedule_epochs=10)
    with pytest.raises(ValueError, match="epochs is 5; allowed: a number to which stages of 3 . 7 epochs stretch"):
        critical_epsilon.exact(recipe, tmp_path, epsilons=[0.1, 0.3], warm_up=3)


@pytest.mark.parametrize("epsilons, words", [([0.1, 0.15], "extend them by larger"), ([0.3, 0.25], "by smaller ones")])
def test_a_grid_that_does_not_bracket_is_refused_before_its_middle_is_trained(trained, tmp_path, epsilons, words):
    with pytest.raises(ValueError, match=words):
        critical_epsilon.exact(RECIPE, tmp_path, epsilons=[*epsilons, np.mean(epsilons)])
    assert len(trained) <= 2


def test_training_that_does_not_begin_is_no_bracket(trained, tmp_path):
    with pytest.raises(
        ValueError, match="epsilons have 1, where training stays at one answer for all images .loss 2.3.; allowed"
    ):
        critical_epsilon.exact(RECIPE, tmp_path, epsilons=[0.1, 1.0])  # log 10 is 2.303


@pytest.mark.parametrize(
    "defense, attack, options",
    [
        ("pgd_at", "fgm", {"steps": 1, "step_size": 0.02, "random_start": False}),
        ("trades", "fgm", {"steps": 1, "step_size": 0.02}),
        ("mart", "pgd", {}),
    ],
)
def test_fast_fine_tunes_the_clean_network_and_extrapolates(trained, tmp_path, defense, attack, options):
    recipe = training.Recipe(**{**vars(RECIPE), "defense": defense, "epochs": 12, "schedule_epochs": 12})
    found = critical_epsilon.fast(recipe, tmp_path, epsilons=[0.04, 0.02], runs=3, attack=attack)
    assert found.estimate.each == pytest.approx((0.2, 0.15, 0.1)) and len(trained) == 6
    first = trained[0]
    assert first.defense == defense and first.defense_options == options and first.epsilon == 0.02
    assert first.network == found.clean[0].network and first.epochs == 3 and first.network_options == {}
    assert first.learning_rate.peak == 0.01 and {recipe.seed for recipe in trained} == {0, 1, 2}


def test_both_ways_agree_on_the_digits_and_fine_tuning_takes_less(estimated):
    out, results = estimated
    fast, exact = results["fast"], results["exact"]
    # Adversarial training on a network that has learned nothing would have a loss of log 10 everywhere.
    assert all(0.0 < loss < 1.5 for way in (fast, exact) for row in way["losses"] for loss in row)
    assert fast["clean"] == [{**fast["clean"][0], "train_loss": pytest.approx(exact["clean"][0]["train_loss"])}]
    assert 1 / 2 < fast["estimate"]["epsilon"] / exact["estimate"]["epsilon"] < 2
    assert exact["losses"][0][0] <= exact["clean"][0]["test_loss"] < exact["losses"][0][1]
    assert 6 / 255 < exact["estimate"]["epsilon"] < 24 / 255
    assert fast["seconds"] < exact["seconds"] and fast["loss_images"] == 300
    assert any(line.startswith("fast / exact") for line in results["report"])
    assert results["report"][-1].startswith("Advice: epsilon 0.2 is ")
    assert (out / "critical_epsilon.png").stat().st_size > 10_000


def test_fast_refuses_an_epsilon_that_is_not_below_the_critical_one_before_it_trains_further(trained, tmp_path):
    """The loss passes the clean test loss, 0.5, at 0.2."""
    with pytest.raises(ValueError, match="epsilons have 0.25, where the training loss 0.6 is above .* 0.5; allowed"):
        critical_epsilon.fast(RECIPE, tmp_path, epsilons=[0.1, 0.25, 0.3], runs=2)
    assert [recipe.epsilon for recipe in trained] == [0.1, 0.25]


@pytest.mark.parametrize(
    "flags", [["--defense=mart", "--attack=pgd", "--options=steps=2"], ["--norm=l2", "--epsilon=1"]]
)
def test_other_losses_and_norms_fine_tune_the_same_clean_network(estimated, tmp_path, flags):
    clean, losses = estimated[0] / "clean_seed_0" / "network.keras", estimated[1]["fast"]["losses"][0]
    epsilons = "10/255,20/255" if "--norm=l2" in flags else "2/255,4/255"
    ways = ["--ways=fast", f"--fast={epsilons}", "--runs=1", "--tuning_epochs=1", "--loss_images=300"]
    assert phase_transition.main([*SMALL, *flags, *ways, f"--clean={clean}", f"--out={tmp_path}"]) == 0
    fast = json.loads((tmp_path / "results.json").read_text())["fast"]
    assert fast["clean"][0]["seconds"] == 0.0 and fast["clean"][0]["test_accuracy"] > 0.9
    [found] = fast["losses"]
    assert found[0] < found[1] and fast["estimate"]["epsilon"] > 0.0
    if "--norm=l2" not in flags:  # the same attack and cross-entropy on every network, little of whose weights changed
        assert found == pytest.approx(losses, rel=0.6)


def test_a_second_call_trains_nothing_and_a_further_epsilon_only_itself(estimated, monkeypatch):
    out, before = estimated
    run, ran = training.run, []

    def watched(recipe, folder, **options):
        if not (folder / "card.json").exists():
            ran.append(recipe.epsilon)
        return run(recipe, folder, **options)

    monkeypatch.setattr(training, "run", watched)
    assert phase_transition.main([*SMALL, *WAYS, f"--out={out}"]) == 0
    again = json.loads((out / "results.json").read_text())
    assert ran == [] and again["fast"] == before["fast"] and again["exact"] == before["exact"]
    further = ["--ways=fast", "--fast=2/255,3/255,4/255", "--runs=1", "--loss_images=300"]
    phase_transition.main([*SMALL, *further, f"--out={out}"])
    assert ran == [3 / 255]


SECONDS = {"fast": 15.0, "exact": 60.0}


@pytest.mark.parametrize(
    "epsilon, words",
    [
        (0.1, "0.5 times .* as ordinary training does"),
        (0.11, "begins to differ"),
        (0.39, "begins to differ"),
        (0.4, "2 times .* will differ .* wider network"),
    ],
)
def test_advice_follows_from_the_ratio_to_the_critical_epsilon(epsilon, words):
    assert re.search(words, phase_transition_report.advice(epsilon, 0.2))


@pytest.mark.parametrize("clean, images, compared", [("a", 100, True), ("b", 100, False), ("a", 50, False)])
def test_only_what_was_measured_alike_is_compared(clean, images, compared):
    """Two commands may have other clean networks, or other numbers of images."""

    def measured(way, network, loss_images):
        line = intersection.interpolated([0.1, 0.3], [[0.2, 0.6]], [0.4])
        cleans = (dataclasses.replace(CLEAN, network=network),)
        return critical_epsilon.Measured(way, line, (0.1, 0.3), ((0.2, 0.6),), cleans, loss_images, SECONDS[way])

    found = {"fast": measured("fast", clean, images), "exact": measured("exact", "a", 100)}
    lines = phase_transition_report.report(RECIPE, "fgm", found)
    assert ("fast / exact: 1.00; time saved 75%" in lines) == compared == any("fast /" in line for line in lines)
    assert sum(line.startswith("ordinary training") for line in lines) == (1 if compared else 2)


def test_a_clean_network_that_is_not_trained_is_refused(tmp_path, monkeypatch, capsys):
    networks.two_conv((8, 8, 1), 10, width=16).save(tmp_path / "clean.keras")
    arguments = [*SMALL, *WAYS, f"--clean={tmp_path / 'clean.keras'}", f"--out={tmp_path / 'out'}"]
    assert call(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert "clean.keras', with an accuracy of" in printed and "allowed: a network that is trained" in printed
    assert not list((tmp_path / "out").iterdir())


def test_a_clean_network_without_a_gap_of_its_losses_is_refused(estimated, monkeypatch, tmp_path):
    out, _ = estimated
    values = iter([0.3, 0.2])  # training, test
    monkeypatch.setattr(training_runs, "mean_loss", lambda *arguments, **options: next(values))
    with pytest.raises(ValueError, match="training loss 0.3 is not below its test loss 0.2; allowed"):
        critical_epsilon.fast(
            RECIPE, tmp_path, epsilons=[0.1, 0.2], clean=out / "clean_seed_0" / "network.keras", strategy="one"
        )


def card(rang, loss=0.5):
    accuracies = {"fgsm": 0.8, "pgd_20": 0.0 if rang else 0.7}
    return cards.Card(
        recipe=RECIPE.to_json(),
        history=[{"masking_alarm": 1.0}, {"masking_alarm": rang, "loss": loss}],
        measured={name: cards.Measured(accuracy, (0.0, 1.0), 50) for name, accuracy in accuracies.items()},
        training_seconds=2.0,
    )


def test_single_step_ends_at_the_first_epsilon_that_overfits_in_the_last_epoch(monkeypatch, tmp_path):
    recipes = []

    def run(recipe, folder, **options):
        recipes.append(recipe)
        return card(float(recipe.epsilon >= 0.2))

    monkeypatch.setattr(training, "run", run)
    found = critical_epsilon.single_step(RECIPE, tmp_path, epsilons=[0.3, 0.2, 0.1])
    assert (found.unstable, found.epsilons, found.pgd, found.seconds) == (0.2, (0.1, 0.2), (0.7, 0.0), 4.0)
    assert {recipe.defense for recipe in recipes} == {"fgsm_at"} and recipes[0].defense_options == {"every": 1}
    none = critical_epsilon.single_step(RECIPE, tmp_path, epsilons=[0.1])
    assert none.unstable is None and none.epsilons == (0.1,)
    said = [phase_transition_report._single_step(each) for each in (found, none)]
    assert said[0].startswith("single-step training overfits catastrophically at 51/255 (accuracy under FGSM and")
    assert said[0].endswith("25.5/255: 80.0% and 70.0%, 51/255: 80.0% and 0.0%)")
    assert "at none of the epsilons" in said[1]
    critical_epsilon.single_step(RECIPE, tmp_path, epsilons=[0.1], warm_up=2)
    assert recipes[-1].stages == (Stage("standard", 2), Stage("fgsm_at", 8, {"every": 1}))


def test_single_step_refuses_training_that_does_not_begin(monkeypatch, tmp_path):
    """A network with one answer for all images withstands every attack as well as it withstands none."""
    monkeypatch.setattr(training, "run", lambda *arguments, **options: card(0.0, loss=np.log(10)))
    with pytest.raises(ValueError, match="epsilons have 0.1, where training stays at one answer .*; allowed: smaller"):
        critical_epsilon.single_step(RECIPE, tmp_path, epsilons=[0.1])


def test_the_figure_shows_the_estimate_where_its_line_meets_the_threshold():
    losses = ((0.2, 0.3), (0.22, 0.3), (0.2, 0.32))
    estimate = intersection.extrapolated([0.1, 0.2], losses, 0.5)
    measured = critical_epsilon.Measured("fast", estimate, (0.1, 0.2), losses, (CLEAN,), 300, 3.0)
    figure = phase_transition_plots.estimates([measured], RECIPE)
    [axes] = figure.axes
    marks = {tuple(np.round(line.get_xydata()[0], 6)) for line in axes.lines if len(line.get_xdata()) == 1}
    assert (round(255 * estimate.epsilon, 6), 0.5) in marks and (0.0, 0.01) in marks
    written = " ".join(text.get_text() for text in axes.get_legend().get_texts())
    assert "3 runs, 300 training images" in written and "100 images" in written and "95 % interval" in written
    assert "1/255" in axes.get_xlabel() and "L-infinity" in axes.get_xlabel() and "cross-entropy" in axes.get_ylabel()


def test_the_simulation_writes_its_figures_and_numbers(tmp_path):
    assert phase_transition.main(["--simulation", f"--out={tmp_path}"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p_values.png", "simulation.json", "theta_paths.png"]
    content = json.loads((tmp_path / "simulation.json").read_text())
    assert np.shape(content["relative_differences"]["5"]) == (3, 100)
    for name in "p_values_of_theta", "p_values_of_loss":
        at = dict(zip(content["log_ratios"], content[name]["5"]))
        assert at[-2.0] > 0.4 and at[1.0] < 0.05, name


BAD = [
    ([], "dataset is None; allowed: cifar10, cifar100, digits, mnist, svhn"),
    (["--dataset=digits", "--defense=nuat"], "defense is 'nuat'; allowed: mart, pgd_at, trades"),
    (["--dataset=digits", "--ways=slow"], "ways is 'slow'; allowed: exact, fast, single_step"),
    (["--dataset=digits", "--ways="], "ways is not given; allowed: by commas, of fast, exact, single_step"),
    (["--dataset=digits", "--ways=single_step"], "single_step is not given; allowed: "),
    (
        ["--dataset=digits", "--single_step=0.1,0.2"],
        "single_step is given; allowed: with --ways fast,exact,single_step",
    ),
    (["--dataset=digits", "--ways=fast", "--exact=0.1,0.2"], "exact is given; allowed: with --ways fast,exact"),
    (["--dataset=digits", "--ways=exact", "--fast=0.1,0.2"], "fast is given; allowed: with --ways exact,fast"),
    # Of a way that comes after another one.
    (["--dataset=digits", "--exact=0.1"], "exact: epsilons are 0.1; allowed: at least 2 different ones"),
    (["--dataset=digits", "--repeats=0"], "exact: runs is 0; allowed: a whole number, at least 1"),
    (["--dataset=digits", "--warm_up=30"], "exact: warm_up is 30; allowed: a number below 30"),
    (
        ["--dataset=digits", "--epochs=8", "--warm_up=5"],
        "exact: epochs is 8; allowed: a number to which stages of 5 + 25 epochs stretch",
    ),
    (["--dataset=mnist", "--epochs=8"], "a number to which stages of 4 + 16 epochs stretch"),
    (
        ["--dataset=digits", "--norm=l2", "--epsilon=1", "--ways=fast,single_step", "--fast=1,2", "--single_step=1"],
        "single_step: norm is 'l2'; allowed: ",
    ),
    (["--dataset=digits", "--exact=1,x"], "exact has 'x'; allowed: numbers as 0.1 or 8/255"),
    (["--dataset=digits", "--ways=fast", "--fast=1/0,1"], "fast has '1/0'; allowed: "),
    (["--dataset=digits", "--ways=fast", "--fast=0.1"], "epsilons are 0.1; allowed: at least 2 different ones"),
    (["--dataset=digits", "--ways=fast", "--fast=0.1,8"], "epsilons is 8.0; allowed: a number at most 1"),
    (["--dataset=digits", "--attack=cw"], "attack is 'cw'; allowed: fgm, pgd"),
    (["--dataset=digits", "--runs=0"], "runs is 0; allowed: a whole number, at least 1"),
    (["--dataset=digits", "--tuning_rate=0"], "learning_rate is 0.0; allowed: a number above 0"),
    (["--dataset=digits", "--tuning_epochs=0"], "epochs is 0; allowed: a whole number, at least 1"),
    (["--dataset=digits", "--loss_images=0"], "loss_images is 0; allowed: "),
    (["--dataset=digits", "--clean=none.keras"], "clean is 'none.keras', which is not a file; allowed: "),
    (["--dataset=digits", "--ways=exact", "--warm_up=30"], "warm_up is 30; allowed: a number below 30"),
    (["--dataset=digits", "--strategy=multiworker"], "strategy is 'multiworker'; allowed: one, mirrored, or auto"),
    (["--dataset=digits", "--test_images=5"], "test_images is given; allowed: with recipes.digits"),
    (["--dataset=digits", "--network=vgg"], "network is 'vgg'; allowed: "),
    (["--dataset=digits", "--norm=l2", "--epsilon=1"], "fast is not given; allowed: "),
    (
        ["--dataset=digits", "--norm=l2", "--epsilon=1", "--fast=1,2", "--ways=fast", "--defense=trades"],
        "norm (of trades) is 'l2'; allowed: linf",
    ),
]


@pytest.mark.parametrize("arguments, words", BAD)
def test_bad_input_gets_one_line_and_trains_nothing(arguments, words, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(keras.Model, "fit", None)
    assert call(monkeypatch, *arguments, f"--out={tmp_path / 'out'}") == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1, printed
    assert not (tmp_path / "out").exists()


def test_out_must_be_given_and_help_teaches(monkeypatch, capsys):
    assert call(monkeypatch, "--dataset=digits") == 2
    assert "out is not given; allowed: " in capsys.readouterr().err
    assert call(monkeypatch, "--help") == 0
    assert "python -m recipes.phase_transition" in capsys.readouterr().out
