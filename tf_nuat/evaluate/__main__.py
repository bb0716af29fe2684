"""Attacks an image classifier and reports how many images withstand all attacks.

    python -m tf_nuat.evaluate --checkpoint runs/mnist/network.keras
    python -m tf_nuat.evaluate --checkpoint any.keras --dataset mnist --epsilon 0.3 --attack autoattack
    python -m tf_nuat.evaluate --checkpoint any.h5 --pixels 0..255 --dataset images.npz --epsilon 0.03

Any classifier that Keras saved will do; `--pixels` says what it takes. One that is no better than always answering the
commonest class is fed wrongly or has learned nothing: it is refused, with a hint at what would help. The command prints
a table, and writes `results.json` and `record.npz` (for each image: which attack fooled it, how far away) into the
output folder. The same command continues an evaluation that was interrupted.
"""

import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import flags

from tf_nuat import attacks, command_line, parallel
from tf_nuat.attacks.autoattack import VERSIONS
from tf_nuat.core import validation
from tf_nuat.evaluate import inputs, networks, sampling, wiring
from tf_nuat.evaluate.record import RESULTS, Record
from tf_nuat.evaluate.worst import stages, worst_case
from tf_nuat.models import precision
from tf_nuat.parallel import tf_config, workers

Chosen = tuple[str, dict[str, Any]]  # name and settings of an attack
_TAKERS = [name for name, kind in attacks.ATTACKS.items() if "surrogate" in kind.needs]
# Flags that have to be the same on all workers. Paths of files may differ: their contents are compared later.
_ALIKE = ("split", "samples", "seed", "epsilon", "norm", "attack", "options", "pixels", "output", "precision")


def flag_values() -> flags.FlagValues:
    """Returns the flags of this command, not yet parsed."""
    values = flags.FlagValues()

    def flag(define: Callable[..., Any], name: str, default: Any, help_text: str) -> None:
        define(name, default, help_text, flag_values=values)

    flag(flags.DEFINE_string, "checkpoint", None, f"the network to attack: {networks.FILE}; required")
    networks.define(values)
    inputs.define(values, samples="Default: all")
    flag(flags.DEFINE_string, "split", "test", "train, validation or test")
    flag(
        flags.DEFINE_list,
        "attack",
        ["autoattack"],
        f"one or several, with commas between, each on what withstood those before it: {', '.join(attacks.ATTACKS)}",
    )
    flag(
        flags.DEFINE_list,
        "options",
        [],
        "keywords of the attacks, name=value with commas between: steps=100,restarts=5 for every attack that takes "
        f"them; version={'|'.join(VERSIONS)} for autoattack",
    )
    flag(
        flags.DEFINE_string,
        "surrogate",
        None,
        f"the network whose adversaries transfer brings, of pixels in [0, 1]: {networks.FILE}",
    )
    flag(flags.DEFINE_bool, "anyway", False, "attack a network that is no better than the commonest class, too")
    flag(flags.DEFINE_integer, "batch_size", 250, "images that are attacked at a time, all devices together")
    flag(flags.DEFINE_string, "precision", "auto", f"of the attacks' gradients: {', '.join(precision.PRECISIONS)}")
    flag(flags.DEFINE_string, "strategy", "auto", f"devices: {', '.join(parallel.STRATEGIES)}")
    flag(flags.DEFINE_float, "wait", tf_config.WAIT, tf_config.WAIT_HELP)
    flag(flags.DEFINE_float, "save_every", 10.0, "seconds of work that a kill may cost")
    flag(flags.DEFINE_string, "out", None, "folder for the results. Default: evaluation, beside the checkpoint")
    return values


