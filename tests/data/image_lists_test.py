"""Lists of images: what is read out of them, how classes are numbered, and what is refused."""

import os

import numpy as np
import pytest

from tests.helpers.pictures import encoded, flat
from tf_nuat import data


def save_images(folder, count):
    """Writes images whose level is their number, "0.png", "1.png" and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(encoded(flat(number)))


def save_list(folder, text, *, count=12):
    save_images(folder / "pictures", count)
    path = folder / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(labels, *, header="path,label", splits=None):
    """Returns the text of a list of one image for each of `labels`."""
    rows = [f"pictures/{number}.png,{label}" for number, label in enumerate(labels)]
    rows = [f"{row},{split}" for row, split in zip(rows, splits)] if splits else rows
    return "\n".join([header, *rows]) + "\n"


def read(path, split, **options):
    """Returns the pairs (level, label) of a split's images, as lists in their order."""
    images, labels, names = data.sample(path, split=split, **options)
    return (images[:, 0, 0, 0] * 255).round().astype(int).tolist(), labels.tolist(), names


SPLITS = ["train"] * 8 + ["val"] * 2 + ["test"] * 2


def test_images_come_with_their_labels_and_splits(tmp_path):
    path = save_list(tmp_path, table(["b", "a"] * 6, header="path,label,split", splits=SPLITS))
    assert data.load(path, batch_size=2).class_names == ("a", "b")
    assert read(path, "train") == (list(range(8)), [1, 0] * 4, ("a", "b"))
    assert read(path, "validation")[:2] == ([8, 9], [1, 0])
    assert read(path, "test")[:2] == ([10, 11], [1, 0])


def test_without_splits_they_are_made_of_all_images(tmp_path):
    path = save_list(tmp_path, table(["a", "b"] * 20), count=40)
    splits = data.load(path, batch_size=2)
    counts = {split: np.bincount(splits.labels(split)).tolist() for split in ("train", "validation", "test")}
    assert counts == {"train": [16, 16], "validation": [2, 2], "test": [2, 2]}
    assert sorted(sum((read(path, split)[0] for split in counts), [])) == list(range(40))


@pytest.mark.parametrize(
    "header",
    ["path,label", "File,CLASS", "filename, target", '"image","label"', "\ufeffpath,label", "image_path,class"],
)
def test_columns_have_the_names_that_others_give_them(header, tmp_path):
    path = save_list(tmp_path, table(["b", "a"] * 4, header=f"{header},Split", splits=["Test"] * 8))
    assert read(path, "test") == (list(range(8)), [1, 0] * 4, ("a", "b"))


@pytest.mark.parametrize("separator, end", [(";", "\n"), ("\t", "\n"), (",", "\r\n")])
def test_other_separators_and_line_ends_are_read(separator, end, tmp_path):
    text = table(["b", "a"] * 4, header="path,label,split", splits=["test"] * 8)
    path = save_list(tmp_path, text.replace(",", separator).replace("\n", end))
    assert read(path, "test") == (list(range(8)), [1, 0] * 4, ("a", "b"))


def test_paths_may_be_from_the_root_and_hold_commas_and_empty_lines_are_left_out(tmp_path, monkeypatch):
    save_images(tmp_path / "elsewhere", 2)
    os.rename(tmp_path / "elsewhere" / "1.png", tmp_path / "elsewhere" / "one, two é.png")
    text = f'split,path,label\n\ntest,{tmp_path}/elsewhere/0.png,a\ntest,"../elsewhere/one, two é.png",b\n\n'
    path = save_list(tmp_path / "here", text)
    assert read(path, "test")[:2] == ([0, 1], [0, 1])
    monkeypatch.chdir(tmp_path)
    assert read("here/list.csv", "test")[:2] == ([0, 1], [0, 1])


@pytest.mark.parametrize("labels", [["10", "2", "0", "1"], ["10.0", "2.0", "0.0", "1.0"], ["010", "2", "0", "01"]])
def test_numbers_are_in_their_order_and_new_ones_are_said(labels, tmp_path, caplog):
    path = save_list(tmp_path, table(labels, header="path,label,split", splits=["test"] * 4))
    assert read(path, "test") == ([0, 1, 2, 3], [3, 2, 0, 1], ("0", "1", "2", "10"))
    [line] = [record.message for record in caplog.records]
    assert "labels of" in line and "not 0 to 3" in line and "class 3 is label 10" in line and "--class_names" in line


def test_numbers_of_training_images_cannot_be_kept_and_nothing_says_so(tmp_path, caplog):
    data.load(save_list(tmp_path, table([1, 3] * 6)), batch_size=2)
    [line] = [record.message for record in caplog.records]
    assert line.endswith("class 0 is label 1, class 1 is label 3.")


def test_numbers_from_0_stay_as_they_are_without_a_word(tmp_path, caplog):
    labels = [number % 11 for number in range(12)]
    path = save_list(tmp_path, table(labels, header="path,label,split", splits=["test"] * 12))
    assert read(path, "test") == (list(range(12)), labels, tuple(map(str, range(11))))
    assert not caplog.records


