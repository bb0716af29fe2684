"""Datasets that TensorFlow Datasets prepared; images are read one by one, from any place in their files."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_nuat.core import files as core_files
from tf_nuat.core import npz_input
from tf_nuat.core.files import PathLike
from tf_nuat.core.npz_input import Shape
from tf_nuat.data import prepared_info
from tf_nuat.data.encoded import THREADS, Encoded
from tf_nuat.data.splits import NAMES

LARGE = 2**30  # bytes of files whose index is worth keeping
HEADER = 12  # bytes before the data of a record: its length, and a checksum of that
FOOTER = 4  # bytes after it: its checksum
_INDEX = {"places": Shape("i", (None, 3)), "labels": Shape("i", (None,))}


@dataclasses.dataclass(frozen=True, eq=False)
class Records(Encoded):
    """Encoded images in TFRecord files; `places` are int64 (N, 3): file, offset and length of a record.

    Attributes:
        files: tuple of paths.
        key: name of the image in a record.
    """

    files: tuple[str, ...] = ()
    key: str = "image"

    def name(self, index: int) -> str:
        file, offset, _ = self.places[index]
        return f"{self.files[file]}, byte {offset}"

    def contents(self, index: int) -> bytes:
        file, offset, length = self.places[index].tolist()
        with open(self.files[file], "rb", buffering=0) as records:
            records.seek(offset)
            record = records.read(length)
        return tf.train.Example.FromString(record).features.feature[self.key].bytes_list.value[0]


def builder_folder(path: PathLike) -> pathlib.Path | None:
    """Returns the folder of a prepared dataset at `path`: itself, or its newest version; None where there is none."""
    path = pathlib.Path(path)
    if os.path.isfile(path / "dataset_info.json"):
        return path
    versions = [info.parent for info in path.glob("*.*.*/dataset_info.json")]
    return max(
        versions, key=lambda folder: [int(n) if n.isdigit() else -1 for n in folder.name.split(".")], default=None
    )


def read_folder(argument: str, path: pathlib.Path) -> tuple[dict[str, Records], list[str]]:
    """Returns what `read` does for the prepared dataset in the folder `path`; makes sure that its files run no code."""
    import tensorflow_datasets as tfds  # slow to import, and other datasets do not need it

    where = f"{argument} is {str(path)!r}"
    try:
        foreign = prepared_info.foreign_in(path)
        # TensorFlow Datasets would take a path that begins with "~" for another folder.
        builder = None if foreign else tfds.builder_from_directory(path.absolute())
    except Exception as error:  # whatever its parsers raise
        raise ValueError(f"{where}, which {_cannot_be_read(error)}") from error
    if foreign:
        raise ValueError(f"{where}, where {foreign}; allowed: features of TensorFlow Datasets, {prepared_info.STOCK}*")
    return read(argument, builder)


def prepared(name: str, data_dir: PathLike | None) -> Any | None:
    """Returns the builder of the dataset `name`, which TensorFlow Datasets has prepared, or None where it has not."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    return builder if builder.info.splits else None