def command(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments` (without the program's name) and returns its exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    command_line.require(values, checkpoint="a network saved by Keras (--checkpoint FILE.keras)")
    strategy = parallel.strategy(values.strategy, wait=values.wait)  # several workers have to begin with it
    with workers.together(strategy):
        workers.agree({name: getattr(values, name) for name in _ALIKE}, strategy)
        return _evaluate(values, strategy)


def _evaluate(values: Any, strategy: tf.distribute.Strategy) -> int:
    path, is_chief = pathlib.Path(values.checkpoint), workers.is_chief(strategy)
    say = print if is_chief else lambda line: None
    with strategy.scope():
        network, changes = networks.read("--checkpoint", path, values, say=say)  # before anything that takes longer
    inputs.check_sample(values)
    validation.whole_number("batch_size", values.batch_size, at_least=1)
    validation.one_of("precision", values.precision, precision.PRECISIONS)
    asked = inputs.asked(values, [(path, network)], zero=True, say=say)
    chosen = with_options(values.attack, dict(map(command_line.option, values.options)))
    surrogate = _surrogate(chosen, values)
    run = [(name, {**given, "surrogate": surrogate} if name in _TAKERS else given) for name, given in chosen]
    stages(run, num_classes=network.output_shape[-1], norm=asked.norm)
    options = {name: getattr(values, name) for name in ("split", "samples", "seed", "data_dir")}
    options["class_names"] = asked.class_names
    images, labels, class_names = sampling.sample(network, asked.cards[0], asked.dataset, **options)
    sampling.fits(f"--checkpoint {path}", network, images, class_names, asked.dataset)
    sample = (images, labels, class_names)
    found = {f"--checkpoint {path}": wiring.look(network, *sample, pixels=values.pixels)}
    if surrogate is not None:
        argument = f"--surrogate {values.surrogate}"
        sampling.fits(argument, surrogate, images, class_names, asked.dataset)
        found[argument] = wiring.look(surrogate, *sample)
    if not _say_what_is_fed_wrongly(found, values.anyway, is_chief):
        return command_line.BAD_INPUT
    out = path.parent / "evaluation" if values.out is None else values.out
    record = worst_case(
        network,
        (images, labels),
        run,
        epsilon=asked.epsilon,
        norm=asked.norm,
        seed=values.seed,
        batch_size=values.batch_size,
        precision=values.precision,
        strategy=strategy,
        folder=out,
        save_every=values.save_every,
        progress=sys.stderr.isatty() and is_chief,  # in a log file, moving bars are noise
        about={
            "attacks": chosen,
            "dataset": asked.dataset,
            "split": values.split,
            "seed": values.seed,
            "adapted": changes,
        },
        made_of=networks.made_of(path, values),
    )
    if not is_chief:
        return 0
    robust = f"Robust accuracy {record.robust.mean():.2%} of {len(labels)} images"
    print(f"{table(record)}\n\n{robust} ({asked.norm}, epsilon {asked.epsilon:g})")
    written = [pathlib.Path(out, name) for name in (RESULTS, "record.npz")]
    print("  ".join(map(str, written)))
    return 0 if all(path.exists() for path in written) else 1


def _say_what_is_fed_wrongly(found: Mapping[str, wiring.Wiring], anyway: bool, is_chief: bool) -> bool:
    """Prints which networks, named by their arguments, are fed wrongly; returns whether the evaluation may go on."""
    wrong = {argument: each for argument, each in found.items() if not each.is_right}
    if is_chief:
        for argument, each in wrong.items():
            remedy = wiring.OF_SURROGATE if each.hints and argument.startswith("--surrogate") else ""
            remedy += "" if anyway else "; --anyway goes on all the same"
            print(f"{'warning' if anyway else 'error'}: {argument}: {each.sentence}{remedy}", file=sys.stderr)
    return anyway or not wrong


def _surrogate(chosen: Sequence[Chosen], values: Any) -> keras.Model | None:
    """Returns the surrogate that the flags name; None where no attack needs one.

    Raises:
        ValueError: a surrogate is missing, is given although no attack needs one, or cannot be read.
    """
    if any(name in _TAKERS for name, _ in chosen) != (values.surrogate is not None):
        raise ValueError(
            f"surrogate and the attack {', '.join(_TAKERS)} belong together; "
            "allowed: both (--surrogate FILE.keras), or none"
        )
    if values.surrogate is None:
        return None
    return networks.read_other("--surrogate", values.surrogate, values).network


def with_options(names: Sequence[str], options: Mapping[str, Any]) -> list[Chosen]:
    """Returns pairs (name, settings) of attacks, each with the options that it takes.

    Raises:
        ValueError: no attack takes one of the options.
    """
    taken = {
        name: set(attacks.ATTACKS[name].keywords)
        for name in names
        if validation.one_of("attack", name, attacks.ATTACKS)
    }
    for option in options:
        if option in ("epsilon", "norm", "seed"):
            raise ValueError(f"options has {option}; allowed: --{option}")
        validation.one_of(
            "name in options", option, set().union(*taken.values()) - {"epsilon", "norm", "seed", "surrogate"}
        )
    return [(name, {key: value for key, value in options.items() if key in taken[name]}) for name in names]


def table(record: Record) -> str:
    """Returns the accuracy after each attack as lines of text."""
    rows = [("attack", "images", "fooled", "accuracy left", "95% interval", "seconds", "images/s")]
    for row in record.rows():
        is_clean = row["name"] == "clean"
        low, high = row["interval"]
        rate = row["attacked"] / row["seconds"] if row["seconds"] else 0.0
        rows.append(
            (
                "none" if is_clean else row["name"],
                str(len(record.fooled_by) if is_clean else row["attacked"]),
                str(int((~record.clean).sum()) if is_clean else row["fooled"]),
                f"{row['accuracy']:.2%}",
                f"{low:.1%} to {high:.1%}",
                "" if is_clean else f"{row['seconds']:.0f}",
                "" if is_clean else f"{rate:.1f}",
            )
        )
    return command_line.columns(rows)


if __name__ == "__main__":
    command_line.main(command)
