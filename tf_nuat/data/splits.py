"""The splits of a dataset as deterministic `tf.data` pipelines.

The order of an epoch and its augmentation depend only on (seed, epoch), so a resumed run sees the batches of an
uninterrupted one.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from tf_nuat.core import keras_compat, validation
from tf_nuat.data.arrays import Arrays
from tf_nuat.data.augmentation import random_crop_and_flip
from tf_nuat.data.encoded import Encoded, UnreadableError

NAMES = ("train", "validation", "test")
AUGMENTATIONS = ("none", "crop_flip", "resized_crop")
CORRUPT = ("raise", "skip")
BATCHES_AHEAD = 2  # that are read while the network computes
CHUNK_BYTES = 2**28  # of images, as float32, that are evaluated at a time
EVALUATED = 250  # images in a batch of evaluation; a chunk holds whole batches
MOST_BYTES = 2**30  # of images, as float32, that are read from files at once


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The three splits of a dataset; made by `data.load`.

    Batches are (images float32 (B, H, W, C) in [0, 1], labels int64 (B,)). They are read when they are needed, from
    memory or from files.

    Attributes:
        name: name of the dataset, or its path.
        class_names: tuple of names, one per label.
        batch_size: images per batch, all replicas together.
        seed: whole number from which order and augmentation follow.
        examples: dict of "train", "validation" and "test" to `Arrays`, or to `encoded.Encoded` images.
        augmentation: what happens to training images. "none": nothing. "crop_flip": they are padded by 4, cropped to
            their size at random and flipped left to right half of the time. "resized_crop", for files only: they are
            random windows of the images (`encoded.window`), half of them flipped.
        corrupt: what happens at an image that cannot be decoded: "raise" an error that names it, or "skip" it with a
            warning. Training then replaces it by another image of its batch; evaluation leaves it out.

    Example:
        >>> import tf_nuat
        >>> splits = tf_nuat.data.load("digits", batch_size=32)
        >>> for x, y in splits.train.take(1):
        ...     print(x.shape, y.shape)
        ...
        (32, 8, 8, 1) (32,)
    """

    name: str
    class_names: tuple[str, ...]
    batch_size: int
    seed: int
    examples: Mapping[str, Arrays | Encoded] = dataclasses.field(repr=False)
    augmentation: str = "none"
    corrupt: str = "raise"

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of an image."""
        return tuple(next(iter(self.examples.values())).input_shape)

    @property
    def steps_per_epoch(self) -> int:
        """Number of training batches in an epoch; the images that do not fill a batch are left out of that epoch."""
        return len(self.labels("train")) // self.batch_size

    @functools.cached_property
    def train(self) -> tf.data.Dataset:
        """The training batches of one epoch, `steps_per_epoch` of them, all full.

        Each iteration is the next epoch: the first is epoch 0 of `train_from(0)`, the second epoch 1, and so on. An
        iteration counts as soon as it begins, even for a look at the first batch only, and the count is not saved. A
        run that must resume exactly uses `train_from`.
        """
        begun = itertools.count()

        def next_epoch() -> Iterator[int]:
            yield next(begun)

        epochs = tf.data.Dataset.from_generator(next_epoch, output_signature=tf.TensorSpec((), tf.int64))
        return self._training(epochs, self.steps_per_epoch)

    @functools.cached_property
    def validation(self) -> tf.data.Dataset:
        """All validation images in their fixed order, without augmentation."""
        return self._evaluation("validation")

    @functools.cached_property
    def test(self) -> tf.data.Dataset:
        """All test images in their fixed order, without augmentation."""
        return self._evaluation("test")

    def train_from(
        self, first_epoch: int, first_step: int = 0, *, shares: Iterable[int] = (0,), of: int = 1
    ) -> tf.data.Dataset:
        """Returns endless training batches from a step of an epoch on, both counted from 0.

        Every iteration begins there again; `steps_per_epoch` batches make an epoch.

        Args:
            first_epoch, first_step: where to begin.
            shares, of: each batch has `of` equal shares; those with the numbers `shares` are read one after the other,
                each as a batch of its own. An image is the same in a share as in the whole batch.

        Raises:
            ValueError: `first_epoch` is not a whole number, at least 0, there is no such step, or `of` does not divide
                the batch size.
        """
        validation.whole_number("first_epoch", first_epoch, at_least=0)
        validation.number("first_step", first_step, at_least=0, below=self.steps_per_epoch)
        if self.batch_size % of:
            validation.refuse("of", of, f"a number that divides the batch size, {self.batch_size}")
        epochs = tf.data.Dataset.counter(first_epoch)
        return self._training(epochs, tf.data.INFINITE_CARDINALITY, (first_epoch, first_step), list(shares), of)

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels of `split` in its fixed order, int64 (N,)."""
        return validation.one_of("split", split, self.examples).labels

    def take(self, split: str, indices: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels at `indices` of `split`, without augmentation, as new NumPy arrays.

        Args:
            split: "train", "validation" or "test".
            indices: whole numbers (M,).

        Returns:
            (images float32 (M, H, W, C) in [0, 1], labels int64 (M,)).

        Raises:
            ValueError: `split` is none of the three, an image cannot be read, or the images do not fit in memory.
        """
        source = validation.one_of("split", split, self.examples)
        self.check_fits(split, len(indices), "a sample of them")
        images, labels = self._read(split, np.asarray(indices))
        return np.divide(images, np.float32(_white(source)), dtype=np.float32), labels

    def most_at_once(self, split: str) -> int | None:
        """Returns how many images of `split` may be taken at once; None, for any number, if they are in memory."""
        source = validation.one_of("split", split, self.examples)
        return None if isinstance(source, Arrays) else MOST_BYTES // self._bytes_each()

    def check_fits(self, split: str, count: int, remedy: str) -> None:
        """Raises a `ValueError` if `count` images of `split` do not fit in memory; its message ends with `remedy`."""
        most = self.most_at_once(split)
        if most is not None and count > most:
            raise ValueError(
                f"split {split} of {self.name} gives {count} images of {self.input_shape}, which do not fit in memory; "
                f"allowed: at most {most}, {remedy}"
            )

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns all images and labels of `split` in its fixed order, as `take` does."""
        return self.take(split, np.arange(len(self.labels(split))))

    def chunks(self, split: str, limit: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the first `limit` images of `split` (None: all) in its fixed order, as pairs like those of `take`.

        Each chunk is small enough to be held in memory. A small split comes as a single chunk.
        """
        indices = np.arange(len(self.labels(split)))[:limit]
        size = EVALUATED * max(1, CHUNK_BYTES // self._bytes_each() // EVALUATED)
        for first in range(0, len(indices), size):
            yield self.take(split, indices[first : first + size])

    @contextlib.contextmanager
    def readable(self) -> Iterator[None]:
        """A context in which a pipeline that cannot read an image raises an `UnreadableError` that names it."""
        try:
            yield
        except tf.errors.OpError as error:  # all that is left of an exception in the threads of tf.data
            if found := keras_compat.raised_in_pipeline(error, UnreadableError.__name__):
                raise UnreadableError(found.partition(": ")[2]) from error
            raise

    def _bytes_each(self) -> int:
        return 4 * int(np.prod(self.input_shape))

    def _read(
        self, split: str, indices: np.ndarray, key: np.ndarray | None = None, first: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pixels and labels of a batch; with a `key` for its draws, of a training batch, which is full.

        A share of a training batch begins with image `first` of the batch.
        """
        source = self.examples[split]
        images, troubles = source.read(indices, key if self.augmentation == "resized_crop" else None, int(first))
        labels = source.labels[indices]
        if not troubles:
            return images, labels
        for trouble in troubles.values():
            if self.corrupt == "raise":
                raise UnreadableError(trouble)
            logging.warning("%s; it is skipped", trouble)
        rows = np.setdiff1d(np.arange(len(indices)), list(troubles))
        if key is not None:
            if rows.size == 0:
                raise UnreadableError(f"{trouble}; nor can any other image of its batch")
            bad, good, rows = list(troubles), rows, np.arange(len(indices))
            rows[bad] = np.resize(good, len(bad))
        return images[rows], labels[rows]

    def _read_in_graph(
        self, split: str, indices: tf.Tensor, key: tf.Tensor | None = None, first: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        source = self.examples[split]

        def read(indices: np.ndarray, key: np.ndarray | None = None, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
            return self._read(split, indices, key, first)

        arguments = [indices] if key is None else [indices, key, first]
        images, labels = tf.numpy_function(read, arguments, (tf.as_dtype(source.dtype), tf.int64), stateful=False)
        count = indices.shape[0]
        return tf.ensure_shape(images, (count, *self.input_shape)), tf.ensure_shape(labels, (count,))

    def _evaluation(self, split: str) -> tf.data.Dataset:
        source = self.examples[split]

        @tf.autograph.experimental.do_not_convert
        def batch(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = self._read_in_graph(split, indices)
            return _to_unit_interval(images, source), labels

        dataset = tf.data.Dataset.range(len(source.labels)).batch(self.batch_size)
        dataset = dataset.map(batch, num_parallel_calls=BATCHES_AHEAD, deterministic=True)
        if self.corrupt == "skip":
            dataset = dataset.filter(lambda images, labels: tf.size(labels) > 0)
        return _with_options(dataset.prefetch(1))

    def _training(
        self,
        epochs: tf.data.Dataset,
        cardinality: int,
        begin: tuple[int, int] = (-1, 0),
        shares: Sequence[int] = (0,),
        of: int = 1,
    ) -> tf.data.Dataset:
        source, size = self.examples["train"], self.batch_size // of

        @tf.autograph.experimental.do_not_convert
        def batch_indices(epoch: tf.Tensor) -> tf.data.Dataset:
            order = epoch_order(self.seed, epoch, len(source.labels))[: self.steps_per_epoch * self.batch_size]
            parts = tf.gather(tf.reshape(order, (self.steps_per_epoch, of, size)), shares, axis=1)
            steps = tf.range(self.steps_per_epoch, dtype=tf.int64)
            columns = [
                tf.fill((self.steps_per_epoch * len(shares),), epoch),
                tf.repeat(steps, len(shares)),
                tf.tile(tf.constant(shares, tf.int64) * size, [self.steps_per_epoch]),
                tf.reshape(parts, (-1, size)),
            ]
            done = tf.where(tf.equal(epoch, begin[0]), begin[1] * len(shares), 0)
            return tf.data.Dataset.from_tensor_slices(tuple(column[done:] for column in columns))

        @tf.autograph.experimental.do_not_convert
        def batch(
            epoch: tf.Tensor, step: tf.Tensor, first: tf.Tensor, indices: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            key = tf.random.experimental.stateless_fold_in(_key(self.seed, epoch), step, alg="philox")
            images, labels = self._read_in_graph("train", tf.ensure_shape(indices, (size,)), key, first)
            if self.augmentation == "crop_flip":
                images = random_crop_and_flip(images, key, first=first, of=self.batch_size)
            return _to_unit_interval(images, source), labels

        return _with_options(
            epochs.flat_map(batch_indices)
            .map(batch, num_parallel_calls=BATCHES_AHEAD, deterministic=True)
            .apply(tf.data.experimental.assert_cardinality(cardinality))
            .prefetch(1)
        )


def epoch_order(seed: int, epoch: int | tf.Tensor, count: int) -> tf.Tensor:
    """Returns the order of an epoch, a permutation of range(`count`), int64 (count,), that (seed, epoch) determine."""
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), _key(seed, epoch), alg="philox")


def _with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # Without it several workers look for files to distribute, and there are none.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return keras_compat.untuned(dataset.with_options(options))


def _to_unit_interval(images: tf.Tensor, source: Arrays | Encoded) -> tf.Tensor:
    return tf.cast(images, tf.float32) / _white(source)


def _white(source: Arrays | Encoded) -> int:
    return 255 if source.dtype == np.uint8 else 1


def _key(seed: int, epoch: int | tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
