"""Training for so many minutes: what fits, what is written down, and that a run that was killed is the same run."""

import dataclasses
import json
import math
import types

import pytest

from recipes import command, digits, mnist_fast
from tests.helpers.killed import EVERY_BATCH, assert_same_run, killed, run
from tests.training.backup_test import RECIPE as PLAIN
from tests.training.stages_test import R3, staged
from tf_nuat.defenses import Defense
from tf_nuat.training import ScheduleSpec, checkpoints, epochs, experiment, minutes
from tf_nuat.training import recipe as recipes

SPE = 9  # batches in an epoch of the digits
SHORT = 0.01  # minutes in whose share no more than the least number of batches is timed
RECIPE = dataclasses.replace(
    PLAIN, minutes=1.0, defense_options={"nuclear_weight": ScheduleSpec("ramp", peak=1.0, epochs=2)}
)


def time_of(recipe, speed, steps_per_epoch):
    """Returns the seconds of training and validation, added up stage by stage and epoch by epoch."""
    stages = recipe.steps(steps_per_epoch)
    return sum(speed.start + sum(batches * speed.step + speed.validation for batches in stage) for stage in stages)


@pytest.mark.parametrize("step, validation", [(0.1, 1.0), (0.5, 20.0), (0.001, 0.0), (3.0, 5.0), (0.1, 50.0)])
@pytest.mark.parametrize("spent, start", [(0.0, 0.0), (6.0, 1.5)])
def test_as_much_is_trained_as_ends_in_time_with_its_validations(step, validation, spent, start):
    speed = minutes.Speed(step, validation, start)
    fitted = minutes.fitted(RECIPE, 100, [speed], spent)
    within = 60.0 * (1.0 - minutes.RESERVE) - spent
    assert time_of(fitted, speed, 100) <= within + 1e-6
    longer = dataclasses.replace(fitted, epochs=fitted.epochs + 1 / 100)
    assert time_of(longer, speed, 100) > within - 1e-6
    assert sum(map(sum, fitted.steps(100))) == pytest.approx(100 * fitted.epochs)
    assert fitted.schedule_epochs == RECIPE.schedule_epochs and fitted.minutes == 1.0


def test_a_part_of_an_epoch_is_an_epoch_with_a_validation():
    fitted = minutes.fitted(RECIPE, 1000, [minutes.Speed(0.1, 9.4)], 0.0)  # 59.4 s: 500 steps and one validation
    assert fitted.steps(1000) == [[500]] and fitted.epochs == 0.5


def test_stages_share_the_minutes_as_they_share_the_epochs():
    recipe = staged(("sat_r1", 1, {}), ("sat_r3", 2, {}), minutes=1.0)
    speeds = [minutes.Speed(1.0, 1.0), minutes.Speed(2.0, 3.0, 4.0)]
    first, second = minutes.fitted(recipe, 10, speeds, 0.0).steps(10)
    assert abs(2 * sum(first) - sum(second)) <= 2
    seconds = sum(first) + len(first) + 2.0 * sum(second) + 3.0 * len(second) + 4.0
    assert 59.4 - 5.0 - 3.0 < seconds <= 59.4


def test_minutes_that_leave_a_stage_without_a_batch_are_too_few():
    recipe = staged(("sat_r1", 1, {}), ("sat_r3", 9, {}), minutes=1.0, epochs=10, schedule_epochs=10)
    with pytest.raises(minutes.TooFewError):  # for five batches there is time
        minutes.fitted(recipe, 10, [minutes.Speed(10.0, 0.0)] * 2, 0.0)


def test_each_stage_has_its_own_speed_and_compiles_again(tmp_path, monkeypatch):
    measured, models = [], []

    def measure(of_stage, train, *, workers, compiles_again):
        train(2, minutes.Stopwatch(0.0, 2))
        measured.append((of_stage, compiles_again))
        return minutes.Speed(1.0, 1.0)

    fit = Defense.fit
    monkeypatch.setattr(Defense, "fit", lambda self, *given, **named: models.append(self) or fit(self, *given, **named))
    monkeypatch.setattr(minutes, "measured", measure)
    monkeypatch.setattr(minutes, "fitted", lambda recipe, *given: dataclasses.replace(recipe, epochs=1.0))
    recipe = staged(("standard", 1, {}), ("sat_r3", 2, R3), minutes=1.0)
    card = run(recipe, tmp_path / "measured")
    assert measured == [(0.5, False), (0.5, True)]
    assert [type(each).__name__ for each in models] == ["Standard", "SATR3"] * 2
    monkeypatch.setattr(minutes, "measured", lambda *_, **__: minutes.Speed(1.0, 1.0))
    assert_same_run(tmp_path / "measured", card, tmp_path / "other", run(recipe, tmp_path / "other"))


