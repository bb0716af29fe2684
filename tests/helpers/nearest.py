"""The distance to the nearest adversary in L2: in closed form, and by search on networks with very few pixels."""

import itertools

import numpy as np
import scipy.optimize


def lengths(difference):
    return np.linalg.norm(np.reshape(difference, (len(difference), -1)), axis=1)


def of_linear(kernel, logits, y):
    """Returns the distances (B,) of a linear network with `kernel` (D, K) where the border of [0, 1] is far away."""
    distances = []
    for z, true in zip(np.float64(logits), y):
        wrong = np.delete(np.arange(len(z)), true)
        distances.append(np.min((z[true] - z[wrong]) / np.linalg.norm(kernel[:, wrong] - kernel[:, [true]], axis=0)))
    return np.array(distances)


def of_two_classes(towards, gap, x):
    """Returns the distances (B,) within [0, 1] where the margin is `gap` (B,) below 0 at x and grows along `towards`.

    The nearest point is `clip(x + t * towards)` for some t, which bisection finds.

    Args:
        towards: (B, D), the gradient of the margin.
        x: (B, D).
    """
    low, high = np.zeros(len(x)), np.full(len(x), 1e6)
    for _ in range(200):
        t = (low + high) / 2
        reached = np.sum(towards * (np.clip(x + t[:, None] * towards, 0, 1) - x), axis=1) >= gap
        low, high = np.where(reached, low, t), np.where(reached, t, high)
    return np.linalg.norm(np.clip(x + high[:, None] * towards, 0, 1) - x, axis=1)


def by_search(logits_of, x, y, *, places=21, starts=5):
    """Returns the distances (B,) within [0, 1]: a grid shows where to look, and SLSQP looks.

    Args:
        logits_of: function of points (N, D), float64, that returns (N, K).
        x: (B, D), D at most 4.
        y: (B,).
        places: on the grid, along each pixel.
        starts: points of the grid at which each search for a class begins.
    """
    grid = np.array(list(itertools.product(np.linspace(0, 1, places), repeat=x.shape[1])))
    on_grid = logits_of(grid)
    return np.array([_nearest(logits_of, np.float64(one), true, grid, on_grid, starts) for one, true in zip(x, y)])


def _nearest(logits_of, x, true, grid, on_grid, starts):
    shortest = np.inf
    for wrong in np.delete(np.arange(on_grid.shape[1]), true):
        there = grid[on_grid[:, wrong] > on_grid[:, true]]
        for start in there[np.argsort(np.linalg.norm(there - x, axis=1))[:starts]]:

            def margin(point, wrong=wrong):
                z = logits_of(point[None])[0]
                return z[wrong] - z[true]

            found = scipy.optimize.minimize(
                lambda point: np.sum((point - x) ** 2),
                start,
                method="SLSQP",
                bounds=[(0, 1)] * len(x),
                constraints={"type": "ineq", "fun": margin},
                options={"ftol": 1e-12, "maxiter": 300},
            )
            if margin(found.x) > -1e-7:
                shortest = min(shortest, np.sqrt(found.fun))
    return shortest
