"""A folder of class folders: what is read out of it, how it is divided, and what is refused."""

import numpy as np
import pytest

from tests.helpers.pictures import encoded, flat, save_folder
from tf_nuat import data, training
from tf_nuat.data import folders
from tf_nuat.data.arrays import Arrays
from tf_nuat.data.subsets import divide, stratified
from tf_nuat.training import AttackSpec


def levels(images):
    return (images[:, 0, 0, 0] * 255).round().astype(int).tolist()


def test_classes_are_the_folders_in_the_order_of_their_names(tmp_path):
    save_folder(tmp_path / "train", {"b": [flat(3), flat(4)], "a": [flat(1), flat(2)], ".hidden": [flat(9)]})
    save_folder(tmp_path / "val", {"a": [flat(5)], "b": [flat(6)]})
    save_folder(tmp_path / "test", {"a": [flat(7)], "b": [flat(8)]})
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "a" / ".0000.png").write_bytes(b"hidden")
    (tmp_path / "train" / "a" / "Z.JPEG").write_bytes(encoded(flat(200), "JPEG"))
    folder = data.load(tmp_path, batch_size=2)
    assert folder.class_names == ("a", "b") and folder.num_classes == 2 and folder.name == str(tmp_path)
    images, labels = folder.arrays("train")
    assert (levels(images), labels.tolist()) == ([1, 2, 200, 3, 4], [0, 0, 0, 1, 1])
    assert levels(folder.arrays("validation")[0]) == [5, 6] and levels(folder.arrays("test")[0]) == [7, 8]


def test_pictures_that_are_not_read_are_said(tmp_path, caplog):
    """`keras.utils.image_dataset_from_directory` reads folders within class folders, too."""
    save_folder(tmp_path, {"a": [flat(1)] * 4, "b": [flat(2)] * 4})
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".thumbnails").mkdir()
    data.load(tmp_path, batch_size=2)
    assert not caplog.messages
    (tmp_path / "a" / "one.HEIC").write_bytes(b"a picture")
    (tmp_path / "b" / "more").mkdir()
    data.load(tmp_path, batch_size=2)
    [said] = caplog.messages
    assert said.startswith("2 folders or pictures within the class folders of ") and "a/one.HEIC' the first" in said


def test_the_validation_split_is_for_testing_where_there_is_no_other(tmp_path):
    save_folder(tmp_path / "train", {"a": [flat(k) for k in range(20)], "b": [flat(100 + k) for k in range(20)]})
    save_folder(tmp_path / "validation", {"a": [flat(50)], "b": [flat(51)]})
    folder = data.load(tmp_path, batch_size=2)
    assert levels(folder.arrays("test")[0]) == [50, 51]
    parts = [levels(folder.arrays(split)[0]) for split in ("train", "validation")]
    assert [len(part) for part in parts] == [36, 4] and sum(level < 100 for level in parts[1]) == 2
    assert sorted(sum(parts, [])) == [*range(20), *range(100, 120)]


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Training", "Validation", "Testing"), ("TRAIN", "Val", "Test")]
)
def test_splits_are_found_by_each_of_their_names(names, tmp_path):
    for level, name in enumerate(names):
        save_folder(tmp_path / name, {each: [flat(level)] * 4 for each in "ab"})
    folder = data.load(tmp_path, batch_size=2)
    assert [set(levels(folder.arrays(split)[0])) for split in ("train", "validation", "test")] == [{0}, {1}, {2}]


def test_one_folder_is_divided_into_three_alike_for_every_seed(tmp_path):
    save_folder(tmp_path, {"train": [flat(k) for k in range(30)], "plane": [flat(100 + k) for k in range(4)]})
    parts = []
    for seed in (0, 1):
        folder = data.load(tmp_path, batch_size=2, seed=seed)
        assert folder.class_names == ("plane", "train")  # a class may bear the name of a split
        parts.append([levels(folder.arrays(split)[0]) for split in ("train", "validation", "test")])
    assert parts[0] == parts[1]
    assert [sum(level < 100 for level in part) for part in parts[0]] == [24, 3, 3]
    assert [sum(level >= 100 for level in part) for part in parts[0]] == [2, 1, 1]
    assert sorted(sum(parts[0], [])) == [*range(30), *range(100, 104)]


