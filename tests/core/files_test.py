"""A folder that one process has is refused to another, until that ends."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tf_nuat.core import files

HOLDS = """
import fcntl, sys, time
with open(sys.argv[1], "a+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write("process 7 on elsewhere")
    file.flush()
    print("has it", flush=True)
    time.sleep(60)
"""


def test_a_folder_belongs_to_one_process_and_is_free_when_that_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path / ".lock"], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        words = "out is .*, into which process 7 on elsewhere writes; allowed: another folder, or this one when"
        with pytest.raises(ValueError, match=words), files.owned("out", tmp_path):
            pytest.fail("two have it")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with files.owned("out", tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(ValueError, match=f"into which process {os.getpid()}"), files.owned("out", tmp_path):
            pytest.fail("two have it")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_takes_the_name_from_a_lock_and_not_the_lock(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    words = "into which another process writes"
    with files.owned("out", tmp_path), pytest.raises(ValueError, match=words), files.owned("out", tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of_and_used(answer, tmp_path, monkeypatch):
    said = []

    def unlockable(file, how):
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(files.fcntl, "flock", unlockable)
    monkeypatch.setattr(files.logging, "warning", lambda line, *values: said.append(line % values))
    with files.owned("out", tmp_path):
        assert (tmp_path / ".lock").exists()
    (line,) = said
    assert line.startswith(f"{tmp_path} cannot be locked (") and os.strerror(answer) in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_made_again", [False, True])
def test_whoever_waited_for_a_lock_that_was_removed_takes_the_new_one(is_made_again, tmp_path, monkeypatch):
    lock, asked = files.fcntl.flock, []

    def removed_meanwhile(file, how):
        lock(file, how)
        asked.append(how)
        if len(asked) == 1:
            (tmp_path / ".lock").unlink()
            if is_made_again:
                (tmp_path / ".lock").touch()

    monkeypatch.setattr(files.fcntl, "flock", removed_meanwhile)
    with files.owned("out", tmp_path):
        assert len(asked) == 2 and (tmp_path / ".lock").exists()


def test_a_digest_tells_values_types_shapes_and_places_apart():
    zeros = np.zeros((2, 3), np.int32)
    others = [zeros + 1, zeros.T, zeros.view(np.float32), zeros.reshape(-1).view(np.int64)[None]]
    found = {files.digest(*arrays) for arrays in [(zeros,), *((each,) for each in others), (zeros[:1], zeros[1:])]}
    assert len(found) == 6
    assert files.digest(np.asfortranarray(zeros)) == files.digest(zeros.copy())
