"""Estimates the critical epsilon, up to which adversarial training fits the data as well as ordinary training does.

    python -m recipes.phase_transition --dataset mnist --network two_conv --width 16 --out runs/critical_16
    python -m recipes.phase_transition --dataset cifar10 --ways fast --attack pgd --runs 3 --out runs/critical
    python -m recipes.phase_transition --dataset mnist --ways single_step --single_step 0.05,0.1,0.2 --out runs/single
    python -m recipes.phase_transition --simulation --out runs/simulation

At the critical epsilon of Xing et al. (2022), the loss of adversarial training, on its images, reaches the loss of
ordinary training on clean test images. `--ways exact` trains from scratch at each epsilon of `--exact` and
interpolates. `--ways fast` fine-tunes the ordinarily trained network at each of the small epsilons of `--fast`, and
extrapolates a line. `--ways single_step` finds the smallest of `--single_step` at which training on FGSM images
overfits catastrophically. Write these lists as 0.1,0.2 or 8/255,16/255. Each training has a folder of its own in
`--out`. After a kill, or with further epsilons, the same command continues, and repeats nothing. Other `--ways` in the
same folder add to its results.

Writes results.json and critical_epsilon.png. Prints the estimates, their cost, and advice about `--epsilon`, the radius
that you want to train with. The intervals show how repeats differ (`--runs` of fine-tuning, `--repeats` from scratch),
not how far the line is from training from scratch. `--simulation` computes the paper's linear regression, without
images: theta_paths.png, p_values.png.

The paper finds 26/255 and 48/255 on MNIST for 16 and 128 hidden units, and its fast way saves four fifths of the time.
For PreAct-ResNet-18 it finds 0.5/255 on CIFAR-10 (3.3/255 with 10,000 images), 1/255 on CIFAR-100 and 4.9/255 on SVHN.
That takes weeks on a processor; for a first look, add `--width 8 --epochs 5 --images_per_class 200`.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
from absl import flags, logging

from recipes import command, small_images
from recipes.pages import phase_transition_plots, phase_transition_report, phase_transition_results
from sanity.report import figures
from tf_nuat import command_line, critical_epsilon
from tf_nuat.core import files, validation
from tf_nuat.critical_epsilon import estimates, theory
from tf_nuat.training import Recipe, ScheduleSpec

# The cheapest way runs first. So its results are kept if the exact grid does not bracket the critical epsilon.
WAYS: dict[str, Callable] = {
    "fast": critical_epsilon.fast,
    "exact": critical_epsilon.exact,
    "single_step": critical_epsilon.single_step,
}
UNUSED = ("sources", "test_images", "masking_alarm")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The recipes for a dataset, a dict of defense to `Recipe`, and the default epsilons, for L-infinity.

    `warm_up` is an argument of `critical_epsilon.exact`.
    """

    recipes: dict
    exact: tuple
    fast: tuple
    warm_up: int = 0


def _small(dataset, epsilon, epochs, batch_size, peak):
    """Returns the recipes of the two-convolution network; the paper does not give their schedule."""

    def recipe(defense):
        return Recipe(
            dataset=dataset,
            network="two_conv",
            defense=defense,
            epsilon=epsilon,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=ScheduleSpec("triangle", peak=peak, up=0.3 * epochs, down=0.7 * epochs),
            chosen_by="last",
            source="Xing et al. 2022, section 5; the schedule is our choice",
        )

    return {defense: recipe(defense) for defense in critical_epsilon.DEFENSES}


def _published(dataset, start):
    """Returns the recipes of Xing et al., with steps of epsilon / 4 at every epsilon, as 2/255 for 8/255."""
    recipes = small_images.phase_transition(dataset, {}, start=start)
    return {
        defense: dataclasses.replace(recipes[defense], defense_options={"steps": 10})
        for defense in critical_epsilon.DEFENSES
    }


def _of_255(*numbers):
    return tuple(number / 255 for number in numbers)