def test_validation_takes_no_more_of_a_class_than_it_may():
    labels = np.repeat([0, 1], [1000, 100])
    given = divide({"train": Arrays(np.arange(1100), labels)}, ["a", "b"], at_most=50)
    counts = {split: np.bincount(part.labels).tolist() for split, part in given.items()}
    assert counts == {"train": [850, 80], "validation": [50, 10], "test": [100, 10]}
    assert sorted(np.concatenate([part.images for part in given.values()])) == list(range(1100))


def test_a_sample_has_the_classes_in_proportion_and_the_shape_of_the_network(tmp_path):
    for split in ("train", "test"):
        save_folder(tmp_path / split, {"a": [flat(k) for k in range(30)], "b": [flat(100 + k) for k in range(10)]})
    images, labels, names = data.sample(tmp_path, samples=8, seed=3, input_shape=(2, 6, None))
    assert images.shape == (8, 2, 6, 3) and np.bincount(labels).tolist() == [6, 2] and names == ("a", "b")
    chosen = stratified(np.repeat([0, 1], [30, 10]), 8, seed=3)
    assert levels(images) == [k if k < 30 else 70 + k for k in chosen]
    assert len(data.sample(tmp_path, split="train")[0]) == 36
    with pytest.raises(ValueError, match="samples is 0; allowed: "):
        data.sample(tmp_path, samples=0)
    with pytest.raises(ValueError, match="split is 'val'; allowed: test, train, validation"):
        data.sample(tmp_path, split="val")


def test_a_network_is_trained_on_a_folder_and_its_card_names_it(tmp_path):
    images = {name: [flat(level + k, (8, 8, 1)) for k in range(30)] for name, level in [("dark", 0), ("light", 200)]}
    recipe = training.Recipe(
        dataset=save_folder(tmp_path / "images", images),
        network="lenet_plus",
        defense="standard",
        epsilon=0.1,
        epochs=2,
        batch_size=8,
        learning_rate=0.05,
        selection=AttackSpec("fgsm"),
        measures={"fgsm": AttackSpec("fgsm")},
        data_options={"augmentation": "crop_flip", "corrupt": "raise"},
    )
    card = training.run(recipe, tmp_path / "run", strategy="one", verbose=0)
    assert card.measured["clean"].accuracy == 1.0 and card.measured["clean"].images == 6
    assert card.dataset == str(tmp_path / "images")


