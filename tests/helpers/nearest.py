"""The distance to the nearest adversary: in closed form, and by search on networks with very few pixels."""

import itertools

import numpy as np
import scipy.optimize

from tests.helpers.images import lengths


def to_plane(x, slope, rise, norm):
    """Returns the smallest changes of images, within [0, 1], by which a linear function rises as it has to.

    Where it cannot, every pixel is at its end. All is in float64.

    Args:
        x: images (B, H, W, C).
        slope: (B, H, W, C) or (H, W, C), the gradient of the function.
        rise: (B,), at least 0.
        norm: "linf", "l2" or "l1".
    """
    x, slope, rise = (np.asarray(value, np.float64) for value in (x, slope, rise))
    slope = np.broadcast_to(slope, x.shape).reshape(len(x), -1)
    flat, rise = x.reshape(len(x), -1), rise[:, None]
    gain, room = np.abs(slope), np.where(slope > 0, 1 - flat, flat)
    change = _greedy(gain, room, rise) if norm == "l1" else _uniform(gain, room, rise, norm)
    return (np.sign(slope) * change).reshape(x.shape)


def _uniform(gain, room, rise, norm):
    """Each pixel goes the same way (L-infinity), or a way in proportion to its slope (L2), and no farther than it can.

    Bisection finds how far.
    """
    steepest = np.max(gain, axis=1, keepdims=True)
    share = gain / np.where(steepest > 0, steepest, 1) if norm == "l2" else np.ones_like(gain)
    farthest = np.max(np.where(share > 0, room / np.where(share > 0, share, 1), 0), axis=1, keepdims=True)
    low, high = np.zeros_like(farthest), farthest
    for _ in range(60):
        middle = (low + high) / 2
        risen = np.sum(gain * np.minimum(middle * share, room), axis=1, keepdims=True)
        low, high = np.where(risen < rise, middle, low), np.where(risen < rise, high, middle)
    return np.where(gain > 0, np.minimum(high * share, room), 0)


def _greedy(gain, room, rise):
    """The pixels of the steepest slopes go as far as they can, one after the other."""
    order = np.argsort(-gain, axis=1)
    gains = np.take_along_axis(gain * room, order, axis=1)
    taken = np.clip(rise - (np.cumsum(gains, axis=1) - gains), 0, gains)
    change = np.zeros_like(gain)
    np.put_along_axis(change, order, taken, axis=1)
    return change / np.where(gain > 0, gain, 1)


def distances(x, slope, rise, norm):
    """Returns the lengths (B,) of the changes `to_plane`."""
    return lengths(to_plane(x, slope, rise, norm), norm)


def all_at(distance, norm, x, slope, value_of):
    """Returns images (B, H, W, C) all of which are as far as `distance` from where a linear function is 0.

    Args:
        x: images, which are moved along the slope.
        slope: the gradient of the function, which is below 0 at the images that are returned.
        value_of: the function of images, in float64.
    """

    def moved(way):
        return np.clip(x - way[:, None, None, None] * slope / np.abs(slope).max(), 0, 1)

    low, high = -np.ones(len(x)), np.ones(len(x))
    for _ in range(40):
        middle = (low + high) / 2
        near = distances(moved(middle), slope, np.maximum(-value_of(moved(middle)), 0), norm) < distance
        low, high = np.where(near, middle, low), np.where(near, high, middle)
    return moved(high).astype(np.float32)


def of_linear(kernel, logits, y):
    """Returns the L2 distances (B,) of a linear network with `kernel` (D, K) where the border of [0, 1] is far away."""
    shortest = []
    for z, true in zip(np.float64(logits), y):
        wrong = np.delete(np.arange(len(z)), true)
        shortest.append(np.min((z[true] - z[wrong]) / np.linalg.norm(kernel[:, wrong] - kernel[:, [true]], axis=0)))
    return np.array(shortest)


def by_search(logits_of, x, y, *, places=21, starts=5):
    """Returns the L2 distances (B,) within [0, 1]: a grid shows where to look, and SLSQP looks.

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