@pytest.mark.parametrize("minute, words", [(1e-4, "minutes is 0.0001, too few for a step and a validation; allowed: ")])
def test_too_few_minutes_are_one_line_and_leave_nothing_to_continue(minute, words, tmp_path):
    with pytest.raises(minutes.TooFewError, match=words) as raised:
        run(dataclasses.replace(RECIPE, minutes=minute), tmp_path)
    assert "\n" not in str(raised.value) and not (tmp_path / "recipe.json").exists()


def test_a_run_that_is_killed_has_the_epochs_that_it_was_begun_with(tmp_path, monkeypatch):
    """The machine that it goes on is slower. Both end with the bits of a run that was not killed."""

    def measured_as(step):
        return lambda *_, **__: minutes.Speed(step, 10.0)

    for module in (epochs, experiment):  # reading and measuring took no time
        monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr(minutes, "measured", measured_as(2.8))
    expected = run(RECIPE, tmp_path / "whole")
    assert expected.recipe["epochs"] == pytest.approx(14 / SPE) and len(expected.history) == 2
    assert expected.recipe["minutes"] == 1.0
    out = tmp_path / "killed"
    killed(monkeypatch, RECIPE, out, batch=11, save_every=EVERY_BATCH)  # in the second epoch, of 5 batches
    assert json.loads((out / "recipe.json").read_text())["epochs"] == expected.recipe["epochs"]
    monkeypatch.setattr(minutes, "measured", lambda *_, **__: pytest.fail("measured again"))
    with pytest.raises(ValueError, match="holds a run with another minutes; allowed: ") as raised:
        run(dataclasses.replace(RECIPE, minutes=2.0), out)
    assert "\n" not in str(raised.value)
    card = run(RECIPE, out)
    assert_same_run(out, card, tmp_path / "whole", expected)
    assert run(RECIPE, out) == card  # finished


@pytest.mark.parametrize("epochs, fits", [(None, True), ("many", False)])
def test_epochs_that_someone_took_out_of_the_recipe_are_fitted_again(epochs, fits, tmp_path, monkeypatch):
    monkeypatch.setattr(minutes, "measured", lambda *_, **__: minutes.Speed(1.0, 1.0))
    monkeypatch.setattr(minutes, "fitted", lambda recipe, *_: dataclasses.replace(recipe, epochs=0.5))
    content = {name: value for name, value in RECIPE.to_json().items() if name != "epochs"}
    (tmp_path / "recipe.json").write_text(json.dumps(content if epochs is None else {**content, "epochs": epochs}))
    if fits:
        assert run(RECIPE, tmp_path).recipe["epochs"] == 0.5
    else:
        with pytest.raises(ValueError, match="epochs is 'many'; allowed: a number above 0"):
            run(RECIPE, tmp_path)


def test_reading_the_data_is_part_of_the_minutes(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr(epochs, "time", types.SimpleNamespace(perf_counter=lambda: 30.0))
    monkeypatch.setattr(minutes, "measured", lambda *_, **__: minutes.Speed(1.0, 1.0))
    monkeypatch.setattr(Defense, "fit", lambda *_, **__: pytest.fail("begun"))
    with pytest.raises(pytest.fail.Exception, match="begun"):
        run(RECIPE, tmp_path)
    begun = json.loads((tmp_path / "recipe.json").read_text())
    assert begun["epochs"] == pytest.approx(26 / SPE)  # and three validations: 29 of 29.4 seconds


def test_epochs_and_a_part_of_one_are_one_fit(tmp_path, monkeypatch):
    """To end a `fit` and begin another takes seconds that the minutes do not have."""
    monkeypatch.setattr(minutes, "measured", lambda *_, **__: minutes.Speed(1.0, 1.0))
    monkeypatch.setattr(minutes, "fitted", lambda recipe, *_: dataclasses.replace(recipe, epochs=2.5))
    fits, whole = [], Defense.fit
    monkeypatch.setattr(Defense, "fit", lambda *given, **named: fits.append(named) or whole(*given, **named))
    card = run(RECIPE, tmp_path)
    assert len(fits) == 1 and len(card.history) == 3


def test_what_an_epoch_saves_is_part_of_its_time_and_gone_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(minutes, "fitted", lambda recipe, *_: dataclasses.replace(recipe, epochs=1.0))
    saved, save = [], checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda folder, *given: saved.append(folder) or save(folder, *given))
    run(dataclasses.replace(RECIPE, minutes=SHORT), tmp_path)
    assert saved.count(tmp_path / "trial" / "state") == 2  # one epoch to warm up, one that is timed
    assert not (tmp_path / "trial").exists()


