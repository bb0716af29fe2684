"""Settings that must precede TensorFlow's start."""

import gc
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Prepared datasets, where they lie beside the checkout. Tests that need them skip, saying why, where they do not.
PREPARED = pathlib.Path(__file__).parents[2] / "shared" / "tfds"
if PREPARED.is_dir():
    os.environ.setdefault("TFDS_DATA_DIR", str(PREPARED))

import pytest
import tensorflow as tf

from tf_nuat import parallel
from tf_nuat.core import keras_compat

# Two logical devices on one processor stand in for two GPUs.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
# Two devices that wait for each other need more threads than this machine may have processors.
tf.config.threading.set_inter_op_parallelism_threads(16)
# Most tests run a graph once or twice: optimizing it takes longer than that saves.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


# Files of few tests that take long. First, so that no worker waits at the end for another one's.
LONG = ("docs/tutorial_test.py", "parallel/multiworker_test.py", "training/backup_test.py", "sanity/zoo_test.py")


def pytest_collection_modifyitems(items):
    """Puts the tests of `LONG` before the others."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))


def pytest_collection_finish():
    """Leaves what the imports made, which stays, out of every later search for garbage, and searches more rarely.

    A traced graph is many small objects that refer to each other: by default Python would search them all, over and
    over, while they are in use. `memory_given_back` searches after each file.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="module", autouse=True)
def memory_given_back():
    """Forgets the graphs of a file's tests, which would be ten gigabytes in the end.

    TensorFlow keeps the gradient of every custom operation for ever, and with it the graph of each `fit`, in which
    Keras's optimizer has one. What refers to itself Python searches for too rarely.
    """
    yield
    keras_compat.forget_custom_gradients()
    gc.collect()
    gc.freeze()  # what is left are caches, which stay as well


@pytest.fixture(scope="session", autouse=True)
def operations_as_they_are():
    """Commands make the operations of their process deterministic: here that would be those of the tests after them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
        yield


@pytest.fixture(scope="session")
def two_devices():
    """The strategy over the two logical CPU devices, the same one that `run` uses.

    A second one in the process would not do: TensorFlow numbers the collectives of every strategy from the same start,
    and those of the second meet the numbers of the first.
    """
    return parallel.strategy("mirrored")
