"""From the flags of the command line to a subject, with everything checked before any work."""

import dataclasses
import hashlib
import pathlib

from sanity import measure
from sanity.judgement import checked_names
from sanity.settings import BUDGETS, Settings
from sanity.subject import Subject
from tf_nuat import checkpoint, data, norms
from tf_nuat.core import validation


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a judgement needs: subject, names of the checks, settings, the folder for the results, and provenance."""

    subject: Subject
    checks: tuple
    settings: Settings
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
    settings, samples = validation.one_of("--budget", flags.budget, BUDGETS)
    samples = samples if flags.samples is None else validation.whole_number("--samples", flags.samples, at_least=1)
    validation.whole_number("--seed", flags.seed, at_least=0)
    path = pathlib.Path(flags.checkpoint)
    network = _network("--checkpoint", path)
    card = checkpoint.Card(path)
    dataset, dataset_from = card.default("dataset", flags.dataset)
    data.check_name(dataset_from, dataset)
    epsilon, epsilon_from = card.default("epsilon", flags.epsilon)
    norm, norm_from = card.default("norm", flags.norm, otherwise="linf")
    validation.one_of(norm_from, norm, norms.NORMS)
    validation.number(epsilon_from, epsilon, above=0.0, at_most=1.0 if norm == "linf" else None)
    surrogates = [_network("--surrogate", name) for name in flags.surrogate]

    options = {"seed": flags.seed, "data_dir": flags.data_dir}
    images, labels, class_names = checkpoint.sample(network, card, dataset, samples=samples, **options)
    for argument, each in [
        (f"--checkpoint {path}", network),
        *((f"--surrogate {name}", each) for name, each in zip(flags.surrogate, surrogates)),
    ]:
        checkpoint.fits(argument, each, images, len(class_names), f"--dataset {dataset}")
    training_data = None
    if not surrogates:
        options.update(split="train", samples=measure.surrogate.MOST_IMAGES)
        try:
            training_data = checkpoint.sample(network, card, dataset, **options)[:2]
        except ValueError:  # a file of test images alone: checks that need a surrogate say that they were skipped
            training_data = None
    out = path.parent / "sanity" if flags.out is None else pathlib.Path(flags.out)
    options = {
        "epsilon": epsilon,
        "norm": norm,
        "surrogates": surrogates,
        "training_data": training_data,
        "seed": flags.seed,
    }
    Subject(network, images, labels, **options)  # what is wrong with the network comes before the folder is made
    kept_in = validation.output_folder("--out", out) / "evaluations.npz"
    subject = Subject(network, images, labels, progress=progress, kept_in=kept_in, resume=flags.resume, **options)
    provenance = {
        "command": command,
        "checkpoint": str(path),
        "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "surrogates": list(flags.surrogate),
        "dataset": dataset,
        "split": "test",
        "class_names": list(class_names),
        "card": card.facts,
    }
    return Inputs(subject, checks, settings, out, provenance)


def _network(argument, path):
    return validation.classifier(f"{argument} {path}", validation.load_network(argument, path))
