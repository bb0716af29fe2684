"""From the flags of the command line to a subject, with everything checked before any work."""

import dataclasses
import hashlib
import json
import pathlib

from sanity.judgement import checked_names
from sanity.subject import Subject, logits_on, stratified
from tf_nuat import data, validation


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a judgement needs: the subject, the names of the checks, the folder for the results, and provenance."""

    subject: Subject
    checks: tuple
    out: pathlib.Path
    provenance: dict


def collect(flags, command, *, progress=False):
    """Returns the `Inputs` that `flags` (see `sanity.run`) describe; `command` is kept as their provenance, and the
    subject shows its progress where `progress` is true.

    The output folder is made last, when everything else is known to be good.

    Raises:
        ValueError: a flag is wrong, or does not fit the others; the message names it.
    """
    if not flags.checkpoint:
        raise ValueError("--checkpoint is not given; allowed: a network saved by Keras (.keras)")
    checks = checked_names(flags.checks, "--checks")
    validation.whole_number("--samples", flags.samples, at_least=1)
    validation.whole_number("--seed", flags.seed, at_least=0)
    checkpoint = pathlib.Path(flags.checkpoint)
    network = _network("--checkpoint", checkpoint)
    card = _Card(checkpoint)
    dataset, dataset_from = card.default("dataset", flags.dataset)
    validation.one_of(dataset_from, str(dataset), data.DATASETS)
    epsilon, epsilon_from = card.default("epsilon", flags.epsilon)
    validation.number(epsilon_from, epsilon, above=0.0, at_most=1.0)
    surrogates = [_network("--surrogate", path) for path in flags.surrogate]

    splits = data.load(dataset, seed=flags.seed, data_dir=flags.data_dir)
    images, labels = splits.arrays("test")
    chosen = stratified(labels, flags.samples, seed=flags.seed)
    images, labels = images[chosen], labels[chosen]
    for argument, path, each in [
        ("--checkpoint", checkpoint, network),
        *(("--surrogate", path, each) for path, each in zip(flags.surrogate, surrogates)),
    ]:
        _fits(f"{argument} {path}", each, images, splits)
    subject = Subject(
        network,
        images,
        labels,
        epsilon=epsilon,
        surrogates=surrogates,
        training_data=None if surrogates else splits.arrays("train"),
        seed=flags.seed,
        progress=progress,
    )
    out = checkpoint.parent / "sanity" if flags.out is None else pathlib.Path(flags.out)
    provenance = {
        "command": command,
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "surrogates": list(flags.surrogate),
        "dataset": dataset,
        "split": "test",
        "class_names": list(splits.class_names),
    }
    return Inputs(subject, checks, validation.output_folder("--out", out), provenance)


def _network(argument, path):
    return validation.classifier(f"{argument} {path}", validation.load_network(argument, path))


def _fits(argument, network, images, splits):
    expected, given = network.input_shape[1:], splits.input_shape
    if not all(size in (None, actual) for size, actual in zip(expected, given)):
        raise ValueError(f"{argument} takes images of shape {expected}; those of --dataset {splits.name} are {given}")
    if network.output_shape[1] < splits.num_classes:
        raise ValueError(
            f"{argument} has {network.output_shape[1]} outputs; "
            f"allowed: at least {splits.num_classes}, the classes of --dataset {splits.name}"
        )
    logits_on(argument, network, images)


class _Card:
    """The card beside a checkpoint, which knows what the network was trained for."""

    def __init__(self, checkpoint):
        self._path = checkpoint.with_name("card.json")
        try:
            recipe = json.loads(self._path.read_text(encoding="utf-8"))["recipe"]
            self._recipe = recipe if isinstance(recipe, dict) else {}
        except (OSError, ValueError, KeyError, TypeError):  # no card, or none of ours: the flags have to say it
            self._recipe = {}

    def default(self, name, given):
        """Returns the value of a flag and what to call it in an error: what is given, else what the card says."""
        if given is not None:
            return given, f"--{name}"
        if name in self._recipe:
            return self._recipe[name], f"{name} in {self._path}"
        raise ValueError(f"--{name} is not given, and {self._path} does not name it; give --{name}")
