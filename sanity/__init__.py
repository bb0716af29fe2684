"""Judges whether a network's robustness is real: `python -m sanity.run --checkpoint network.keras`, or `judge`."""

import os

# Must precede TensorFlow's start. What it logs before that is about processors and GPUs that are not there.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from sanity.judgement import Judgement, judge  # noqa: E402
from sanity.result import Result, Verdict  # noqa: E402
from sanity.settings import Settings  # noqa: E402

__all__ = ["Judgement", "Result", "Settings", "Verdict", "judge"]
