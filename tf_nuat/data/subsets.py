"""Chooses examples of a dataset: the first of each class, a sample with each class in proportion, the splits."""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, TypeVar

import numpy as np


class Labelled(Protocol):
    """Images, wherever they are, with their labels, int64 (N,)."""

    @property
    def labels(self) -> np.ndarray: ...

    def select(self, indices: np.ndarray) -> Self: ...


Kind = TypeVar("Kind", bound=Labelled)


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the mask, bool (N,), of the first `count` entries of each class in `labels`, int (N,)."""
    return rank_in_class(labels) < count


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Returns, for each of `labels`, int (N,), how many entries before it are of its class, int64 (N,)."""
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return rank


def stratified(labels: np.ndarray | Sequence[int], count: int, *, seed: int = 0) -> np.ndarray:
    """Returns the indices of `count` entries of `labels` (N,) with each class in proportion, in ascending order.

    Where `count` is N or more, all indices are returned. The same seed chooses the same entries.

    Example:
        >>> from tf_nuat import data
        >>> len(data.stratified([0] * 60 + [1] * 40, 10))
        10
    """
    return np.sort(stratified_order(labels, seed=seed)[:count])


def stratified_order(labels: np.ndarray | Sequence[int], *, seed: int = 0) -> np.ndarray:
    """Returns the indices of `labels` (N,) in an order in which every beginning has each class in proportion.

    The same seed gives the same order.

    Example:
        >>> from tf_nuat import data
        >>> sorted(data.stratified_order([0, 0, 1, 1]).tolist())
        [0, 1, 2, 3]
    """
    labels = np.asarray(labels)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    place = (rank_in_class(labels[shuffled]) + 0.5) / np.bincount(labels)[labels[shuffled]]
    return shuffled[np.argsort(place, kind="stable")]


def divide(given: Mapping[str, Kind], class_names: Sequence[str], *, at_most: int | None = None) -> dict[str, Kind]:
    """Returns the three splits of a dataset, and makes those that are not given.

    Without a test split, the validation split becomes the test split, as for ImageNet. A split that is still missing is
    a tenth of every class of the training split (rounded, at least one image, for validation at most `at_most`). It is
    drawn at random but always the same, so that a network trained with any seed is tested on images that it has not
    seen. Without a training split, the given splits are returned.

    Args:
        given: dict of some of "train", "validation", "test" to objects with `labels`, int (N,), and `select(indices)`.
        class_names: names of the classes, for errors.
        at_most: largest number of validation images of a class; None for no limit.

    Raises:
        ValueError: a class is too small to be divided.
    """
    given = dict(given)
    if "test" not in given and "validation" in given:
        given["test"] = given.pop("validation")
    missing = [split for split in ("test", "validation") if split not in given]
    if "train" not in given or not missing:
        return given
    whole = given["train"]
    counts = np.bincount(whole.labels, minlength=len(class_names))
    if counts.min() <= len(missing):
        smallest = int(counts.argmin())
        raise ValueError(
            f"class {class_names[smallest]!r} has {counts[smallest]} images to train on; "
            f"allowed: at least {len(missing) + 1}, of which {' and '.join(missing)} take one each"
        )
    order = np.random.default_rng(0).permutation(len(whole.labels))
    rank = np.empty_like(order)
    rank[order] = rank_in_class(whole.labels[order])
    begin = 0
    for split in missing:
        most = at_most if split == "validation" else None
        end = begin + np.clip(np.round(counts / 10).astype(int), 1, most)[whole.labels]
        given[split] = whole.select(np.flatnonzero((rank >= begin) & (rank < end)))
        begin = end
    given["train"] = whole.select(np.flatnonzero(rank >= begin))
    return given
