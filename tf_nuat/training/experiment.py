"""`run` carries out a `Recipe`: it trains, measures, and leaves a network and its card."""

import dataclasses
import functools
import importlib.metadata
import inspect
import json
import pathlib
import platform
import shutil
import sys
import typing

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_nuat import data, defenses, evaluate, networks, optimizers, parallel
from tf_nuat.core import files, keras_compat, validation
from tf_nuat.data.splits import EVALUATED
from tf_nuat.models import precision
from tf_nuat.networks import by_name
from tf_nuat.parallel import workers
from tf_nuat.training import backup, callbacks
from tf_nuat.training.recipe import Recipe

__all__ = ["Recipe", "build", "check", "run"]

ALARM_IMAGES = 500
OUTCOMES = "outcomes.npz"
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
    workers.share_weights(network, tf.distribute.get_strategy())  # a saved network may be another one elsewhere
    if recipe.synchronized_batch_norm:
        network = parallel.synchronized(network)
    network = precision.computing_in(network, recipe.precision)
    model = _call(defense, options, network=network, epsilon=recipe.epsilon, seed=recipe.seed)
    optimizer = optimizers.CoupledSGD(
        at(recipe.learning_rate), momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    if recipe.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer, metrics=["accuracy"])
    return model


def _network(name, splits, options):
    shapes = {"input_shape": splits.input_shape, "num_classes": splits.num_classes}
    return by_name.fitting(f"network {name}", _call(by_name.builder("network", name), options, **shapes), **shapes)


def _call(builder, options, **arguments):
    try:
        return builder(**arguments, **options)
    except TypeError as error:  # an option that the builder does not have
        raise ValueError(f"options of {getattr(builder, '__name__', builder)} are {options!r}: {error}") from error


def check(recipe, out, *, data_dir=None, strategy="auto", save_every=600.0):
    """Finds out, before any work, whether `run` can do its own with these arguments, which are those of `run`.

    Returns:
        the card and None where `out` holds this run, finished; else None and the splits of the data.

    Raises:
        ValueError: an argument is wrong, or `out` holds another run.
    """
    validation.number("save_every", save_every, at_least=0.0)
    strategy = parallel.strategy(strategy)  # before anything else: several workers have to begin with it
    out, card = pathlib.Path(out), None
    if workers.is_chief(strategy):
        _refuse_another_run(out, _described(recipe))
        if (out / "card.json").exists():
            card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    card = json.loads(workers.from_chief(json.dumps(card).encode(), strategy))
    if card is not None:
        return card, None
    splits = _call(
        data.load,
        recipe.data_options,
        name=recipe.dataset,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        images_per_class=recipe.images_per_class,
        data_dir=data_dir,
    )
    workers.agree({**_described(recipe), "training labels": files.digest(splits.labels("train"))}, strategy)
    if workers.count(strategy) > 1 and recipe.batch_size % strategy.num_replicas_in_sync:
        raise ValueError(
            f"batch_size is {recipe.batch_size}; allowed: a multiple of {strategy.num_replicas_in_sync}, the replicas "
            "of all workers"
        )
    _check_alarm(recipe, splits)
    untrained = _sources(recipe, splits, out)
    model: typing.Any = None  # before the first stage
    for stage in range(len(recipe.plan())):  # whatever is wrong with their options shows here
        model = build(recipe, splits, stage=stage, before=model, sources=untrained)
    if recipe.network not in networks.NETWORKS:
        by_name.check_saving(f"network {recipe.network}", model.network)
    return None, splits


def _described(recipe):
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def run(recipe, out, *, data_dir=None, strategy="auto", save_every=600.0, verbose="auto"):
    """Trains `recipe`, measures it, and leaves the results in the folder `out`.

    Killed and started again with the same arguments, it continues from its last checkpoint, repeats nothing that is
    finished, and ends with the network of a run that was not killed (bit for bit, where the operations of the device
    are deterministic: see `tf.config.experimental.enable_op_determinism`).

    Args:
        recipe: a `Recipe`.
        out: folder, made where it is missing. In it: `network.keras`, the network of the epoch that was best on the
            validation split; `last.keras`, that of the last epoch (both averaged, where the defense averages);
            `card.json`, what was done and measured; `outcomes.npz`, of each measure, which test images were classified
            correctly, bool (N,); `logs/`, for TensorBoard; `state/`, while the run is not finished.
        data_dir: where the datasets are (default: TensorFlow Datasets' own, or TFDS_DATA_DIR).
        strategy: "auto", "one", "mirrored" or "multiworker", see `tf_nuat.parallel.strategy`. Of several workers the
            chief alone reads and writes `out`.
        save_every: seconds of training that a kill may cost, at least 0; the end of an epoch is always saved.
        verbose: as in `keras.Model.fit`.

    Returns:
        the content of `card.json`.

    Raises:
        ValueError: an argument is wrong; raised before any work.
        FloatingPointError: the loss became NaN or infinite; what was good is kept.
        files.NotSavedError: a file cannot be written (the disk is full, for instance); what was saved before is kept.
        workers.LostError: another worker has ended.
    """
    distributed = parallel.strategy(strategy)
    with workers.together(distributed):
        return _run(recipe, out, data_dir, strategy, distributed, save_every, verbose)


