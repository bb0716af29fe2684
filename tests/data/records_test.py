"""Datasets that TensorFlow Datasets prepared."""

import json
import logging
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tf_nuat import data
from tf_nuat.data import prepared_info, records

COUNTS = {"train": 30, "test": 8}


def store(folder, features, examples, name="own", version="1.2.0", counts=COUNTS):
    """Prepares a dataset as a user would, the first examples for each split; returns the folder of its version."""
    signature = tf.nest.map_structure(
        lambda value: tf.TensorSpec(np.shape(value), np.asarray(value).dtype), examples[0]
    )
    splits = {
        split: tf.data.Dataset.from_generator(lambda count=count: iter(examples[:count]), output_signature=signature)
        for split, count in counts.items()
    }
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        data_dir=str(folder),
        disable_shuffling=True,
    )
    return pathlib.Path(builder.data_dir)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """The folder of a dataset of 6x5 images, no two alike."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), np.uint8)
    features = {"picture": tfds.features.Image(shape=(None, None, 3)), "kind": tfds.features.ClassLabel(names="abc")}
    examples = [{"picture": image, "kind": np.int64(k % 3)} for k, image in enumerate(pixels)]
    return store(tmp_path_factory.mktemp("tfds"), features, examples)


def test_images_labels_and_classes_are_those_that_tensorflow_datasets_reads(version):
    splits = data.load(version, batch_size=4)
    assert splits.class_names == ("a", "b", "c") and splits.input_shape == (6, 5, 3)
    expected = list(tfds.builder_from_directory(version).as_dataset("test").as_numpy_iterator())
    images, labels = splits.arrays("test")
    np.testing.assert_array_equal(images, np.stack([each["picture"] for each in expected]) / np.float32(255))
    np.testing.assert_array_equal(labels, [each["kind"] for each in expected])
    parts = [len(splits.labels(split)) for split in ("train", "validation")]
    assert parts == [27, 3]
    assert data.load(version.parent, batch_size=4).class_names == ("a", "b", "c")  # the newest version of it


def test_records_are_found_in_whatever_file_they_lie(version, tmp_path):
    whole = list(tf.data.TFRecordDataset([str(path) for path in sorted(version.glob("*train*"))]).as_numpy_iterator())
    files = [str(tmp_path / name) for name in "xy"]
    for file, part in zip(files, (whole[:11], whole[11:])):
        with tf.io.TFRecordWriter(file) as writer:
            for record in part:
                writer.write(record)
    places, labels = records._scan("name", files, "kind")
    assert np.bincount(places[:, 0]).tolist() == [11, 19]
    source = records.Records(labels, places, (6, 5, 3), files=files, key="picture")
    for index, record in enumerate(whole):
        example = tf.train.Example.FromString(record).features.feature
        assert source.contents(index) == example["picture"].bytes_list.value[0]
        assert labels[index] == example["kind"].int64_list.value[0]


def test_the_index_of_large_files_is_kept_until_they_change(version, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LARGE", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (file,) = [str(path) for path in version.glob("*train*")]
    copy = tmp_path / "copy"
    copy.write_bytes(pathlib.Path(file).read_bytes())
    places, labels = records._indexed("name", [str(copy)], "kind")
    scans = []
    scan = records._scan
    monkeypatch.setattr(records, "_scan", lambda *arguments: scans.append(arguments) or scan(*arguments))
    again = records._indexed("name", [str(copy)], "kind")
    np.testing.assert_array_equal(again[0], places)
    np.testing.assert_array_equal(again[1], labels)
    assert not scans
    with tf.io.TFRecordWriter(str(copy)) as writer:
        for record in list(tf.data.TFRecordDataset(file).as_numpy_iterator())[:5]:
            writer.write(record)
    assert len(records._indexed("name", [str(copy)], "kind")[1]) == 5 and len(scans) == 1


def test_a_dataset_without_one_image_and_one_label_is_refused(tmp_path):
    path = store(tmp_path, {"number": np.int64}, [{"number": np.int64(k)} for k in range(30)])
    with pytest.raises(
        ValueError, match=r"with 0 images and 0 class labels in an example; allowed: one image"
    ) as caught:
        data.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def copied(version, folder):
    """Copies the files of a dataset to `folder`, and returns that."""
    for old in version.iterdir():
        (folder / old.name).write_bytes(old.read_bytes())
    return folder


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda info: info.update(fileFormat="riegeli"), "in riegeli files; allowed: tfrecord"),
        (lambda info: [split.update(name=f"{split['name']}_part") for split in info["splits"]], "no split of these"),
        (
            lambda info: [split.update(filepathTemplate=f"../{split['filepathTemplate']}") for split in info["splits"]],
            "whose file '.*/own-train.*' is outside of it; allowed: files in that folder",
        ),
    ],
)
def test_another_kind_of_files_and_other_splits_are_named(version, tmp_path, change, words):
    path = copied(version, tmp_path) / "dataset_info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=words) as caught:
        data.load(tmp_path, batch_size=4)
    assert "\n" not in str(caught.value)


def test_files_without_records_are_named(version, tmp_path):
    for path in copied(version, tmp_path).glob("*tfrecord*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="name is .*, which has no records; allowed: a dataset with images"):
        data.load(tmp_path, batch_size=4)


def test_an_index_that_cannot_be_kept_is_made_again(version, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(records, "LARGE", 0)
    with caplog.at_level(logging.WARNING):
        assert len(data.load(version, batch_size=4).labels("train")) == 27
    assert "cannot be written" in caplog.text and "the next run will read all files again" in caplog.text


def test_missing_and_damaged_files_are_named(version, tmp_path):
    (test,) = copied(version, tmp_path).glob("*test*")
    contents = test.read_bytes()
    test.write_bytes(contents[:-7])
    with pytest.raises(ValueError, match="name is .*which cannot be read") as caught:
        data.load(tmp_path, batch_size=4)
    assert "\n" not in str(caught.value)
    test.unlink()
    with pytest.raises(ValueError, match=f"where '{test}' is missing; allowed: all files"):
        data.load(tmp_path, batch_size=4)
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="name is .*which cannot be read") as caught:
        data.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_newest_version_is_by_number(tmp_path):
    for name in ("1.9.0", "1.10.0", "1.2.3", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset_info.json").write_text("{}")
    assert records.builder_folder(tmp_path) == tmp_path / "1.10.0"
    assert records.builder_folder(tmp_path / "1.9.0") == tmp_path / "1.9.0"
    assert records.builder_folder(tmp_path / "notes" / "none") is None


EVIL = "evil_features.F"
STOCK = "tensorflow_datasets.core.features"
OLD = {"type": EVIL, "content": {}}  # as the first versions of TensorFlow Datasets wrote it
SEQUENCE = {"feature": OLD, "length": 3}
# What replaces parts of the two files.
FOREIGN = {
    "the whole": ({}, {"pythonClassName": EVIL}),
    "a feature": ({}, {"featuresDict": {"features": {"kind": {"pythonClassName": EVIL, "classLabel": {}}}}}),
    "a name of protocol buffers": ({}, {"pythonClassName": "", "python_class_name": EVIL}),
    "old files": ({}, OLD),
    "JSON in a text": (
        {},
        {
            "pythonClassName": f"{STOCK}.sequence_feature.Sequence",
            "featuresDict": None,
            "jsonFeature": {"json": json.dumps(SEQUENCE)},
        },
    ),
    "the other file": ({"features": {"pythonClassName": EVIL, "jsonFeature": {"json": "{}"}}}, {}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_the_files_of_a_dataset_import_no_module(name, version, tmp_path, monkeypatch):
    (tmp_path / "evil_features.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    copied(version, folder)
    for file, changes in zip(prepared_info.NAMES, FOREIGN[name]):
        content = {**json.loads((folder / file).read_text()), **changes}
        (folder / file).write_text(json.dumps({key: each for key, each in content.items() if each not in (None, "")}))
    words = f"name is '{folder}', where .*json names the class '{EVIL}', whose module would be imported; allowed: "
    with pytest.raises(ValueError, match=words) as caught:
        data.load(folder, batch_size=4)
    assert "\n" not in str(caught.value) and "evil_features" not in sys.modules


def test_the_files_of_a_dataset_read_no_names_of_classes_elsewhere(version, tmp_path):
    path = copied(version, tmp_path) / "features.json"
    features = json.loads(path.read_text())
    kind = {
        "pythonClassName": f"{STOCK}.class_label_feature.ClassLabel",
        "jsonFeature": {"json": json.dumps({"names_file": "/etc/passwd"})},
    }
    features["featuresDict"]["features"]["kind"] = kind
    path.write_text(json.dumps(features))
    with pytest.raises(ValueError, match="features.json names the file '/etc/passwd'; allowed: features of TensorFlow"):
        data.load(tmp_path, batch_size=4)


def test_old_files_of_stock_features_name_nothing_foreign(tmp_path):
    image = {"type": f"{STOCK}.image_feature.Image", "content": {"shape": [None, None, 3], "dtype": "uint8"}}
    label = {"type": f"{STOCK}.class_label_feature.ClassLabel", "content": {"num_classes": 3}}
    features = {"type": f"{STOCK}.features_dict.FeaturesDict", "content": {"type": image, "label": label}}
    (tmp_path / "features.json").write_text(json.dumps(features))
    info = {"name": "own", "moduleName": "own.module", "schema": {"feature": [{"name": "image", "type": "BYTES"}]}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    assert prepared_info.foreign_in(tmp_path) is None
