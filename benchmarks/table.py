"""Renders the page that compares this package with what a user would pick instead, from the figures of the benchmarks.

    python -m benchmarks.table > results/benchmarks/README.md

`benchmarks.peers_training` and `benchmarks.peers`, in L-infinity and in L1, leave the figures in `results/benchmarks`.
"""

import json
import pathlib
import statistics

from absl import flags

from recipes.table import markdown
from tf_nuat import command_line, norms

FOLDER = pathlib.Path(__file__).parents[1] / "results" / "benchmarks"
TRAINING_TARGET, ATTACK_TARGET = 1.9, 1.4  # the project's
TITLES = {"pgd": "PGD", "autoattack": "AutoAttack", "apgd_ce": "APGD-CE", "apgd_t": "APGD-T"}
STEPS = {
    "pgd": ", {steps} steps of {step_size:g}",
    "autoattack": "",
    "apgd_ce": ", {steps} steps",
    "apgd_t": ", {steps} steps towards each of {targets} classes",
}
NUAT = ("nuat", "nuat (PyTorch)", "nuat bfloat16", "nuat bfloat16 (PyTorch)")
# How often a step of NuAT does each part. The attack has its clean forward and its norm on every other batch.
PER_STEP = {"input_gradient": 1.0, "forward": 0.5, "training": 2.0, "nuclear_norm": 1.5, "optimizer": 1.0}


def training_rows(found):
    """Returns the rows of the table of training, dicts of column to cell."""
    rows = []
    for name, rate in found["images_per_second"].items():
        row = {"training": name, "images/s": _spread(rate, ",.0f")}
        if name in found["times_as_fast"]:
            row["ours is faster, times"] = _spread(found["times_as_fast"][name], ".2f")
        if name in found["difference_of_losses"]:
            row["difference of first losses"] = f"{found['difference_of_losses'][name]:.0e}"
        rows.append(row)
    return rows


def parts_rows(found):
    """Returns the rows of the table of the parts of a step of NuAT, in milliseconds."""
    parts = {name: found["seconds_of_parts"][name] for name in NUAT if name in found["seconds_of_parts"]}
    rows = [
        {"part": f"{part.replace('_', ' ')}, {times:g} a step"}
        | {name: f"{1e3 * seconds[part]:.2f}" for name, seconds in parts.items()}
        for part, times in PER_STEP.items()
    ]
    sums = {
        name: 1e3 * sum(times * seconds[part] for part, times in PER_STEP.items()) for name, seconds in parts.items()
    }
    steps = {name: 1e3 * found["batch_size"] / found["images_per_second"][name]["median"] for name in parts}
    for title, values in (("all of them, so often", sums), ("the step", steps)):
        rows.append({"part": title} | {name: f"{value:.2f}" for name, value in values.items()})
    return rows


def nuat_ratios(found):
    """Returns a dict of title to the median ratio of our images per second to those of the plain PyTorch loop."""
    rates = found["rounds"]
    pairs = {
        "Both in float32": ("nuat", "nuat (PyTorch)"),
        "Both in bfloat16": ("nuat bfloat16", "nuat bfloat16 (PyTorch)"),
        "Ours in bfloat16, the loop in float32": ("nuat bfloat16", "nuat (PyTorch)"),
    }
    return {
        title: statistics.median(one / other for one, other in zip(rates[ours], rates[theirs]))
        for title, (ours, theirs) in pairs.items()
        if ours in rates and theirs in rates
    }


def attack_rows(found):
    """Returns the rows of the table of an attack, dicts of column to cell."""
    rows = []
    for name, row in found["figures"].items():
        rounds = row["seconds"]["rounds"]
        cells = {
            "attack of": name,
            "seconds": _spread(row["seconds"], ".1f") if rounds > 1 else f"{row['seconds']['median']:.1f} (one round)",
            "left robust": f"{row['robust']:.1%}",
        }
        for mine, ratio in row.get("over_ours", {}).items():
            cells[f"times as long as {mine}"] = _spread(ratio, ".2f") if rounds > 1 else f"{ratio['median']:.2f}"
        if "strength" in row:
            fooled = f"{row['only_theirs_fools']} more, {row['only_ours_fools']} fewer images fooled"
            cells["strength beside ours"] = f"{row['strength']} ({fooled}, p = {row['p_value']:.2g})"
        rows.append(cells)
    return rows


def fastest(found):
    """Returns the name and the median ratio of the fastest peer that is not weaker than ours, or None without one.

    The ratio is to the first of ours, with whose strength the others were compared.
    """
    ratios = {
        name: next(iter(row["over_ours"].values()))["median"]
        for name, row in found["figures"].items()
        if row.get("strength") in ("equal", "stronger")
    }
    return min(ratios.items(), key=lambda entry: entry[1], default=None)


def verdict(ratio, target):
    """Returns whether a ratio reaches its target, as text."""
    return f"{ratio:.2f}, target {target:g}: {'reached' if ratio >= target else 'missed'}"


