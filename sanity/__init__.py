"""Judges whether a network's robustness is real: `python -m sanity.run --checkpoint network.keras`, or `judge`."""

import tf_nuat as tf_nuat  # before anything imports TensorFlow, which it makes quiet

# isort: split

from sanity.judgement import Judgement, judge
from sanity.result import Result, Verdict
from sanity.settings import Settings

__all__ = ["Judgement", "Result", "Settings", "Verdict", "judge"]
