"""Measures finished MNIST runs under every attack of tables 3 and 6 of Vivek and Babu (2020), beside their figures.

    python -m recipes.mnist --defense standard --network ensemble_c --epochs 5 --out runs/mnist_source_c
    python -m recipes.mnist --defense standard --network ensemble_d --epochs 5 --out runs/mnist_source_d
    python -m recipes.sat_tables --runs runs/mnist_sat_r1,runs/mnist_sat_r2,runs/mnist_sat_r3 \\
        --source_c runs/mnist_source_c/network.keras --source_d runs/mnist_source_d/network.keras --out runs/sat_tables

The first two commands train the black-box attacker's networks C and D, without a defense. Each run keeps its results in
its folder, in sat_tables.json. A killed command continues from them. `--out` gets sat_tables.md.

The steps are the paper's: 100 for every multi-step attack, of 0.01 for PGD and PGD-CW. Here, these two stop at the
first step that fools the network. They begin anywhere in the ball; the paper's begin within one step. An image that is
wrong without an attack counts as wrong under all. The paper does not give the momentum of MI-FGSM, nor the steps of
DeepFool and C&W: they are 1, 50, and 9 times 1,000, the defaults of the attacks here.
"""

import functools
import pathlib
import time

import numpy as np
from absl import flags

from recipes import table
from tf_nuat import attacks, card, command_line, evaluate
from tf_nuat.attacks.pool import Pool
from tf_nuat.core import files, json_input, validation
from tf_nuat.core.json_input import Field
from tf_nuat.evaluate import inputs, sampling
from tf_nuat.models.fingerprint import fingerprint

RESULTS = "sat_tables.json"

# Attacks within epsilon, as in a recipe; "source" is the network that the adversaries are computed on.
WITHIN: dict[str, dict] = {
    "fgsm": {"attack": "fgsm"},
    "ifgsm_100": {"attack": "ifgsm", "steps": 100},
    "pgd_100": {"attack": "pgd", "steps": 100, "step_size": 0.01},
    "pgd_cw_100": {"attack": "pgd_cw", "steps": 100, "step_size": 0.01},
    "c_fgsm": {"attack": "transfer", "source": "c", "steps": 1},
    "c_mifgsm_100": {"attack": "transfer", "source": "c", "steps": 100},
    "d_fgsm": {"attack": "transfer", "source": "d", "steps": 1},
    "d_mifgsm_100": {"attack": "transfer", "source": "d", "steps": 100},
}
# Attacks that look for the nearest adversary in L2, at any distance.
NEAREST = ("deepfool", "cw")

# The paper's accuracies in percent: clean, then the attacks of `WITHIN`; tables 3 and 9, EAT with its ensemble A.
THEIRS = {
    "standard": (99.24, 11.50, 0.24, 0.00, 0.00, 22.28, 9.57, 51.31, 44.65),
    "fgsm_at": (99.29, 85.86, 17.02, 3.95, 5.32, 91.81, 88.20, 90.12, 88.92),
    "eat": (99.37, 79.63, 5.39, 0.34, 0.41, 89.33, 83.44, 92.14, 90.78),
    "pgd_at": (98.41, 95.56, 92.53, 91.18, 91.34, 95.74, 95.52, 95.68, 95.51),
    "trades": (98.70, 96.25, 94.96, 93.60, 93.69, 96.43, 95.93, 96.32, 96.05),
    "sat_r1": (98.15, 93.42, 91.45, 88.76, 88.63, 93.99, 93.81, 94.04, 94.23),
    "sat_r2": (98.23, 94.36, 92.17, 90.03, 89.73, 94.64, 94.50, 94.72, 94.91),
    "sat_r3": (98.79, 94.44, 88.01, 82.88, 83.50, 94.52, 94.48, 95.03, 95.11),
    "sat_r1+sat_r3": (98.80, 94.42, None, 87.52, None, None, None, None, None),
    "sat_r3+sat_r2": (98.10, 93.83, None, 87.44, None, None, None, None, None),
}
# Table 6: percentage of images that DeepFool fools, mean L2 norm of their perturbations, and the same for C&W.
THEIRS_NEAREST = {
    "standard": (99, 1.83, 100, 1.68),
    "fgsm_at": (99, 2.81, 100, 1.96),
    "eat": (99, 2.69, 100, 1.88),
    "pgd_at": (86, 4.62, 100, 3.69),
    "sat_r1": (89, 4.51, 100, 3.34),
    "sat_r2": (89, 5.28, 94, 3.55),
    "sat_r3": (95, 3.01, 100, 2.13),
}