def page(training, attacks, in_l1):
    """Returns the whole page, for the contents of the three files."""
    sections = [
        "# Beside what one would pick instead",
        "Rendered by `python -m benchmarks.table` from `peers_training.json`, `peers.json` and `l1.json`; a test\n"
        "compares. Medians of rounds that take turns, with the smallest and the largest; a ratio is that of one\n"
        "round's figures. `auto` takes gradients in bfloat16 on a processor that multiplies it, as this one does,\n"
        "and in float32 on any other. An attack is stronger or weaker where McNemar's exact test on the same images\n"
        "says so at 1 %, else equal.",
        f"Processor: {training['processor']}, {training['settings']['threads']} threads each. "
        f"{_versions(training, attacks, in_l1)}.",
        *training_sections(training),
        *(section for attack in TITLES if attack in attacks for section in attack_sections(attack, attacks[attack])),
        "The attacks' command; [the network](../attacks.md) is not kept here:",
        f"    {attacks['command']}",
        *(section for attack in TITLES if attack in in_l1 for section in attack_sections(attack, in_l1[attack])),
        *([in_l1["note"]] if "note" in in_l1 else []),
        "The command in L1:",
        f"    {in_l1['command']}",
        "## Not compared",
        "\n".join(not_compared(training, attacks, in_l1)),
    ]
    return "\n\n".join(sections) + "\n"


def training_sections(found):
    """Returns the part of the page about training, a list of paragraphs."""
    settings, rounds = found["settings"], max(map(len, found["rounds"].values()))
    height, width, channels = found["shape"]
    sections = [
        "## Training",
        f"LeNet+, random images of {height}x{width}x{channels}, batches of {found['batch_size']}, {rounds} rounds; "
        f"epsilon {settings['epsilon']:g}, PGD-AT with {settings['steps']}\n"
        f"steps of {settings['step_size']:.3g}. Ours is `fit`, with its metrics. All begin with the same weights,\n"
        "and the losses of the first steps, with the same draws, are those of ours. `as published`: with what the\n"
        "authors' scripts compute beyond the algorithm.",
        f"    {found['command']}",
        markdown(training_rows(found)),
    ]
    compared = [f"{title}: {verdict(ratio, TRAINING_TARGET)}" for title, ratio in nuat_ratios(found).items()]
    if compared:
        sections.append(f"NuAT's images per second over those of the plain PyTorch loop. {'; '.join(compared)}.")
    title = "Where a step of NuAT spends its time: each part alone, in milliseconds."
    return [*sections, title, markdown(parts_rows(found))]


def attack_sections(attack, found):
    """Returns the part of the page about an attack, a list of paragraphs."""
    norm = norms.of(found.get("norm", "linf"))
    sections = [
        f"## {TITLES[attack]}{'' if norm is norms.LINF else f' in {norm.label}'}",
        f"{found['images']} images, {norm.label}, epsilon {found['epsilon']:g}{STEPS[attack].format(**found)}.",
        markdown(attack_rows(found)),
    ]
    if norm is norms.LINF and (best := fastest(found)):
        name, ratio = best
        sections.append(f"The fastest that is not weaker, {name}, over ours: {verdict(ratio, ATTACK_TARGET)}.")
    return sections


def not_compared(training, attacks, in_l1):
    """Returns as lines what could not be compared, with the reasons."""
    failed = dict(training["not_compared"])
    for attack, title in TITLES.items():
        reasons = attacks.get(attack, {}).get("not_run", {})
        failed.update({f"{title}, {name}": reason for name, reason in reasons.items()})
        reasons = in_l1.get(attack, {}).get("not_run", {})
        failed.update({f"{title} in L1, {name}": reason for name, reason in reasons.items()})
    return [
        *(f"- {name}: `{reason}`" for name, reason in failed.items()),
        "- CleverHans and Foolbox have no AutoAttack. ART's is made of others: APGD with two losses, DeepFool, Square.",
        "- CleverHans, Foolbox, ART and torchattacks have no NuAT.",
        "- torchattacks has no attack in L1 of these; ART's and Foolbox's PGD there take dense steps.",
    ]


def _spread(values, form):
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"


def _versions(training, attacks, in_l1):
    found = dict(training["versions"])
    peers = [*training["peers_versions"].values()]
    for attack in TITLES:
        rows = [row for found in (attacks, in_l1) for row in found.get(attack, {}).get("figures", {}).values()]
        peers += [row["versions"] for row in rows if "versions" in row]
    for versions in peers:
        found.update(versions)
    return ", ".join(f"{name} {found[name]}" for name in sorted(found))


def command(arguments):
    command_line.parse(flags.FlagValues(), arguments, __doc__)
    contents = []
    for name, made_by in (("peers_training", "peers_training"), ("peers", "peers"), ("l1", "peers --norm l1")):
        path = FOLDER / f"{name}.json"
        if not path.is_file():
            raise ValueError(f"{path.name} is not in results/benchmarks; allowed: after python -m benchmarks.{made_by}")
        contents.append(json.loads(path.read_text(encoding="utf-8")))
    print(page(*contents), end="")
    return 0


if __name__ == "__main__":
    command_line.main(command)
