import itertools
import os
import types

import numpy as np
import pytest
import tensorflow as tf

from tf_nuat import data
from tf_nuat.data.arrays import Arrays
from tf_nuat.data.augmentation import crop_and_flip, random_crop_and_flip
from tf_nuat.data.splits import NAMES, epoch_order
from tf_nuat.data.subsets import first_of_each_class
from tf_nuat.defenses import training_data


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", batch_size=32, seed=3)


def prepared(name):
    if not os.environ.get("TFDS_DATA_DIR"):
        pytest.skip(f"TFDS_DATA_DIR is not set, and {name} is not downloaded for a test")
    if not os.path.isdir(os.path.join(os.environ["TFDS_DATA_DIR"], name)):
        pytest.skip(f"{name} is not prepared in TFDS_DATA_DIR")
    return data.load(name, batch_size=64, seed=3)


@pytest.fixture(scope="module")
def cifar10():
    return prepared("cifar10")


@pytest.fixture(scope="module")
def mnist():
    return prepared("mnist")


# Images of 9x9 whose pixels count from 1: the centre of a crop tells at which of the 9x9 places it was taken.
PLACES = np.broadcast_to(1 + np.arange(81, dtype=np.uint8).reshape(9, 9, 1), (8100, 9, 9, 1))


def epoch_of(splits, epoch):
    return [(x.numpy(), y.numpy()) for x, y in splits.train_from(epoch).take(splits.steps_per_epoch)]


def rows(images):
    """Returns the images as a list of bytes, to be compared and counted."""
    return [image.tobytes() for image in images]


def assert_same_batches(left, right):
    assert len(left) == len(right) > 0
    for (left_x, left_y), (right_x, right_y) in zip(left, right):
        np.testing.assert_array_equal(left_x, right_x)
        np.testing.assert_array_equal(left_y, right_y)


def test_digits_are_split_as_documented(digits):
    from sklearn.datasets import load_digits

    original = load_digits()
    arrays = {split: digits.arrays(split) for split in ("train", "validation", "test")}
    assert digits.input_shape == (8, 8, 1)
    assert digits.num_classes == len(digits.class_names) == 10
    tens, rest = np.divmod(np.bincount(original.target), 10)
    expected = {
        "train": 7 * tens + np.minimum(rest, 7),
        "validation": tens + (rest > 7),
        "test": 2 * tens + np.maximum(rest - 8, 0),
    }
    for split, counts in expected.items():
        np.testing.assert_array_equal(np.bincount(arrays[split][1]), counts)
    together = np.concatenate([images for images, _ in arrays.values()])
    expected = (original.images[..., None] / 16.0).astype(np.float32)
    assert sorted(rows(together)) == sorted(rows(expected))


def test_pixels_are_float32_from_0_to_1_and_labels_int64(digits):
    for dataset in (digits.train, digits.validation, digits.test):
        for x, y in dataset:
            assert (x.dtype, y.dtype) == (tf.float32, tf.int64)
    images, labels = digits.arrays("train")
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert (images.min(), images.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(np.unique(images), np.arange(17, dtype=np.float32) / 16)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_splits_keep_every_image_in_a_fixed_order(digits, split):
    images, labels = digits.arrays(split)
    for _ in range(2):
        batches = list(getattr(digits, split))
        assert len(batches) == getattr(digits, split).cardinality()
        np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), images)
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), labels)


def test_no_iterator_waits_at_its_end_for_the_thread_that_tunes_it(digits):
    arrays = training_data.batches(*digits.arrays("test"), batch_size=32, shuffle=True)
    for dataset in (digits.train, digits.train_from(2), digits.validation, digits.test, arrays):
        assert dataset.options().autotune.enabled is False


def test_epoch_is_a_permutation_of_the_training_images(digits):
    images, labels = digits.arrays("train")
    batches = epoch_of(digits, 0)
    assert len(batches) == digits.steps_per_epoch == len(labels) // 32
    assert {x.shape for x, _ in batches} == {(32, 8, 8, 1)}
    known = dict(zip(rows(images), labels))
    assert len(known) == len(labels)  # no two digits are alike, so that rows identify images
    seen = rows(np.concatenate([x for x, _ in batches]))
    assert len(set(seen)) == len(seen) == 32 * digits.steps_per_epoch
    assert [known[row] for row in seen] == list(np.concatenate([y for _, y in batches]))


