"""Measurements of speed, as ratios within one run, and of what survives."""

import tf_nuat as tf_nuat  # before anything imports TensorFlow, which it makes quiet