DATASETS = {
    "digits": Settings(_small("digits", 0.2, 30, 32, 0.05), _of_255(4, 8, 16, 32), _of_255(2, 4, 6)),
    # From random weights, PGD-AT of two_conv keeps one answer for all images from 38/255 on (two epochs tried).
    "mnist": Settings(_small("mnist", 0.3, 20, 64, 0.02), _of_255(13, 26, 38, 51), _of_255(4, 8, 12), warm_up=4),
    "cifar10": Settings(_published("cifar10", 0.1), _of_255(0.25, 0.5, 1, 2), _of_255(0.1, 0.2, 0.3)),
    "cifar100": Settings(_published("cifar100", 0.1), _of_255(0.5, 1, 2, 4), _of_255(0.2, 0.4, 0.6)),
    "svhn": Settings(_published("svhn", 0.01), _of_255(2, 4, 6, 8), _of_255(0.5, 1, 1.5)),
}


def flag_values():
    """Returns the flags: those of every recipe, and those of the estimates."""
    values = command.with_shared_flags(flags.FlagValues())

    def flag(define, name, default, help_text):
        define(name, default, help_text, flag_values=values)

    flag(flags.DEFINE_string, "dataset", None, f"on what: {', '.join(DATASETS)}")
    flag(flags.DEFINE_string, "defense", "pgd_at", f"whose loss: {', '.join(critical_epsilon.DEFENSES)}")
    flag(flags.DEFINE_list, "ways", ["fast", "exact"], f"what to estimate, by commas: {', '.join(WAYS)}")
    flag(flags.DEFINE_list, "exact", None, "epsilons to train at from the start (default: those for the dataset)")
    flag(flags.DEFINE_list, "fast", None, "small epsilons to fine-tune at (default: those for the dataset)")
    flag(flags.DEFINE_list, "single_step", None, "epsilons for training on FGSM images")
    flag(flags.DEFINE_string, "attack", "fgm", f"of fine-tuning: {', '.join(critical_epsilon.ATTACKS)}")
    flag(flags.DEFINE_integer, "runs", 3, "fine-tunings at each epsilon (the paper: 1 or 3)")
    flag(flags.DEFINE_integer, "repeats", 1, "trainings from the start at each epsilon")
    flag(
        flags.DEFINE_integer,
        "warm_up",
        None,
        "ordinary epochs before all but fast (default: that of the dataset)",
    )
    flag(flags.DEFINE_integer, "tuning_epochs", None, "of fine-tuning (default: a fifth of the epochs)")
    flag(flags.DEFINE_float, "tuning_rate", 0.01, "highest learning rate of fine-tuning")
    flag(flags.DEFINE_string, "clean", None, "ordinarily trained network, a file that Keras saved (default: train it)")
    flag(
        flags.DEFINE_integer,
        "loss_images",
        critical_epsilon.LOSS_IMAGES,
        "training images that the loss is the mean of",
    )
    flag(flags.DEFINE_boolean, "simulation", False, "the linear regression of the paper, and nothing else")
    return values