def _run(recipe, out, data_dir, strategy, distributed, save_every, verbose):
    card, splits = check(recipe, out, data_dir=data_dir, strategy=strategy, save_every=save_every)
    if card is not None:
        logging.info("%s holds this run already, finished", out)
        return card
    out, is_chief = pathlib.Path(out), workers.is_chief(distributed)
    described = _described(recipe)
    if is_chief:
        validation.output_folder("out", out)
        files.save_json(described, out / "recipe.json")
    options = {"data_dir": data_dir, "strategy": strategy, "save_every": save_every, "verbose": verbose}
    source_cards = [
        run(recipe.of_source(name), out / "sources" / name, **options)
        for name in dict.fromkeys(recipe.sources)
        if name in networks.NETWORKS
    ]
    with distributed.scope():
        sources = _sources(recipe, splits, out)
    for source in sources:
        workers.share_weights(source, distributed)
    model, history, passes = _train(recipe, splits, out, sources, distributed, save_every, verbose)

    seconds = sum(logs["seconds"] for logs in history)
    images = splits.steps_per_epoch * splits.batch_size * len(history)
    network = precision.computing_in(model.network, "float32")
    if is_chief:
        network = validation.load_network("network", out / "network.keras")
    workers.share_weights(network, distributed)
    outcomes = _measure(network, recipe, splits, distributed, out / "state" / "measured")
    card = {
        "recipe": described,
        "command": " ".join(["python", "-m", *_module_and_arguments()]),
        "parameters": network.count_params(),
        "epoch_chosen": _best_epoch(history, recipe),
        "measured": {name: evaluate.share(correct) for name, correct in outcomes.items()},
        "claimed": recipe.claimed,
        "passes": {**passes._asdict(), "forward_backward": passes.forward_backward},
        "training_seconds": seconds,
        "training_images_per_second": images / seconds,
        "history": history,
        "replicas": distributed.num_replicas_in_sync,
        "workers": workers.count(distributed),
        "machine": {"processor": platform.machine(), "devices": [d.name for d in tf.config.list_logical_devices()]},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
    }
    if source_cards:
        card["source_training_seconds"] = sum(source["training_seconds"] for source in source_cards)
    if hasattr(model, "extra_epochs"):
        card["extra_epochs"] = model.extra_epochs
    if is_chief:
        files.save_arrays(out / OUTCOMES, **outcomes)
        files.save_json(card, out / "card.json")
        shutil.rmtree(out / "state")
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


def _train(recipe, splits, out, sources, strategy, save_every, verbose):
    """Trains what is left of the stages.

    Returns:
        the last stage's defense, the history of all epochs, and the mean `Passes` of an image in an epoch.
    """
    state = backup.restored(out / "state", strategy)
    if state.arrays is not None:
        logging.info("continuing after %d batches of epoch %d", state.batches, len(state.history) + 1)
    epochs, passes = [], []
    model: typing.Any = None  # before the first stage
    for stage, (_, _, end) in enumerate(recipe.plan()):
        with strategy.scope():
            model = build(recipe, splits, stage=stage, before=model, sources=sources)
        if state.arrays is not None and len(state.history) + bool(state.batches) <= end:
            model.build_state()
            backup.put_back(model, state.arrays)  # into the defense of the stage that left it
            if not state.batches:
                state = state._replace(arrays=None)
        while len(state.history) < end and not _has_ended(state.history, recipe):
            state = _train_epochs(model, end, recipe, splits, out, state, save_every, verbose)
        epochs.append(max(0, min(end, len(state.history)) - sum(epochs)))
        passes.append(model.passes(recipe.batch_size))
    if workers.is_chief(strategy):
        files.save_network(precision.computing_in(model.network, "float32"), out / "last.keras")
    return model, state.history, defenses.Passes(*np.average(passes, axis=0, weights=epochs).tolist())


