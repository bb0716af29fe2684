"""Has Keras compute with TensorFlow, whatever KERAS_BACKEND or keras.json say: this package supports no other backend.

Whatever imports Keras or TensorFlow first fixes the backend for the process: TensorFlow imports Keras.
"""

import os
import sys

if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"

from tf_nuat.core import quiet as quiet  # before anything imports TensorFlow

# isort: split

import keras

if keras.config.backend() != "tensorflow":
    raise ImportError(
        f"KERAS_BACKEND is {keras.config.backend()!r}; allowed: tensorflow, as where tf_nuat is imported before keras "
        "and tensorflow"
    )
