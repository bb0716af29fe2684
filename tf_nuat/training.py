"""`Recipe`, an experiment as plain data, and `run`, which carries it out."""

import dataclasses
import functools
import importlib.metadata
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
    attacks,
    callbacks,
    data,
    defenses,
    distribute,
    evaluate,
    networks,
    optimizers,
    schedules,
    validation,
)

VERSIONS = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "tf-nuat")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to train, how, and how to measure it.

    A weight or a learning rate is a number or a pair (name in `schedules.SCHEDULES`, its arguments in epochs).
    An attack is a dict: "attack", a name in `ATTACKS`, and its settings; epsilon is the recipe's unless it is given.

    Attributes:
        dataset, network, defense: names in `data.DATASETS`, `networks.NETWORKS`, `defenses.DEFENSES`.
        epsilon: radius of the L-infinity threat model, in (0, 1].
        epochs: number of epochs.
        learning_rate: highest values and times of the schedule, or a number.
        network_options, defense_options: keyword arguments of the network and of the defense.
        batch_size: images per optimizer step, all devices together.
        momentum, weight_decay: of `CoupledSGD`.
        seed: whole number from which weights, data order and random starts follow.
        schedule_epochs: length of training that the times of the schedules were written for (default `epochs`); with
            other `epochs` all times stretch.
        selection: the attack that measures `val_robust_accuracy` on the validation split after each epoch.
        selection_images: number of validation images it is run on.
        chosen_by: which epoch's network is kept, that with the highest "val_robust_accuracy" (the default) or
            "val_accuracy" (the default for standard training, which nobody would choose by its robustness).
        measures: dict, name -> attack, run on the test split when training has ended.
        test_images: number of test images for that (None: all).
        claimed: dict of measures' names ("clean" included) to the accuracy that a paper claims, in [0, 1].
        source: where settings and claims come from.
    """

    dataset: str
    network: str
    defense: str
    epsilon: float
    epochs: int
    learning_rate: float | tuple
    network_options: dict = dataclasses.field(default_factory=dict)
    defense_options: dict = dataclasses.field(default_factory=dict)
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    schedule_epochs: int | None = None
    selection: dict = dataclasses.field(default_factory=lambda: {"attack": "ifgsm", "steps": 7})
    selection_images: int = 1000
    chosen_by: str | None = None
    measures: dict = dataclasses.field(default_factory=dict)
    test_images: int | None = None
    claimed: dict = dataclasses.field(default_factory=dict)
    source: str = ""

    def __post_init__(self):
        validation.one_of("dataset", self.dataset, data.DATASETS)
        validation.one_of("network", self.network, networks.NETWORKS)
        validation.one_of("defense", self.defense, defenses.DEFENSES)
        validation.number("epsilon", self.epsilon, above=0.0, at_most=1.0)
        validation.whole_number("epochs", self.epochs, at_least=1)
        validation.whole_number("batch_size", self.batch_size, at_least=1)
        validation.whole_number("seed", self.seed, at_least=0)
        if self.chosen_by is None:
            by = "val_accuracy" if self.defense == "standard" else "val_robust_accuracy"
            object.__setattr__(self, "chosen_by", by)
        validation.one_of("chosen_by", self.chosen_by, ("val_robust_accuracy", "val_accuracy"))
        validation.whole_number("selection_images", self.selection_images, at_least=1)
        if self.test_images is not None:
            validation.whole_number("test_images", self.test_images, at_least=1)
        for description in (self.selection, *self.measures.values()):
            self.attack(description)
        if self.schedule_epochs is None:
            object.__setattr__(self, "schedule_epochs", self.epochs)

    def schedule(self, value, steps_per_epoch):
        """Returns `value`, a number or a pair (name, arguments), as a number or a schedule of the step."""
        if not isinstance(value, (tuple, list)):
            return value
        name, arguments = value
        stretched = steps_per_epoch * self.epochs / self.schedule_epochs
        return validation.one_of("schedule", name, schedules.SCHEDULES)(**arguments, steps_per_epoch=stretched)

    def attack(self, description):
        """Returns the function `(network, x, y) -> x_adv` that the dict `description` describes."""
        settings = {"epsilon": self.epsilon, **description}
        attack = validation.one_of("attack", settings.pop("attack"), attacks.ATTACKS)
        attack.check_settings(settings)
        return functools.partial(attack, **settings)


def build(recipe, splits):
    """Returns the recipe's defense, compiled; call it under the scope of the strategy it will train with."""
    keras.utils.set_random_seed(recipe.seed)
    network = _call(
        networks.NETWORKS[recipe.network],
        recipe.network_options,
        input_shape=splits.input_shape,
        num_classes=splits.num_classes,
    )
    at = functools.partial(recipe.schedule, steps_per_epoch=splits.steps_per_epoch)
    options = {name: at(value) for name, value in recipe.defense_options.items()}
    model = _call(defenses.DEFENSES[recipe.defense], options, network=network, epsilon=recipe.epsilon, seed=recipe.seed)
    optimizer = optimizers.CoupledSGD(
        at(recipe.learning_rate), momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    model.compile(optimizer=optimizer, metrics=["accuracy"])
    return model


def _call(builder, options, **arguments):
    try:
        return builder(**arguments, **options)
    except TypeError as error:  # an option that the builder does not have
        raise ValueError(f"options of {builder.__name__} are {options!r}: {error}") from error


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
    validation.one_of("strategy", strategy, distribute.STRATEGIES)
    described = json.loads(json.dumps(dataclasses.asdict(recipe)))
    out = pathlib.Path(out)
    _refuse_another_run(out, described)
    if (out / "card.json").exists():
        logging.info("%s holds this run already, finished", out)
        return json.loads((out / "card.json").read_text(encoding="utf-8"))
    splits = data.load(recipe.dataset, batch_size=recipe.batch_size, seed=recipe.seed, data_dir=data_dir)
    strategy = distribute.strategy(strategy)
    with strategy.scope():
        model = build(recipe, splits)
    validation.output_folder("out", out)
    callbacks.save_json(described, out / "recipe.json")
    history = callbacks.Backup.restore(out / "state", model)
    if history:
        logging.info("continuing after epoch %d of %d", len(history), recipe.epochs)
    history = _train(model, recipe, splits, out, history, verbose)

    seconds = sum(logs["seconds"] for logs in history)
    network = validation.load_network("network", out / "network.keras")
    card = {
        "recipe": described,
        "command": " ".join(["python", "-m", *_module_and_arguments()]),
        "parameters": network.count_params(),
        "epoch_chosen": _best_epoch(history, recipe),
        "measured": _measure(network, recipe, splits),
        "claimed": recipe.claimed,
        "training_seconds": seconds,
        "training_images_per_second": splits.steps_per_epoch * splits.batch_size * len(history) / seconds,
        "history": history,
        "replicas": strategy.num_replicas_in_sync,
        "machine": {"processor": platform.machine(), "devices": [d.name for d in tf.config.list_logical_devices()]},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
    }
    if hasattr(model, "extra_epochs"):
        card["extra_epochs"] = model.extra_epochs
    callbacks.save_json(card, out / "card.json")
    for file in (out / "state").glob("*"):
        file.unlink()
    (out / "state").rmdir()
    return card


def _refuse_another_run(out, described):
    path = out / "recipe.json"
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != described:
        different = sorted(name for name in described if before.get(name) != described[name])
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


def _train(model, recipe, splits, out, history, verbose):
    images, labels = (part[: recipe.selection_images] for part in _shuffled(splits, "validation", recipe.seed))
    best = max((logs[recipe.chosen_by] for logs in history), default=-1.0)
    attack = recipe.attack(recipe.selection)
    backup = callbacks.Backup(out / "state", history=history)
    try:
        model.fit(
            splits.train_from(len(history)),
            validation_data=splits.validation,
            steps_per_epoch=splits.steps_per_epoch,
            initial_epoch=len(history),
            epochs=recipe.epochs,
            verbose=verbose,
            callbacks=[
                # Raises at once: no other callback gets to save weights that are not numbers.
                keras.callbacks.TerminateOnNaN(raise_error=True),
                _Clock(),
                callbacks.RobustValidation(
                    images, labels, attack, path=out / "network.keras", monitor=recipe.chosen_by, best=best
                ),
                keras.callbacks.TensorBoard(out / "logs", write_graph=False),
                backup,
            ],
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
    callbacks.save_network(model.network, out / "last.keras")
    return backup.history


def _best_epoch(history, recipe):
    return int(np.argmax([logs[recipe.chosen_by] for logs in history])) + 1


def _shuffled(splits, split, seed):
    """Returns the images and labels of a split in an order that is mixed, and the same for every run of a seed."""
    images, labels = splits.arrays(split)
    order = np.random.default_rng(seed).permutation(len(images))
    return images[order], labels[order]


def _measure(network, recipe, splits):
    images, labels = splits.arrays("test")
    sample = (images[: recipe.test_images], labels[: recipe.test_images])
    measured = {}
    for name, description in {"clean": None, **recipe.measures}.items():
        attack = None if description is None else recipe.attack(description)
        outcomes = evaluate.correct(network, sample, attack, progress=f"test split, {name}")
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
