"""Lists the pre-trained robust networks, or writes one of them, with its card, into a folder.

    python -m tf_nuat.networks
    python -m tf_nuat.networks --name mnist_nuat --out runs/pretrained
    python -m sanity.run --checkpoint runs/pretrained/network.keras

Two are in the package. `--source` is a folder or URL with the others, such as `results` in the project's repository.
"""

from collections.abc import Iterable, Sequence

from absl import flags

from tf_nuat import card, command_line
from tf_nuat.core import files, validation
from tf_nuat.networks.pretrained import Entry, index
from tf_nuat.networks.pretrained import files as files_of


def flag_values() -> flags.FlagValues:
    """Returns the flags of this command, not yet parsed."""
    values = flags.FlagValues()
    flags.DEFINE_string("name", None, "the network to write; default: all are listed", flag_values=values)
    flags.DEFINE_string("source", None, "folder or URL that has those not in the package", flag_values=values)
    flags.DEFINE_string("out", None, "folder for network.keras and card.json", flag_values=values)
    return values


def command(arguments: Sequence[str]) -> int:
    """Runs the command with `arguments` (without the program's name) and returns its exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    if values.name is None:
        print(table(index().values()))
        return 0
    command_line.require(values, out="a folder for the network (--out DIR)")
    network, beside = files_of(values.name, source=values.source)
    out = validation.output_folder("out", values.out)
    if existing := [name for name in ("network.keras", card.NAME) if (out / name).exists()]:
        raise ValueError(f"out is {str(out)!r}, which has {existing[0]}; allowed: a folder without one")
    files.save_bytes(network.read_bytes(), out / "network.keras")
    files.save_bytes(beside.read_bytes(), out / card.NAME)
    print(f"{out / 'network.keras'}  {out / card.NAME}")
    print(f"Next: {command_line.typed('sanity.run', ['--checkpoint', str(out / 'network.keras')])}")
    return 0


def table(entries: Iterable[Entry]) -> str:
    """Returns the networks as lines of text."""
    rows = [("network", "threat model", "clean", "robust (images)", "MB", "licence", "where")]
    for each in entries:
        rows.append(
            (
                each.name,
                f"{each.dataset}, {each.norm}, {each.epsilon:.3g}",
                f"{each.clean:.1%}",
                f"{each.robust:.1%} ({each.attacked:,})",
                f"{each.size / 1e6:.1f}",
                each.licence,
                "package" if each.is_in_package else "--source",
            )
        )
    return command_line.columns(rows)


if __name__ == "__main__":
    command_line.main(command)
