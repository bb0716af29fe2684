"""Attacks an image classifier and reports how many images withstand the worst that was found for each.

    python -m tf_nuat.evaluate --checkpoint runs/mnist/network.keras
    python -m tf_nuat.evaluate --checkpoint any.keras --dataset mnist --epsilon 0.3 --attack autoattack
    python -m tf_nuat.evaluate --checkpoint any.keras --dataset images.npz --epsilon 0.03 --attack pgd,square

Any network that Keras saved will do, as long as it takes images in [0, 1] and returns logits. Prints a table, and
writes `results.json` and `record.npz` (for each image: which attack fooled it, how far away) into the output folder.
The same command goes on with an evaluation that was interrupted.
"""

import pathlib
import sys

from absl import flags

from tf_nuat import attacks, checkpoint, command_line, data, norms, parallel
from tf_nuat.attacks.autoattack import VERSIONS
from tf_nuat.core import validation
from tf_nuat.evaluate.worst import stages, worst_case
from tf_nuat.models import precision
from tf_nuat.parallel import workers


def flag_values():
    """Returns the flags of this command, not yet parsed."""
    values = flags.FlagValues()

    def flag(define, name, default, help_text):
        define(name, default, help_text, flag_values=values)

    card = "Default: that of card.json beside the checkpoint"
    flag(flags.DEFINE_string, "checkpoint", None, "the network to attack, a .keras file; required")
    flag(
        flags.DEFINE_string,
        "dataset",
        None,
        f"images to attack: {', '.join(data.DATASETS)}, a folder of class folders, a folder that TensorFlow Datasets "
        f"prepared, an .npz file, or module:function. {card}",
    )
    flag(flags.DEFINE_string, "data_dir", None, "where the datasets are (default: TFDS_DATA_DIR, else that of TFDS)")
    flag(flags.DEFINE_string, "split", "test", "train, validation or test")
    flag(flags.DEFINE_integer, "samples", None, "number of images, each class in proportion (default: all)")
    flag(flags.DEFINE_float, "epsilon", None, f"radius of the threat model, at least 0. {card}")
    flag(flags.DEFINE_string, "norm", None, f"norm of the threat model: {', '.join(norms.NORMS)}. {card}, else linf")
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
    flag(flags.DEFINE_string, "surrogate", None, "the network, a .keras file, whose adversaries transfer brings")
    flag(flags.DEFINE_integer, "batch_size", 250, "images that are attacked at a time, all devices together")
    flag(flags.DEFINE_string, "precision", "auto", f"of the attacks' gradients: {', '.join(precision.PRECISIONS)}")
    flag(flags.DEFINE_string, "strategy", "auto", f"devices: {', '.join(parallel.STRATEGIES)}")
    flag(flags.DEFINE_integer, "seed", 0, "the sample and all random draws follow from it")
    flag(flags.DEFINE_float, "save_every", 10.0, "seconds of work that a kill may cost")
    flag(flags.DEFINE_string, "out", None, "folder for the results. Default: evaluation, beside the checkpoint")
    return values


def command(arguments):
    """Runs the command with `arguments` (without the program's name) and returns its exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    command_line.require(values, checkpoint="a network saved by Keras (--checkpoint FILE.keras)")
    strategy = parallel.strategy(values.strategy)  # several workers have to begin with it
    with workers.together(strategy):
        return _evaluate(values, strategy)


def _evaluate(values, strategy):
    path = pathlib.Path(values.checkpoint)
    validation.load_network("checkpoint", path)  # before anything that takes longer
    card = checkpoint.Card(path)
    dataset, dataset_from = card.default("dataset", values.dataset)
    epsilon, epsilon_from = card.default("epsilon", values.epsilon)
    norm, norm_from = card.default("norm", values.norm, otherwise="linf")
    validation.number(epsilon_from, epsilon, at_least=0.0)
    validation.one_of(norm_from, norm, norms.NORMS)
    for name in ("samples", "batch_size"):
        if getattr(values, name) is not None:
            validation.whole_number(name, getattr(values, name), at_least=1)
    validation.whole_number("seed", values.seed, at_least=0)
    validation.one_of("precision", values.precision, precision.PRECISIONS)
    asked = chosen = with_options(values.attack, dict(map(command_line.option, values.options)))
    with strategy.scope():
        network = validation.classifier(f"checkpoint {path}", validation.load_network("checkpoint", path))
    if ("transfer" in values.attack) != (values.surrogate is not None):
        raise ValueError(
            "surrogate and the attack transfer belong together; allowed: both (--surrogate FILE.keras), or none"
        )
    if values.surrogate is not None:
        surrogate = validation.classifier("surrogate", validation.load_network("surrogate", values.surrogate))
        chosen = [(name, {**given, "surrogate": surrogate} if name == "transfer" else given) for name, given in chosen]
    num_classes = network.output_shape[-1]
    stages(chosen, num_classes=num_classes, norm=norm)
    images, labels, class_names = checkpoint.sample(
        network,
        card,
        data.check_name(dataset_from, dataset),
        split=values.split,
        samples=values.samples,
        seed=values.seed,
        data_dir=values.data_dir,
    )
    checkpoint.fits(f"checkpoint {path}", network, images, len(class_names), f"dataset {dataset}")
    out = path.parent / "evaluation" if values.out is None else pathlib.Path(values.out)
    record = worst_case(
        network,
        (images, labels),
        chosen,
        epsilon=epsilon,
        norm=norm,
        seed=values.seed,
        batch_size=values.batch_size,
        precision=values.precision,
        strategy=strategy,
        folder=out,
        save_every=values.save_every,
        # In a log file, moving bars are noise.
        progress=sys.stderr.isatty() and workers.is_chief(strategy),
        about={"attacks": asked, "dataset": dataset, "split": values.split, "seed": values.seed},
    )
    if not workers.is_chief(strategy):
        return 0
    print(table(record))
    print(f"\nRobust accuracy {record.robust.mean():.2%} of {len(labels)} images ({norm}, epsilon {epsilon:g})")
    written = [out / name for name in ("results.json", "record.npz")]
    print("  ".join(map(str, written)))
    return 0 if all(path.exists() for path in written) else 1


def with_options(names, options):
    """Returns pairs (name, settings) of attacks, each with those of the options that it takes.

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


def table(record):
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
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


if __name__ == "__main__":
    command_line.main(command)