def test_measuring_the_speed_leaves_no_trace(tmp_path, monkeypatch):
    """Weights, momentum, metrics, the state of a defense and the order of the data are those before."""
    recipe = dataclasses.replace(RECIPE, defense="nuat_h", defense_options={"threshold": 1.0}, chosen_by="last")
    recipe = dataclasses.replace(recipe, minutes=SHORT)
    cards = []
    for measure in (minutes.measured, lambda *_, **__: minutes.Speed(1.0, 1.0)):
        monkeypatch.setattr(minutes, "measured", measure)
        monkeypatch.setattr(minutes, "fitted", lambda recipe, *_: dataclasses.replace(recipe, epochs=1.5))
        cards.append(run(recipe, tmp_path / str(len(cards))))
    assert_same_run(tmp_path / "0", cards[0], tmp_path / "1", cards[1])


@pytest.mark.parametrize("seconds, batches", [(12.5, 14), (3.5, minutes.LEAST), (1.5, 8)])
def test_the_stopwatch_takes_an_even_number_of_batches(seconds, batches, monkeypatch):
    """At least `LEAST`, unless these take more than four times as long."""
    now = iter(range(1000))
    monkeypatch.setattr(minutes.time, "perf_counter", lambda: float(next(now)))
    watch = minutes.Stopwatch(seconds, most=100)

    class Model:
        stop_training = False

    watch.set_model(Model())
    watch.on_epoch_begin(0)
    while not watch.model.stop_training:
        watch.on_train_batch_end(0)
    watch.on_epoch_end(0)
    assert watch.batches == batches and watch.speed == minutes.Speed(1.0, 1.0)


def test_what_a_fit_takes_beside_its_epoch_is_measured(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(minutes, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def train(most, watch):
        watch.set_model(types.SimpleNamespace(stop_training=False))
        calls = (2.0, watch.on_epoch_begin), (1.0, watch.on_train_batch_end), (0.5, watch.on_epoch_end)
        for seconds, call in calls:
            now[0] += seconds
            call(0)
        now[0] += 1.5

    assert minutes.measured(5.0, train) == minutes.Speed(step=1.0, validation=0.5, start=3.5)
    whole = 2.0 + 1.0 + 0.5 + 1.5  # of the first `fit`, which compiles
    assert minutes.measured(5.0, train, compiles_again=True).start == 3.5 + whole


def test_several_workers_take_the_same_number_of_batches():
    """Each waits for the others in every batch: one that stops by its own clock would leave them waiting for ever."""
    asked = []

    def train(most, watch):
        asked.append((watch.seconds, watch.most))
        watch.speed = minutes.Speed(1.0, 1.0)

    minutes.measured(5.0, train, workers=2)
    minutes.measured(5.0, train)
    warm_up = (0.0, minutes.WARM_UP)
    assert asked == [warm_up, (math.inf, minutes.LEAST), warm_up, (9.0, minutes.MOST)]  # 3 % of five minutes


def test_epochs_take_the_place_of_the_minutes_of_a_recipe():
    values = command.flag_values(mnist_fast.RECIPES)
    values(["", "--epochs=2"])
    recipe = command.with_flags(mnist_fast.RECIPES["nuat_wa"], values)
    assert (recipe.epochs, recipe.minutes) == (2, None)
    values = command.flag_values(mnist_fast.RECIPES)
    values(["", "--minutes=2"])
    assert command.with_flags(mnist_fast.RECIPES["nuat_wa"], values).minutes == 2.0


def test_epochs_and_minutes_are_not_given_together():
    values = command.flag_values(digits.RECIPES)
    values(["", "--minutes=3", "--epochs=2"])
    with pytest.raises(ValueError, match="epochs is 2; allowed: not with --minutes"):
        command.with_flags(digits.RECIPES["nuat"], values)
    values = command.flag_values(digits.RECIPES)
    values(["", "--minutes=3"])
    assert command.with_flags(digits.RECIPES["nuat"], values).minutes == 3.0
    for wrong in -1, 0, 1e9, math.inf, math.nan:
        with pytest.raises(ValueError, match="minutes is "):
            dataclasses.replace(PLAIN, minutes=wrong)
    with pytest.raises(ValueError, match="epochs is 1.5; allowed: a whole number"):
        dataclasses.replace(PLAIN, epochs=1.5)
    read = recipes.Recipe.from_json(dataclasses.replace(RECIPE, epochs=14 / SPE).to_json())
    assert sum(map(sum, read.steps(SPE))) == 14