def test_order_permutes_the_indices_as_seed_and_epoch_say():
    orders = {key: epoch_order(*key, 50).numpy() for key in itertools.product((0, 1), (0, 1, 2))}
    for order in orders.values():
        assert sorted(order) == list(range(50))
    assert len({order.tobytes() for order in orders.values()}) == len(orders)
    tf.random.set_seed(123)  # the global seed has no say
    np.testing.assert_array_equal(epoch_order(1, 2, 50), orders[1, 2])


def test_same_seed_gives_the_same_batches_and_another_seed_others(digits):
    again = data.load("digits", batch_size=32, seed=3)
    assert_same_batches(epoch_of(digits, 2), epoch_of(again, 2))
    other = data.load("digits", batch_size=32, seed=4)
    assert not np.array_equal(epoch_of(digits, 2)[0][1], epoch_of(other, 2)[0][1])


def test_train_from_a_later_epoch_continues_an_undisturbed_run(digits):
    steps = digits.steps_per_epoch
    undisturbed = [(x.numpy(), y.numpy()) for x, y in digits.train_from(0).take(4 * steps)]
    assert_same_batches(undisturbed[3 * steps :], epoch_of(digits, 3))
    assert not np.array_equal(undisturbed[0][1], undisturbed[3 * steps][1])
    assert digits.train_from(0).cardinality() == tf.data.INFINITE_CARDINALITY


def test_each_iteration_of_train_is_the_next_epoch():
    splits = data.load("digits", batch_size=32, seed=3)
    assert splits.train.cardinality() == splits.steps_per_epoch
    for epoch in range(3):
        assert_same_batches([(x.numpy(), y.numpy()) for x, y in splits.train], epoch_of(splits, epoch))


def test_two_devices_share_the_batches_of_one(digits, two_devices):
    for single in (digits.train_from(1).take(digits.steps_per_epoch), digits.validation):
        shared = two_devices.experimental_distribute_dataset(single)
        batches = list(zip(single, shared, strict=True))
        for whole, parts in batches:
            for expected, part in zip(whole, parts):
                first, second = two_devices.experimental_local_results(part)
                assert abs(len(first) - len(second)) <= 1
                np.testing.assert_array_equal(tf.concat([first, second], axis=0), expected)


def test_crops_are_windows_of_the_padded_image():
    generator = np.random.default_rng(0)
    images = generator.integers(1, 256, (162, 6, 5, 3), np.uint8)
    choices = list(itertools.product(range(9), range(9), (False, True)))
    top, left, flip = (np.array(column) for column in zip(*choices))
    crops = crop_and_flip(images, top.astype(np.int32), left.astype(np.int32), flip)
    for image, crop, (row, column, mirrored) in zip(images, crops.numpy(), choices):
        window = np.pad(image, [(4, 4), (4, 4), (0, 0)])[row : row + 6, column : column + 5]
        np.testing.assert_array_equal(crop, window[:, ::-1] if mirrored else window)


def test_random_crops_draw_every_place_and_flip_half_of_the_images():
    crops = random_crop_and_flip(tf.constant(PLACES), tf.constant([5, 6], tf.int64))[..., 0].numpy().astype(int)
    count = len(crops)
    top, left = np.divmod(crops[:, 4, 4] - 1, 9)
    # The right neighbour of the centre, or of the left one where that is padding, tells which way columns count.
    step = np.where(crops[:, 4, 5] > 0, crops[:, 4, 5] - crops[:, 4, 4], crops[:, 4, 4] - crops[:, 4, 3])
    assert set(step) == {-1, 1}
    flips = np.mean(step == -1)
    assert abs(flips - 0.5) < 5 * 0.5 / np.sqrt(count)
    counts = np.histogram2d(top, left, bins=(np.arange(10), np.arange(10)))[0]
    assert counts.sum() == count
    assert np.all(np.abs(counts - 100) < 60)  # six standard deviations of a place drawn 1 time in 81
    assert np.sum((counts - 100) ** 2 / 100) < 80 + 6 * np.sqrt(160)  # chi-square of 80 degrees of freedom


