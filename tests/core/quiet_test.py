"""What a process prints by itself: nothing, unless TensorFlow was asked to. And what Keras computes with in it."""

import json
import os
import subprocess
import sys

import pytest

from tf_nuat.core import quiet

NOTE = b"I0000 00:00:1795955845.254721    2224 port.cc:153] oneDNN custom operations are on.\n"
CODE = "import recipes, sanity, tf_nuat, keras, tensorflow; tensorflow.zeros(3); print(keras.config.backend())"


@pytest.mark.parametrize("level, says, place", [(None, False, "environment"), ("0", True, "keras.json")])
def test_a_process_prints_what_was_asked_for_and_computes_with_tensorflow(level, says, place, tmp_path):
    """Where another backend is set, too. One process is asked for both, as each imports TensorFlow for seconds."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["TF_ENABLE_ONEDNN_OPTS"] = "1"  # which TensorFlow notes, whatever the processor
    environment |= {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    environment |= {"KERAS_BACKEND": "jax"} if place == "environment" else {"KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, check=True)
    assert done.stdout == b"tensorflow\n"
    assert bool(done.stderr) == says, done.stderr


def test_notes_are_left_out_and_the_rest_is_not(capfd):
    with quiet.without_notes():
        os.write(2, NOTE + b"a warning of another library\n" + NOTE)
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "a warning of another library\nlater\n"


def test_what_was_said_before_an_error_is_kept(capfd):
    with pytest.raises(ImportError), quiet.without_notes():
        os.write(2, b"libtensorflow is damaged\n")
        raise ImportError
    assert capfd.readouterr().err == "libtensorflow is damaged\n"
