"""`tf-nuat`, as the installed program: it finds the user's own modules where `python -m` finds them."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Which needs nothing of `tf_nuat`, whose import takes seconds.
PROGRAM = """
import sys
import types

sys.modules["tf_nuat"] = types.ModuleType("tf_nuat")
from recipes import console

console.MODULES["mine"] = "my_module"
console.main()
"""
SHOWS_THE_PATH = "import sys\nprint(*sys.path, *sys.argv[1:], sep='\\n')\n"


@pytest.mark.parametrize("safe", ["", "1"])
def test_modules_are_looked_for_where_python_m_looks(safe, tmp_path):
    """In the current folder and not in the program's; in neither where Python is told so."""
    programs, folder = tmp_path / "bin", tmp_path / "work"
    for each in (programs, folder):
        each.mkdir()
    (programs / "tf-nuat").write_text(PROGRAM)
    (folder / "my_module.py").write_text(SHOWS_THE_PATH)
    paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "PYTHONSAFEPATH": safe}

    def shown(*arguments):
        command = [sys.executable, *arguments, "--epsilon=0.1"]
        environment = {**os.environ, **paths}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    found = shown(str(programs / "tf-nuat"), "mine")
    assert found == shown("-m", "my_module") and found[-1] == "--epsilon=0.1"
    assert found[0] == str(ROOT if safe else folder) and str(programs) not in found