def test_augmentation_follows_seed_epoch_and_batch_alone():
    labels = np.arange(60)
    examples = dict.fromkeys(NAMES, Arrays(PLACES[:60], labels))

    def epochs(seed):
        places = data.Splits("places", tuple(map(str, labels)), 20, seed, examples, "crop_flip")
        return places, [x.numpy().tobytes() for x, _ in places.train_from(0).take(6)]

    places, batches = epochs(seed=1)
    assert len(set(batches)) == 6  # the images are all alike, so that batches differ by their draws alone
    assert epochs(seed=1)[1] == batches
    assert not set(epochs(seed=2)[1]) & set(batches)
    assert [x.numpy().tobytes() for x, _ in places.train_from(1).take(3)] == batches[3:]
    for dataset in (places.validation, places.test):
        for x, _ in dataset:
            np.testing.assert_array_equal(x, PLACES[:20] / np.float32(255))


def test_first_of_each_class():
    mask = first_of_each_class(np.array([1, 0, 1, 1, 0, 2]), 2)
    np.testing.assert_array_equal(mask, [True, True, True, False, True, True])


@pytest.mark.parametrize(
    ("name", "shape", "sizes", "per_class"),
    [
        ("mnist", (28, 28, 1), (50_000, 10_000, 10_000), 1_000),
        ("cifar10", (32, 32, 3), (49_000, 1_000, 10_000), 100),
    ],
)
def test_prepared_datasets_are_split_as_published(name, shape, sizes, per_class, request):
    import tensorflow_datasets as tfds

    splits = request.getfixturevalue(name)
    assert (splits.name, splits.input_shape, splits.num_classes) == (name, shape, 10)
    assert tuple(len(labels) for _, labels in splits.examples.values()) == sizes
    assert {images.dtype for images, _ in splits.examples.values()} == {np.dtype(np.uint8)}
    validation_images, validation_labels = splits.examples["validation"]
    np.testing.assert_array_equal(np.bincount(validation_labels), [per_class] * 10)
    # Read one by one, the first images of each class are the validation images, and the others train.
    left, position, train = [per_class] * 10, 0, []
    for example in tfds.load(name, split="train", download=False, shuffle_files=False).take(3_000).as_numpy_iterator():
        label = example["label"]
        if left[label] > 0:
            left[label] -= 1
            np.testing.assert_array_equal(example["image"], validation_images[position])
            assert label == validation_labels[position]
            position += 1
        else:
            np.testing.assert_array_equal(example["image"], splits.examples["train"][0][len(train)])
            train.append(label)
    np.testing.assert_array_equal(train, splits.examples["train"][1][: len(train)])
    assert position > 0
    first = next(tfds.load(name, split="test", download=False).take(1).as_numpy_iterator())
    x, y = next(iter(splits.test))
    np.testing.assert_array_equal(x[0], first["image"].astype(np.float32) / np.float32(255.0))
    assert y[0] == first["label"]


