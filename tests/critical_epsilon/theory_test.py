"""The linear regression of Xing et al. (2022): closed forms against optimizers, and the theorems."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from tf_nuat.critical_epsilon import theory as theory


def test_the_loss_is_that_of_the_strongest_of_many_perturbations():
    x, y, _ = theory.sample(12, 3, repeats=1, seed=2)
    theta, epsilon = np.array([[0.4, -0.2, 0.9]]), 0.3
    directions = np.random.default_rng(0).standard_normal((200_000, 3))
    changes = epsilon * directions / np.linalg.norm(directions, axis=1, keepdims=True) @ theta[0]
    residuals = (y - x @ theta[0])[0]
    searched = np.mean([np.max((residual - changes) ** 2) for residual in residuals])
    exact = theory.adversarial_loss(theta, x, y, epsilon)[0]
    assert exact - 1e-3 < searched <= exact + 1e-12


def test_the_path_without_an_adversary_has_its_closed_form():
    x, y, _ = theory.sample(30, 4, repeats=3)
    np.testing.assert_allclose(theory.descend(x, y, 0.0), theory.clean_path(x, y), atol=1e-12)
    expected = [np.linalg.lstsq(*pair, rcond=None)[0] for pair in zip(x, y)]
    np.testing.assert_allclose(theory.least_squares(x, y), expected, atol=1e-10)


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_the_path_ends_where_an_independent_optimizer_does(epsilon):
    x, y, _ = theory.sample(40, 3, repeats=2, seed=1)
    ends = theory.descend(x, y, epsilon, steps=3000)[-1]
    for number, end in enumerate(ends):
        one = slice(number, number + 1)
        found = scipy.optimize.minimize(
            lambda theta, one=one: theory.adversarial_loss(theta[None], x[one], y[one], epsilon)[0],
            np.ones(3),
            tol=1e-12,
        )
        np.testing.assert_allclose(end, found.x, atol=2e-3)  # gradient descent stays near a kink, |r| = 0


def test_theta_is_zero_from_the_closed_form_epsilon_on():
    x, y, _ = theory.sample(50, 2, repeats=4, seed=3)
    limit = theory.vanishing(x, y)
    assert 0.5 < limit.min() < limit.max() < 2.0  # |theta_0| sqrt(pi / 2) / sqrt(|theta_0|^2 + noise^2) is 0.89
    for factor, is_zero in ((0.9, False), (1.1, True)):
        for number, epsilon in enumerate(factor * limit):
            one = slice(number, number + 1)
            end = theory.descend(x[one], y[one], epsilon, steps=4000, learning_rate=0.002)[-1]
            assert (np.linalg.norm(end) < 0.02) == is_zero, (factor, end)


def test_paths_below_the_boundary_stay_and_above_it_leave():
    below, at, above = theory.relative_differences(100, 5, [0.1, 1.0, 10.0], repeats=40)
    assert below.max() < 0.05 and at[-1] > 5 * below[-1] and above[-1] > 0.9
    # To first order theta shrinks by epsilon sqrt(2 / pi) noise, over a length of about 1.
    shrinks = theory.boundary(100, 5) * np.sqrt(2 / np.pi)
    assert below[-1] == pytest.approx(0.1 * shrinks, rel=0.25)


@pytest.mark.parametrize("d", [2, 5, 10])
def test_p_values_collapse_where_log_epsilon_over_the_boundary_crosses_zero(d):
    logs = np.array([-3.0, -2.0, 0.0, 0.5, 1.5])
    of_theta, of_loss = theory.mean_p_values(100, d, np.exp(logs))
    assert of_theta[0] == pytest.approx(0.5, abs=0.1)  # a true hypothesis has p-values of mean 1/2
    assert of_loss[0] > 0.4 and of_loss[3] < 0.15 and of_loss[-1] < 0.001
    # The chi-squared with d degrees of freedom and the noncentrality of that shift, n |shift|^2 / noise^2.
    for log, found in zip(logs[:-1], of_theta):
        noncentrality = 2 / np.pi * d * np.exp(2 * log)
        draws = scipy.stats.ncx2.rvs(d, noncentrality, size=20_000, random_state=0)
        assert found == pytest.approx(scipy.stats.chi2.sf(draws, d).mean(), abs=0.11), log
    assert of_theta[-1] < 0.05


def test_the_definition_gives_the_first_order_epsilon_which_is_of_order_d_over_n():
    for n in (100, 400, 1600):
        x, y, theta_0 = theory.sample(n, 5, repeats=200)
        mean = theory.first_order_critical(x, y, theta_0).mean()
        assert mean == pytest.approx(5 / n / np.sqrt(2 / np.pi), rel=0.25)
        assert mean < theory.boundary(n, 5)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"n": 5, "d": 5}, "n is 5; allowed: a whole number, at least 6"),
        ({"n": 5, "d": 0}, "d is 0; allowed: a whole number, at least 1"),
        ({"n": 5, "d": 2, "noise": 0.0}, "noise is 0.0; allowed: a number above 0"),
        ({"n": 5, "d": 2, "seed": -1}, "seed is -1; allowed: a whole number, at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        theory.sample(**{"repeats": 2, **arguments})
