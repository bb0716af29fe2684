"""Datasets in one `.npz` file."""

import io
import zipfile

import numpy as np
import pytest

from tf_nuat import data

GENERATOR = np.random.default_rng(0)
BYTES = GENERATOR.integers(0, 256, (12, 5, 4, 3), np.uint8)
FLOATS = GENERATOR.random((12, 5, 4, 3))
LABELS = np.tile([0, 1, 2], 4)
TRAIN = {"train_images": BYTES, "train_labels": LABELS}


def saved(path, **arrays):
    np.savez(path / "arrays.npz", **arrays)
    return path / "arrays.npz"


@pytest.mark.parametrize("images, white", [(BYTES, 255), (FLOATS, 1), (FLOATS.astype(np.float32), 1)])
def test_images_of_all_splits_are_what_was_saved(images, white, tmp_path):
    arrays = {
        f"{split}_{name}": value
        for split in ("train", "validation", "test")
        for name, value in (("images", images), ("labels", LABELS.astype(np.uint8)))
    }
    splits = data.load(saved(tmp_path, **arrays, class_names=["x", "y", "z"]), batch_size=4)
    assert splits.class_names == ("x", "y", "z") and splits.input_shape == (5, 4, 3)
    expected = images.astype(np.float32) / np.float32(white)
    for split in ("train", "validation", "test"):
        found, labels = splits.arrays(split)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(labels, LABELS)
        assert (found.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in splits.test]), expected)


def test_missing_splits_are_made_of_training_images_and_grey_ones_get_a_channel(tmp_path):
    images = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    splits = data.load(saved(tmp_path, train_images=images, train_labels=np.repeat([0, 1], 20)), batch_size=4)
    assert splits.input_shape == (3, 3, 1) and splits.class_names == ("0", "1")
    parts = [splits.arrays(split) for split in ("train", "validation", "test")]
    assert [np.bincount(labels).tolist() for _, labels in parts] == [[16, 16], [2, 2], [2, 2]]
    found = np.concatenate([images[:, 0, 0, 0] for images, _ in parts])
    assert sorted((found * 255).round()) == list(range(40))


def test_images_and_labels_alone_are_a_sample_to_judge_on_but_not_to_train_on(tmp_path):
    path = saved(tmp_path, images=BYTES, labels=LABELS)
    images, labels, names = data.sample(path, samples=6, input_shape=(5, 4, None))
    assert np.bincount(labels).tolist() == [2, 2, 2] and names == ("0", "1", "2")
    assert {image.tobytes() for image in images} <= {row.tobytes() for row in (BYTES / np.float32(255))}
    with pytest.raises(ValueError, match="which has no images to train on; allowed: "):
        data.load(path)
    with pytest.raises(ValueError, match="split of .* is 'train'; allowed: test"):
        data.sample(path, split="train")


