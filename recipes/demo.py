"""NuAT beside an undefended network on scikit-learn's handwritten digits, trained alike and both judged.

    python -m recipes.demo --out runs/demo

No download; about a minute and a half on two processor cores. Ends with a table and the addresses of the two reports.
"""

import contextlib
import json
import pathlib

from absl import flags

import sanity.run
from recipes import command, digits
from tf_nuat import command_line, training

FLAGS = flags.FlagValues()
flags.DEFINE_string("out", "runs/demo", "folder for the two runs and their reports", flag_values=FLAGS)


def main(arguments):
    command_line.parse(FLAGS, arguments, __doc__)
    rows = []
    for defense in "standard", "nuat":
        out = pathlib.Path(FLAGS.out) / defense
        print(f"\nTraining: {defense}", flush=True)
        card = training.run(digits.RECIPES[defense], out, verbose=2)
        print(command.summary(card))
        print(f"Judging: {defense}", flush=True)
        with contextlib.redirect_stdout(None):
            status = sanity.run.main(["--checkpoint", str(out / "network.keras"), "--out", str(out / "sanity")])
        rows.append((defense, card["measured"], status, out / "sanity"))
    print(f"\n{'trained with':14}{'clean':>8}{'PGD-40':>9}  verdict")
    for defense, measured, _, folder in rows:
        verdict = json.loads((folder / "results.json").read_text(encoding="utf-8"))["verdict"]
        print(f"{defense:14}{measured['clean']['accuracy']:8.1%}{measured['pgd_40']['accuracy']:9.1%}  {verdict}")
    for _, _, _, folder in rows:
        print(f"Report: {(folder / 'report.html').resolve().as_uri()}")
    return 0 if all(status == 0 for _, _, status, _ in rows) else 1


if __name__ == "__main__":
    command_line.main(main)
