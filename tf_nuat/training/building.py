"""Builds what a recipe describes: its data, its networks, and the defense of each stage."""

import functools
import inspect
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_nuat import data, networks, optimizers, parallel
from tf_nuat.core import validation
from tf_nuat.data.splits import Splits
from tf_nuat.defenses import Defense
from tf_nuat.models import precision
from tf_nuat.networks import adapt, by_name
from tf_nuat.parallel import workers
from tf_nuat.training.recipe import Recipe


def build(
    recipe: Recipe,
    splits: Splits,
    *,
    stage: int = 0,
    before: Defense | None = None,
    sources: Sequence[keras.Model] = (),
    stretch: tf.Variable | None = None,
    jit_compile: bool = False,
) -> Defense:
    """Returns a stage's defense, compiled; call it under the scope of the strategy it will train with.

    Args:
        recipe: a `Recipe`.
        splits: its data.
        stage: index in `recipe.plan()`.
        before: the defense of the stage before, whose networks and optimizer this one takes over.
        sources: the source networks of ensemble adversarial training.
        stretch: variable with the steps per epoch of the schedules; None for those of the recipe.
        jit_compile: whether XLA compiles the training step.

    Example:
        >>> import tf_nuat
        >>> from tf_nuat.training import Recipe, ScheduleSpec, build
        >>> schedule = ScheduleSpec("constant", value=0.05)
        >>> chosen = {"dataset": "digits", "network": "two_conv", "defense": "nuat", "learning_rate": schedule}
        >>> recipe = Recipe(**chosen, epsilon=0.1, epochs=3)
        >>> build(recipe, tf_nuat.data.load("digits")).network.output_shape
        (None, 10)
    """
    keras.utils.set_random_seed(recipe.seed)
    described = recipe.plan()[stage]
    at = functools.partial(recipe.schedule, steps_per_epoch=splits.steps_per_epoch, stretch=stretch)
    supplied = {"batch_size": recipe.batch_size, "sources": sources}
    options = {name: at(value) for name, value in described.options.items()}
    options |= {name: supplied[name] for name in described.kind.NEEDS}
    make = functools.partial(described.kind, epsilon=recipe.epsilon, norm=recipe.norm, seed=recipe.seed, **options)
    if before is not None:
        model = make(network=before.network)
        model.take_over(before)
        return model
    network = build_network(recipe.network, splits, recipe.network_options)
    workers.share_weights(network, tf.distribute.get_strategy())  # a saved network may differ between workers
    if recipe.synchronized_batch_norm:
        network = parallel.synchronized(network)
    model = make(network=precision.computing_in(network, recipe.precision))
    optimizer = optimizers.CoupledSGD(
        at(recipe.learning_rate), momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    if recipe.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer, metrics=["accuracy"], jit_compile=jit_compile)
    return model


def build_network(name: str, splits: Splits, options: dict[str, Any]) -> keras.Model:
    """Returns the network `name`, see `by_name.builder`, for the shapes of the data."""
    shapes: dict[str, Any] = {"input_shape": splits.input_shape, "num_classes": splits.num_classes}
    builder = by_name.builder("network", name)
    try:
        inspect.signature(builder).bind_partial(**shapes)
    except TypeError as error:
        validation.refuse("network", name, f"a function (input_shape, num_classes); this one {error}")
    network = _call(builder, options, **shapes)
    return by_name.fitting(f"network {name}", network, **shapes)


def source_networks(recipe: Recipe, splits: Splits, out: pathlib.Path) -> list[keras.Model]:
    """Returns the recipe's source networks; those that are not trained yet are built without training."""

    def source(name: str) -> keras.Model:
        if name not in networks.NETWORKS:
            return adapt(name, argument="sources").network
        path = out / "sources" / name / "network.keras"
        return validation.load_network("sources", path) if path.exists() else build_network(name, splits, {})

    return [source(name) for name in recipe.sources]


def load_data(recipe: Recipe, data_dir: str | None) -> Splits:
    """Returns the splits of the recipe's data."""
    arguments = {"name": recipe.dataset, "batch_size": recipe.batch_size, "seed": recipe.seed, "data_dir": data_dir}
    return _call(data.load, recipe.data_options, images_per_class=recipe.images_per_class, **arguments)


def _call(builder: Callable[..., Any], options: dict[str, Any], **arguments: Any) -> Any:
    try:
        inspect.signature(builder).bind(**arguments, **options)
    except TypeError as error:  # an option that the builder does not have
        raise ValueError(f"options of {getattr(builder, '__name__', builder)} are {options!r}: {error}") from error
    return builder(**arguments, **options)
