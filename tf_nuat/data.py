"""Datasets: `load(name)` returns the training, validation and test splits as deterministic `tf.data` pipelines.

The images are held once, in memory, as bytes. A batch is gathered by its indices, augmented as bytes, and only then
converted to float32 in [0, 1]. The order of an epoch and its augmentation are functions of (seed, epoch) alone, so
that a resumed run sees the batches of an undisturbed one.
"""

import collections.abc
import dataclasses
import functools
import itertools
import os

import numpy as np
import tensorflow as tf

from tf_nuat import validation

PADDING = 4  # pixels on each side, from which crops of the original size are taken


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a dataset comes from, and what is done to it.

    Attributes:
        read: function `(data_dir) -> (examples, class_names)`, with `examples` a dict of "train", "validation" and
            "test" to (images uint8 (N, H, W, C), labels int64 (N,)) as NumPy arrays.
        white: the byte that becomes 1.0.
        augmented: whether training images are cropped and flipped at random.
    """

    read: collections.abc.Callable
    white: int = 255
    augmented: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The three splits of a dataset; made by `load`.

    Batches are (images float32 (B, H, W, C) in [0, 1], labels int64 (B,)).

    Attributes:
        name: name of the dataset.
        class_names: tuple of names, one per label.
        batch_size: images per batch, all replicas together.
        seed: whole number from which order and augmentation follow.
        examples: dict of "train", "validation" and "test" to (images uint8, labels int64), tensors in host memory.
        source: the `Source` that was read.
    """

    name: str
    class_names: tuple
    batch_size: int
    seed: int
    examples: dict = dataclasses.field(repr=False)
    source: Source = dataclasses.field(repr=False)

    @property
    def num_classes(self):
        """Number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self):
        """(height, width, channels) of an image."""
        return tuple(self.examples["train"][0].shape[1:])

    @property
    def steps_per_epoch(self):
        """Number of training batches in an epoch; the images that do not fill a batch are left out of that epoch."""
        return len(self.examples["train"][1]) // self.batch_size

    @functools.cached_property
    def train(self):
        """The training batches of one epoch, `steps_per_epoch` of them, all full.

        Each iteration is the next epoch: the first begun is epoch 0 of `train_from(0)`, the second epoch 1, and so on.
        Anything that begins an iteration counts, a look at the first batch included, and the count is not saved: a run
        that has to resume exactly uses `train_from`.
        """
        begun = itertools.count()

        def next_epoch():
            yield next(begun)

        epochs = tf.data.Dataset.from_generator(next_epoch, output_signature=tf.TensorSpec((), tf.int64))
        return self._training(epochs, self.steps_per_epoch)

    @functools.cached_property
    def validation(self):
        """The validation images in their fixed order, every one of them, without augmentation."""
        return self._evaluation("validation")

    @functools.cached_property
    def test(self):
        """The test images in their fixed order, every one of them, without augmentation."""
        return self._evaluation("test")

    def train_from(self, first_epoch):
        """Returns the endless training batches from the start of `first_epoch`, counted from 0.

        Every iteration of it begins at `first_epoch` again; `steps_per_epoch` batches make an epoch.

        Raises:
            ValueError: `first_epoch` is not a whole number, at least 0.
        """
        validation.whole_number("first_epoch", first_epoch, at_least=0)
        return self._training(tf.data.Dataset.counter(first_epoch), tf.data.INFINITE_CARDINALITY)

    def arrays(self, split):
        """Returns all of `split` without augmentation, in its fixed order, as NumPy arrays.

        Args:
            split: "train", "validation" or "test".

        Returns:
            (images float32 (N, H, W, C) in [0, 1], labels int64 (N,)). The images are a new array.

        Raises:
            ValueError: `split` is none of the three.
        """
        images, labels = validation.one_of("split", split, self.examples)
        return _to_unit_interval(images, self.source.white).numpy(), labels.numpy()

    def _evaluation(self, split):
        return _with_options(
            tf.data.Dataset.from_tensor_slices(self.examples[split])
            .batch(self.batch_size)
            .map(lambda images, labels: (_to_unit_interval(images, self.source.white), labels))
            .prefetch(tf.data.AUTOTUNE)
        )

    def _training(self, epochs, cardinality):
        images, labels = self.examples["train"]

        def batch_indices(epoch):
            order = epoch_order(self.seed, epoch, len(labels))[: self.steps_per_epoch * self.batch_size]
            steps = tf.range(self.steps_per_epoch, dtype=tf.int64)
            columns = tf.fill((self.steps_per_epoch,), epoch), steps, tf.reshape(order, (-1, self.batch_size))
            return tf.data.Dataset.from_tensor_slices(columns)

        def batch(epoch, step, indices):
            batch_images = tf.gather(images, tf.ensure_shape(indices, (self.batch_size,)))
            if self.source.augmented:
                key = tf.random.experimental.stateless_fold_in(_key(self.seed, epoch), step, alg="philox")
                batch_images = random_crop_and_flip(batch_images, key)
            return _to_unit_interval(batch_images, self.source.white), tf.gather(labels, indices)

        return _with_options(
            epochs.flat_map(batch_indices)
            .map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .apply(tf.data.experimental.assert_cardinality(cardinality))
            .prefetch(tf.data.AUTOTUNE)
        )


def load(name, *, batch_size=64, seed=0, images_per_class=None, data_dir=None):
    """Returns the splits of the dataset `name`.

    - "digits": the 8x8 grey images that come with scikit-learn, 16 levels above black. Of every ten images of a class
      the first seven are for training, the eighth for validation, the last two for testing.
    - "mnist": 50,000 / 10,000 / 10,000 images of 28x28x1; the first 1,000 training images of each class validate.
    - "cifar10": 49,000 / 1,000 / 10,000 images of 32x32x3; the first 100 training images of each class validate.
      Training images are padded by 4, cropped to 32x32 at random and flipped left to right half of the time.

    "First" is in the order of TensorFlow Datasets, from which MNIST and CIFAR-10 are read.

    Args:
        name: a key of `DATASETS`.
        batch_size: images per batch, all replicas together; at most the number of training images.
        seed: whole number, at least 0, from which order and augmentation follow.
        images_per_class: number of training images of each class to keep, the first ones; None keeps all.
        data_dir: folder of TensorFlow Datasets; None is its own default, the environment variable TFDS_DATA_DIR or
            ~/tensorflow_datasets. A dataset that is not prepared there is downloaded there. Digits ignore it.

    Raises:
        ValueError: an argument is out of range, or the dataset can neither be found nor downloaded.

    Source: the splits and the augmentation of Sriramanan et al., "Towards efficient and effective adversarial
    training", 2021.
    """
    source = validation.one_of("name", name, DATASETS)
    validation.whole_number("batch_size", batch_size, at_least=1)
    validation.whole_number("seed", seed, at_least=0)
    if images_per_class is not None:
        validation.whole_number("images_per_class", images_per_class, at_least=1)
    examples, class_names = source.read(data_dir)
    if images_per_class is not None:
        examples["train"] = _first_images(*examples["train"], images_per_class)
    validation.number("batch_size", batch_size, at_most=len(examples["train"][1]))
    with tf.device("CPU:0"):  # on an accelerator the images would be copied back for every pipeline
        examples = tf.nest.map_structure(tf.convert_to_tensor, examples)
    return Splits(name, tuple(class_names), int(batch_size), int(seed), examples, source)


def epoch_order(seed, epoch, count):
    """Returns the order of an epoch, a permutation of range(`count`), int64 (count,), that (seed, epoch) determine."""
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), _key(seed, epoch), alg="philox")


def random_crop_and_flip(images, key):
    """Returns `images` (B, H, W, C) moved by up to `PADDING` pixels each way and mirrored with probability 1/2.

    The draws are functions of `key`, int64 (2,), alone.
    """
    count = tf.shape(images)[:1]
    crop_key, flip_key = tf.unstack(tf.random.experimental.stateless_split(key, 2, alg="philox"))
    corner = _draw(tf.concat([[2], count], axis=0), crop_key, below=2 * PADDING + 1)
    return crop_and_flip(images, corner[0], corner[1], _draw(count, flip_key, below=2) == 1)


def crop_and_flip(images, top, left, flip):
    """Returns windows of `images`, of their own size, out of the images padded by `PADDING` black pixels.

    Args:
        images: (B, H, W, C) of any type.
        top: int32 (B,), row of the padded image at which a window begins, from 0 to 2 `PADDING`.
        left: int32 (B,), column at which it begins, likewise.
        flip: bool (B,), whether the window is mirrored left to right.
    """
    height, width, channels = images.shape[1:]
    pads = [(0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)]
    pixels = tf.reshape(tf.pad(images, pads), (-1, channels))
    column = tf.range(width)
    columns = left[:, None] + tf.where(flip[:, None], width - 1 - column, column)
    rows = top[:, None] + tf.range(height)
    rows += tf.range(tf.shape(images)[0])[:, None] * (height + 2 * PADDING)
    return tf.gather(pixels, rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :])


def first_of_each_class(labels, count):
    """Returns the mask, bool (N,), of the first `count` entries of each class in `labels`, int (N,)."""
    return _rank_in_class(labels) < count


def _first_images(images, labels, per_class):
    available = int(np.bincount(labels).min())
    validation.number("images_per_class", per_class, at_most=available)
    mask = first_of_each_class(labels, per_class)
    return images[mask], labels[mask]


def _rank_in_class(labels):
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return rank


def _read_digits(data_dir):
    from sklearn.datasets import load_digits  # slow to import, and no other dataset needs it

    del data_dir  # the images come with scikit-learn
    digits = load_digits()
    images, labels = digits.images[..., None].astype(np.uint8), digits.target.astype(np.int64)
    place = _rank_in_class(labels) % 10
    masks = {"train": place < 7, "validation": place == 7, "test": place > 7}
    return {split: (images[mask], labels[mask]) for split, mask in masks.items()}, [str(k) for k in digits.target_names]


def _read_prepared(data_dir, *, name, validation_per_class):
    import tensorflow_datasets as tfds  # slow to import, and the embedded dataset does not need it

    try:
        (train, test), info = tfds.load(
            name,
            split=["train", "test"],
            batch_size=-1,
            as_supervised=True,
            with_info=True,
            shuffle_files=False,
            data_dir=data_dir,
        )
    except Exception as error:  # anything from the network, the file system or the packages that prepare datasets
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(
            f"data_dir is {data_dir!r} (TFDS_DATA_DIR is {os.environ.get('TFDS_DATA_DIR')!r}), where {name} is not "
            f"prepared and could not be downloaded ({reason})"
        ) from error
    images, labels = (tensor.numpy() for tensor in train)
    mask = first_of_each_class(labels, validation_per_class)
    examples = {
        "train": (images[~mask], labels[~mask]),
        "validation": (images[mask], labels[mask]),
        "test": tuple(tensor.numpy() for tensor in test),
    }
    return examples, info.features["label"].names


def _to_unit_interval(images, white):
    return tf.cast(images, tf.float32) / white


def _key(seed, epoch):
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])


def _draw(shape, key, *, below):
    return tf.random.stateless_uniform(shape, key, 0, below, tf.int32, alg="philox")


def _with_options(dataset):
    options = tf.data.Options()
    options.deterministic = True
    # Without it several workers look for files to share out, and there are none.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


DATASETS = {
    "cifar10": Source(functools.partial(_read_prepared, name="cifar10", validation_per_class=100), augmented=True),
    "digits": Source(_read_digits, white=16),
    "mnist": Source(functools.partial(_read_prepared, name="mnist", validation_per_class=1000)),
}