def _train_epochs(model, end, recipe, splits, out, state, save_every, verbose):
    """Trains the epochs until `end`, or what is left of the one that was interrupted; returns the `backup.State`."""
    history, batches = state.history, state.batches
    is_chief = workers.is_chief(model.distribute_strategy)
    order = np.random.default_rng(recipe.seed).permutation(len(splits.labels("validation")))
    images, labels = splits.take("validation", order[: recipe.selection_images])
    last = recipe.chosen_by == "last"
    best = -1.0 if last else max((logs[recipe.chosen_by] for logs in history), default=-1.0)
    keeps_state = backup.Backup(
        out / "state", steps_per_epoch=splits.steps_per_epoch, state=state, save_every=save_every
    )

    def stop_early(epoch, logs):
        model.stop_training |= _has_ended(keeps_state.state.history, recipe)

    after_epoch = [
        callbacks.RobustValidation(
            images,
            labels,
            recipe.attack(recipe.selection),
            path=out / "network.keras" if is_chief else None,
            monitor=None if last else recipe.chosen_by,
            best=best,
            batch_size=_evaluation_batch(recipe, splits),
        ),
        keeps_state,
        keras.callbacks.LambdaCallback(on_epoch_end=stop_early),
    ]
    if is_chief:
        after_epoch.insert(1, keras.callbacks.TensorBoard(out / "logs", write_graph=False))
    if _has_alarm(recipe, splits):
        alarm = callbacks.MaskingAlarm(
            images[:ALARM_IMAGES],
            labels[:ALARM_IMAGES],
            epsilon=recipe.epsilon,
            action=recipe.masking_alarm,
            batch_size=_evaluation_batch(recipe, splits),
        )
        after_epoch.insert(1, alarm)
    options = {"is_replayed": True} if model.replays > 1 else {}
    try:
        with splits.readable():
            model.fit(
                _batches_after(len(history) * splits.steps_per_epoch + batches, model, splits),
                validation_data=splits.validation,
                steps_per_epoch=splits.steps_per_epoch - batches,
                initial_epoch=len(history),
                epochs=len(history) + 1 if batches else end,
                verbose=verbose if is_chief else 0,
                **options,
                # NaN raises at once: no other callback gets to save weights that are not numbers.
                callbacks=[keras.callbacks.TerminateOnNaN(raise_error=True), *after_epoch],
            )
    except RuntimeError as error:
        if not keras_compat.is_nan_loss(error):
            raise
        history = keeps_state.state.history
        kept = f"the network of epoch {_best_epoch(history, recipe)}" if history else None
        raise FloatingPointError(
            f"the loss became NaN or infinite in epoch {len(history) + 1}; "
            + (f"{kept} is kept in {out / 'network.keras'}; " if kept else "no epoch was finished; ")
            + "try a lower learning rate"
        ) from error
    return keeps_state.state


def _batches_after(count, model, splits):
    """Returns the endless training batches after `count` batches, of which Free-AT takes each several times in a row.

    Of several workers each reads the images of its own replicas alone.
    """
    used, again = divmod(count, model.replays)
    place = divmod(used, splits.steps_per_epoch)
    strategy = model.distribute_strategy
    if workers.count(strategy) == 1:
        return model.replayed(splits.train_from(*place)).skip(again)
    replicas = strategy.num_replicas_in_sync
    own = replicas // workers.count(strategy)

    def share(context):
        shares = range(context.input_pipeline_id * own, (context.input_pipeline_id + 1) * own)
        return model.replayed(splits.train_from(*place, shares=shares, of=replicas)).skip(again)

    return strategy.distribute_datasets_from_function(share)


def _wants_alarm(recipe):
    return recipe.masking_alarm is not None and recipe.norm == "linf"  # it is not tried in another norm


def _alarm_images(recipe, splits):
    """Returns the number of validation images that the masking alarm looks at."""
    return min(len(splits.labels("validation")), recipe.selection_images, ALARM_IMAGES)


def _has_alarm(recipe, splits):
    """Returns whether the masking alarm is asked for and can ring."""
    return _wants_alarm(recipe) and callbacks.MaskingAlarm.can_ring(_alarm_images(recipe, splits))


def _check_alarm(recipe, splits):
    """Warns where the masking alarm can never ring; a `ValueError` where training is to stop when it does."""
    count = _alarm_images(recipe, splits)
    if not _wants_alarm(recipe) or callbacks.MaskingAlarm.can_ring(count):
        return
    if recipe.masking_alarm == "stop":
        raise ValueError(f"masking_alarm is 'stop', with {count} validation images; allowed: with a few hundred")
    logging.warning("no masking alarm: %d validation images are too few to show that a network overfits", count)


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


def _measure(network, recipe, splits, strategy, folder):
    """Returns which test images are classified correctly, a dict of measure to bool (N,).

    Several workers share the images, else one device has them all. What is known so far is kept in `folder`; of several
    workers, of whom one alone has it, nothing is.
    """
    several = workers.several(strategy)
    options = {"batch_size": _evaluation_batch(recipe, splits), "strategy": several}
    correct = {}
    for name, description in {"clean": None, **recipe.measures}.items():
        outcomes = []
        for number, chunk in enumerate(splits.chunks("test", recipe.test_images)):
            if description is None:
                outcomes.append(evaluate.correct(network, chunk, **options))
                continue
            settings = {"epsilon": recipe.epsilon, "norm": recipe.norm, **description}
            attack, epsilon, norm = (settings.pop(each) for each in ("attack", "epsilon", "norm"))
            record = evaluate.worst_case(
                network,
                chunk,
                [(attack, settings)],
                epsilon=epsilon,
                norm=norm,
                folder=None if several else folder / f"{name}-{number}",
                progress=sys.stderr.isatty() and f"test split, {name}",
                **options,
            )
            outcomes.append(record.robust)
        correct[name] = np.concatenate(outcomes)
    return correct


def _module_and_arguments():
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [spec.name if spec else pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
