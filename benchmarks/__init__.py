"""Benchmarks: speed, as ratios within one run, and what survives disturbances."""

import tf_nuat as tf_nuat  # first, because it silences the log of TensorFlow