def main(arguments):
    """Estimates what the flags ask for; returns the exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    command_line.require(values, out="a folder for the results (--out DIR)")
    out = pathlib.Path(values.out)
    if values.simulation:
        return simulate(validation.output_folder("out", out))
    recipe, ways = described(values)
    validation.output_folder("out", out)
    logging.set_verbosity(logging.INFO)
    kept_attack, found = phase_transition_results.load(out / "results.json", recipe)
    attack = values.attack if "fast" in ways or kept_attack is None else kept_attack
    options = command.run_options(values)
    for way, given in ways.items():
        found[way] = WAYS[way](recipe, out, **given, **options)
        typed = command_line.typed("recipes.phase_transition", arguments)
        _write(out, typed, recipe, attack, found)
    print("\n".join(phase_transition_report.report(recipe, attack, found)))
    print(f"\n{out}/results.json" + (f"  {out}/critical_epsilon.png" if {"fast", "exact"} & set(found) else ""))
    return 0


def described(values):
    """Returns the recipe that the flags describe, and a dict of each requested way to its arguments.

    Checks them all before the first way trains for hours.

    Raises:
        ValueError: a flag is missing or wrong, or there are epsilons for a way that is not requested.
    """
    settings = validation.one_of("dataset", values.dataset, DATASETS)
    for name in UNUSED:
        if getattr(values, name) is not None:
            raise ValueError(f"{name} is given; allowed: with recipes.{values.dataset}, not here")
    command.refuse_several_workers(values)
    written = validation.one_of("defense", values.defense, settings.recipes)
    recipe = command.with_flags(written, values)
    command_line.require(values, ways=f"by commas, of {', '.join(WAYS)} (--ways fast,exact)")
    for way in values.ways:
        validation.one_of("ways", way, WAYS)
    arguments, asked = _arguments(values, settings), {}
    for way in WAYS:
        given = getattr(values, way)
        if way not in values.ways:
            if given is not None:
                raise ValueError(f"{way} is given; allowed: with --ways {','.join([*values.ways, way])}")
            continue
        if given is not None:
            epsilons = tuple(_number(way, text) for text in given)
        elif way == "single_step" or recipe.norm != written.norm:  # of the default epsilons
            raise ValueError(
                f"{way} is not given; allowed: epsilons by commas (--{way} 2/255,4/255), norm {recipe.norm}"
            )
        else:
            epsilons = getattr(settings, way)
        asked[way] = {"epsilons": epsilons, **arguments[way]}
        try:
            estimates.check(way, recipe, **asked[way])
        except ValueError as error:  # arguments of several ways have the same name
            raise ValueError(f"{way}: {error}") from error
    return recipe, asked


def _arguments(values, settings):
    """Returns a dict of each way to its arguments from the flags, without the epsilons."""
    images = {"clean": values.clean, "loss_images": values.loss_images}
    warm_up = {"warm_up": settings.warm_up if values.warm_up is None else values.warm_up}
    tuning = {"attack": values.attack, "epochs": values.tuning_epochs, "learning_rate": values.tuning_rate}
    return {
        "fast": {"runs": values.runs, **tuning, **images},
        "exact": {"runs": values.repeats, **warm_up, **images},
        "single_step": warm_up,
    }


def simulate(out):
    """Computes the paper's linear regression and writes its figures and numbers; returns the exit status."""
    n, dimensions = 100, (2, 5, 10)  # of the paper's figures 2 and 3
    ratios, logs = (0.1, 1.0, 10.0), np.linspace(-4.0, 2.0, 13)
    differences = {d: theory.relative_differences(n, d, ratios) for d in dimensions}
    p_values = {d: theory.mean_p_values(n, d, np.exp(logs).tolist()) for d in dimensions}
    figures.save(phase_transition_plots.paths(n, ratios, differences), out / "theta_paths.png")
    figures.save(phase_transition_plots.p_values(n, logs, p_values), out / "p_values.png")
    content = {
        "n": n,
        "ratios": ratios,
        "log_ratios": logs.tolist(),
        "relative_differences": {str(d): found.tolist() for d, found in differences.items()},
        "p_values_of_theta": {str(d): found[0].tolist() for d, found in p_values.items()},
        "p_values_of_loss": {str(d): found[1].tolist() for d, found in p_values.items()},
    }
    files.save_json(content, out / "simulation.json", indent=None)
    print(f"{out}/theta_paths.png  {out}/p_values.png  {out}/simulation.json")
    return 0


def _number(argument, text):
    numerator, _, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{argument} has {text!r}; allowed: numbers as 0.1 or 8/255") from None


def _write(out, written, recipe, attack, found):
    content = {
        "command": written,
        "recipe": recipe.to_json(),
        "attack": attack,
        **{way: dataclasses.asdict(found[way]) for way in WAYS if way in found},
        "report": phase_transition_report.report(recipe, attack, found),
    }
    files.save_json(content, out / "results.json")
    estimates = [found[way] for way in ("exact", "fast") if way in found]
    if estimates:
        figure = phase_transition_plots.estimates(estimates, recipe)
        figures.save(figure, out / "critical_epsilon.png")
    else:
        (out / "critical_epsilon.png").unlink(missing_ok=True)  # of another recipe


if __name__ == "__main__":
    command_line.main(main)
