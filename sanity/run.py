"""Judges whether the robustness of an image classifier is real, and writes a report.

    python -m sanity.run --checkpoint runs/mnist/network.keras
    python -m sanity.run --checkpoint any.keras --dataset mnist --epsilon 0.3 --out runs/judged

The checkpoint is any classifier that Keras saved (`.keras`, `.h5` or a SavedModel), with or without a softmax;
`--pixels` says which pixel range it takes. The judgement answers two questions: Are the gradients masked? How many
images withstand the worst of all attacks? The sample grows until both are decided, or until the images (`--samples`) or
the time (`--minutes`) run out. The command writes `report.html`, `results.json`, `card.md`, `junit.xml`, one figure per
check and pictures of adversaries into the output folder.

Exit status: 0, masked gradients not seen; 1, masked gradients suspected; 2, not judged, because the input is wrong or
the network is no better than always answering the commonest class; 3, undecided.
"""

import contextlib
import sys
import traceback

from absl import flags

from sanity import inputs, report, verdict
from sanity.checks import CHECKS
from sanity.judgement import judge_subject
from sanity.settings import BUDGETS
from tf_nuat import command_line
from tf_nuat.core import files
from tf_nuat.evaluate import inputs as shared
from tf_nuat.evaluate import networks

COULD_NOT_JUDGE = command_line.BAD_INPUT
STATUS = {verdict.NOT_SEEN: 0, verdict.SUSPECTED: 1, verdict.UNSURE: 3}  # by the answer about masking
INTERRUPTED = command_line.INTERRUPTED


def flag_values():
    """Returns the flags of this command, not yet parsed."""
    values = flags.FlagValues()

    def flag(define, name, default, help_text):
        define(name, default, help_text, flag_values=values)

    flag(flags.DEFINE_string, "checkpoint", None, f"the network to judge: {networks.FILE}; required")
    networks.define(values)
    most = "At most; fewer are judged where they decide. Default: that of the budget, or more for more classes"
    shared.define(values, samples=most)
    flag(flags.DEFINE_string, "out", None, "folder for the results. Default: sanity, beside the checkpoint")
    flag(
        flags.DEFINE_multi_string,
        "surrogate",
        [],
        f"another network for attacks by transfer, {networks.FILE}. Default: one is trained on the spot",
    )
    flag(flags.DEFINE_list, "checks", ["all"], f"which checks to run, with commas between: all, or {', '.join(CHECKS)}")
    flag(
        flags.DEFINE_string,
        "budget",
        "standard",
        "how much to spend at most: "
        + ", ".join(f"{name} ({each.minutes:g} minutes, {each.samples:,} images)" for name, each in BUDGETS.items())
        + f"; quick takes {BUDGETS['quick'].slow_minutes:g} minutes for a network that is slow"
        + ". What a network is too slow for is left out, and said to be",
    )
    flag(flags.DEFINE_float, "minutes", None, "how long it may take, above 0. Default: that of the budget")
    flag(flags.DEFINE_bool, "resume", False, "take what an interrupted run with the same --out has evaluated")
    return values


def main(arguments):
    """Runs the command with `arguments` (without the program's name) and returns its exit status."""
    command_line.print_any_name()
    try:
        with command_line.interruptible():
            return _judge(arguments)
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume goes on where it was", file=sys.stderr)
        return INTERRUPTED
    except command_line.OUT_OF_MEMORY as error:
        print(f"\nerror: {command_line.of_memory(error, 'fewer images (--samples)')}", file=sys.stderr)
        return COULD_NOT_JUDGE
    except Exception:  # Python would exit with 1, which says that gradients are masked
        traceback.print_exc()
        return COULD_NOT_JUDGE


def _judge(arguments):
    values = flag_values()
    progress = sys.stderr.isatty()  # in a log file, moving bars are noise
    with contextlib.ExitStack() as held:
        try:
            command_line.parse(values, arguments, __doc__)
            given = inputs.collect(values, command_line.typed("sanity.run", arguments), progress=progress)
            held.enter_context(files.owned("--out", given.out))
        except ValueError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return COULD_NOT_JUDGE
        return _judge_and_report(given, progress)


def _judge_and_report(given, progress):
    judgement = judge_subject(
        given.subject,
        checks=given.checks,
        settings=given.settings,
        progress=progress,
        say=lambda line: print(line, flush=True),
        provenance=given.provenance,
    )
    print(f"{table(judgement)}\n\n{judgement.sentence}\n", flush=True)  # before writing: the disk may be full
    written, failed = report.write(judgement, given.out)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    print(*[path for path in written if path.name == report.PAGE])
    return STATUS[judgement.masking]


def table(judgement):
    """Returns the results of the checks as lines of text."""
    interval = f"{judgement.settings.confidence:.0%} interval"
    rows = [("check", "verdict", "value", "threshold", interval, "seconds")]
    for result in judgement.results:
        measured = result.value is not None
        rows.append(
            (
                result.name,
                result.verdict.value,
                f"{result.value:.1%}" if measured else "-",
                f"{result.threshold:.1%}" if measured else "-",
                "{:.1%} to {:.1%}".format(*result.interval) if measured else "-",
                f"{result.seconds:.0f}",
            )
        )
    return command_line.columns(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