def read(argument: str, builder: Any) -> tuple[dict[str, Records], list[str]]:
    """Returns the images of a prepared dataset.

    Returns:
        (dict of those splits among "train", "validation" and "test" that it has to `Records`, names of the classes). If
        all images have one shape, the `Records` know it.

    Raises:
        ValueError: it does not have images with class labels, or not in TFRecord files.
    """
    import tensorflow_datasets as tfds

    where = f"{argument} is {str(builder.data_dir)!r}"
    folder = os.path.join(os.path.abspath(builder.data_dir), "")
    features = builder.info.features
    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if len(images) != 1 or len(labels) != 1 or features[images[0]].np_dtype != np.uint8:
        raise ValueError(
            f"{where}, with {len(images)} images and {len(labels)} class labels in an example; "
            "allowed: one image of bytes, one label"
        )
    if builder.info.file_format is not tfds.core.file_adapters.FileFormat.TFRECORD:
        raise ValueError(f"{where}, in {builder.info.file_format.value} files; allowed: tfrecord")
    shape = features[images[0]].shape
    shape = () if None in shape else tuple(shape)
    given = {}
    for split in [split for split in NAMES if split in builder.info.splits]:
        files = tuple(map(str, builder.info.splits[split].filepaths))
        if outside := [file for file in files if not os.path.abspath(file).startswith(folder)]:
            raise ValueError(f"{where}, whose file {outside[0]!r} is outside of it; allowed: files in that folder")
        if missing := [file for file in files if not os.path.isfile(file)]:
            raise ValueError(f"{where}, where {missing[0]!r} is missing; allowed: all files of the dataset")
        places, numbers = _indexed(where, files, labels[0])
        given[split] = Records(numbers, places, shape, files=files, key=images[0])
    if not given:
        raise ValueError(f"{where}, which has no split of these names; allowed: {', '.join(NAMES)}")
    return given, list(features[labels[0]].names)


def _indexed(where: str, files: Sequence[str], label: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places (N, 3) and labels (N,) of the records of `files`, in order.

    That takes reading all files once. The index of large ones is kept in the user's cache folder, `XDG_CACHE_HOME` or
    ~/.cache, until they change.
    """
    stats = [os.stat(file) for file in files]
    if sum(stat.st_size for stat in stats) < LARGE:
        return _scan(where, files, label)
    known = [(os.path.abspath(file), stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, stats)]
    folder = core_files.user_cache()
    kept = folder / f"index-{hashlib.sha256(repr((label, known)).encode()).hexdigest()[:32]}.npz"
    try:
        index = npz_input.load(f"index {kept}", kept)
        npz_input.check(f"index {kept}", index, _INDEX)
        return index["places"], index["labels"]
    except ValueError:
        logging.info("reading all of %d files once, to know where their images are", len(files))
    places, labels = _scan(where, files, label)
    unfinished = folder / f".unfinished-{os.getpid()}-{kept.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(unfinished, places=places, labels=labels)
        os.replace(unfinished, kept)
    except OSError as error:
        logging.warning("%s cannot be written (%s): the next run will read all files again", kept, error)
    return places, labels


def _scan(where: str, files: Sequence[str], label: str) -> tuple[np.ndarray, np.ndarray]:
    def of_file(number: tf.Tensor, path: tf.Tensor) -> tf.data.Dataset:
        def columns(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            parsed = tf.io.parse_example(records, {label: tf.io.FixedLenFeature((), tf.int64)})
            lengths = tf.strings.length(records)
            return tf.fill(tf.shape(lengths), number), tf.cast(lengths, tf.int64), parsed[label]

        return tf.data.TFRecordDataset(path).batch(64).map(columns)

    dataset = tf.data.Dataset.from_tensor_slices((np.arange(len(files)), list(files)))
    dataset = dataset.interleave(of_file, cycle_length=THREADS, num_parallel_calls=THREADS, deterministic=True)
    try:
        batches = list(dataset.as_numpy_iterator())
    except tf.errors.OpError as error:
        raise ValueError(f"{where}, which {_cannot_be_read(error)}") from error
    if not batches:
        raise ValueError(f"{where}, which has no records; allowed: a dataset with images")
    number, lengths, labels = (np.concatenate(column) for column in zip(*batches))
    order = np.argsort(number, kind="stable")
    number, lengths, labels = number[order], lengths[order], labels[order]
    begins = np.cumsum(lengths + HEADER + FOOTER) - (lengths + HEADER + FOOTER)
    begins -= begins[np.searchsorted(number, number)]  # counted from the first record of the same file
    return np.stack([number, begins + HEADER, lengths], axis=1), labels


def _cannot_be_read(error: Exception) -> str:
    return f"cannot be read ({core_files.reason(error)})"
