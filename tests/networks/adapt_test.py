"""`adapt` on classifiers as their owners have them: it answers as the owner's pipeline does, or says what to type."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import owners, owners_archives, owners_files, owners_models, owners_nested, owners_refused
from tf_nuat.core import validation
from tf_nuat.networks import adapt, pixels

TAKEN = {**owners_models.TAKEN, **owners_nested.TAKEN, **owners_files.TAKEN, **owners_archives.TAKEN}


def gradients(function, images, has_offset):
    """Returns the gradients by the images of a sum of the logits with random weights."""
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = tf.cast(function(x), "float32")
        weights = np.random.default_rng(0).normal(size=logits.shape).astype(np.float32)
        weights -= weights.mean(axis=1, keepdims=True) if has_offset else 0.0
        total = tf.reduce_sum(weights * logits)
    return np.asarray(logits), np.asarray(tape.gradient(total, x))


@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_taken_answers_as_its_owner_does(kind, tmp_path):
    owned = TAKEN[kind](tmp_path)
    images = owners.images(owned.colour)
    network, changes = adapt(owned.given, **owned.options)
    assert validation.classifier("network", network) is network
    assert len(changes) == len(owned.said) and all(map(str.__contains__, changes, owned.said)), changes
    assert (network is owned.given) == (not changes) or not isinstance(owned.given, keras.Model)

    logits, slopes = gradients(lambda x: network(x, training=False), images, owned.has_offset)
    np.testing.assert_array_equal(logits.argmax(axis=1), owned.classes(images))
    if owned.logits is not None:
        expected, expected_slopes = gradients(owned.logits, images, owned.has_offset)
        if owned.has_offset:
            logits, expected = (each - each.mean(axis=1, keepdims=True) for each in (logits, expected))
        np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(slopes, expected_slopes, atol=1e-4)
    if owned.is_stock:
        network.save(tmp_path / "adapted.keras")
        again = keras.saving.load_model(tmp_path / "adapted.keras", safe_mode=True)
        np.testing.assert_allclose(again(images, training=False), network(images, training=False), atol=1e-6)


@pytest.mark.parametrize("kind", owners_refused.REFUSED)
def test_what_is_refused_is_so_in_one_line_that_says_what_to_type(kind, tmp_path):
    given, options, words = owners_refused.case(kind, tmp_path)
    with pytest.raises(ValueError) as caught:
        adapt(given, argument="--checkpoint", **options)
    said = str(caught.value)
    assert "\n" not in said and all(word in said for word in words), said


def test_many_kinds_are_taken():
    assert len(TAKEN) >= 26 and len(TAKEN) + len(owners_refused.REFUSED) >= 30


def test_the_softmax_of_a_network_of_any_size_is_found_on_images_that_are_large_enough():
    inputs = keras.Input((None, None, 1))
    maps = keras.layers.GlobalAveragePooling2D()(keras.layers.AveragePooling2D(40)(inputs))
    _, changes = adapt(keras.Model(inputs, 1.0 * keras.ops.softmax(keras.layers.Dense(3)(maps))))
    assert changes == ["it returns probabilities from which no softmax can be taken off: their logarithm was taken"]


def test_low_images_are_not_those_of_channels_first():
    for taken in ((3, 5, 1), (1, 5, 3), (3, 1, 3)):
        assert pixels.arrangement("network", taken) == pixels.Arrangement(taken)
    assert pixels.arrangement("network", (3, 1, 5)).image == (1, 5, 3)
