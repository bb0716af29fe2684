"""`run` carries out a `Recipe`: it trains, measures, and leaves a network and its card."""

import dataclasses
import functools
import importlib.metadata
import inspect
import json
import pathlib
import platform
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_nuat import (
    callbacks,
    data,
    defenses,
    distribute,
    evaluate,
    files,
    networks,
    optimizers,
    validation,
)
from tf_nuat.recipe import Recipe
from tf_nuat.splits import EVALUATED

__all__ = ["Recipe", "build", "check", "run"]

VERSIONS = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "tf-nuat")


def build(recipe, splits, *, stage=0, before=None, sources=()):
    """Returns a stage's defense, compiled; call it under the scope of the strategy it will train with.

    Args:
        recipe: a `Recipe`.
        splits: its data.
        stage: index in `recipe.plan()`.
        before: the defense of the stage before, whose networks and optimizer this one takes over.
        sources: the source networks of ensemble adversarial training.
    """
    name, options, _ = recipe.plan()[stage]
    keras.utils.set_random_seed(recipe.seed)
    at = functools.partial(recipe.schedule, steps_per_epoch=splits.steps_per_epoch)
    options = {name: at(value) for name, value in options.items()}
    defense = defenses.DEFENSES[name]
    if "batch_size" in inspect.signature(defense).parameters:
        options["batch_size"] = recipe.batch_size
    if recipe.norm != "linf":
        options["norm"] = recipe.norm
    if recipe.sources:
        options["sources"] = sources
    if before is not None:
        model = _call(defense, options, network=before.network, epsilon=recipe.epsilon, seed=recipe.seed)
        model.take_over(before)
        return model
    network = _network(recipe.network, splits, recipe.network_options)
    model = _call(defense, options, network=network, epsilon=recipe.epsilon, seed=recipe.seed)
    optimizer = optimizers.CoupledSGD(
        at(recipe.learning_rate), momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    model.compile(optimizer=optimizer, metrics=["accuracy"])
    return model


def _network(name, splits, options):
    shape, classes = splits.input_shape, splits.num_classes
    return _call(networks.NETWORKS[name], options, input_shape=shape, num_classes=classes)


def _call(builder, options, **arguments):
    try:
        return builder(**arguments, **options)
    except TypeError as error:  # an option that the builder does not have
        raise ValueError(f"options of {builder.__name__} are {options!r}: {error}") from error


def check(recipe, out, *, data_dir=None, strategy="auto"):
    """Finds out, before any work, whether `run` can do its own with these arguments, which are those of `run`.

    Returns:
        the card and None where `out` holds this run, finished; else None and the splits of the data.

    Raises:
        ValueError: an argument is wrong, or `out` holds another run.
    """
    validation.one_of("strategy", strategy, distribute.STRATEGIES)
    out = pathlib.Path(out)
    _refuse_another_run(out, _described(recipe))
    if (out / "card.json").exists():
        return json.loads((out / "card.json").read_text(encoding="utf-8")), None
    splits = _call(
        data.load,
        recipe.data_options,
        name=recipe.dataset,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        images_per_class=recipe.images_per_class,
        data_dir=data_dir,
    )
    model, untrained = None, _sources(recipe, splits, out)
    for stage in range(len(recipe.plan())):  # whatever is wrong with their options shows here
        model = build(recipe, splits, stage=stage, before=model, sources=untrained)
    return None, splits


def _described(recipe):
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def run(recipe, out, *, data_dir=None, strategy="auto", verbose="auto"):
    """Trains `recipe`, measures it, and leaves the results in the folder `out`.

    Killed and started again with the same arguments, it continues after the last whole epoch, and repeats nothing that
    is finished.

    Args:
        recipe: a `Recipe`.
        out: folder, made where it is missing. In it: `network.keras`, the network of the epoch that was best on the
            validation split; `last.keras`, that of the last epoch (both averaged, where the defense averages);
            `card.json`, what was done and measured; `logs/`, for TensorBoard; `state/`, while training is not finished.
        data_dir: where the datasets are (default: TensorFlow Datasets' own, or TFDS_DATA_DIR).
        strategy: "auto", "one" or "mirrored", see `tf_nuat.distribute.strategy`.
        verbose: as in `keras.Model.fit`.

    Returns:
        the content of `card.json`.

    Raises:
        ValueError: an argument is wrong; raised before any work.
        FloatingPointError: the loss became NaN or infinite; what was good is kept.
    """
    card, splits = check(recipe, out, data_dir=data_dir, strategy=strategy)
    if card is not None:
        logging.info("%s holds this run already, finished", out)
        return card
    out = pathlib.Path(out)
    described = _described(recipe)
    validation.output_folder("out", out)
    files.save_json(described, out / "recipe.json")
    source_cards = [
        run(recipe.of_source(name), out / "sources" / name, data_dir=data_dir, strategy=strategy, verbose=verbose)
        for name in dict.fromkeys(recipe.sources)
        if name in networks.NETWORKS
    ]
    with distribute.strategy(strategy).scope():
        sources = _sources(recipe, splits, out)
    model, history, passes = _train(recipe, splits, out, sources, strategy, verbose)

    seconds = sum(logs["seconds"] for logs in history)
    images = splits.steps_per_epoch * splits.batch_size * len(history)
    network = validation.load_network("network", out / "network.keras")
    card = {
        "recipe": described,
        "command": " ".join(["python", "-m", *_module_and_arguments()]),
        "parameters": network.count_params(),
        "epoch_chosen": _best_epoch(history, recipe),
        "measured": _measure(network, recipe, splits),
        "claimed": recipe.claimed,
        "passes": {**passes._asdict(), "forward_backward": passes.forward_backward},
        "training_seconds": seconds,
        "training_images_per_second": images / seconds,
        "history": history,
        "replicas": distribute.strategy(strategy).num_replicas_in_sync,
        "machine": {"processor": platform.machine(), "devices": [d.name for d in tf.config.list_logical_devices()]},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
    }
    if source_cards:
        card["source_training_seconds"] = sum(source["training_seconds"] for source in source_cards)
    if hasattr(model, "extra_epochs"):
        card["extra_epochs"] = model.extra_epochs
    files.save_json(card, out / "card.json")
    for file in (out / "state").glob("*"):
        file.unlink()
    (out / "state").rmdir()
    return card


def _refuse_another_run(out, described):
    path = out / "recipe.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else described
    # A field that is not there, a run of an earlier version did not have.
    different = sorted(name for name in before if before[name] != described.get(name))
    if different:
        raise ValueError(
            f"out is {str(out)!r}, which holds a run with another {', '.join(different)}; "
            "allowed: a new folder, or the one of the same run"
        )


class _Clock(keras.callbacks.Callback):
    """Adds the seconds of training to the logs: those of its batches, without validation."""

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds = time.perf_counter() - self.begin

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = self.seconds


def _train(recipe, splits, out, sources, strategy, verbose):
    """Trains what is left of the stages.

    Returns:
        the last stage's defense, the history of all epochs, and the mean `Passes` of an image in an epoch.
    """
    history = callbacks.Backup.history_in(out / "state")
    if history:
        logging.info("continuing after epoch %d of %d", len(history), recipe.epochs)
    is_restored, model, epochs, passes = not history, None, [], []
    for stage, (_, _, end) in enumerate(recipe.plan()):
        with distribute.strategy(strategy).scope():
            model = build(recipe, splits, stage=stage, before=model, sources=sources)
        if not is_restored and len(history) <= end:
            callbacks.Backup.restore(out / "state", model)  # into the defense of the stage that left it
            is_restored = True
        if len(history) < end and not _has_ended(history, recipe):
            history = _train_stage(model, end, recipe, splits, out, history, verbose)
        epochs.append(max(0, min(end, len(history)) - sum(epochs)))
        passes.append(model.passes(recipe.batch_size))
    files.save_network(model.network, out / "last.keras")
    return model, history, defenses.Passes(*np.average(passes, axis=0, weights=epochs).tolist())


def _train_stage(model, end, recipe, splits, out, history, verbose):
    order = np.random.default_rng(recipe.seed).permutation(len(splits.labels("validation")))
    images, labels = splits.take("validation", order[: recipe.selection_images])
    last = recipe.chosen_by == "last"
    best = -1.0 if last else max((logs[recipe.chosen_by] for logs in history), default=-1.0)
    backup = callbacks.Backup(out / "state", history=history)

    def stop_early(epoch, logs):
        model.stop_training |= _has_ended(backup.history, recipe)

    after_epoch = [
        callbacks.RobustValidation(
            images,
            labels,
            recipe.attack(recipe.selection),
            path=out / "network.keras",
            monitor=None if last else recipe.chosen_by,
            best=best,
            batch_size=_evaluation_batch(recipe, splits),
        ),
        keras.callbacks.TensorBoard(out / "logs", write_graph=False),
        backup,
        keras.callbacks.LambdaCallback(on_epoch_end=stop_early),
    ]
    if recipe.masking_alarm is not None and recipe.norm == "linf":
        alarm = callbacks.MaskingAlarm(
            images[:500],
            labels[:500],
            epsilon=recipe.epsilon,
            action=recipe.masking_alarm,
            batch_size=_evaluation_batch(recipe, splits),
        )
        after_epoch.insert(1, alarm)
    try:
        with splits.readable():
            model.fit(
                _batches_after(len(history), model, splits),
                validation_data=splits.validation,
                steps_per_epoch=splits.steps_per_epoch,
                initial_epoch=len(history),
                epochs=end,
                verbose=verbose,
                # NaN raises at once: no other callback gets to save weights that are not numbers.
                callbacks=[keras.callbacks.TerminateOnNaN(raise_error=True), _Clock(), *after_epoch],
            )
    except RuntimeError as error:
        if "NaN or Inf loss" not in str(error):
            raise
        kept = f"the network of epoch {_best_epoch(backup.history, recipe)}" if backup.history else None
        raise FloatingPointError(
            f"the loss became NaN or infinite in epoch {len(backup.history) + 1}; "
            + (f"{kept} is kept in {out / 'network.keras'}; " if kept else "no epoch was finished; ")
            + "try a lower learning rate"
        ) from error
    return backup.history


def _batches_after(epochs, model, splits):
    """Returns the endless training batches after `epochs` epochs, in which Free-AT uses each one several times."""
    used = epochs * splits.steps_per_epoch // getattr(model, "replays", 1)
    first, within = divmod(used, splits.steps_per_epoch)
    return splits.train_from(first).skip(within)


def _sources(recipe, splits, out):
    """Returns the recipe's source networks: those that are not trained yet are as they will be built."""

    def source(name):
        if name not in networks.NETWORKS:
            return validation.load_network("sources", name)
        path = out / "sources" / name / "network.keras"
        return validation.load_network("sources", path) if path.exists() else _network(name, splits, {})

    return [source(name) for name in recipe.sources]


def _has_ended(history, recipe):
    """Returns whether training is over before its last epoch: the alarm rang, or patience is at its end."""
    if not history:
        return False
    if recipe.masking_alarm == "stop" and history[-1].get("masking_alarm"):
        return True
    return recipe.patience is not None and len(history) - _best_epoch(history, recipe) >= recipe.patience


def _evaluation_batch(recipe, splits):
    """Returns the number of images in a batch of an attack: large images leave no memory for more than in training."""
    height, width, _ = splits.input_shape
    return EVALUATED if height * width <= 96 * 96 else min(EVALUATED, recipe.batch_size)


def _best_epoch(history, recipe):
    if recipe.chosen_by == "last":
        return len(history)
    return int(np.argmax([logs[recipe.chosen_by] for logs in history])) + 1


def _measure(network, recipe, splits):
    batch_size = _evaluation_batch(recipe, splits)
    measured = {}
    for name, description in {"clean": None, **recipe.measures}.items():
        attack = None if description is None else recipe.attack(description)
        correct = functools.partial(
            evaluate.correct, network, attack=attack, batch_size=batch_size, progress=f"test split, {name}"
        )
        outcomes = np.concatenate([correct(chunk) for chunk in splits.chunks("test", recipe.test_images)])
        measured[name] = {
            "accuracy": float(outcomes.mean()),
            "interval": list(evaluate.wilson(outcomes.sum(), len(outcomes))),
            "images": len(outcomes),
        }
    return measured


def _module_and_arguments():
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [spec.name if spec else pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
