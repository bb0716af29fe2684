"""Imports TensorFlow without its log lines about CPUs and GPUs, unless the user asks for them.

TF_CPP_MIN_LOG_LEVEL, TensorFlow's own setting, has to be set before TensorFlow starts, and does not cover the lines
that its libraries write while they load. Set it to 0 to get everything.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

LEVEL = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As absl writes them before it is initialized: the time, the thread, the place.
_NOTE = re.compile(rb"WARNING: All log messages before absl::InitializeLog\(\)|[IWE]0000 \d\d:\d\d:")


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """A context that removes such notes from the process's standard error; all other lines appear at its end."""
    try:
        copy = os.dup(2)
    except OSError:  # a process without that stream
        yield
        return
    with tempfile.TemporaryFile() as kept, open(copy, "wb") as stream:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stream.fileno(), 2)
            kept.seek(0)
            stream.writelines(line for line in kept if not _NOTE.match(line))


if LEVEL != "0" and "tensorflow" not in sys.modules:
    with without_notes():
        import tensorflow  # noqa: F401
