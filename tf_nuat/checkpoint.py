"""A saved network that is to be judged: what its card says, and whether it fits the images."""

import json
import pathlib

import keras
import numpy as np

from tf_nuat import data

PROBED = 100  # images that show whether the outputs are logits
SHOWN = ("defense", "defense_options", "epochs", "seed")  # of a recipe
MOST_TEXT = 300  # characters of a fact


class Card:
    """The card beside a checkpoint, which knows what the network was trained for; empty where there is none."""

    def __init__(self, checkpoint):
        self._path = pathlib.Path(checkpoint).with_name("card.json")
        try:
            card = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # no card, or none of ours: the flags have to say it
            card = {}
        self._card = card if isinstance(card, dict) else {}
        recipe = self._card.get("recipe")
        self._recipe = recipe if isinstance(recipe, dict) else {}

    @property
    def facts(self):
        """What the card says of the training, a dict of names to text: the settings, the command, what was measured."""
        shown = {name: self._recipe.get(name) for name in SHOWN}
        shown["epoch chosen"], shown["command"] = self._card.get("epoch_chosen"), self._card.get("command")
        measured = self._card.get("measured")
        for name, each in measured.items() if isinstance(measured, dict) else ():
            accuracy, images = (each.get(key) for key in ("accuracy", "images")) if isinstance(each, dict) else (0, 0)
            if isinstance(accuracy, float) and isinstance(images, int):
                shown[f"accuracy, {name}"] = f"{accuracy:.2%} of {images:,} images"
        return {str(name): str(value)[:MOST_TEXT] for name, value in shown.items() if value is not None}

    @property
    def data_options(self):
        """How the images were prepared: further arguments of `tf_nuat.data.load`."""
        options = self._recipe.get("data_options")
        return options if isinstance(options, dict) else {}

    def default(self, name, given, *, otherwise=None):
        """Returns the value of a flag and what to call it in an error: what is given, else what the card says.

        Raises:
            ValueError: neither names it, and there is nothing to take `otherwise`.
        """
        if given is not None:
            return given, f"--{name}"
        if name in self._recipe:
            return self._recipe[name], f"{name} in {self._path}"
        if otherwise is None:
            raise ValueError(f"--{name} is not given, and {self._path} does not name it; give --{name}")
        return otherwise, f"--{name}"


def sample(network, card, dataset, **options):
    """Returns images of a dataset for `network`, prepared as for its training: (images, labels, class_names).

    Args:
        network: whose input shape images from files get.
        card: the `Card` beside it.
        dataset, **options: what `tf_nuat.data.sample` takes.

    Raises:
        ValueError: as `tf_nuat.data.sample`.
    """
    if dataset not in data.DATASETS and pathlib.Path(dataset).is_dir():  # others are as they are
        options["input_shape"] = network.input_shape[1:]
        options.update(
            {name: card.data_options[name] for name in ("augmentation", "corrupt") if name in card.data_options}
        )
    return data.sample(dataset, **options)


def fits(argument, network, images, num_classes, dataset):
    """Returns `network` where it takes the images, has an output for each class, and returns logits.

    Raises:
        ValueError: it does not.
    """
    expected, given = network.input_shape[1:], images.shape[1:]
    if not all(size in (None, actual) for size, actual in zip(expected, given)):
        raise ValueError(f"{argument} takes images of shape {expected}; those of {dataset} are {given}")
    if network.output_shape[1] < num_classes:
        raise ValueError(
            f"{argument} has {network.output_shape[1]} outputs; "
            f"allowed: at least {num_classes}, the classes of {dataset}"
        )
    return logits_on(argument, network, images)


def logits_on(argument, network, images):
    """Returns `network` where its outputs for some of `images` are finite and are logits, not probabilities.

    Raises:
        ValueError: they are not.
    """
    outputs = keras.ops.convert_to_numpy(network(images[:PROBED], training=False))
    if not np.all(np.isfinite(outputs)):
        raise ValueError(f"{argument} returns values that are not finite for the sample; allowed: finite logits")
    probabilities = np.all((outputs >= 0.0) & (outputs <= 1.0)) and np.allclose(outputs.sum(axis=-1), 1.0, atol=1e-3)
    if probabilities:
        raise ValueError(
            f"{argument} returns probabilities (rows in [0, 1] that sum to 1); allowed: logits, without a softmax"
        )
    return network
