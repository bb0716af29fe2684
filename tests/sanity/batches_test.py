"""Functions that are compiled and run on batches, against the same function on all images at once."""

import gc
import weakref

import numpy as np
import pytest

from sanity.measure import batches
from tests.helpers import linear


@pytest.mark.parametrize("batch_size", [3, 7, 20])
def test_the_parts_are_those_of_all_images(batch_size):
    network, (images, labels) = linear.network(), linear.batch(7)
    logits, own, numbers = batches.of_all(
        lambda x, y, index: (network(x), y, index), images, labels, batch_size=batch_size
    )
    np.testing.assert_allclose(logits, network(images), atol=1e-6)
    np.testing.assert_array_equal(own, labels)
    np.testing.assert_array_equal(numbers, np.arange(7))


def test_what_is_compiled_goes_with_its_network():
    def use():
        network = linear.network()
        batches.of_all(lambda x, y, index: [network(x)], *linear.batch(7), batch_size=4)
        return weakref.ref(network)

    gone = use()
    gc.collect()
    assert gone() is None