def test_training_names_the_image_that_it_cannot_read(tmp_path):
    images = {name: [flat(k, (8, 8, 1)) for k in range(30)] for name in "ab"}
    save_folder(tmp_path / "images", images)
    options = {"dataset": tmp_path / "images", "network": "lenet_plus", "defense": "standard", "epsilon": 0.1}
    recipe = training.Recipe(**options, epochs=1, batch_size=8, learning_rate=0.1, masking_alarm=None)
    splits = data.load(tmp_path / "images", batch_size=8)
    path = splits.examples["train"].name(40)
    with open(path, "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError) as caught:
        training.run(recipe, tmp_path / "run", strategy="one", verbose=0)
    assert path in str(caught.value) and "\n" not in str(caught.value)


def one_class(path):
    save_folder(path, {"a": [flat(1)] * 4})


def no_images(path):
    save_folder(path, {"a": [flat(1)] * 4, "b": []})


def other_classes(path):
    save_folder(path / "train", {"a": [flat(1)] * 4, "b": [flat(1)] * 4})
    save_folder(path / "val", {"a": [flat(1)], "c": [flat(1)]})


def fewer_classes(path):
    save_folder(path / "train", {name: [flat(1)] * 4 for name in "abc"})
    save_folder(path / "test", {"a": [flat(1)], "b": [flat(1)]})


def flat_validation(path):
    save_folder(path / "train", {"a": [flat(1)] * 4, "b": [flat(1)] * 4})
    (path / "val").mkdir()
    (path / "val" / "image.png").write_bytes(encoded(flat(1)))


def two_validations(path):
    for split in ("train", "val", "validation"):
        save_folder(path / split, {"a": [flat(1)] * 4, "b": [flat(1)] * 4})


def two_tests(path):
    for split in ("train", "test", "Testing"):
        save_folder(path / split, {"a": [flat(1)] * 4, "b": [flat(1)] * 4})


def too_few(path):
    save_folder(path, {"a": [flat(1)] * 4, "b": [flat(1)] * 2})


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda path: None, "name is '{path}'; allowed: cifar10, .*or the path of a folder"),
        (one_class, "name is '{path}', which has 1 class folders; allowed: at least 2"),
        (no_images, "name has the class folder '{path}/b' without images; allowed: at least one of .bmp"),
        (other_classes, "name is '{path}', where the splits differ in the class folder 'b'; allowed: the same classes"),
        (fewer_classes, "where the splits differ in the class folder 'c'; allowed: the same classes"),
        (flat_validation, "name is '{path}/val', which has 0 class folders; allowed: "),
        (two_validations, "which has both val and validation; allowed: one of them"),
        (two_tests, "which has both Testing and test; allowed: one of them"),
        (too_few, "class 'b' has 2 images to train on; allowed: at least 3"),
    ],
)
def test_a_folder_of_another_kind_is_refused_in_one_line(build, words, tmp_path):
    path = tmp_path / "images"
    build(path)
    with pytest.raises(ValueError, match=words.format(path=path)) as caught:
        data.load(path, batch_size=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"images_per_class": 4}, "images_per_class is 4; allowed: a number at most 3"),
        ({"batch_size": 7}, "batch_size is 7; allowed: a number at most 6"),
        ({"input_shape": (4, 4)}, "input_shape is (4, 4); allowed: (height, width, channels)"),
        ({"input_shape": (4, 0, 3)}, "input_shape is (4, 0, 3); allowed: "),
        ({"input_shape": (4, 4, 2)}, "input_shape is (4, 4, 2); allowed: 1 or 3 channels"),
        ({"augmentation": "mixup"}, "augmentation is 'mixup'; allowed: crop_flip, none, resized_crop"),
        ({"corrupt": "ignore"}, "corrupt is 'ignore'; allowed: raise, skip"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, words, tmp_path):
    save_folder(tmp_path, {"a": [flat(1)] * 5, "b": [flat(2)] * 5})
    with pytest.raises(ValueError) as caught:
        data.load(tmp_path, **{"batch_size": 1, **arguments})
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["0009.png", "missing.png", "/dev/null/image.png"])
def test_a_link_that_leads_nowhere_is_named_in_one_line(target, tmp_path):
    save_folder(tmp_path, {"a": [flat(1)] * 4, "b": [flat(2)] * 4})
    (tmp_path / "a" / "linked.png").symlink_to("0001.png")
    assert len(data.sample(tmp_path, split="train")[0]) == 5
    link = tmp_path / "a" / "0009.png"
    link.symlink_to(target)
    with pytest.raises(ValueError) as caught:
        data.load(tmp_path)
    assert f"{str(link)!r} cannot be read (" in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_read_is_named_in_one_line(tmp_path, monkeypatch):
    save_folder(tmp_path, {"a": [flat(1)] * 4, "b": [flat(2)] * 4})
    scan = folders.os.scandir

    def scandir(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(folders.os, "scandir", scandir)  # who is root may read all
    with pytest.raises(ValueError, match=r"^'.*/b' cannot be read \(Permission denied\); allowed: "):
        data.load(tmp_path)
