"""The recipes' command line, as a user meets it."""

import contextlib
import dataclasses
import inspect
import json
import re
import runpy
import shlex
import signal
import sys

import pytest
import tensorflow as tf
import tensorflow_datasets
from absl import flags

import sanity.run
import tf_nuat
from recipes import (
    cifar10,
    cifar10_small,
    cifar100,
    command,
    compare,
    custom,
    digits,
    imagenet100,
    mnist,
    mnist_fast,
    mnist_nuat,
    orderings,
    phase_transition,
    race,
    svhn,
    table,
)
from tests.helpers import tiny
from tests.recipes.compare_test import as_card, card_of
from tf_nuat import command_line, data, training
from tf_nuat.networks import __main__ as networks_command
from tf_nuat.parallel import tf_config
from tf_nuat.training import AttackSpec, ScheduleSpec

MODULES = {
    "digits": digits,
    "mnist": mnist,
    "mnist_fast": mnist_fast,
    "mnist_nuat": mnist_nuat,
    "cifar10": cifar10,
    "cifar10_small": cifar10_small,
    "cifar100": cifar100,
    "svhn": svhn,
}


def call(monkeypatch, *arguments, recipes=digits.RECIPES):
    """Returns the exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["recipes", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        command.main(recipes, digits.__doc__)
    return stopped.value.code


@pytest.mark.parametrize("name", MODULES)
def test_every_recipe_is_plain_data_that_builds(name):
    splits = data.load("digits", batch_size=64)
    for defense, recipe in MODULES[name].RECIPES.items():
        assert recipe.defense == defense and recipe.dataset == name.split("_")[0]
        assert training.Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
        assert set(recipe.claimed) <= {"clean", "autoattack", *recipe.measures}
        small = dataclasses.replace(recipe, network="tests.helpers.tiny:network", network_options={}, batch_size=64)
        model, sources = None, [tiny.network((8, 8, 1), 10)] if recipe.sources else []
        for number, stage in enumerate(small.plan()):
            model = training.build(small, splits, stage=number, before=model, sources=sources)
            assert type(model) is tf_nuat.DEFENSES[stage.defense]
        sgd = model.optimizer
        assert (sgd.momentum, sgd.coupled_weight_decay) == (recipe.momentum, recipe.weight_decay)
        for step in (0, recipe.epochs * splits.steps_per_epoch - 1):  # schedules are defined to the end
            model.optimizer.iterations.assign(step)
            assert 0.0 <= float(model.optimizer.learning_rate) <= 0.3


def test_settings_of_cifar10_are_taken_over_without_its_claims():
    for module, share in (cifar100, 1), (svhn, 10):
        for name in "nuat", "nuat_wa", "fbf":
            ours, theirs = module.RECIPES[name], cifar10.RECIPES[name]
            assert ours.learning_rate == theirs.learning_rate.with_peak(theirs.learning_rate.peak / share)
            assert theirs.learning_rate.peak == theirs.learning_rate.arguments["peak"]
            assert (ours.network, ours.defense_options) == (theirs.network, theirs.defense_options)
            assert not ours.claimed and theirs.claimed and ours.source != theirs.source


def values_of(schedule, *epochs):
    """Returns the values of a `ScheduleSpec` shortly after each of these epochs."""
    built = schedule.build(steps_per_epoch=1000)
    return pytest.approx([float(built(int(1000 * epoch) + 1)) for epoch in epochs], rel=1e-2)


def test_settings_that_the_papers_leave_out_are_those_of_their_code():
    """Noise of 2/255 and 0.01, a small epsilon of 2/255 and 0.1, rates divided after the epoch that is named."""
    for module, (noise, low) in {cifar10: (2 / 255, 2 / 255), svhn: (2 / 255, 2 / 255), mnist: (0.01, 0.1)}.items():
        assert module.RECIPES["sat_r2"].defense_options["alpha"] == noise
        third = module.RECIPES["sat_r3"].defense_options
        assert (third["alpha"], third["epsilon_low"]) == (noise, low)
    assert cifar100.RECIPES["sat_r2"].defense_options["alpha"] == 2 / 255
    starts = {name: mnist.RECIPES[name].learning_rate.peak for name in ("sat_r1", "sat_r2", "sat_r3")}
    assert starts == {"sat_r1": 0.01, "sat_r2": 0.01, "sat_r3": 0.05}
    assert values_of(cifar10.RECIPES["sat_r1"].learning_rate, 25, 26, 51, 76) == [0.1, 0.02, 0.004, 0.0008]
    assert values_of(mnist.RECIPES["sat_r1"].learning_rate, 5, 6) == [0.01, 0.002]
    frozen = 0.02  # where the cyclic step rate stops falling
    assert [frozen, frozen / 10, frozen / 100] == values_of(cifar10.RECIPES["nuat"].learning_rate, 85, 86, 91)
    assert values_of(cifar10.RECIPES["gat"].learning_rate, 70, 71, 86) == [0.1, 0.01, 0.001]
    assert values_of(cifar10.RECIPES["gat_wa"].defense_options["guidance_weight"], 85, 86) == [10.0, 40.0]
    fbf, mart = cifar10.RECIPES["fbf"], cifar10.RECIPES["mart"]
    assert (fbf.batch_size, mart.batch_size, mart.weight_decay, mart.network) == (128, 128, 3.5e-3, "resnet18")
    assert values_of(fbf.learning_rate, 7.5, 15, 22.5) == [0.1, 0.2, 0.1]
    assert mart.defense_options["beta"] == 5.0 and values_of(mart.learning_rate, 73, 74) == [0.01, 0.001]
    gammas = [inspect.signature(kind).parameters["awp_gamma"].default for kind in (tf_nuat.AWP, tf_nuat.AWPTRADES)]
    assert gammas == [0.01, 0.005]


def ramp(peak, epochs):
    return ScheduleSpec("ramp", peak=peak, epochs=epochs)


PUBLISHED = [  # recipe; epochs, network and options of the papers
    (cifar10, "nuat", 100, "resnet18", {"alpha": 4 / 255, "nuclear_weight": ramp(4.5, 90)}),
    (cifar10, "nuat_wa", 100, "resnet18", {"alpha": 4 / 255, "nuclear_weight": ramp(4.0, 100)}),
    (cifar10, "nuat2", 55, "wrn_34_10", {"alpha": 4 / 255, "nuclear_weight": ramp(4.0, 55)}),
    (cifar10, "nuat2_wa", 80, "wrn_34_10", {"alpha": 4 / 255, "nuclear_weight": ramp(4.0, 80)}),
    (cifar10, "sat_r1", 100, "wrn_28_10", {"regularizer_weight": 0.2, "pairs": 1, "steps": 7}),
    (cifar10, "sat_r2", 100, "wrn_28_10", {"regularizer_weight": 25.0}),
    (cifar10, "sat_r3", 100, "wrn_28_10", {"regularizer_weight": 1.0, "tau": 0.6}),
    (mnist, "sat_r1", 20, "lenet_plus", {"regularizer_weight": 0.2, "pairs": 1, "steps": 10}),
    (mnist, "sat_r2", 20, "lenet_plus", {"regularizer_weight": 5.0}),
    (mnist, "sat_r3", 20, "lenet_plus", {"regularizer_weight": 1.0, "tau": 0.4}),
    (imagenet100, "sat_r1", 100, "resnet18", {"regularizer_weight": 0.05, "pairs": 1, "steps": 7}),
    (imagenet100, "sat_r2", 100, "resnet18", {"regularizer_weight": 3.0}),
    (imagenet100, "sat_r3", 100, "resnet18", {"regularizer_weight": 1.0, "tau": 0.6}),
    (imagenet100, "nuat", 120, "resnet18", {}),
    (cifar10, "n_fgsm", 30, "preact_resnet18", {"noise_scale": 2.0}),
]


@pytest.mark.parametrize("module, name, epochs, network, options", PUBLISHED)
def test_settings_are_those_of_the_papers(module, name, epochs, network, options):
    recipe = module.RECIPES[name]
    assert (recipe.epochs, recipe.network) == (epochs, network)
    assert {option: recipe.defense_options[option] for option in options} == options
    assert recipe.epsilon == (0.3 if module is mnist else 8 / 255)


def test_weights_of_other_defenses_are_those_of_their_papers():
    expected = {"free_at": {"replays": 8}, "bat": {"beta": 9.0}}
    expected |= {"elle": {"linearity_weight": 1000.0}, "elle_a": {"linearity_weight": 4000.0}}
    assert {name: cifar10.RECIPES[name].defense_options for name in expected} == expected
    assert cifar100.RECIPES["bat"].defense_options == {"beta": 11.0}
    guided = mnist.RECIPES["gat"].defense_options
    assert not guided["alternate"] and values_of(guided["guidance_weight"], 5, 6, 11, 16) == [15, 45, 135, 405]


def test_stages_are_those_of_the_paper():
    for name, lengths in {"sat_r1+sat_r3": (5, 15), "sat_r3+sat_r2": (15, 5)}.items():
        stages = mnist.RECIPES[name].plan()
        assert tuple(stage.epochs for stage in stages) == lengths
        for stage in stages:
            assert stage.options == mnist.RECIPES[stage.defense].defense_options


def test_learning_rates_of_nuat_are_those_of_the_paper():
    """The triangle of NuAT is frozen at epoch 80, that of NuAT2 at epoch 35, and divided by 10 five epochs later."""
    rates = {
        "nuat": {20: 0.05, 40: 0.1, 65: 0.05, 80: 0.02},
        "nuat_wa": {12.5: 0.05, 25: 0.1, 62.5: 0.05},
        "nuat2": {10: 0.05, 20: 0.1, 35: 0.025, 40: 0.025, 41: 0.0025, 46: 0.00025},
        "nuat2_wa": {10: 0.05, 20: 0.1, 50: 0.05},
    }
    for name, expected in rates.items():
        assert values_of(cifar10.RECIPES[name].learning_rate, *expected) == [*expected.values()], name


def test_momentum_weight_decay_and_batches_are_those_of_the_papers():
    decays = {(module, name): 5e-4 for module in (cifar10, mnist) for name in module.RECIPES}
    decays[cifar10, "mart"] = 3.5e-3
    decays |= {(imagenet100, name): 5e-4 for name in ("sat_r1", "sat_r2", "sat_r3")}
    decays |= {(imagenet100, name): 1e-4 for name in ("nuat", "nuat_wa", "gat")}
    for (module, name), decay in decays.items():
        assert (module.RECIPES[name].momentum, module.RECIPES[name].weight_decay) == (0.9, decay), name
    assert {cifar10.RECIPES[name].batch_size for name in ("nuat", "nuat_wa", "nuat2", "nuat2_wa")} == {64}
    assert {mnist.RECIPES[name].batch_size for name in ("sat_r1", "sat_r2", "sat_r3")} == {32}


def test_the_best_epoch_is_chosen_under_7_steps_of_ifgsm():
    for module in cifar10, imagenet100:
        assert module.RECIPES["nuat"].selection == AttackSpec("ifgsm", steps=7)


def test_no_claim_of_another_network_stands_beside_a_recipe():
    """Bilateral training's are of WRN-28-10."""
    assert cifar10.RECIPES["bat"].network == "resnet18" and not cifar10.RECIPES["bat"].claimed
    assert cifar100.RECIPES["bat"].network == "wrn_28_10" and cifar100.RECIPES["bat"].claimed


