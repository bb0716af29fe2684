"""Turns command-line flags into a subject, and checks everything before any work starts."""

import dataclasses
import pathlib

from absl import logging

from sanity import measure, report
from sanity.clock import Clock
from sanity.judgement import check_size, checked_names, in_order
from sanity.settings import BUDGETS, Settings
from sanity.subject import Subject
from tf_nuat.core import json_input, validation
from tf_nuat.evaluate import inputs, networks, sampling, wiring

NEEDS_SURROGATE = "white_box_beats_black_box"  # the check
AROUND = 25.0  # seconds that a command needs to start and to write the report


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a judgement needs: subject, names of the checks, settings, the folder for the results, and provenance."""

    subject: Subject
    checks: tuple
    settings: Settings
    out: pathlib.Path
    provenance: dict


def collect(flags, command, *, progress=False):
    """Returns the `Inputs` that `flags` (see `sanity.run`) describe.

    `command` becomes part of the provenance; `progress` says whether the subject shows its progress. The output folder
    is made last, after everything else has been checked.

    Raises:
        ValueError: a flag is wrong, or does not fit the others; the message names it.
    """
    if not flags.checkpoint:
        raise ValueError(f"--checkpoint is not given; allowed: {networks.FILE}")
    checks = checked_names(flags.checks, "--checks")
    budget = validation.one_of("--budget", flags.budget, BUDGETS)
    minutes = (budget.minutes, budget.slow_minutes)
    inputs.check_sample(flags)
    if flags.minutes is not None:
        minutes = (validation.number("--minutes", flags.minutes, above=0.0),) * 2
    clock = Clock(*map(_seconds, minutes))
    path = pathlib.Path(flags.checkpoint)
    network, changes = networks.read("--checkpoint", path, flags)
    asked = inputs.asked(flags, [(path, network)])
    surrogates = {name: networks.read_other("--surrogate", name, flags).network for name in flags.surrogate}
    options = {"seed": flags.seed, "data_dir": flags.data_dir, "class_names": asked.class_names}
    by_default = flags.samples is None
    samples = max(budget.samples, network.output_shape[-1]) if by_default else flags.samples
    wanted = {"samples": samples, "at_most": by_default}
    images, labels, class_names = sampling.sample(network, asked.cards[0], asked.dataset, **wanted, **options)
    images, labels = in_order(images, labels, flags.seed)
    named = {f"--surrogate {name}": each for name, each in surrogates.items()}
    for argument, each in {f"--checkpoint {path}": network, **named}.items():
        sampling.fits(argument, each, images, class_names, asked.dataset)
    sample = (images, labels, class_names)
    wiring.check(f"--checkpoint {path}", network, *sample, pixels=flags.pixels)
    surrogates = _useful(surrogates, sample)
    training_data = None
    if not surrogates and NEEDS_SURROGATE in checks:  # without training images, that check is skipped
        most = measure.surrogate.MOST_IMAGES
        training_data = sampling.training_sample(network, asked.cards[0], asked.dataset, samples=most, **options)
    check_size("--dataset gives" if by_default else "--samples leaves", len(labels), network.output_shape[-1])
    out = path.parent / "sanity" if flags.out is None else flags.out
    subject = Subject(
        network,
        images,
        labels,
        epsilon=asked.epsilon,
        norm=asked.norm,
        surrogates=list(surrogates.values()),
        training_data=training_data,
        seed=flags.seed,
        progress=progress,
        clock=clock,
        kept_in=pathlib.Path(out, "evaluations.npz"),
        made_of=networks.made_of(path, flags),
        resume=flags.resume,
    )
    out = validation.output_folder("--out", out)
    json_input.refuse_another("--out", out / report.RESULTS, "verdict")
    provenance = _provenance(surrogates, command, path, asked, changes, class_names)
    return Inputs(subject, checks, budget.settings, out, provenance)


def _useful(surrogates, sample):
    """Returns the surrogates that have learned something, a dict of path to network; a warning names the others.

    Raises:
        ValueError: one is fed wrongly.
    """
    useful = {}
    for name, network in surrogates.items():
        found = wiring.look(network, *sample)
        if found.hints:
            raise ValueError(f"--surrogate {name}: {found.sentence}{wiring.OF_SURROGATE}")
        if found.is_right:
            useful[name] = network
        else:
            logging.warning("--surrogate %s is left out: %s", name, found.sentence)
    return useful


def _seconds(minutes):
    """Returns the seconds that a command of so many minutes leaves for the checks."""
    return 60.0 * minutes - min(AROUND, 60.0 * minutes / 7.0)


def _provenance(surrogates, command, path, asked, changes, class_names):
    """Returns a dict of facts about the origin of the network at `path` and of the sample."""
    return {
        "command": command,
        "checkpoint": str(path),
        "checkpoint_sha256": networks.sha256(path),
        "adapted": changes,
        "surrogates": list(surrogates),
        "dataset": asked.dataset,
        "split": "test",
        "class_names": list(class_names),
        "card": asked.cards[0].facts if asked.cards[0] is not None else {},
    }
