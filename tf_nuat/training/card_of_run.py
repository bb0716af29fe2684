"""Makes the card of a run: what was done, and the results."""

import importlib.metadata
import itertools
import platform
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_nuat import command_line, evaluate
from tf_nuat.card import Card, Measured
from tf_nuat.data.splits import Splits
from tf_nuat.networks import by_name
from tf_nuat.parallel import workers
from tf_nuat.training.epochs import Trained, best_epoch

VERSIONS = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "tf-nuat")


def card_of(
    splits: Splits,
    trained: Trained,
    network: keras.Model,
    outcomes: Mapping[str, np.ndarray],
    *,
    sources: Sequence[Card],
    strategy: tf.distribute.Strategy,
) -> Card:
    """Returns the card.

    Args:
        splits: the data.
        trained: the result of training.
        network: the network that is kept.
        outcomes: which test images it classified correctly, by measure.
        sources: cards of the source networks that were trained for it.
        strategy: the distribution strategy of training.
    """
    recipe, model, history, passes = trained
    seconds = sum(logs["seconds"] for logs in history)
    lengths = itertools.chain(*recipe.steps(splits.steps_per_epoch))
    images = splits.batch_size * sum(itertools.islice(lengths, len(history)))
    return Card(
        recipe=recipe.to_json(),
        command=command_line.of_this_process(),
        parameters=network.count_params(),
        epoch_chosen=best_epoch(history, recipe),
        measured={name: Measured(**evaluate.share(correct)) for name, correct in outcomes.items()},
        claimed=recipe.claimed,
        passes={**passes._asdict(), "forward_backward": passes.forward_backward},
        training_seconds=seconds,
        training_images_per_second=images / seconds,
        history=history,
        replicas=strategy.num_replicas_in_sync,
        workers=workers.count(strategy),
        machine={"processor": platform.machine(), "devices": [d.name for d in tf.config.list_logical_devices()]},
        versions={"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
        source_training_seconds=sum(source.training_seconds for source in sources) if sources else None,
        adapted=by_name.changes(recipe.network, recipe.network_options, input_shape=splits.input_shape),
        defense_facts=model.card_facts(),
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
