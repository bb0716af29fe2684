"""Counts the misses and the false alarms of the sanity suite on networks whose verdict is known.

    python -m benchmarks.zoo --out results/zoo

Builds each network of a zoo with each seed, judges it with all checks within the minutes of a budget, and writes
`zoo.json` and the table `zoo.md`. It does not judge again what `zoo.json` has already. On two processor cores, each
network and seed takes half a minute on scikit-learn's digits. `--zoo held_out` takes as long: it has other networks on
the same images, on which no threshold was chosen. `--zoo mnist` and `cifar10` take up to the budget's minutes; some of
their networks are those of `results/`, the same for each seed.
"""

import json
import pathlib

from absl import flags
from tqdm import tqdm

from benchmarks import figures, zoos
from sanity import Verdict
from sanity.clock import Clock
from sanity.judgement import in_order, judge_subject
from sanity.settings import BUDGETS
from sanity.subject import Subject
from sanity.verdict import SUSPECTED, UNSURE
from tests.helpers import zoo
from tf_nuat import command_line
from tf_nuat.core import files, validation

FLAGS = flags.FlagValues()
flags.DEFINE_enum("zoo", "digits", ("digits", "held_out", "mnist", "cifar10"), "which one", flag_values=FLAGS)
flags.DEFINE_list("seeds", ["0", "1", "2"], "of the networks and of their judgements", flag_values=FLAGS)
flags.DEFINE_list("networks", [], "some of the zoo; default all", flag_values=FLAGS)
flags.DEFINE_string("budget", "quick", f"of a judgement: {', '.join(BUDGETS)}", flag_values=FLAGS)
flags.DEFINE_string("out", None, "folder for the results (default: results/zoo or results/zoo_NAME)", flag_values=FLAGS)


def judge(specimen, seed, *, among, checks=None, settings=None, samples=None, minutes=None):
    """Judges a `zoo.Specimen`; returns a dict of both answers, and the verdict and value of each check.

    `among` is the `zoos.Zoo` that has the images. A refused network has the verdict `zoo.REFUSED`, a reason, and no
    checks.
    """
    network, clock = specimen.build(seed), Clock(None if minutes is None else 60.0 * minutes)
    images, labels = among.test
    images, labels = (each[:samples] for each in in_order(images, labels, seed))
    options = {"epsilon": specimen.epsilon, "training_data": among.train, "seed": seed, "clock": clock}
    try:
        subject = Subject(network, images, labels, **options)
    except ValueError as error:
        return {"verdict": zoo.REFUSED, "reason": str(error), "checks": {}}
    judgement = judge_subject(subject, checks=checks, settings=settings, progress=False)
    return {
        "verdict": judgement.verdict,
        "masking": judgement.masking,
        "images": judgement.robust.images,
        "pgd": judgement.reported_by_pgd.accuracy,
        "clean": judgement.clean.accuracy,
        "robust": judgement.robust.accuracy,
        "seconds": round(clock.spent, 1),
        "checks": {
            result.name: {"verdict": result.verdict.value, "value": result.value} for result in judgement.results
        },
    }


def failed(outcome):
    """Returns the names of the checks that failed in an outcome of `judge`, or `zoo.REFUSED` for a refused network."""
    if outcome["verdict"] == zoo.REFUSED:
        return [zoo.REFUSED]
    return [name for name, each in outcome["checks"].items() if each["verdict"] == Verdict.FAIL.value]


def missed(specimen, outcome):
    """Returns whether a masked network passes: it is not suspected, or fails none of the checks meant for it.

    An undecided network does not pass; such networks are counted separately.
    """
    if specimen.kind != zoo.MASKED or outcome.get("masking") == UNSURE:
        return False
    suspected = outcome.get("masking") == SUSPECTED or outcome["verdict"] == zoo.REFUSED
    return not suspected or bool(specimen.meant) and not set(failed(outcome)) & set(specimen.meant)


