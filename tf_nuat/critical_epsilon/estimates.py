"""The critical epsilon: the largest at which adversarial training still fits as well as ordinary training.

It is the largest epsilon at which the loss of adversarial training, on the training images under attack, does not
exceed the loss of ordinary training on clean test images. Below it, adversarial training behaves like ordinary
training; far above it, training needs remedies (a wider network, more data). It is a diagnosis, not a rule for choosing
epsilon.

`exact` trains from the start at each epsilon of a grid; `fast` fine-tunes the ordinarily trained network at a few small
epsilons and extrapolates a line. Every training has a folder of its own and continues where it was killed.

The compared loss is the cross-entropy for all defenses, since the losses of TRADES and MART have terms that the clean
loss does not have. It is measured under PGD on the network that is kept, in inference mode.

Source: Xing, Song and Cheng, "Phase transition from clean training to adversarial training", 2022.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from tf_nuat import defenses, training
from tf_nuat.core import validation
from tf_nuat.critical_epsilon import intersection, training_runs, variants
from tf_nuat.critical_epsilon.results import Measured, SingleStep
from tf_nuat.data.splits import Splits
from tf_nuat.networks import saved
from tf_nuat.training import Recipe
from tf_nuat.training.building import load_data
from tf_nuat.training.parts import largest_epsilon

DEFENSES = ("pgd_at", "trades", "mart")
ATTACKS = ("fgm", "pgd")
LOSS_IMAGES = 10_000
PART_OF_TRAINING = 5  # fine-tuning takes a fifth of the epochs


def exact(
    recipe: Recipe,
    out: str | pathlib.Path,
    *,
    epsilons: Sequence[float],
    runs: int = 1,
    warm_up: int = 0,
    clean: str | pathlib.Path | None = None,
    loss_images: int = LOSS_IMAGES,
    **options: Any,
) -> Measured:
    """Returns the `Measured` critical epsilon by adversarial training from the start at each of `epsilons`.

    The lowest and the highest are trained first: if they do not bracket the threshold, nothing else is trained.

    Args:
        recipe: a `Recipe` of "pgd_at", "trades" or "mart"; its epsilon and measures are not used. Ordinary training has
            the same settings.
        out: folder of the runs.
        epsilons: at least two, above 0.
        runs: number of repeats, at least 1, each with a seed and an ordinarily trained network of its own.
        warm_up: number of the first epochs (of `recipe.schedule_epochs`) that train without an adversary. From random
            weights, training against a strong adversary may stay at one answer for all images.
        clean: path of an ordinarily trained network, a file that `networks.adapt` reads; None trains it.
        loss_images: number of training images that the loss is measured on, each class in proportion.
        **options: those of `training.run`.

    Raises:
        ValueError: an argument is out of range, the epsilons do not bracket the threshold (the error says which way to
            extend them), training at one of them does not begin, or the clean network is not trained.

    Example:
        >>> import tf_nuat
        >>> chosen = {"dataset": "digits", "network": "two_conv", "defense": "pgd_at", "learning_rate": 0.05}
        >>> recipe = tf_nuat.training.Recipe(**chosen, epsilon=0.1, epochs=20)
        >>> found = tf_nuat.critical_epsilon.exact(recipe, "runs", epsilons=[0.1, 0.3])  # three trainings
        >>> 0.1 <= found.estimate.epsilon <= 0.3
        True
    """
    given: dict[str, Any] = {"runs": runs, "warm_up": warm_up, "clean": clean, "loss_images": loss_images}
    ordered = check("exact", recipe, epsilons=epsilons, **given)
    rows, cleans, seconds = [], [], 0.0
    for run in range(runs):
        logging.info("exact: run %d of %d", run + 1, runs)
        own = dataclasses.replace(recipe, seed=recipe.seed + run)
        splits = load_data(own, options.get("data_dir"))
        found = training_runs.clean_network(own, pathlib.Path(out), clean, splits, loss_images, options)
        adversarial = dataclasses.replace(variants.after(own, warm_up), measures={}, claimed={}, masking_alarm=None)
        row, spent = _from_the_start(
            adversarial, pathlib.Path(out) / "exact", ordered, found.test_loss, splits, loss_images, options
        )
        rows.append(row)
        cleans.append(found)
        seconds += spent
    images = min(loss_images, len(splits.labels("train")))
    estimate = intersection.interpolated(ordered, rows, [found.test_loss for found in cleans])
    return Measured("exact", estimate, tuple(ordered), tuple(rows), tuple(cleans), images, seconds)


def _from_the_start(
    recipe: Recipe,
    folder: pathlib.Path,
    epsilons: Sequence[float],
    threshold: float,
    splits: Splits,
    loss_images: int,
    options: Mapping[str, Any],
) -> tuple[tuple[float, ...], float]:
    """Returns the losses at `epsilons`, in increasing order, and the seconds that they took."""
    lowest, *middle, highest = epsilons
    losses, seconds = {}, 0.0
    for epsilon in (lowest, highest, *middle):
        logging.info("exact: epsilon %d of %d, %g", len(losses) + 1, len(epsilons), epsilon)
        described = dataclasses.replace(recipe, epsilon=epsilon)
        losses[epsilon], spent = training_runs.train_and_measure(
            described, folder / _name(described), splits, loss_images, options
        )
        seconds += spent
        _check_begun(epsilon, losses[epsilon], math.log(splits.num_classes))
        if epsilon not in middle:
            intersection.check_brackets(epsilon, losses[epsilon], threshold, is_lowest=epsilon == lowest)
    return tuple(losses[epsilon] for epsilon in epsilons), seconds


def fast(
    recipe: Recipe,
    out: str | pathlib.Path,
    *,
    epsilons: Sequence[float],
    runs: int = 1,
    attack: str = "fgm",
    epochs: int | None = None,
    learning_rate: float = 0.01,
    clean: str | pathlib.Path | None = None,
    loss_images: int = LOSS_IMAGES,
    **options: Any,
) -> Measured:
    """Returns the `Measured` critical epsilon by a line through fine-tunings of the clean network at small `epsilons`.

    Args:
        recipe, out, loss_images: as in `exact`.
        **options: as in `exact`.
        epsilons: at least two, above 0, below the critical one.
        runs: number of fine-tunings at each epsilon, at least 1, each with a seed of its own.
        attack: attack of fine-tuning: "fgm", one step of length epsilon from the clean images, or "pgd", the attack of
            the recipe.
        epochs: of fine-tuning, at least 1; default a fifth of the recipe's, rounded up.
        learning_rate: highest value in fine-tuning, above 0: it rises for a quarter of the epochs and falls to 0.
        clean: path of an ordinarily trained network, as in `exact`; None trains it.

    Raises:
        ValueError: an argument is out of range, the clean network is not trained, an epsilon is not below the critical
            one, or the losses do not make a line that rises to the threshold.

    Example:
        >>> import tf_nuat
        >>> chosen = {"dataset": "digits", "network": "two_conv", "defense": "pgd_at", "learning_rate": 0.05}
        >>> recipe = tf_nuat.training.Recipe(**chosen, epsilon=0.1, epochs=20)
        >>> found = tf_nuat.critical_epsilon.fast(recipe, "runs", epsilons=[0.01, 0.03])  # three trainings, two short
        >>> found.way, found.epsilons
        ('fast', (0.01, 0.03))
    """
    given: dict[str, Any] = {"runs": runs, "clean": clean, "loss_images": loss_images}
    given |= {"attack": attack, "epochs": epochs, "learning_rate": learning_rate}
    ordered = check("fast", recipe, epsilons=epsilons, **given)
    if epochs is None:
        epochs = math.ceil(recipe.epochs / PART_OF_TRAINING)
    splits = load_data(recipe, options.get("data_dir"))
    found = training_runs.clean_network(recipe, pathlib.Path(out), clean, splits, loss_images, options)
    tuned = variants.fine_tuned(recipe, found.network, epochs, learning_rate)
    rows, seconds = [], 0.0
    for run in range(runs):
        row = []
        for epsilon in ordered:
            logging.info("fast: run %d of %d, epsilon %d of %d, %g", run + 1, runs, len(row) + 1, len(ordered), epsilon)
            described = dataclasses.replace(tuned, seed=recipe.seed + run, epsilon=epsilon)
            if attack == "fgm":
                described = variants.of_one_step(described)
            folder = pathlib.Path(out) / f"fast_{attack}" / _name(described)
            loss, spent = training_runs.train_and_measure(described, folder, splits, loss_images, options)
            intersection.check_below(epsilon, loss, found.test_loss)
            row.append(loss)
            seconds += spent
        rows.append(tuple(row))
    images = min(loss_images, len(splits.labels("train")))
    estimate = intersection.extrapolated(ordered, rows, found.test_loss)
    return Measured("fast", estimate, tuple(ordered), tuple(rows), (found,), images, seconds)


def single_step(
    recipe: Recipe, out: str | pathlib.Path, *, epsilons: Sequence[float], warm_up: int = 0, **options: Any
) -> SingleStep:
    """Returns the smallest of `epsilons` at which FGSM training overfits catastrophically, a `SingleStep` (table 2).

    Trains from the start on FGSM images alone at one epsilon after the other, until a network withstands FGSM but not
    PGD in its last epoch (`callbacks.overfits_catastrophically`, on validation images).

    Args:
        recipe, out, warm_up: as in `exact`; in the L-infinity norm.
        **options: as in `exact`.
        epsilons: at least one, above 0.

    Raises:
        ValueError: an argument is out of range, the validation images are too few, or training at one of the epsilons
            does not begin.

    Example:
        >>> import tf_nuat
        >>> chosen = {"dataset": "digits", "network": "two_conv", "defense": "pgd_at", "learning_rate": 0.05}
        >>> recipe = tf_nuat.training.Recipe(**chosen, epsilon=0.1, epochs=20)
        >>> found = tf_nuat.critical_epsilon.single_step(recipe, "runs", epsilons=[0.1, 0.3])  # at most two trainings
        >>> found.unstable is None or found.unstable in found.epsilons
        True
    """
    ordered = check("single_step", recipe, epsilons=epsilons, warm_up=warm_up)
    chance = math.log(load_data(recipe, options.get("data_dir")).num_classes)
    tried, fgsm, pgd, seconds, unstable = [], [], [], 0.0, None
    for epsilon in ordered:
        logging.info("single step: epsilon %d of %d, %g", len(tried) + 1, len(ordered), epsilon)
        described = variants.on_fgsm_alone(recipe, epsilon)
        folder = pathlib.Path(out) / "single_step" / _name(described)
        card = training.run(variants.after(described, warm_up), folder, **options)
        _check_begun(epsilon, card.history[-1]["loss"], chance)
        if "masking_alarm" not in card.history[-1]:
            validation.refuse("dataset", recipe.dataset, "one with a few hundred validation images")
        tried.append(epsilon)
        fgsm.append(card.measured["fgsm"].accuracy)
        pgd.append(card.measured["pgd_20"].accuracy)
        seconds += card.training_seconds
        if card.history[-1]["masking_alarm"]:
            unstable = epsilon
            break
    images = card.measured["fgsm"].images
    return SingleStep(unstable, tuple(tried), tuple(fgsm), tuple(pgd), images, seconds)


def check(
    way: str,
    recipe: Recipe,
    *,
    epsilons: Sequence[float],
    runs: int = 1,
    warm_up: int = 0,
    attack: str = "fgm",
    epochs: int | None = None,
    learning_rate: float = 0.01,
    clean: str | pathlib.Path | None = None,
    loss_images: int = LOSS_IMAGES,
) -> list[float]:
    """Returns the epsilons in increasing order.

    Args:
        way: "exact", "fast" or "single_step", the function whose arguments the others are.

    Raises:
        ValueError: an argument is out of range.
    """
    is_single_step = way == "single_step"
    validation.one_of("defense", recipe.defense, DEFENSES)
    if is_single_step:
        validation.one_of("norm", recipe.norm, defenses.DEFENSES["fgsm_at"].NORMS)
    if recipe.minutes is not None:
        validation.refuse("minutes", recipe.minutes, "--epochs: trainings of one length are compared")
    ordered = intersection.check_epsilons("epsilons", epsilons, at_least=1 if is_single_step else 2).tolist()
    validation.number("epsilons", ordered[-1], at_most=largest_epsilon(recipe.norm))
    validation.whole_number("runs", runs, at_least=1)
    validation.whole_number("loss_images", loss_images, at_least=1)
    validation.one_of("attack", attack, ATTACKS)
    validation.number("learning_rate", learning_rate, above=0.0)
    if epochs is not None:
        validation.whole_number("epochs", epochs, at_least=1)
    variants.after(recipe, warm_up)
    if clean is not None:
        saved.read("clean", clean)
    return ordered


def _check_begun(epsilon: float, loss: float, chance: float) -> None:
    if loss >= training_runs.AT_CHANCE * chance:
        raise ValueError(
            f"epsilons have {epsilon:.4g}, where training stays at one answer for all images (loss {loss:.4g}); "
            "allowed: smaller ones, or a longer warm_up, or a lower learning rate"
        )


def _name(recipe: Recipe) -> str:
    return f"epsilon_{recipe.epsilon:.6g}_seed_{recipe.seed}"
