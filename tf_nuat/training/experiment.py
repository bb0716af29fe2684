"""`run` carries out a `Recipe`: it trains, measures, and leaves a network and its card."""

import dataclasses
import json
import os
import pathlib
import shutil
import time
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from tf_nuat import card as cards
from tf_nuat import networks, norms, parallel
from tf_nuat.card import Card
from tf_nuat.core import files, json_input, validation
from tf_nuat.data.splits import Splits
from tf_nuat.data.subsets import stratified
from tf_nuat.evaluate import wiring
from tf_nuat.models import precision
from tf_nuat.networks import by_name
from tf_nuat.parallel import workers
from tf_nuat.training import building, callbacks, epochs, measuring
from tf_nuat.training.card_of_run import card_of
from tf_nuat.training.parts import plain
from tf_nuat.training.recipe import Recipe
from tf_nuat.training.recipe_json import differences, fields_from_json

OUTCOMES = "outcomes.npz"


def run(
    recipe: Recipe,
    out: str | pathlib.Path,
    *,
    data_dir: str | None = None,
    strategy: str = "auto",
    save_every: float = 600.0,
    jit_compile: bool = False,
    verbose: str | int = "auto",
) -> Card:
    """Trains `recipe`, measures it, and leaves the results in the folder `out`.

    If a run is killed, start it again with the same arguments: it continues from its last checkpoint and repeats
    nothing that is finished. It ends with the network of an uninterrupted run (bit for bit, if the operations of the
    device are deterministic: see `tf.config.experimental.enable_op_determinism`).

    Args:
        recipe: a `Recipe`.
        out: folder, made if it is missing. In it: `network.keras`, the network of the epoch that was best on the
            validation split; `last.keras`, that of the last epoch (both averaged, if the defense averages);
            `card.json`, what was done and measured; `outcomes.npz`, for each measure, which test images were classified
            correctly, bool (N,); `logs/`, for TensorBoard; `state/`, until the run is finished.
        data_dir: folder of the datasets (default: TensorFlow Datasets' own, or TFDS_DATA_DIR).
        strategy: "auto", "one", "mirrored" or "multiworker", see `tf_nuat.parallel.strategy`. Of several workers only
            the chief reads and writes `out`.
        save_every: seconds of training that a kill may cost, at least 0; the end of an epoch is always saved.
        jit_compile: whether XLA compiles the training step; this is for one GPU, and slower on CPUs.
        verbose: "auto" for a line an epoch, with the time left; 0 for nothing; 1 and 2 as in `keras.Model.fit`.

    Returns:
        The `Card` that `card.json` holds.

    Raises:
        ValueError: an argument is wrong; raised before any work.
        FloatingPointError: the loss became NaN or infinite; what was saved before is kept.
        files.NotSavedError: a file cannot be written (the disk is full, for instance); what was saved before is kept.
        workers.LostError: another worker has ended.

    Example:
        >>> from tf_nuat import training
        >>> chosen = {"dataset": "digits", "network": "two_conv", "defense": "nuat", "learning_rate": 0.05}
        >>> recipe = training.Recipe(**chosen, epsilon=0.1, epochs=3)
        >>> card = training.run(recipe, "runs/nuat")  # doctest: +SKIP
    """
    out = pathlib.Path(out)
    distributed = parallel.strategy(strategy)
    options: dict[str, Any] = {"data_dir": data_dir, "strategy": strategy, "save_every": save_every}
    options["jit_compile"] = jit_compile
    with workers.together(distributed):
        begun = time.perf_counter()
        card, splits = check(recipe, out, **options)
        if card is not None:
            logging.info("%s holds this run already, finished", out)
            return card
        if not workers.is_chief(distributed):
            return _carried_out(recipe, splits, out, distributed, options, verbose, begun)
        validation.output_folder("out", out)
        with files.owned("out", out):
            _refuse_another_run(out, recipe)  # once more: another process may have had the folder during the checks
            if (out / cards.NAME).exists():
                return cards.read(out / cards.NAME)
            if recipe.minutes is None:
                files.save_json(recipe.to_json(), out / "recipe.json")
            return _carried_out(recipe, splits, out, distributed, options, verbose, begun)


