"""From the flags of the command line to a subject, with everything checked before any work."""

import dataclasses
import pathlib

from sanity import measure
from sanity.clock import Clock
from sanity.judgement import check_size, checked_names, in_order
from sanity.settings import BUDGETS, Settings
from sanity.subject import Subject
from tf_nuat.core import validation
from tf_nuat.evaluate import inputs, networks, wiring

NEEDS_SURROGATE = "white_box_beats_black_box"  # the check
AROUND = 25.0  # seconds that a command takes before and after the checks: to begin, and to write the report


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
    surrogates = [networks.read_other("--surrogate", name, flags).network for name in flags.surrogate]
    options = {"seed": flags.seed, "data_dir": flags.data_dir, "class_names": asked.class_names}
    by_default = flags.samples is None
    samples = max(budget.samples, network.output_shape[-1]) if by_default else flags.samples
    wanted = {"samples": samples, "at_most": by_default}
    images, labels, class_names = inputs.sample(network, asked.cards[0], asked.dataset, **wanted, **options)
    images, labels = in_order(images, labels, flags.seed)
    named = {f"--surrogate {name}": each for name, each in zip(flags.surrogate, surrogates)}
    for argument, each in {f"--checkpoint {path}": network, **named}.items():
        inputs.fits(argument, each, images, class_names, asked.dataset)
    sample = (images, labels, class_names)
    wiring.check(f"--checkpoint {path}", network, *sample, pixels=flags.pixels)
    for argument, each in named.items():
        wiring.check(argument, each, *sample, remedy=wiring.OF_SURROGATE)
    training_data = None
    if not surrogates and NEEDS_SURROGATE in checks:  # without training images, it says that it was skipped
        most = measure.surrogate.MOST_IMAGES
        training_data = inputs.training_sample(network, asked.cards[0], asked.dataset, samples=most, **options)
    check_size("--dataset gives" if by_default else "--samples leaves", len(labels), network.output_shape[-1])
    out = path.parent / "sanity" if flags.out is None else pathlib.Path(flags.out)
    subject = Subject(
        network,
        images,
        labels,
        epsilon=asked.epsilon,
        norm=asked.norm,
        surrogates=surrogates,
        training_data=training_data,
        seed=flags.seed,
        progress=progress,
        clock=clock,
        kept_in=out / "evaluations.npz",
        made_of=networks.made_of(path, flags),
        resume=flags.resume,
    )
    out = validation.output_folder("--out", out)
    return Inputs(subject, checks, budget.settings, out, _provenance(flags, command, path, asked, changes, class_names))


def _seconds(minutes):
    """Returns how long the checks may take of the minutes of a command."""
    return 60.0 * minutes - min(AROUND, 60.0 * minutes / 7.0)


def _provenance(flags, command, path, asked, changes, class_names):
    """Returns where the network at `path` and the sample come from, a dict of facts."""
    return {
        "command": command,
        "checkpoint": str(path),
        "checkpoint_sha256": networks.sha256(path),
        "adapted": changes,
        "surrogates": list(flags.surrogate),
        "dataset": asked.dataset,
        "split": "test",
        "class_names": list(class_names),
        "card": asked.cards[0].facts if asked.cards[0] is not None else {},
    }
