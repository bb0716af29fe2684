"""What the tests of single attacks share: a curved network, and images with the classes that it gives them."""

import pytest

from tests.helpers import networks
from tests.helpers.images import classes_of, images
from tests.helpers.recorded import Recorded


@pytest.fixture(scope="module")
def network():
    return networks.drawn()


@pytest.fixture(scope="module")
def labelled(network):
    x = images()
    return x, classes_of(network, x)


@pytest.fixture(scope="module")
def recorder(network):
    return Recorded(network)


@pytest.fixture
def recorded(recorder):
    """The network, which remembers: it is compiled once for the tests of a file, and has seen nothing yet."""
    recorder.forget()
    return recorder
