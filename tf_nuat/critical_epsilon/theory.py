"""Adversarial training of linear regression, for which all claims of Xing et al. (2022) can be computed.

Images are rows x of N(0, I), targets are `y = theta_0 . x + noise`. Within the L2 ball of radius epsilon the adversary
has a closed form: the squared loss of an image with residual r becomes `(|r| + epsilon |theta|)^2`. So the empirical
adversarial loss is convex in theta, and gradient descent on it is simulated without an attack.

Everything takes several samples at once: x is (R, n, d), y is (R, n), theta is (R, d).

If d/n goes to 0, the two thresholds of the paper are of different orders. From epsilon = sqrt(d/n) on, theta moves by
more than its standard error (theorem 1, `boundary`). But the adversarial loss reaches the clean test loss, which
defines epsilon*, near `noise d / (n |theta_0| sqrt(2 / pi))` (`first_order_critical`).

Source: Xing, Song and Cheng, "Phase transition from clean training to adversarial training", 2022, section 4.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.stats

from tf_nuat.core import validation

LEARNING_RATE = 0.05
STEPS = 100  # of the paper's figure 2


def boundary(n: int, d: int) -> float:
    """Returns sqrt(d / n), the epsilon at which theorem 1 has the phase transition."""
    validation.whole_number("n", n, at_least=1)
    return math.sqrt(validation.whole_number("d", d, at_least=1) / n)


def sample(
    n: int, d: int, *, repeats: int, noise: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `repeats` samples (x (R, n, d), y (R, n)) and theta_0 (d,), a vector of length 1 with equal entries.

    Raises:
        ValueError: n is not above d, so that the clean minimizer is not unique; or a number is out of range.
    """
    validation.whole_number("d", d, at_least=1)
    validation.whole_number("repeats", repeats, at_least=1)
    validation.whole_number("n", n, at_least=d + 1)
    validation.number("noise", noise, above=0.0)
    generator = np.random.default_rng(validation.whole_number("seed", seed, at_least=0))
    theta = np.full(d, 1.0 / math.sqrt(d))
    x = generator.standard_normal((repeats, n, d))
    return x, x @ theta + noise * generator.standard_normal((repeats, n)), theta


def adversarial_loss(theta: np.ndarray, x: np.ndarray, y: np.ndarray, epsilon: float | np.ndarray) -> np.ndarray:
    """Returns the empirical loss (R,) against the adversary: the mean of (|r| + epsilon |theta|)^2."""
    length = np.linalg.norm(theta, axis=-1, keepdims=True)
    return np.mean((np.abs(_residuals(theta, x, y)) + epsilon * length) ** 2, axis=-1)


def descend(
    x: np.ndarray,
    y: np.ndarray,
    epsilon: float | np.ndarray,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
) -> np.ndarray:
    """Returns the path (steps + 1, R, d) of gradient descent on `adversarial_loss` from zero.

    At zero the loss has no gradient, so the path begins along the gradient of the clean loss.
    """
    theta = np.zeros((len(x), x.shape[-1]))
    path = [theta]
    for _ in range(steps):
        length = np.linalg.norm(theta, axis=-1, keepdims=True)
        residuals = _residuals(theta, x, y)
        worst = np.abs(residuals) + epsilon * length
        unit = np.divide(theta, length, out=np.zeros_like(theta), where=length > 0)
        along = epsilon * worst.mean(axis=-1, keepdims=True) * unit
        gradient = 2 * (along - _mean_of_rows(np.sign(residuals) * worst, x))
        theta = theta - learning_rate * gradient
        path.append(theta)
    return np.stack(path)


