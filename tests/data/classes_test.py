"""Which number each class gets, and names that the user gives."""

import json

import numpy as np
import pytest

from tests.helpers.pictures import flat, save_folder
from tf_nuat import data
from tf_nuat.data import classes


@pytest.mark.parametrize(
    "names, expected",
    [
        (["b", "a", "B"], ["B", "a", "b"]),
        (["10", "2", "0", "1", "11"], ["0", "1", "2", "10", "11"]),
        (["00010", "00002"], ["00002", "00010"]),
        (["1", "01", "0"], ["0", "01", "1"]),
        (["10", "2", "x"], ["10", "2", "x"]),
        (["10", "-2", "2"], ["-2", "10", "2"]),
        (["2", "1" * 30], ["1" * 30, "2"]),  # more digits than a number of 64 bits has
    ],
)
def test_names_are_in_order_and_numbers_in_theirs(names, expected):
    assert classes.in_order(names) == expected


@pytest.mark.parametrize(
    "name, content",
    [
        ("names.txt", "cat\ndog\nsea lion"),
        ("names.txt", "cat\r\ndog\r\nsea lion\r\n\r\n"),
        ("names.txt", "\ufeffcat\n dog \nsea lion\n"),
        ("names.json", '["cat", "dog", "sea lion"]'),
        ("names.txt", '\n["cat", "dog", "sea lion"]\n'),
        ("names.json", '{"1": "dog", "0": "cat", "2": "sea lion"}'),
        ("names.json", '{"dog": 1, "cat": 0, "sea lion": 2}'),
    ],
)
def test_files_of_names_are_read_as_others_write_them(name, content, tmp_path):
    (tmp_path / name).write_bytes(content.encode())
    for path in (tmp_path / name, str(tmp_path / name)):
        assert classes.read_names("class_names", path) == ("cat", "dog", "sea lion")


@pytest.mark.parametrize(
    "value",
    [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        {0: "a", 1: "b"},
        {"b": 1, "a": 0},
        {"b": np.int64(1), "a": np.int64(0)},
    ],
)
def test_names_in_python_are_taken(value):
    assert classes.read_names("class_names", value) == ("a", "b")
    assert all(type(name) is str for name in classes.read_names("class_names", value))


def test_a_dict_of_numbers_to_numbers_is_read_by_the_type_of_its_values():
    assert classes.read_names("class_names", {"0": 1, "1": 0}) == ("1", "0")  # folders "0" and "1" to indices
    assert classes.read_names("class_names", {"0": "1", "1": "0"}) == ("1", "0")


BAD = [
    ("names.txt", "cat\n\ndog\n", "has '' as name 2; allowed: the names of the classes in the order of the outputs"),
    ("names.txt", "cat\n0\tdog\n", r"has '0\\tdog' as name 2"),
    ("names.txt", "cat\ndog\ncat\n", "has 'cat' twice; allowed: names that differ"),
    ("names.txt", "cat\n", "has 1 names; allowed: at least 2"),
    ("names.txt", "", "has 1 names; allowed: at least 2"),
    ("names.txt", b"\xff\xfe\x00", "cannot be read"),
    ("names.json", "cat\ndog", "which is not JSON"),
    ("names.json", "[1, 2]", "has 1 as name 1"),
    ("names.json", '"cat"', "has a str; allowed: "),
    ("names.json", '["a", ["b"]]', r"has \['b'\] as name 2"),
    ("names.json", '{"a": 0, "b": 2}', "has no name of index 1; allowed: indices 0 to 1, each once"),
    ("names.json", '{"a": 0, "b": 0}', "has no name of index 1"),
    ("names.json", '{"0": "a", "x": "b"}', "has no name of index 1"),
    ("names.json", '{"0": ["n01440764", "tench"]}', "has a dict of other values; allowed: "),
    ("names.json", '{"a": true, "b": false}', "has a dict of other values"),
    ("names.json", "[" * 100_000, "which is not JSON"),
]


