"""The backend of Keras in a process that imports the package."""

import json
import os
import subprocess
import sys

import pytest


def outcome(code, **environment):
    """Returns the last line that a process of this code prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )
    return (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.mark.parametrize("place", ["environment", "keras.json"])
def test_it_is_tensorflow_where_another_is_set(place, tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    environment = {"KERAS_BACKEND": "jax"} if place == "environment" else {"KERAS_HOME": str(tmp_path)}
    assert outcome("import tf_nuat, keras; print(keras.config.backend())", **environment) == "tensorflow"


def test_another_that_keras_has_already_is_refused():
    found = outcome("import keras; keras.config.backend = lambda: 'jax'; import tf_nuat")
    assert "KERAS_BACKEND is 'jax'; allowed: tensorflow" in found