COLUMN = LABELS[:, None].astype(np.uint8)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": BYTES, "y_train": COLUMN, "x_test": 255 - BYTES, "y_test": COLUMN},  # as keras.datasets
        {
            "x_train": BYTES,
            "y_train": LABELS,
            "x_val": BYTES // 2,
            "y_val": LABELS,
            "x_test": 255 - BYTES,
            "y_test": LABELS,
        },
        {  # as MedMNIST
            "train_images": BYTES,
            "val_images": BYTES // 2,
            "test_images": 255 - BYTES,
            **{f"{split}_labels": COLUMN for split in ("train", "val", "test")},
        },
    ],
)
def test_the_files_of_others_are_read_as_they_are(arrays, tmp_path):
    path = saved(tmp_path, **arrays)
    has_validation = len(arrays) > 4
    splits = data.load(path, batch_size=1)
    expected = {"test": 255 - BYTES}
    if has_validation:
        expected |= {"train": BYTES, "validation": BYTES // 2}
    for split, images in expected.items():
        found, labels = splits.arrays(split)
        np.testing.assert_array_equal(found, images / np.float32(255))
        np.testing.assert_array_equal(labels, LABELS)
    if not has_validation:
        assert len(splits.labels("train")) == 9 and len(splits.labels("validation")) == 3


def save_members(path, **members):
    """Writes an archive of these members, bytes, as a hostile file may have them."""
    with zipfile.ZipFile(path / "arrays.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path / "arrays.npz"


def header(shape):
    """Returns an array file that says to have a shape, and has nothing."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    "members, words",
    [
        ({"images": b"no array", "labels": b"none"}, "images is no array; allowed: "),
        ({"images.npy": b"no array", "labels.npy": b"none"}, ""),
        ({"images.npy": header((2**40, 32, 32, 3)), "labels.npy": header((2,))}, "cannot be read ("),
        ({"images.npy": header((2**70,)), "labels.npy": header((2,))}, "cannot be read ("),
        ({"images.npy": header((2, 4, 4, 3)), "labels.npy": header((2,))}, "cannot be read ("),
        ({"images.npy": b"\x93NUMPY\x01\x00", "labels.npy": b""}, "cannot be read ("),
        (
            {"images": b"", "line\nfeed": b"", "labels": b""},
            "has 'line\\nfeed', which is not understood (it has images",
        ),
    ],
)
def test_a_hostile_archive_is_refused_in_one_line(members, words, tmp_path):
    path = save_members(tmp_path, **members)
    with pytest.raises(ValueError) as caught:
        data.sample(path)
    assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "allowed" in str(caught.value)


BAD = [
    ({}, "lacks images (it has nothing); allowed: images and labels"),
    ({"train_images": BYTES}, "lacks train_labels (it has train_images)"),
    ({"images": BYTES, "label": LABELS}, "lacks labels (it has images, label)"),
    ({"valid_images": BYTES, "valid_labels": LABELS}, "lacks images (it has valid_images, valid_labels)"),
    ({**TRAIN, "ids": LABELS}, "has 'ids', which is not understood (it has ids, train_images, train_labels)"),
    ({**TRAIN, "class_name": ["x", "y", "z"]}, "has 'class_name', which is not understood"),
    ({**TRAIN, "x_train": BYTES, "y_train": LABELS}, "has both train_images and x_train (it has train_images, "),
    ({**TRAIN, "x_train": BYTES}, "lacks y_train (it has train_images, train_labels, x_train)"),
    ({**TRAIN, "images": BYTES, "labels": LABELS}, "has images, for testing alone, beside those of other splits"),
    ({**TRAIN, "train_images": BYTES.astype(np.int32)}, "train_images has dtype int32; allowed: "),
    ({**TRAIN, "train_images": FLOATS * 255}, "train_images has values from "),
    ({**TRAIN, "train_images": FLOATS * np.nan}, "train_images has values from nan"),
    ({**TRAIN, "train_images": BYTES.swapaxes(1, 3)}, "(12, 3, 4, 5), the channels first; allowed: "),
    ({**TRAIN, "train_images": BYTES // 128}, "train_images has values up to 1, which is black; allowed: bytes up to"),
    ({**TRAIN, "train_images": FLOATS / 255}, "train_images has values up to 0.003"),
    ({**TRAIN, "train_images": BYTES[0, 0]}, "train_images has shape (4, 3); allowed: "),
    ({**TRAIN, "train_images": BYTES[:0]}, "train_images is empty; allowed: "),
    ({**TRAIN, "train_labels": LABELS[:-1]}, "train_labels has 11 entries for 12 images; allowed: "),
    ({**TRAIN, "train_labels": LABELS / 2}, "train_labels has shape (12,) and dtype float64; allowed: integers"),
    ({**TRAIN, "train_labels": 2 * np.eye(3, dtype=int)[LABELS]}, "train_labels has shape (12, 3) and dtype int64"),
    ({**TRAIN, "train_labels": np.tri(3, dtype=int)[LABELS]}, "train_labels has shape (12, 3) and dtype int64"),
    ({**TRAIN, "train_labels": LABELS * 0}, "class '1' has no image in train_labels; allowed: "),
    ({**TRAIN, "train_labels": LABELS + 2**20}, "train_labels has values up to 1048578; allowed: below 1,048,576"),
    ({**TRAIN, "train_labels": LABELS + 0.5}, "train_labels has shape (12,) and dtype float64"),
    ({**TRAIN, "train_labels": LABELS - 1}, "train_labels has values from -1 to 1; allowed: integers from 0 to 1"),
    ({**TRAIN, "class_names": ["x", "y"]}, "train_labels has values from 0 to 2; allowed: integers from 0 to 1"),
    ({**TRAIN, "train_labels": LABELS * 2}, "class '1' has no image in train_labels; allowed: "),
    ({**TRAIN, "train_labels": LABELS + 1}, "at least one of every class, numbered from 0 without a gap"),
    ({**TRAIN, "test_images": BYTES[:, :3], "test_labels": LABELS}, "images of different sizes or types; allowed: "),
    ({**TRAIN, "test_images": FLOATS, "test_labels": LABELS}, "images of different sizes or types; allowed: "),
    ({**TRAIN, "train_images": np.array([None] * 12)}, "cannot be read (Object arrays"),
]


@pytest.mark.parametrize(
    "labels", [LABELS.astype("uint8"), LABELS[:, None], LABELS.astype("float32"), np.eye(3)[LABELS]]
)
def test_labels_are_taken_as_others_write_them(labels, tmp_path):
    _, found = data.load(str(saved(tmp_path, **{**TRAIN, "train_labels": labels})), batch_size=4).arrays("train")
    _, expected = data.load(str(saved(tmp_path, **TRAIN)), batch_size=4).arrays("train")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("arrays, words", BAD)
def test_a_file_of_other_arrays_is_refused_in_one_line(arrays, words, tmp_path):
    path = saved(tmp_path, **arrays)
    with pytest.raises(ValueError) as caught:
        data.load(path, batch_size=1)
    assert f"name is {str(path)!r}" in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "one.npy", BYTES)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name in ("text.npz", "one.npz"):
        with pytest.raises(ValueError, match="cannot be read .*allowed: arrays that numpy.savez saved"):
            data.load(tmp_path / name)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"input_shape": (8, 8, 3)}, "input_shape is (8, 8, 3); allowed: (5, 4, 3), that of the images of /"),
        ({"augmentation": "resized_crop"}, "augmentation is 'resized_crop'; allowed: none, crop_flip"),
        ({"images_per_class": 4}, "images_per_class is 4; allowed: a number at most 2"),
    ],
)
def test_what_arrays_cannot_do_is_named(arguments, words, tmp_path):
    with pytest.raises(ValueError) as caught:
        data.load(saved(tmp_path, **TRAIN), batch_size=1, **arguments)
    assert words in str(caught.value) and "\n" not in str(caught.value)
