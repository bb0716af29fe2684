"""Tries the package as a stranger would: in an empty environment, in an empty folder, by what the pages show.

    python -m docs.check_package --work build/package

Builds the source distribution and the wheel, has twine check both, makes an environment without packages, installs the
wheel there with the versions of `constraints.txt`, and runs `tf-nuat --help`, the Python of README.md, the commands of
the tutorial and the cells of the notebook, word for word. Exits with 1 where one of them fails. Needs a package index.
"""

import functools
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from docs.render import ROOT, code
from tf_nuat import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_string("work", "build/package", "new folder for all that is built, installed and run", flag_values=FLAGS)

BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
# What lies in a checkout and is no source.
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "dist", "runs", "site", "*.egg-info", ".*_cache", "*.pyc")
INSTALL = "python -m pip install .\n"  # the first command of the tutorial; here the wheel is installed
UNDECIDED = 3  # the exit status of a judgement on a machine that is too slow for its minutes


def main(arguments: list[str]) -> int:
    """Builds, checks, installs and runs; returns the exit status."""
    command_line.parse(FLAGS, arguments, __doc__)
    work = pathlib.Path(FLAGS.work).resolve()
    if work.exists():
        raise ValueError(f"work is {str(work)!r}, which exists; allowed: a new folder")
    shutil.copytree(ROOT, work / "source", ignore=LEFT_OUT)
    environment = work / "environment"
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    steps: list[tuple[str, Callable[[], object]]] = [
        ("build", functools.partial(build, work / "source")),
        ("twine check", functools.partial(check, work / "source" / "dist")),
        ("new environment", functools.partial(run, [sys.executable, "-m", "venv", str(environment)], work)),
        ("pip install", functools.partial(run, ["bash", "-c", f"{shlex.join(install)} source/dist/*.whl"], work)),
    ]
    for page, command in shown():
        folder = work / "empty" / page.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        steps.append((page, functools.partial(_as_shown, command, folder, environment / "bin")))
    for name, step in steps:
        begin = time.monotonic()
        try:
            step()
        except ChildProcessError as error:
            print(f"{name} failed: {error}", file=sys.stderr)
            return 1
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    return 0


def build(source: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the source distribution and the wheel that are built in `source`, a copy of the repository.

    It is a copy because setuptools writes where it builds, and takes from there what an earlier build has left.
    """
    run([sys.executable, "-c", BUILD], source)
    (sdist,), (wheel,) = (source / "dist").glob("*.tar.gz"), (source / "dist").glob("*.whl")
    return sdist, wheel


def check(folder: pathlib.Path) -> str:
    """Has twine check the distributions in `folder`, and returns what it says; a warning fails, too."""
    return run([sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(folder.iterdir()))], folder)


def shown() -> Iterator[tuple[str, list[str]]]:
    """Yields what a reader types, in this order: the page that shows it, and the arguments of a command."""
    yield "docs/usage.md", ["tf-nuat", "--help"]
    yield "README.md", ["python", "-c", "\n".join(code("README.md", "python"))]
    install, *blocks = code("docs/tutorial.md", "bash")
    if install != INSTALL:
        raise ValueError(f"docs/tutorial.md begins with {install!r}; allowed: {INSTALL!r}")
    yield from (("docs/tutorial.md", ["bash", "-euc", block]) for block in blocks)
    yield "docs/notebook.md", ["python", "-c", "\n".join(code("docs/notebook.md", "{code-cell}"))]


def run(
    command: Sequence[str],
    folder: pathlib.Path,
    *,
    programs: pathlib.Path | None = None,
    allowed: Sequence[int] = (0,),
    **variables: str,
) -> str:
    """Runs a command in `folder`, and returns what it printed.

    `programs` is the folder where programs are looked for first. `variables` are added to the environment, from which
    everything that Python would read is taken.

    Raises:
        ChildProcessError: it ended with an exit status that is not `allowed`.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TF_NUAT"))}
    if programs is not None:
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "MPLBACKEND": "agg", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode not in allowed:
        raise ChildProcessError(f"exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def _as_shown(command, folder, programs):
    return run(command, folder, programs=programs, allowed=(0, UNDECIDED) if "sanity.run" in command[-1] else (0,))


if __name__ == "__main__":
    command_line.main(main)