def clean_path(x: np.ndarray, y: np.ndarray, *, steps: int = STEPS, learning_rate: float = LEARNING_RATE) -> np.ndarray:
    """Returns what `descend` does for epsilon 0, by the closed form (I - (I - 2 rate S)^t) theta_hat, S = x'x / n."""
    values, vectors = np.linalg.eigh(np.swapaxes(x, -1, -2) @ x / x.shape[-2])
    in_basis = np.einsum("rij,ri->rj", vectors, least_squares(x, y))
    kept = (1 - 2 * learning_rate * values) ** np.arange(steps + 1)[:, None, None]
    return np.einsum("rij,trj->tri", vectors, (1 - kept) * in_basis)


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns theta_hat(0) (R, d), the minimizer of the clean empirical loss."""
    return np.linalg.solve(np.swapaxes(x, -1, -2) @ x, _mean_of_rows(y, x)[..., None] * x.shape[-2])[..., 0]


def clean_test_loss(theta: np.ndarray, theta_0: np.ndarray, noise: float = 1.0) -> np.ndarray:
    """Returns the expected squared loss (R,) of theta on new images, without an adversary."""
    return noise**2 + np.sum((theta - theta_0) ** 2, axis=-1)


def vanishing(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the least epsilon (R,) at which the adversarially trained theta is exactly 0: |x'y| / sum |y|."""
    return np.linalg.norm(_mean_of_rows(y, x), axis=-1) / np.abs(y).mean(axis=-1)


def first_order_critical(x: np.ndarray, y: np.ndarray, theta_0: np.ndarray, noise: float = 1.0) -> np.ndarray:
    """Returns the epsilon (R,), to first order, at which the adversarial training loss equals the clean test loss.

    By the envelope theorem the loss of the minimizer rises by 2 |theta_hat| mean |r| per epsilon at 0.
    """
    theta = least_squares(x, y)
    gap = clean_test_loss(theta, theta_0, noise) - adversarial_loss(theta, x, y, 0.0)
    slope = 2 * np.linalg.norm(theta, axis=-1) * np.abs(_residuals(theta, x, y)).mean(axis=-1)
    return gap / slope


def p_values_of_theta(theta: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Returns the p-values (R,) of the hypothesis that theta (R, d) has the normal distribution of `clean` (M, d)."""
    deviations = theta - clean.mean(axis=0)
    covariance = np.atleast_2d(np.cov(clean, rowvar=False))
    squares = np.einsum("ri,ri->r", deviations, np.linalg.solve(covariance, deviations.T).T)
    return scipy.stats.chi2.sf(squares, theta.shape[-1])


def p_values_of_loss(losses: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Returns the two-sided p-values (R,) of the hypothesis that losses (R,) are normal, like `clean` (M,)."""
    return 2 * scipy.stats.norm.sf(np.abs(losses - clean.mean()) / clean.std(ddof=1))


def relative_differences(n: int, d: int, ratios: Sequence[float], *, repeats: int = 100, seed: int = 0) -> np.ndarray:
    """Returns |theta_t(epsilon) - theta_t(0)| / |theta_t(0)| (ratios, steps), t from 1: the left of figure 2.

    Args:
        n, d: images of a sample, and their dimension.
        ratios: epsilon over `boundary(n, d)`.
        repeats: number of samples in the mean.
        seed: whole number that determines the samples.
    """
    x, y, _ = sample(n, d, repeats=repeats, seed=seed)
    clean = clean_path(x, y)[1:]

    def difference(ratio: float) -> np.ndarray:
        apart = descend(x, y, ratio * boundary(n, d))[1:] - clean
        return np.mean(np.linalg.norm(apart, axis=-1) / np.linalg.norm(clean, axis=-1), axis=-1)

    return np.stack([difference(ratio) for ratio in ratios])


def mean_p_values(
    n: int,
    d: int,
    ratios: Sequence[float],
    *,
    repeats: int = 100,
    clean_repeats: int = 300,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean p-values of theta and of the training loss, (ratios,) each: the right of figure 2, and figure 3.

    The arguments are those of `relative_differences`; `clean_repeats` other samples give the distribution without an
    adversary.
    """
    x, y, _ = sample(n, d, repeats=clean_repeats, seed=seed)
    clean = clean_path(x, y)[-1]
    clean_losses = adversarial_loss(clean, x, y, 0.0)
    x, y, _ = sample(n, d, repeats=repeats, seed=seed + 1)
    of_theta, of_loss = [], []
    for ratio in ratios:
        epsilon = ratio * boundary(n, d)
        theta = descend(x, y, epsilon)[-1]
        of_theta.append(p_values_of_theta(theta, clean).mean())
        of_loss.append(p_values_of_loss(adversarial_loss(theta, x, y, epsilon), clean_losses).mean())
    return np.array(of_theta), np.array(of_loss)


def _residuals(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return y - np.einsum("rni,ri->rn", x, theta)


def _mean_of_rows(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.einsum("rn,rni->ri", weights, x) / x.shape[-2]
