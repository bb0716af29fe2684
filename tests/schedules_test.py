"""Schedules against the published ones, at the epochs where they turn."""

import keras
import numpy as np
import pytest

from tf_nuat import schedules


def values(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_ramp():
    np.testing.assert_allclose(values(schedules.ramp(4.5, 90), [0, 45, 90, 100]), [0, 2.25, 4.5, 4.5])
    np.testing.assert_allclose(values(schedules.ramp(6.0, 8, wait=2), [0, 2, 3, 5, 8, 9]), [0, 0, 1, 3, 6, 6])


def test_triangle():
    np.testing.assert_allclose(
        values(schedules.triangle(0.1, 25, 75), [0, 12.5, 25, 62.5, 100, 200]), [0, 0.05, 0.1, 0.05, 0, 0], atol=1e-7
    )


def test_cyclic_step_of_nuat_on_cifar10():
    """Up 40, down over epochs 40-90, frozen at 80, divided by 10 after 85 and 90 (peak 0.1): 0.02, 0.002, 0.0002."""
    schedule = schedules.cyclic_step(0.1, 40, 50, 80, [85, 90])
    epochs = [0, 20, 40, 60, 80, 84.9, 85, 89.9, 90, 99]
    np.testing.assert_allclose(
        values(schedule, epochs), [0, 0.05, 0.1, 0.06, 0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002], rtol=1e-5
    )


def test_divide():
    """A learning rate divided by 5, 25, 125 at a quarter, a half and three quarters of 20 epochs."""
    schedule = schedules.divide(0.01, 5, [5, 10, 15], steps_per_epoch=100)
    np.testing.assert_allclose(
        values(schedule, [0, 499, 500, 999, 1000, 1500, 5000]),
        [0.01, 0.01, 0.002, 0.002, 0.0004, 0.00008, 0.00008],
        rtol=1e-5,
    )


def test_a_value_holds_from_the_epoch_that_it_is_given_for():
    """At a jump the second value, also at the end and at the first epoch; a drop may be where the triangle ends."""
    schedule = schedules.Piecewise([(0, 1.0), (0, 2.0), (3, 2.0), (3, 5.0)])
    np.testing.assert_allclose(values(schedule, [0, 2, 3, 4]), [2, 2, 5, 5])
    np.testing.assert_allclose(values(schedules.cyclic_step(0.1, 4, 4, 6, [6]), [5, 6]), [0.075, 0.005], rtol=1e-5)


def test_constant_and_steps_per_epoch():
    assert values(schedules.constant(3.0), [0, 7]) == [3.0, 3.0]
    np.testing.assert_allclose(values(schedules.ramp(1.0, 2, steps_per_epoch=50), [25, 50, 100]), [0.25, 0.5, 1.0])


def test_is_keras_own_kind_of_schedule():
    schedule = schedules.triangle(0.1, 2, 3, steps_per_epoch=7)
    assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    again = type(schedule).from_config(schedule.get_config())
    np.testing.assert_array_equal(values(schedule, range(40)), values(again, range(40)))


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda: schedules.cyclic_step(0.1, 40, 50, 95, []), "freeze"),
        (lambda: schedules.cyclic_step(0.1, 40, 50, 80, [70]), "drops"),
        (lambda: schedules.Piecewise([(2, 0.1), (1, 0.2)]), "points"),
        (lambda: schedules.Piecewise([]), "points"),
        (lambda: schedules.ramp(1.0, 10, steps_per_epoch=0), "steps_per_epoch"),
        (lambda: schedules.constant(float("nan")), "points"),
        (lambda: schedules.ramp(1.0, float("inf")), "points"),
        (lambda: schedules.divide(0.1, 0, [5]), "factor"),
        (lambda: schedules.cyclic_step(0.1, 40, 50, 90, []), "freeze"),
    ],
)
def test_bad_times_are_named(make, argument):
    with pytest.raises(ValueError, match=f"{argument} is .*; allowed: "):
        make()
