"""Experiments as data: `python -m recipes.DATASET --defense nuat --out DIR`, `recipes.custom` and `recipes.compare`."""

import os

# Must precede TensorFlow's start. What it logs before that is about processors and GPUs that are not there.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
