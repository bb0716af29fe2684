"""Datasets that a function of the user's own returns."""

import numpy as np
import pytest

from tf_nuat import data
from tf_nuat.data import pipelines
from tf_nuat.evaluate import sampling

MODULE = """
import numpy as np
import tensorflow as tf

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), np.uint8)
LABELS = np.tile(np.array([0, 1], np.uint8), 20)
of = tf.data.Dataset.from_tensor_slices
whole = of((PIXELS, LABELS))


def splits():
    return {"train": whole, "validation": whole.take(6), "test": whole.skip(30), "class_names": ["cat", "dog"]}


def floats():
    return {"train": whole.map(lambda image, label: (tf.cast(image[..., 0], tf.float64) / 255, label))}


def batches():
    return {"train": whole.batch(4)}


def images_alone():
    return {"train": of(PIXELS)}


def dicts():
    return {"train": whole.map(lambda image, label: {"image": image, "label": label})}


def endless():
    return {"train": whole.repeat()}


def endless_without_saying_so():
    return {"train": whole.repeat().filter(lambda image, label: True)}


def empty():
    return {"train": whole.take(0)}


def sizes():
    return {"train": whole.map(lambda image, label: (image[:, : 4 + tf.cast(label, tf.int32)], label))}


def sizes_of_splits():
    return {"train": whole, "test": whole.map(lambda image, label: (image[1:], label))}


def above_one():
    return {"train": whole.map(lambda image, label: (tf.cast(image, tf.float32), label))}


def texts():
    return {"train": of((PIXELS, LABELS.astype(str)))}


def no_dogs():
    return {"train": whole.filter(lambda image, label: label == 0), "test": whole}


def other_split():
    return {"train": whole, "valid": whole}


def nothing():
    return {}


def dataset():
    return whole


def arrays():
    return {"train": (PIXELS, LABELS)}


def raises():
    def fail(image, label):
        raise OSError("the disk is full")

    return {"train": whole.map(lambda *pair: tf.numpy_function(fail, pair, [tf.uint8, tf.uint8]))}
"""


@pytest.fixture(autouse=True)
def own_data(tmp_path, monkeypatch):
    """The module of the user's, importable."""
    (tmp_path / "own_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import own_data

    return own_data


def test_the_splits_are_the_images_of_the_pipelines_in_their_order(own_data):
    splits = data.load("own_data:splits", batch_size=4)
    assert (splits.name, splits.class_names, splits.input_shape) == ("own_data:splits", ("cat", "dog"), (6, 5, 3))
    expected = {"train": slice(None), "validation": slice(6), "test": slice(30, None)}
    for split, part in expected.items():
        images, labels = splits.arrays(split)
        np.testing.assert_array_equal(images, own_data.PIXELS[part] / np.float32(255))
        np.testing.assert_array_equal(labels, own_data.LABELS[part])
        assert splits.examples[split].dtype == np.uint8 and labels.dtype == np.int64


def test_the_batches_of_an_epoch_follow_from_its_number():
    first, second = (data.load("own_data:splits", batch_size=4, seed=1) for _ in range(2))
    undisturbed = [x.numpy() for x, _ in first.train_from(0).take(20)]
    np.testing.assert_array_equal(undisturbed[10:], [x.numpy() for x, _ in second.train_from(1).take(10)])
    assert not np.array_equal(undisturbed[:10], undisturbed[10:])


def test_missing_splits_are_made_of_training_images_and_grey_ones_get_a_channel(own_data):
    splits = data.load("own_data:floats", batch_size=4)
    assert splits.input_shape == (6, 5, 1) and splits.class_names == ("0", "1")
    parts = [splits.arrays(split) for split in ("train", "validation", "test")]
    assert [np.bincount(labels).tolist() for _, labels in parts] == [[16, 16], [2, 2], [2, 2]]
    found = {image.tobytes() for images, _ in parts for image in images}
    assert found == {image.tobytes() for image in (own_data.PIXELS[..., :1] / 255).astype(np.float32)}


def test_a_network_that_was_trained_on_it_is_judged_on_its_test_split(own_data, tmp_path):
    class Network:
        input_shape = (None, 6, 5, 3)

    images, labels, names = sampling.sample(Network, None, "own_data:splits", samples=100)
    np.testing.assert_array_equal(images, own_data.PIXELS[30:] / np.float32(255))
    assert names == ("cat", "dog") and np.array_equal(labels, own_data.LABELS[30:])


@pytest.mark.parametrize(
    "function, words",
    [
        ("missing", "name is 'own_data:missing'; allowed: a function of the module own_data"),
        ("batches", "name is 'own_data:batches': train is a dataset of .*; allowed: a tf.data.Dataset of pairs"),
        ("images_alone", "train is a dataset of .*; allowed: a tf.data.Dataset of pairs"),
        ("dicts", "train is a dataset of .*; allowed: a tf.data.Dataset of pairs"),
        ("arrays", "train is tuple; allowed: a tf.data.Dataset of pairs"),
        ("endless", "train has more than 4,294,967,296 bytes of images, or does not end; allowed: what fits in memory"),
        ("empty", "train is empty; allowed: at least one image"),
        ("sizes", "train cannot be read .*; allowed: images of one size"),
        ("sizes_of_splits", "where the splits have images of different sizes or types; allowed: the same"),
        ("above_one", r"images of train has values from 0 to 255; allowed: \[0, 1\]"),
        ("texts", "labels of train has shape .*; allowed: integers"),
        ("no_dogs", "where class '1' has no image in labels of train; allowed: "),
        ("other_split", "name is 'own_data:other_split', which returns a split 'valid'; allowed: a dict of train, "),
        ("nothing", "which returns no split; allowed: a dict"),
        ("dataset", "which returns a .*; allowed: a dict"),
        ("raises", "train cannot be read .*the disk is full"),
    ],
)
def test_a_function_that_returns_something_else_is_refused_in_one_line(function, words):
    with pytest.raises(ValueError, match=words) as caught:
        data.load(f"own_data:{function}", batch_size=1)
    assert "\n" not in str(caught.value)


def test_reading_stops_where_it_does_not_fit_in_memory(monkeypatch):
    monkeypatch.setattr(pipelines, "MOST_BYTES", 10_000)
    with pytest.raises(ValueError, match="train has more than 10,000 bytes of images, or does not end") as caught:
        data.load("own_data:endless_without_saying_so")
    assert "\n" not in str(caught.value)
    images = 40 + 6 + 10
    monkeypatch.setattr(pipelines, "MOST_BYTES", images * 6 * 5 * 3)
    assert len(data.load("own_data:splits", batch_size=4).labels("test")) == 10
    monkeypatch.setattr(pipelines, "MOST_BYTES", images * 6 * 5 * 3 - 1)  # of all splits together
    with pytest.raises(ValueError, match="test has more than"):
        data.load("own_data:splits", batch_size=4)
