"""Experiments as data: `python -m recipes.DATASET --defense nuat --out DIR`, `recipes.custom` and `recipes.compare`."""

import tf_nuat as tf_nuat  # first, because it silences the log of TensorFlow