def test_what_departs_from_the_authors_is_said_in_the_recipe():
    for name, module in MODULES.items():
        for defense, recipe in module.RECIPES.items():
            # ImageNet: the authors' code has f(x) in inference mode, too.
            if defense.startswith(("nuat", "gat")) and name in ("mnist", "mnist_nuat", "mnist_fast", "cifar10", "svhn"):
                assert (cifar10.CLEAN_SIDE in recipe.source) == (not defense.startswith("nuat2")), (name, defense)
                assert (cifar10.AVERAGE in recipe.source) == ("_wa" in defense), (name, defense)
                assert (cifar10.LAMBDA in recipe.source) == defense.startswith("nuat"), (name, defense)
    assert "two optimizer steps" in cifar10.RECIPES["elle_a"].source and "crop" in svhn.RECIPES["elle"].source
    assert "I-FGSM" in cifar10.RECIPES["sat_r1"].source and "beyond" in cifar10.RECIPES["sat_r2"].source


def test_single_step_defenses_have_the_schedules_of_their_authors():
    """The rate peaks in the middle on CIFAR-10 (GradAlign: at two fifths), at two fifths on SVHN, with a warm-up."""
    peaks = {"n_fgsm": (15, 0.2, 5), "grad_align": (12, 0.3, 4), "elle": (15, 0.2, 5), "elle_a": (15, 0.2, 5)}
    for name, (up, peak, warm) in peaks.items():
        large, digits_of_houses = cifar10.RECIPES[name], svhn.RECIPES[name]
        for recipe, epochs, at, height in (large, 30, up, peak), (digits_of_houses, 15, 6, 0.05):
            assert (recipe.epochs, recipe.batch_size, recipe.network) == (epochs, 128, "preact_resnet18")
            rate = recipe.schedule(recipe.learning_rate, 1)
            assert [float(rate(epoch)) for epoch in (0, at, epochs)] == pytest.approx([0.0, height, 0.0])
        share = digits_of_houses.schedule(digits_of_houses.defense_options["epsilon_share"], 1)
        assert [float(share(epoch)) for epoch in (0, warm / 2, warm, 15)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
        assert "epsilon_share" not in large.defense_options
    weights = [module.RECIPES["grad_align"].defense_options["alignment_weight"] for module in (cifar10, svhn)]
    assert weights == [0.2, 2.5]


def test_mnist_of_the_nuat_paper_is_its_protocol():
    """50 epochs of its network on 64 images a step; lambda grows to the end, the claims are those of its table 2."""
    splits = data.load("digits", batch_size=64)
    claims = {"nuat": (0.9937, 0.9624, 0.9465, 0.9311), "nuat_wa": (0.9936, 0.9630, 0.9470, 0.9310)}
    assert list(mnist_nuat.RECIPES) == list(claims)
    for name, recipe in mnist_nuat.RECIPES.items():
        assert (recipe.network, recipe.epochs, recipe.batch_size, recipe.epsilon) == ("mnist_cnn", 50, 64, 0.3)
        assert [recipe.claimed[key] for key in ("clean", "pgd_500", "gama_pgd_100", "autoattack")] == [*claims[name]]
        assert [recipe.measures[key].settings["steps"] for key in ("pgd_500", "gama_pgd_100")] == [500, 100]
        assert recipe.test_images is None  # all of them
        model, lambdas, rates = training.build(recipe, splits), [], []
        for epoch in (0, 10, 20, 25, 50):
            model.optimizer.iterations.assign(epoch * splits.steps_per_epoch)
            lambdas.append(float(model.nuclear_weight(model.optimizer.iterations)))
            rates.append(float(model.optimizer.learning_rate))
        assert lambdas == pytest.approx([0.0, 0.4, 0.8, 1.0, 2.0])
        assert rates == pytest.approx([0.0, 0.025, 0.05, 0.05 * 25 / 30, 0.0])


def test_the_small_cifar10_is_the_large_one_shortened_alike_for_all():
    splits = data.load("digits", batch_size=64)
    unlike = {"network", "network_options", "images_per_class", "epochs", "precision", "measures", "claimed", "source"}
    unlike.add("batch_size")  # FBF's
    for name, recipe in cifar10_small.RECIPES.items():
        large, small = (each.to_json() for each in (cifar10.RECIPES[name], recipe))
        assert {key for key, value in small.items() if value != large[key]} <= unlike, name
        alike = (recipe.network, recipe.network_options, recipe.images_per_class, recipe.epochs, recipe.batch_size)
        assert alike == ("resnet18", {"width": 16}, 2000, 8, 64) and not recipe.claimed
        # Schedules are as far after a share of the epochs as those of the paper.
        rates = []
        for each in recipe, cifar10.RECIPES[name]:
            rate, steps = (
                each.schedule(each.learning_rate, splits.steps_per_epoch),
                each.epochs * splits.steps_per_epoch,
            )
            rates.append([float(rate(int(share * steps))) for share in (0.0, 0.25, 0.5, 0.99)])
        assert rates[0] == pytest.approx(rates[1], rel=0.05, abs=2e-3), name
    # Every defense that is compared with the paper has the measures that the comparison needs, but AutoAttack's.
    assert {*orderings.COLUMNS} == {"clean", "autoattack", *cifar10_small.RECIPES["nuat"].measures}
    assert len(set(cifar10_small.RECIPES) & set(orderings.PAPER)) == 10


def test_settings_of_the_phase_transition_are_those_of_the_paper():
    splits = data.load("digits", batch_size=64)
    for module, start in (cifar100, 0.1), (svhn, 0.01):
        recipe = module.RECIPES["pgd_at"]
        assert (recipe.network, recipe.epochs, recipe.batch_size) == ("preact_resnet18", 200, 128)
        assert (recipe.momentum, recipe.weight_decay, recipe.epsilon) == (0.9, 5e-4, 8 / 255)
        small = dataclasses.replace(recipe, network="lenet_plus")
        model, rates = training.build(small, splits), []
        for epoch in (0, 99, 100, 149, 150, 199):
            model.optimizer.iterations.assign(epoch * splits.steps_per_epoch)
            rates.append(float(model.optimizer.learning_rate))
        assert rates == pytest.approx([start, start, start / 10, start / 10, start / 100, start / 100])


def test_trains_and_prints_what_was_measured(monkeypatch, tmp_path, capsys):
    out = tmp_path / "run"
    small = ["--defense=standard", "--network=tests.helpers.tiny:network", "--epochs=1", "--test_images=50"]
    status = call(monkeypatch, *small, f"--out={out}")
    printed = capsys.readouterr().out
    assert status == 0
    card = json.loads((out / "card.json").read_text())
    assert f"{card['measured']['clean']['accuracy']:.2%}" in printed and "50 images" in printed
    assert str(out / "network.keras") in printed and re.search(r"epoch 1/1  loss [0-9.]+  clean .*  robust ", printed)


@pytest.mark.parametrize(
    "chosen_by, words",
    [
        ("val_accuracy", "epoch 3 was the best on the validation split, by val_accuracy"),
        ("last", "epoch 3, the last, is kept"),
    ],
)
def test_why_an_epoch_is_kept_is_told_as_it_was(chosen_by, words):
    card = card_of("fgsm_at", 0.98, 0.1, epochs=3)
    card["recipe"]["chosen_by"], card["epoch_chosen"] = chosen_by, 3
    assert command.summary(as_card(card)).splitlines()[0] == f"fgsm_at on mnist, test split; {words}"


def next_flags(printed):
    """Returns the flags of the command that the last line names, as `sanity.run` reads them from a shell."""
    line = printed.splitlines()[-1]
    assert line.startswith("Next: python -m sanity.run ")
    values = sanity.run.flag_values()
    command_line.parse(values, shlex.split(line)[4:], "")
    return values


def test_the_next_command_is_as_one_types_it_and_has_what_a_card_does_not_say(monkeypatch, tmp_path, capsys):
    paths = {name: str(tmp_path / f"my {name}") for name in ("data", "data_dir", "out")}
    (tmp_path / "my data").mkdir()
    given = {**paths, "import": "my_layers,others", "network": "two_conv", "epsilon": "0.1", "strategy": "one"}
    values = custom.flag_values()
    values(["", *(f"--{name}={value}" for name, value in given.items())])
    monkeypatch.setattr(training, "run", lambda *_, **__: as_card(card_of("nuat", 0.98, 0.9)))
    assert command.run(custom.recipe_of(values), values) == 0
    judged = next_flags(capsys.readouterr().out)
    assert (judged.checkpoint, judged.dataset) == (f"{paths['out']}/network.keras", paths["data"])
    assert (judged.data_dir, getattr(judged, "import")) == (paths["data_dir"], ["my_layers", "others"])


def test_the_next_command_of_a_pretrained_network_is_as_one_types_it(tmp_path, capsys):
    out = tmp_path / "my runs"
    assert networks_command.command(["--name=mnist_nuat", f"--out={out}"]) == 0
    assert next_flags(capsys.readouterr().out).checkpoint == str(out / "network.keras")


@pytest.mark.parametrize(
    "main, arguments",
    [
        (compare.main, ["--dataset=digits", "--defenses=nuat"]),
        (race.main, ["--dataset=digits", "--defenses=nuat", "--minutes=1"]),
        (phase_transition.main, ["--dataset=digits"]),
    ],
)
def test_a_command_of_one_machine_waits_for_no_other(main, arguments, monkeypatch, tmp_path):
    monkeypatch.setattr(tf_config, "start", lambda *_, **__: pytest.fail("waited for workers"))
    monkeypatch.setenv("TF_CONFIG", tf_config.EXAMPLE)
    with pytest.raises(ValueError, match="strategy is 'auto', and TF_CONFIG names 2 workers; allowed: one, mirrored"):
        main([*arguments, f"--out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("strategy, addresses", [("one", 2), ("mirrored", 2), ("auto", 1), ("auto", 0)])
def test_a_command_of_one_machine_takes_its_devices(strategy, addresses, monkeypatch):
    cluster = {"worker": [f"host-{number}:2222" for number in range(addresses)]}
    text = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}) if addresses else ""
    monkeypatch.setenv("TF_CONFIG", text)
    values = command.with_shared_flags(flags.FlagValues())
    values(["", f"--strategy={strategy}"])
    command.refuse_several_workers(values)


def test_flags_change_the_recipe():
    values = command.flag_values(cifar10.RECIPES)
    values(
        [
            "",
            "--epochs=7",
            "--width=16",
            "--network_options=stem=imagenet",
            "--learning_rate=0.02",
            "--options=nuclear_weight=3",
            "--seed=5",
            "--epsilon=0.5",
        ]
    )
    changed = command.with_flags(cifar10.RECIPES["nuat"], values)
    assert (changed.epochs, changed.schedule_epochs, changed.seed, changed.epsilon) == (7, 100, 5, 0.5)
    assert changed.network_options == {"width": 16, "stem": "imagenet"}
    rate = cifar10.RECIPES["nuat"].learning_rate
    assert (changed.learning_rate.name, changed.learning_rate.arguments) == (
        rate.name,
        {**rate.arguments, "peak": 0.02},
    )
    assert changed.defense_options["nuclear_weight"].peak == 3


@pytest.mark.parametrize("named, left", [("clean", []), ("pgd_500", ["pgd_500"]), ("clean,pgd_500,gama_pgd_100", None)])
def test_measures_can_be_left_for_another_day(named, left):
    values, recipe = command.flag_values(mnist_nuat.RECIPES), mnist_nuat.RECIPES["nuat"]
    values(["", f"--measures={named}"])
    changed = command.with_flags(recipe, values)
    assert changed.measures == {name: recipe.measures[name] for name in (recipe.measures if left is None else left)}
    assert changed.claimed == recipe.claimed  # of what is found later, too


@pytest.mark.parametrize(
    "flags, kept",
    {
        (): True,
        ("--epochs=8", "--seed=3", "--precision=mixed_bfloat16", "--learning_rate=0.05"): True,
        ("--options=steps=40",): True,  # as in the recipe
        ("--options=steps=7,step_size=0.1",): False,
        ("--network=mnist_cnn",): False,
        ("--epsilon=0.2",): False,
        ("--images_per_class=500",): False,
    }.items(),
    ids=str,
)
def test_a_claim_is_not_beside_a_run_of_something_else(flags, kept):
    values, recipe = command.flag_values(mnist.RECIPES), mnist.RECIPES["pgd_at"]
    assert recipe.claimed and recipe.defense_options["steps"] == 40
    values(["", *flags])
    assert command.with_flags(recipe, values).claimed == (recipe.claimed if kept else {})


def test_a_claim_is_not_beside_a_network_of_another_width_or_stages_of_another_weight():
    for recipes, name, flag in (
        (cifar10.RECIPES, "nuat", "--width=16"),
        (mnist.RECIPES, "sat_r1+sat_r3", "--options=regularizer_weight=0"),
    ):
        values = command.flag_values(recipes)
        values(["", flag])
        assert recipes[name].claimed and not command.with_flags(recipes[name], values).claimed


def test_help_teaches(monkeypatch, capsys):
    assert call(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    assert "python -m recipes.digits" in printed and "--options" in printed and "nuat_wa" in printed


BAD = [
    (["--defense=magic"], "defense is 'magic'; allowed: awp"),
    (["--network=vgg"], "network is 'vgg'; allowed: "),
    (["--epochs=0"], "epochs is 0; allowed: "),
    (["--epochs=many"], "epochs"),
    (["--epsilon=-0.1"], "epsilon is -0.1; allowed: "),
    (["--epsilon=nan"], "epsilon is nan; allowed: "),
    (["--batch_size=0"], "batch_size is 0; allowed: "),
    (["--batch_size=100000"], "batch_size"),
    (["--learning_rate=0"], "learning_rate is 0.0; allowed: "),
    (["--defense=standard", "--options=nuclear_weight=1"], "options of Standard are {'nuclear_weight': 1}"),
    (["--options=nuclear_weight"], "options has 'nuclear_weight'; allowed: name=value"),
    (["--options=nuclear_weight=-1"], "nuclear_weight is -1; allowed: "),
    (["--norm=l2"], "epsilon is not given; allowed: "),
    (["--norm=l0"], "norm is 'l0'; allowed: "),
    (["--images_per_class=0"], "images_per_class is 0; allowed: "),
    (["--images_per_class=1000"], "images_per_class is 1000; allowed: "),
    (["--patience=0"], "patience is 0; allowed: "),
    (["--masking_alarm=ring"], "masking_alarm is 'ring'; allowed: "),
    (["--sources=lenet_plus"], "sources is ('lenet_plus',) for nuat; allowed: "),
    (["--width=8"], "width is given; allowed: "),
    (["--network_options=depth"], "network_options has 'depth'; allowed: name=value"),
    (["--network_options=depth=3"], "options of mnist_cnn are {'depth': 3}"),
    (["--network=no_such_module:build"], "network is 'no_such_module:build', whose module cannot be imported"),
    (["--strategy=tpu"], "strategy is 'tpu'; allowed: "),
    (["--jit_compile"], "jit_compile is True; allowed: with --nodeterministic"),
    (["--test_images=0"], "test_images"),
    (["--measures=pgd"], "measures is 'pgd'; allowed: clean, pgd_"),
    (["--speed=3"], "speed"),
    (["nuat"], "'nuat' is no flag; allowed: "),
]


@pytest.mark.parametrize("arguments, words", BAD)
def test_bad_flags_get_one_line_and_leave_nothing(arguments, words, monkeypatch, tmp_path, capsys):
    assert call(monkeypatch, *arguments, f"--out={tmp_path / 'run'}") == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1, printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options, how", [({}, "continues where it was"), ({"continues": False}, "begins anew")])
def test_an_interrupt_says_what_the_same_command_does(options, how, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        command_line.main(interrupted, **options)
    assert ended.value.code == 130
    assert capsys.readouterr().err == f"interrupted; the same command {how}\n"


def test_too_little_memory_is_one_line(capsys):
    def large(arguments):
        tf.zeros((2**20, 2**30))

    with pytest.raises(SystemExit) as ended:
        command_line.main(large)
    assert ended.value.code == 1
    words = (
        r"error: memory is not enough \(OOM .*1048576,1073741824.*\); allowed: fewer images at a time \(--batch_size\)"
    )
    assert re.fullmatch(rf"\n{words}, or a smaller network\n", capsys.readouterr().err)


@pytest.mark.parametrize("module", ["sanity.figures.__main__", "recipes.plot_adversaries"])
def test_a_command_that_draws_says_that_it_begins_anew(module, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "parse", interrupted)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit):
        runpy.run_module(module, run_name="__main__")
    assert capsys.readouterr().err.endswith("the same command begins anew\n")


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_ctrl_c_is_that_whatever_error_the_code_below_makes_of_it(is_interrupted):
    """CPython's lists, in the midst of a change, made a SystemError of one in twenty."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored

    def command():
        with contextlib.suppress(KeyboardInterrupt):
            if is_interrupted:
                signal.raise_signal(signal.SIGINT)
        raise SystemError("bad argument to internal function")

    with pytest.raises(KeyboardInterrupt if is_interrupted else SystemError), command_line.interruptible():
        command()
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_out_is_required_and_must_be_writable(monkeypatch, tmp_path, capsys):
    assert call(monkeypatch) == 2
    assert "out is not given" in capsys.readouterr().err
    (tmp_path / "file").write_text("kept")
    assert call(monkeypatch, f"--out={tmp_path / 'file'}") == 2
    assert "cannot be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


def test_a_dataset_that_is_not_there_is_named(monkeypatch, tmp_path, capsys):
    def offline(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tensorflow_datasets, "load", offline)
    status = call(monkeypatch, f"--out={tmp_path / 'run'}", f"--data_dir={tmp_path}", recipes=mnist.RECIPES)
    printed = capsys.readouterr().err
    assert status == 2 and "data_dir" in printed and "no route to host" in printed and printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_table_has_a_row_per_card_with_claims_beside(tmp_path, monkeypatch, capsys):
    card = {
        "recipe": {
            "dataset": "mnist",
            "defense": "nuat",
            "epochs": 20,
            "epsilon": 0.3,
            "measures": {},
            "network": "lenet_plus",
            "seed": 0,
        },
        "measured": {"clean": {"accuracy": 0.99, "interval": [0.98, 0.995], "images": 100}},
        "claimed": {"clean": 0.9937},
        "epoch_chosen": 19,
        "history": [{}],
        "training_images_per_second": 1234.4,
        "training_seconds": 100.0,
        "command": "python -m recipes.mnist",
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert table.command([str(tmp_path / "card.json")] * 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[2] == lines[3]
    assert "| 99.00 [98.00, 99.50] (claimed 99.37) | 19 of 20 | 1234 |" in lines[2]
    with pytest.raises(ValueError, match="card is .*missing.json"):
        table.command([str(tmp_path / "missing.json")])