def false_alarms(specimen, outcome):
    """Returns the names of the checks that failed although the network is not masked."""
    return [] if specimen.kind == zoo.MASKED else failed(outcome)


def markdown(outcomes, specimens):
    """Returns the table of `outcomes`, a dict of "name, seed N" to a result of `judge`, and the counts below it."""
    rows = [
        "| network | kind | meant to fail | failed (of seeds) | verdicts | worst case |",
        "|---|---|---|---|---|---|",
    ]
    misses, alarms, masked, undecided = 0, 0, 0, 0
    for name, specimen in specimens.items():
        own = {key: each for key, each in outcomes.items() if _name(key) == name}
        if not own:
            continue
        counts = {}
        for outcome in own.values():
            misses += missed(specimen, outcome)
            alarms += bool(false_alarms(specimen, outcome))
            masked += specimen.kind == zoo.MASKED
            undecided += outcome.get("masking") == UNSURE
            for check in failed(outcome):
                counts[check] = counts.get(check, 0) + 1
        verdicts = list(dict.fromkeys(each["verdict"] for each in own.values()))
        left = ", ".join(f"{each['robust']:.1%}" for each in own.values() if "robust" in each) or "-"
        seen = ", ".join(f"{check} ({count} of {len(own)})" for check, count in counts.items()) or "none"
        meant = " or ".join(specimen.meant) or "none"
        rows.append(
            f"| {name}: {specimen.description} | {specimen.kind} | {meant} | {seen} | {'; '.join(verdicts)} | {left} |"
        )
    others = len(outcomes) - masked
    return "\n".join(rows) + (
        f"\n\nMisses: {misses} of {masked} masked networks. False alarms: {alarms} of {others} networks that are not. "
        f"Undecided: {undecided} of {len(outcomes)}.\n"
    )


def outcomes_in(path, asked, specimens):
    """Returns the outcomes in the `zoo.json` at `path`; {} if there is no such file.

    Args:
        path: of the file.
        asked: dict of "zoo" and "budget" to their names.
        specimens: those of the zoo.

    Raises:
        ValueError: the outcomes are of another zoo or budget.
    """
    if not path.exists():
        return {}
    content = {"budget": "quick", **json.loads(path.read_text(encoding="utf-8"))}  # older files do not say it
    others = {name for name in map(_name, content["outcomes"]) if name not in specimens}
    content.setdefault("zoo", f"that of {min(others)}" if others else asked["zoo"])
    figures.check_settings(asked, content, path)
    return content["outcomes"]


def _name(key):
    return key.rsplit(", seed ", 1)[0]


def command(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    budget = validation.one_of("--budget", FLAGS.budget, BUDGETS)
    among = zoos.zoos()[FLAGS.zoo]
    for name in FLAGS.networks:
        validation.one_of("--networks", name, among.specimens)
    default = "results/zoo" if FLAGS.zoo == "digits" else f"results/zoo_{FLAGS.zoo}"
    folder = validation.output_folder("--out", pathlib.Path(FLAGS.out or default))
    path, asked = folder / "zoo.json", {"zoo": FLAGS.zoo, "budget": FLAGS.budget}
    outcomes = outcomes_in(path, asked, among.specimens)
    names = FLAGS.networks or list(among.specimens)
    with tqdm([(name, int(seed)) for name in names for seed in FLAGS.seeds], unit="network") as bar:
        for name, seed in bar:
            key = f"{name}, seed {seed}"
            bar.set_description(key)
            if key in outcomes:
                continue
            given = {"settings": budget.settings, "samples": budget.samples, "minutes": budget.minutes}
            outcomes[key] = judge(among.specimens[name], seed, among=among, **given)
            line = command_line.typed("benchmarks.zoo", arguments)
            files.save_json({"command": line, **asked, "outcomes": outcomes}, path)
            page = f"# {among.title}\n\n{markdown(outcomes, among.specimens)}"
            files.save_text(page, folder / "zoo.md")
    print(markdown(outcomes, among.specimens))
    return 0


if __name__ == "__main__":
    command_line.main(command)
