"""Settings that must precede TensorFlow's start."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
import tensorflow as tf

# Two logical devices on one processor stand in for two GPUs.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session")
def two_devices():
    """A strategy over two logical CPU devices.

    One for the whole session: TensorFlow numbers the collectives of every strategy from the same start, and a second
    strategy over the same devices meets the numbers of the first.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