@pytest.mark.parametrize("name, content, words", BAD)
def test_other_files_are_refused_in_one_line(name, content, words, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=words) as caught:
        classes.read_names("--class_names", path)
    assert str(caught.value).startswith(f"--class_names is {str(path)!r}, which ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [5, b"names", {"a"}, [1, 2], ["a", "\ud800"], ["a", " "], [["a"]], np.ones((2, 2))])
def test_what_is_no_name_is_refused_in_one_line(value):
    with pytest.raises(ValueError, match="^class_names has .*allowed: ") as caught:
        classes.read_names("class_names", value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["missing.txt", ".", "a" * 5000, "a\0b"])
def test_a_missing_file_is_refused_in_one_short_line(path):
    with pytest.raises(ValueError, match="class_names is '.*, which is not a file; allowed: ") as caught:
        classes.read_names("class_names", path)
    assert len(str(caught.value)) < 500


def folder(path, names):
    """Writes a folder of class folders, whose images have the place of their class in `names` as level."""
    return save_folder(path, {name: [flat(level)] * 3 for level, name in enumerate(names)})


def levels(path, **options):
    """Returns the level of the images of each class, in the order of the classes."""
    splits = data.load(path, batch_size=1, **options)
    assert splits.num_classes == len(splits.class_names)
    found = {}
    for split in ("train", "validation", "test"):
        images, labels = splits.arrays(split)
        for image, label in zip(images, labels):
            assert found.setdefault(int(label), int(image.max() * 255 + 0.5)) == int(image.max() * 255 + 0.5)
    return [found[label] for label in sorted(found)]


def test_class_folders_that_are_numbers_are_in_their_order_and_that_is_said_once(tmp_path, caplog):
    path = folder(tmp_path, ["0", "1", "2", "10", "11"])
    assert levels(path) == levels(path) == [0, 1, 2, 3, 4]
    assert data.load(path, batch_size=1).class_names == ("0", "1", "2", "10", "11")
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1 and str(path) in lines[0]
    assert "in that order: 0, 1, 2, 10, 11." in lines[0] and "by name: 0, 1, 10, 11, 2." in lines[0]
    assert "--class_names FILE" in lines[0]


@pytest.mark.parametrize("names", [["0", "1", "2"], ["00000", "00001", "00010"], ["b", "a"]])
def test_where_both_orders_are_one_nothing_is_said(names, tmp_path, caplog):
    folder(tmp_path, names)
    assert data.load(tmp_path, batch_size=1).class_names == tuple(sorted(names))
    assert not caplog.records


def test_class_names_order_class_folders(tmp_path, caplog):
    path = folder(tmp_path / "images", ["0", "1", "2", "10"])
    by_name = tmp_path / "names.txt"
    by_name.write_text("0\n1\n10\n2\n")
    assert levels(path, class_names=by_name) == levels(path, class_names=["0", "1", "10", "2"]) == [0, 1, 3, 2]
    images, labels, names = data.sample(path, class_names=by_name)
    assert names == ("0", "1", "10", "2")
    assert [(images[labels == label] * 255).round().max() for label in range(4)] == [0, 1, 3, 2]
    assert not caplog.records  # nothing is said where the order was given


@pytest.mark.parametrize(
    "names, words",
    [
        (["a", "b"], "class_names lacks 'c', a class folder of .*; allowed: the names of all its classes"),
        (["a", "b", "c", "d"], "class_names has 'd', of which .* has no class folder; allowed: the names of its 3 "),
        (["x", "y", "z"], "class_names lacks 'a', a class folder"),
    ],
)
def test_class_names_are_the_class_folders(names, words, tmp_path):
    folder(tmp_path, ["a", "b", "c"])
    with pytest.raises(ValueError, match=words) as caught:
        data.load(tmp_path, class_names=names)
    assert "\n" not in str(caught.value)


def test_class_folders_that_are_numbers_get_no_other_names(tmp_path):
    folder(tmp_path, ["0", "1", "2"])
    with pytest.raises(ValueError, match="class_names lacks '0', a class folder"):
        data.load(tmp_path, class_names=["cat", "dog", "cow"])


IMAGES = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
LABELS = np.tile([0, 1, 2], 4)


def test_class_names_name_the_numbers_of_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=IMAGES, train_labels=LABELS)
    expected = data.load(tmp_path / "a.npz", batch_size=1).arrays("train")
    for names in (("cat", "dog", "cow"), ("2", "1", "0")):  # numbers are no names: class 0 is called "2"
        splits = data.load(tmp_path / "a.npz", batch_size=1, class_names=names)
        assert splits.class_names == names
        np.testing.assert_array_equal(splits.arrays("train")[1], expected[1])
    for names, words in [
        (["cat", "dog"], "class_names has 2 names; allowed: at least 3, as .* has the label 2"),
        (["a", "b", "c", "d"], "class_names has 'd', of which .* has no training image"),
    ]:
        with pytest.raises(ValueError, match=words):
            data.load(tmp_path / "a.npz", batch_size=1, class_names=names)
    np.savez(tmp_path / "b.npz", images=IMAGES, labels=LABELS)  # to test on: some classes may lack images
    assert data.sample(tmp_path / "b.npz", class_names=list("abcd"))[2] == tuple("abcd")


def test_class_names_order_arrays_that_name_their_classes(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, class_names=["a", "b", "c"])
    _, labels, names = data.sample(tmp_path / "a.npz", class_names=["c", "a", "b"])
    assert names == ("c", "a", "b")
    np.testing.assert_array_equal(labels, (LABELS + 1) % 3)
    with pytest.raises(ValueError, match="class_names lacks 'a', a class of"):
        data.sample(tmp_path / "a.npz", class_names=["x", "y", "z"])


def test_class_names_name_the_digits():
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    assert data.load("digits", class_names=names).class_names == tuple(names)
    np.testing.assert_array_equal(data.sample("digits", class_names=names)[1], data.sample("digits")[1])


def test_a_name_that_no_file_can_have_gets_the_ordinary_refusal():
    for name in ("a" * 5000, "a\0b", "\ud800", "x" * 300 + ".csv"):
        with pytest.raises(ValueError, match="^name is '.*allowed: cifar10, .* or module:function$") as caught:
            data.check_name("name", name)
        assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_a_recipe_keeps_the_names_of_a_file(tmp_path):
    from tf_nuat import training

    folder(tmp_path / "images", ["a", "b"])
    (tmp_path / "names.json").write_text(json.dumps({"b": 0, "a": 1}))
    options = {"class_names": str(tmp_path / "names.json"), "corrupt": "skip"}
    given = {"dataset": tmp_path / "images", "network": "lenet_plus", "defense": "standard", "epsilon": 0.1}
    recipe = training.Recipe(**given, epochs=1, learning_rate=0.1, data_options=options)
    assert recipe.data_options == {"class_names": ("b", "a"), "corrupt": "skip"}
    content = json.loads(json.dumps(recipe.to_json()))
    assert content["data_options"]["class_names"] == ["b", "a"]
    (tmp_path / "names.json").unlink()
    assert training.Recipe.from_json(content) == recipe
    with pytest.raises(ValueError, match="class_names is .*names.json', which is not a file"):
        training.Recipe(**given, epochs=1, learning_rate=0.1, data_options=options)
