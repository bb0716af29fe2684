"""The backend of Keras that the package refuses; tests/core/quiet_test.py has processes in which another one is set."""

import runpy

import keras
import pytest

from tf_nuat.core import backend


def test_another_that_keras_has_already_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ImportError, match="KERAS_BACKEND is 'jax'; allowed: tensorflow"):
        runpy.run_path(backend.__file__)