def test_a_sample_of_test_images_reads_no_training_images(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    prepare("svhn_cropped", tmp_path, monkeypatch, per_class=1)
    whole = [*tfds.load("svhn_cropped", split="test", data_dir=tmp_path).as_numpy_iterator()]
    read, load = [], tfds.load

    def counted(*arguments, split, **options):
        read.extend(split)
        return load(*arguments, split=split, **options)

    monkeypatch.setattr(tfds, "load", counted)
    images, labels, class_names = data.sample("svhn", samples=13, data_dir=tmp_path)
    assert read == ["test"] and class_names == tuple("0123456789")
    wanted = np.array([example["label"] for example in whole])
    chosen = data.stratified(wanted, 13)
    np.testing.assert_array_equal(images, [whole[each]["image"] / np.float32(255.0) for each in chosen])
    np.testing.assert_array_equal(labels, wanted[chosen])
    with pytest.raises(ValueError, match="class_names has 'ten', of which svhn has no training image"):
        data.sample("svhn", data_dir=tmp_path, class_names=[*class_names, "ten"])


def prepare(name, folder, monkeypatch, per_class):
    """Prepares a dataset by TensorFlow Datasets' own means, with `per_class` training images of noise of each class."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=folder)
    classes = builder.info.features["label"].num_classes
    generator = np.random.default_rng(0)

    def examples(count):
        for number in range(count):
            example = {"id": str(number), "image": generator.integers(0, 256, (32, 32, 3), np.uint8)}
            example["label"] = number % classes
            if "coarse_label" in builder.info.features:
                example["coarse_label"] = 0
            yield str(number), example

    splits = {"train": per_class * classes, "test": 2 * classes}
    monkeypatch.setattr(
        type(builder),
        "_split_generators",
        lambda self, *_: {split: examples(count) for split, count in splits.items()},
    )
    builder.download_and_prepare()
    return folder


@pytest.mark.parametrize(
    "name, source, classes, per_class, augmentation",
    [("cifar100", "cifar100", 100, 10, "crop_flip"), ("svhn", "svhn_cropped", 10, 100, "none")],
)
def test_datasets_that_are_not_here_are_read_as_tensorflow_datasets_prepares_them(
    name, source, classes, per_class, augmentation, tmp_path, monkeypatch
):
    import tensorflow_datasets as tfds

    prepare(source, tmp_path, monkeypatch, per_class=per_class + 2)
    splits = data.load(name, data_dir=tmp_path, batch_size=20)
    assert (splits.name, splits.num_classes, splits.input_shape) == (name, classes, (32, 32, 3))
    assert splits.augmentation == augmentation and len(splits.labels("test")) == 2 * classes
    seen, expected = dict.fromkeys(range(classes), 0), {"train": [], "validation": []}
    for example in tfds.load(source, split="train", data_dir=tmp_path).as_numpy_iterator():
        seen[int(example["label"])] += 1
        expected["validation" if seen[int(example["label"])] <= per_class else "train"].append(example)
    for split, examples in expected.items():
        images, labels = splits.examples[split]
        np.testing.assert_array_equal(images, [example["image"] for example in examples])
        np.testing.assert_array_equal(labels, [example["label"] for example in examples])


@pytest.mark.parametrize(
    "name, size, per_class, augmentation", [("cifar10", 50_000, 100, "crop_flip"), ("mnist", 60_000, 1000, "none")]
)
def test_the_first_images_of_each_class_validate(name, size, per_class, augmentation, monkeypatch):
    """Of datasets that need not be here: the pixels of an image spell its number, and the labels are drawn."""
    import tensorflow_datasets as tfds

    numbers = np.arange(size, dtype=np.uint32)
    images = numbers.view(np.uint8).reshape(size, 2, 2, 1)
    labels = np.random.default_rng(0).permutation(numbers % 10).astype(np.int64)
    info = types.SimpleNamespace(features={"label": types.SimpleNamespace(names=list("0123456789"))})
    whole = tf.constant(images), tf.constant(labels)
    monkeypatch.setattr(tfds, "load", lambda *_, split, **__: ([whole] * len(split), info))
    splits = data.load(name)
    examples = splits.examples
    assert splits.augmentation == augmentation
    first = np.sort(np.concatenate([np.flatnonzero(labels == each)[:per_class] for each in range(10)]))
    np.testing.assert_array_equal(examples["validation"].images, images[first])
    np.testing.assert_array_equal(examples["validation"].labels, labels[first])
    np.testing.assert_array_equal(examples["train"].images, np.delete(images, first, axis=0))


def test_a_dataset_with_too_few_images_to_validate_on_is_named_in_one_line(tmp_path, monkeypatch):
    prepare("svhn_cropped", tmp_path, monkeypatch, per_class=100)
    with pytest.raises(ValueError) as caught:
        data.load("svhn", data_dir=tmp_path)
    message = str(caught.value)
    assert "svhn_cropped has 100 training images of class '0'; allowed: more than 100" in message
    assert "\n" not in message


def test_mnist_trains_on_images_as_they_are(mnist):
    known = set(rows(mnist.examples["train"].images))
    x, _ = next(iter(mnist.train_from(0)))
    assert set(rows((x.numpy() * 255).round().astype(np.uint8))) <= known


def test_cifar10_trains_on_crops_of_its_own_images(cifar10):
    images, labels = cifar10.examples["train"]
    x, y = next(iter(cifar10.train_from(4)))
    assert (x.shape, x.dtype) == ((64, 32, 32, 3), tf.float32)
    assert x.numpy().min() >= 0.0 and x.numpy().max() <= 1.0
    order = epoch_order(3, 4, 49_000).numpy()[:64]
    np.testing.assert_array_equal(y, labels[order])
    crops = (x.numpy() * 255).round().astype(np.uint8)
    found = []
    for image, crop in zip(images[order], crops):
        padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
        found.append(
            [
                (top, left, mirrored)
                for top, left in itertools.product(range(9), range(9))
                for mirrored, window in enumerate((crop, crop[:, ::-1]))
                if np.array_equal(padded[top : top + 32, left : left + 32], window)
            ]
        )
    assert all(found)
    assert len({places[0] for places in found}) > 32


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"name": "stl10"},
            "name is 'stl10'; allowed: cifar10, cifar100, digits, imagenet100, imagenet2012, mnist, svhn, or the path",
        ),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"batch_size": 1798}, "batch_size is 1798"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_bad_argument_is_named_in_one_line(arguments, words):
    with pytest.raises(ValueError) as caught:
        data.load(**{"name": "digits", **arguments})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shares_from_a_step_on_are_those_of_its_batches(digits):
    whole = [x.numpy() for x, _ in digits.train_from(1).take(4)][2:]
    halves = [x.numpy() for x, _ in digits.train_from(1, 2, shares=[1, 0], of=2).take(4)]
    size = digits.batch_size // 2
    for batch, second, first in zip(whole, halves[::2], halves[1::2]):
        np.testing.assert_array_equal(second, batch[size:])
        np.testing.assert_array_equal(first, batch[:size])


def test_bad_epoch_and_split_are_named(digits):
    with pytest.raises(ValueError, match="first_epoch is -1"):
        digits.train_from(-1)
    with pytest.raises(ValueError, match="of is 7; allowed: a number that divides the batch size"):
        digits.train_from(0, shares=[0], of=7)
    with pytest.raises(ValueError, match="split is 'valid'; allowed: test, train, validation"):
        digits.arrays("valid")


def test_dataset_that_cannot_be_had_is_one_clear_line(monkeypatch, tmp_path):
    import tensorflow_datasets as tfds

    def no_network(*arguments, **options):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(tfds, "load", no_network)
    with pytest.raises(ValueError, match="data_dir is .*TFDS_DATA_DIR is .*mnist.*no route to host") as caught:
        data.load("mnist", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_images_per_class_keeps_the_first_ones_of_each():
    whole, part = data.load("digits"), data.load("digits", images_per_class=20)
    labels = whole.arrays("train")[1]
    expected = np.sort(np.concatenate([np.flatnonzero(labels == label)[:20] for label in range(10)]))
    np.testing.assert_array_equal(part.arrays("train")[0], whole.arrays("train")[0][expected])
    np.testing.assert_array_equal(part.arrays("train")[1], labels[expected])
    for split in ("validation", "test"):
        np.testing.assert_array_equal(part.arrays(split)[0], whole.arrays(split)[0])


@pytest.mark.parametrize("number, allowed", [(0, "at least 1"), (2.5, "at least 1"), (1000, "at most 1")])
def test_images_per_class_out_of_range(number, allowed):
    with pytest.raises(ValueError, match=f"images_per_class is {number}; allowed: .*{allowed}"):
        data.load("digits", images_per_class=number)