def _carried_out(
    recipe: Recipe,
    splits: Splits,
    out: pathlib.Path,
    strategy: tf.distribute.Strategy,
    options: dict[str, Any],
    verbose: str | int,
    begun: float,
) -> Card:
    """Trains and measures after the checks of `run`, which began at `begun`; `options` are keywords of `run`."""
    checked = time.perf_counter()
    own = [name for name in dict.fromkeys(recipe.sources) if name in networks.NETWORKS]  # others are files
    source_cards = [run(recipe.of_source(name), out / "sources" / name, **options, verbose=verbose) for name in own]
    begun += time.perf_counter() - checked  # sources are not part of the recipe's minutes
    sources = _shared_sources(recipe, splits, out, strategy)
    recipe, is_fitted = _with_fitted_epochs(recipe, out, strategy)
    save_every, jit_compile = options["save_every"], options["jit_compile"]
    run_of_epochs = epochs.Run(recipe, splits, out, strategy, save_every, verbose, is_fitted, jit_compile, begun)
    trained = epochs.train(run_of_epochs, sources)
    network = _kept_network(trained.model, out, strategy)
    outcomes = measuring.measure(network, trained.recipe, splits, strategy, out / "state" / "measured")
    card = card_of(splits, trained, network, outcomes, sources=source_cards, strategy=strategy)
    if workers.is_chief(strategy):
        files.save_arrays(out / OUTCOMES, **outcomes)
        cards.write(card, out / cards.NAME)
        shutil.rmtree(out / "state")
    return card


def check(
    recipe: Recipe,
    out: str | pathlib.Path,
    *,
    data_dir: str | None = None,
    strategy: str = "auto",
    save_every: float = 600.0,
    jit_compile: bool = False,
) -> tuple[Card | None, Any]:
    """Checks, before any work, whether `run` can run with these arguments, which are its own.

    Returns:
        The card and None if `out` holds this run, finished; else None and the splits of the data.

    Raises:
        ValueError: an argument is wrong, or `out` holds another run.

    Example:
        >>> from tf_nuat import training
        >>> schedule = training.ScheduleSpec("constant", value=0.05)
        >>> chosen = {"dataset": "digits", "network": "two_conv", "defense": "nuat", "learning_rate": schedule}
        >>> recipe = training.Recipe(**chosen, epsilon=0.1, epochs=3)
        >>> card, splits = training.check(recipe, "runs/not_there")
        >>> card is None, splits.num_classes
        (True, 10)
    """
    validation.number("save_every", save_every, at_least=0.0)
    validation.one_of("jit_compile", jit_compile, (False, True))
    distributed = parallel.strategy(strategy)  # before anything else: several workers must begin with it
    if jit_compile and distributed.num_replicas_in_sync > 1:  # XLA takes no variable of another device
        validation.refuse("jit_compile", jit_compile, "on one device (strategy 'one')")
    out, content = pathlib.Path(out), None
    path = out / cards.NAME
    if workers.is_chief(distributed):
        _refuse_another_run(out, recipe)
        if os.path.exists(path):
            content = cards.read(path).to_json()
    content = json.loads(workers.from_chief(json.dumps(content).encode(), distributed))
    if content is not None:
        return cards.from_json(content, path), None
    splits = building.load_data(recipe, data_dir)
    workers.agree({**recipe.to_json(), "training labels": files.digest(splits.labels("train"))}, distributed)
    if workers.count(distributed) > 1 and recipe.batch_size % distributed.num_replicas_in_sync:
        raise ValueError(
            f"batch_size is {recipe.batch_size}; allowed: a multiple of {distributed.num_replicas_in_sync}, the "
            "replicas of all workers"
        )
    _check_against_data(recipe, splits, out)
    return None, splits