def test_class_names_order_names_and_name_numbers(tmp_path, caplog):
    header = {"header": "path,label,split", "splits": ["test"] * 4}
    path = save_list(tmp_path, table(["a", "b", "c", "a"], **header))
    names = ["c", "x", "a", "b"]  # there is nothing to train on: a class may lack images
    assert read(path, "test", class_names=names) == ([0, 1, 2, 3], [2, 3, 0, 2], tuple(names))
    path = save_list(tmp_path, table([1, 3, 0, 1], **header))
    assert read(path, "test", class_names=names) == ([0, 1, 2, 3], [1, 3, 0, 1], tuple(names))
    assert read(path, "test", class_names=["3", "0", "1"])[1] == [2, 0, 1, 2]
    with pytest.raises(ValueError, match="class_names has 3 names; allowed: at least 4, as .* has the label 3"):
        data.sample(path, class_names=["a", "b", "c"])
    assert not caplog.records


def test_columns_that_are_not_used_are_said(tmp_path, caplog):
    text = ",path,label,fold,split\n0,pictures/0.png,a,1,test\n1,pictures/1.png,b,1,test\n"
    path = save_list(tmp_path, text)
    assert read(path, "test")[0] == [0, 1]
    assert [record.message for record in caplog.records] == [f"columns of {path} that are not used: fold"]


def test_images_are_prepared_as_those_of_folders(tmp_path):
    path = save_list(tmp_path, table(["a", "b"] * 20), count=40)
    assert data.reads_files(str(path)) and data.reads_files(".") and not data.reads_files("digits")
    splits = data.load(path, batch_size=4, input_shape=(6, 7, 1), augmentation="resized_crop")
    assert splits.input_shape == (6, 7, 1) and next(iter(splits.train))[0].shape == (4, 6, 7, 1)
    (tmp_path / "pictures" / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="image '.*/pictures/3.png' cannot be read"):
        for split in ("train", "validation", "test"):
            data.sample(path, split=split)
    counts = [len(data.sample(path, split=split, corrupt="skip")[0]) for split in ("train", "validation", "test")]
    assert sum(counts) == 39


def test_missing_files_are_counted_before_any_work(tmp_path):
    path = save_list(tmp_path, table(["a", "b"] * 8))
    with pytest.raises(ValueError) as caught:
        data.load(path)
    assert "of whose 16 images 4 are missing, " in str(caught.value) and "pictures/12.png' the first" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "header, line, is_refused",
    [
        ("path,label,split", "pictures/0.png,b,train", False),  # more often in an epoch
        ("path,label,split", "pictures/0.png,b,test", True),
        ("path,label,split", "./pictures/0.png,a,train", True),
        ("path,label", "pictures/0.png,b", True),  # one may be drawn for training, the other for testing
    ],
)
def test_an_image_in_several_lines_has_one_label_and_one_split(header, line, is_refused, tmp_path):
    splits = SPLITS if "split" in header else None
    path = save_list(tmp_path, table(["b", "a"] * 6, header=header, splits=splits) + line + "\n")
    if is_refused:
        with pytest.raises(ValueError, match="where lines 2 and 14 have the same image; allowed: each image in one"):
            data.load(path, batch_size=2)
    else:
        assert read(path, "train")[0] == [*range(8), 0]


def test_paths_as_windows_writes_them_are_refused_with_what_to_write(tmp_path):
    path = save_list(tmp_path, "path,label\npictures\\0.png,a\npictures\\1.png,b\n")
    with pytest.raises(ValueError, match="2 are missing, .* the first; allowed: .*, with / between folders$"):
        data.load(path)


BAD = [
    ("", "which has 0 lines; allowed: a header"),
    ("path,label\n", "which has 1 lines; allowed: "),
    ("a.png,cat\nb.png,dog\n", "which has no column of paths (a.png, cat); allowed: a header with a column of paths"),
    ("path,breed\npictures/0.png,a\n", "which has no column of labels (path, breed); allowed: "),
    ("path,file,label\n0,pictures/0.png,a\n", "which has 2 columns of paths (path, file); allowed: "),
    ("path,label\npictures/0.png,a,b\n", "where line 2 has 3 fields; allowed: 2, as the header"),
    ("path,label\npictures/0.png,a\npictures/1.png\n", "where line 3 has 1 fields; allowed: 2"),
    ("path,label\npictures/0.png,a\npictures/1.png,\n", "where line 3 lacks its path or its label; allowed: "),
    ("path,label\n ,a\n", "where line 2 lacks its path or its label"),
    ("path,label\npictures/0.png,a\npictures/1.png,a\n", "which has images of 1 class; allowed: at least 2"),
    (table("ab", header="path,label,split", splits=["train", "dev"]), "where split is 'dev' in line 3; allowed: train"),
    (table("abb", header="path,label,split", splits=["train", "test", ""]), "where split is '' in line 4"),
    (table("ab", header="path,label,split", splits=["train", "test"]), "class 'b' has no image to train on; allowed"),
    ("path,label\n.,a\npictures/1.png,b\n", "of whose 2 images 1 are missing"),
    ("path,label\na\0b.png,a\npictures/1.png,b\n", ""),
    ('path,label\n"pictures/0.png"x,a\n', "which cannot be read ("),
    (b"path,label\n\xff\xfe,a\n", "which cannot be read ("),
    ("path,label\n" + "a" * 200_000 + ",b\n", "which cannot be read (field larger than field limit"),
    (table("abab"), "class 'a' has 2 images to train on; allowed: at least 3"),
]


@pytest.mark.parametrize("text, words", BAD)
def test_other_lists_are_refused_in_one_line(text, words, tmp_path):
    path = save_list(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        data.load(path, batch_size=1)
    assert words in str(caught.value) and "\n" not in str(caught.value) and "allowed" in str(caught.value)
    assert len(str(caught.value)) < 1000