def flag_values():
    """Returns the flags of this command, not yet parsed."""
    values = flags.FlagValues()

    def flag(define, name, default, help_text):
        define(name, default, help_text, flag_values=values)

    flag(flags.DEFINE_list, "runs", [], "folders of finished runs, with commas between; required")
    flag(flags.DEFINE_string, "source_c", None, "network C, a .keras file; for runs that are not measured yet")
    flag(flags.DEFINE_string, "source_d", None, "network D, a .keras file; for runs that are not measured yet")
    flag(flags.DEFINE_integer, "samples", None, "number of test images, each class in proportion (default: all)")
    flag(flags.DEFINE_integer, "l2_samples", 1000, "the same for DeepFool and C&W, which take longest")
    flag(
        flags.DEFINE_string,
        "dataset",
        None,
        "whose test images all get; to be given where a card names a function, or a path elsewhere (default: that of "
        "each card)",
    )
    flag(flags.DEFINE_string, "data_dir", None, "where the datasets are (default: TFDS_DATA_DIR, else that of TFDS)")
    flag(flags.DEFINE_string, "out", None, "folder for the tables; required")
    return values


def main(arguments):
    """Measures what is missing and writes the tables; returns the exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    command_line.require(
        values, runs="folders of finished runs (--runs DIR,DIR)", out="a folder for the tables (--out DIR)"
    )
    for name in "samples", "l2_samples":
        if getattr(values, name) is not None:
            validation.whole_number(name, getattr(values, name), at_least=1)
    cards = {pathlib.Path(run): card.read(pathlib.Path(run) / card.NAME) for run in values.runs}
    known = {run: _known(run) for run in cards}
    open_runs = [run for run, found in known.items() if not set(found.get("measured", ())) >= {*WITHIN, *NEAREST}]
    if open_runs:
        sources = _sources(values, open_runs[0])
        datasets = {run: inputs.dataset_of_run(values.dataset, cards[run], run / card.NAME) for run in open_runs}
        for run in open_runs:
            validation.load_network("runs", run / "network.keras")  # before anything that takes longer
    out = validation.output_folder("out", values.out)
    for run in open_runs:
        known[run] = _measure(run, cards[run], datasets[run], sources, values, known[run])
    page = render([(cards[run], known[run]) for run in cards])
    files.save_text(page, out / "sat_tables.md")
    print(page)
    return 0


def _sources(values, run):
    sources = {}
    for name in "source_c", "source_d":
        path = getattr(values, name)
        if path is None:
            raise ValueError(f"{name} is not given; allowed: a .keras file, for {str(run)!r} is not measured yet")
        sources[name] = validation.classifier(name, validation.load_network(name, path))
    return sources


def _known(run):
    """Returns the earlier measurements of a run, {} if there are none."""
    path = run / RESULTS
    if not path.exists():
        return {}
    try:
        checks = {"of": json_input.named, "measured": json_input.dict_of(json_input.named)}
        return json_input.fields(checks, json_input.load("runs", path), Field("", path.name), required=checks)
    except ValueError as error:
        raise ValueError(f"runs has {str(path)!r}, which cannot be read ({error}); remove it") from error


def _measure(run, of_run, dataset, sources, values, known):
    """Measures the network in the folder `run`; saves the results after each attack, and returns them."""
    network = validation.classifier("runs", validation.load_network("runs", run / "network.keras"))
    options = {"split": "test", "seed": 0, "data_dir": values.data_dir}
    sample = functools.partial(sampling.sample, network, of_run, dataset, **options)
    images, labels, names = sample(samples=values.samples)
    for name, tested in {"runs": network, **sources}.items():
        sampling.fits(name, tested, images, names, dataset)
    l2_images, l2_labels, _ = sample(samples=values.l2_samples)
    of = {
        "network": fingerprint(network),
        **{name: fingerprint(source) for name, source in sources.items()},
        "images": files.digest(images),
        "l2_images": files.digest(l2_images),
    }
    if known and known["of"] != of:
        differing = ", ".join(name for name, value in of.items() if known["of"].get(name) != value)
        raise ValueError(f"runs has {str(run / RESULTS)!r}, of other {differing}; allowed: the same, or remove it")
    within = functools.partial(_accuracy, network, (images, labels), of_run.epsilon, sources)
    nearest = functools.partial(_nearest, network, l2_images, l2_labels)
    work = {"clean": functools.partial(within, None)}
    work |= {name: functools.partial(within, name) for name in WITHIN}
    work |= {name: functools.partial(nearest, getattr(attacks, name)) for name in NEAREST}
    measured = dict(known.get("measured", {}))
    for name, measure in work.items():
        if name not in measured:
            began = time.monotonic()
            measured[name] = {**measure(), "seconds": round(time.monotonic() - began, 1)}
            files.save_json({"of": of, "measured": measured}, run / RESULTS)
            print(f"{run}, {name}: {measured[name]}", flush=True)
    return {"of": of, "measured": measured}


def _accuracy(network, images_and_labels, epsilon, sources, name):
    attack = None
    if name is not None:
        settings = dict(WITHIN[name])
        function = attacks.ATTACKS[settings.pop("attack")]
        if "source" in settings:
            settings["surrogate"] = sources[f"source_{settings.pop('source')}"]
        attack = functools.partial(function, epsilon=epsilon, **settings)
    outcomes = evaluate.correct(network, images_and_labels, attack, progress=name or "clean")
    return evaluate.share(outcomes)


def _nearest(network, images, labels, attack):
    """Returns the share of images that are wrong or fooled, and the mean L2 norm of the perturbations."""
    right = evaluate.correct(network, (images, labels))
    length = np.full(len(images), np.nan)
    for rows, fooled, x_adv in Pool(attack, network, images, labels, np.flatnonzero(right), {}):
        change = x_adv[fooled] - images[rows[fooled]]
        length[rows[fooled]] = np.sqrt(np.square(change).sum(axis=(1, 2, 3)))
    found = length[~np.isnan(length)]
    half = 1.96 * float(np.std(found, ddof=1)) / len(found) ** 0.5 if len(found) > 1 else None
    mean = float(found.mean()) if len(found) else None
    return {**evaluate.share(~right | ~np.isnan(length), "fooled"), "mean_l2": mean, "mean_l2_half_interval": half}


def render(cards_and_results):
    """Returns the page, Markdown, of pairs (card, measurements of its network), in any order."""
    tables = [[], []]
    for run, results in sorted(cards_and_results, key=lambda pair: (pair[0].defense, pair[0].seed)):
        for rows, row in zip(tables, (_within_row(run, results["measured"]), _nearest_row(run, results["measured"]))):
            rows.append({"defense": run.defense, **row, "seed": str(run.seed)})
    counts = [
        ", ".join(sorted({f"{found['measured'][name]['images']:,}" for _, found in cards_and_results}))
        for name in ("clean", NEAREST[0])
    ]
    return "\n\n".join(
        [
            "# The attacks of Vivek and Babu (2020) on MNIST, LeNet+",
            "In parentheses their figures, of tables 3 and 9 (means of several trainings), and 6; made by "
            "`python -m recipes.sat_tables`, whose help says what the paper leaves open.",
            "## Table 3: accuracy",
            f"Percent of {counts[0]} test images within epsilon, with 95 % Wilson intervals. c and d: adversaries "
            "computed on networks C and D, trained without a defense.",
            table.markdown(tables[0]),
            "## Table 6: the nearest adversaries in L2",
            f"Of {counts[1]} test images: percent that are fooled, those included that need no adversary, with 95 % "
            "Wilson intervals; mean L2 norm of the perturbations of the others, ± half of its 95 % interval.",
            table.markdown(tables[1]) + "\n",
        ]
    )


def _theirs(run, figures):
    """Returns the paper's figures for the defense of a card; None for each that it does not have."""
    is_theirs = (run.dataset, run.network, run.epsilon) == ("mnist", "lenet_plus", 0.3)
    return figures.get(run.defense if is_theirs else None, (None,) * len(figures["standard"]))


def _within_row(run, measured):
    claimed = dict(zip(("clean", *WITHIN), _theirs(run, THEIRS)))
    return {
        name: _beside(table.percent(measured[name]["accuracy"], measured[name]["interval"]), theirs, ".2f")
        for name, theirs in claimed.items()
    }


def _nearest_row(run, measured):
    row, theirs = {}, iter(_theirs(run, THEIRS_NEAREST))
    for name in NEAREST:
        found = measured[name]
        row[f"{name}, fooled"] = _beside(table.percent(found["fooled"], found["interval"]), next(theirs), "d")
        mean, half = found["mean_l2"], found["mean_l2_half_interval"]
        text = "-" if mean is None else f"{mean:.2f}" + ("" if half is None else f" ± {half:.2f}")
        row[f"{name}, mean L2"] = _beside(text, next(theirs), ".2f")
    return row


def _beside(text, theirs, form):
    return text if theirs is None else f"{text} ({theirs:{form}})"


if __name__ == "__main__":
    command_line.main(main)