def _check_against_data(recipe: Recipe, splits: Splits, out: pathlib.Path) -> None:
    """Raises a `ValueError` for errors that only the data reveal; warns if the masking alarm cannot ring.

    Warns also if the machine has no hardware for the precision.
    """
    largest = norms.of(recipe.norm).largest(splits.input_shape)
    validation.number("epsilon", recipe.epsilon, at_most=largest)
    for spec in (recipe.selection, *recipe.measures.values()):
        spec.check_data(input_shape=splits.input_shape, num_classes=splits.num_classes, norm=recipe.norm)
    count = epochs.alarm_images(recipe, splits)
    if count and not callbacks.MaskingAlarm.can_ring(count):
        if recipe.masking_alarm == "stop":
            raise ValueError(f"masking_alarm is 'stop', with {count} validation images; allowed: with a few hundred")
        logging.warning("no masking alarm: %d validation images are too few to show that a network overfits", count)
    untrained = building.source_networks(recipe, splits, out)
    model: Any = None  # before the first stage
    for stage in range(len(recipe.plan())):  # shows what is wrong with their options
        model = building.build(recipe, splits, stage=stage, before=model, sources=untrained)
    if recipe.network not in networks.NETWORKS:
        by_name.check_saving(f"network {recipe.network}", model.network)
    if by_name.is_saved(recipe.network):
        _check_wiring(recipe, splits, model.network)
    if not precision.multiplies(recipe.precision.removeprefix("mixed_")):
        line = "precision is %s, but no hardware for it was found: training may take several times as long as with "
        logging.log_first_n(logging.WARNING, line + "--precision float32", 1, recipe.precision)  # not for each of many


def _check_wiring(recipe: Recipe, splits: Splits, network: keras.Model) -> None:
    """Raises a `ValueError` if a saved network gets wrong inputs; warns if it is just no better than chance."""
    labels = splits.labels("validation")
    looked_at = stratified(labels, min(len(labels), wiring.LOOKED_AT), seed=recipe.seed)
    pixels = recipe.network_options.get("pixels", "0..1")
    found = wiring.look(network, *splits.take("validation", looked_at), splits.class_names, pixels=pixels)
    if found.hints:
        by_flag = " (--pixels, or network_options pixels=)" if "--pixels" in found.sentence else ""
        raise ValueError(f"network {recipe.network}: {found.sentence}{by_flag}")
    if not found.is_right:
        logging.warning("network %s: %s", recipe.network, found.sentence)


def _refuse_another_run(out: pathlib.Path, recipe: Recipe) -> None:
    """Raises a `ValueError` if `out` holds a run of another recipe, or one that cannot be read."""
    path = out / "recipe.json"
    if os.path.exists(path):  # of pathlib, it raises for a name that is too long
        content = json_input.load("recipe", path)
    elif os.path.exists(path := out / cards.NAME):  # a run that was copied or published, without its recipe
        content = cards.read(path).recipe
    else:
        return
    before = plain("recipe", fields_from_json(Recipe, content, str(path)))
    different = differences(Recipe, before, recipe.to_json())
    if different:
        raise ValueError(
            f"out is {str(out)!r}, which holds a run with another {', '.join(different)}; "
            "allowed: a new folder, or the one of the same run"
        )


def _with_fitted_epochs(recipe: Recipe, out: pathlib.Path, strategy: tf.distribute.Strategy) -> tuple[Recipe, bool]:
    """Returns the recipe, with epochs already fitted to its minutes if there are any, and if its epochs are final."""
    if recipe.minutes is None:
        return recipe, True
    path, known = out / "recipe.json", None
    if workers.is_chief(strategy) and path.exists():
        known = json_input.load("recipe", path).get("epochs")
    known = json.loads(workers.from_chief(json.dumps(known).encode(), strategy))
    if known is None:
        return recipe, False
    recipe = dataclasses.replace(recipe, epochs=known)
    logging.info("%g minutes: %.4g epochs, as this run was begun, whatever the speed is now", recipe.minutes, known)
    return recipe, True


def _shared_sources(
    recipe: Recipe, splits: Splits, out: pathlib.Path, strategy: tf.distribute.Strategy
) -> list[keras.Model]:
    """Returns the source networks, trained, the same on all workers."""
    with strategy.scope():
        sources = building.source_networks(recipe, splits, out)
    for source in sources:
        workers.share_weights(source, strategy)
    return sources


def _kept_network(model: Any, out: pathlib.Path, strategy: tf.distribute.Strategy) -> keras.Model:
    """Returns the network of the best epoch, in float32, the same on all workers; the chief reads it from its file."""
    network = precision.computing_in(model.network, "float32")
    if workers.is_chief(strategy):
        network = validation.load_network("network", out / "network.keras")
    workers.share_weights(network, strategy)
    return network
