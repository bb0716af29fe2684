"""Experiments as data: `python -m recipes.DATASET --defense nuat --out DIR`, `recipes.custom` and `recipes.compare`."""

import tf_nuat as tf_nuat  # before anything imports TensorFlow, which it makes quiet
