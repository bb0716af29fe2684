"""Damaged files of every kind that is read: each is refused in one line, or is read as it was before."""

import copy
import io
import json
import os
import shutil
import zipfile

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

from sanity.outcome_cache import OutcomeCache
from tests.helpers.pictures import encoded, flat
from tf_nuat import card
from tf_nuat.core import json_input, npz_input
from tf_nuat.data import classes, folders, image_lists, npz
from tf_nuat.data.encoded import Files
from tf_nuat.evaluate.journal import Journal
from tf_nuat.networks import adapt

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3), np.uint8)


def tried(count):
    """Returns the settings of a test of so many files, the same ones each time."""
    return hypothesis.settings(max_examples=count, derandomize=True, deadline=None, database=None)


@st.composite
def damaged(draw, contents):
    """A file of which bits, bytes or a stretch are others, or missing, or there twice."""
    place = draw(st.integers(0, len(contents) - 1))
    end = min(len(contents), place + draw(st.integers(1, 200)))
    kind = draw(st.sampled_from(["bit", "bytes", "cut", "zeros", "lacks", "twice", "inserted"]))
    if kind == "bit":
        middle = bytes([contents[place] ^ (1 << draw(st.integers(0, 7)))])
        return contents[:place] + middle + contents[place + 1 :]
    if kind == "cut":
        return contents[:place]
    middle = {
        "bytes": lambda: draw(st.binary(min_size=1, max_size=30)),
        "zeros": lambda: bytes(end - place),
        "lacks": bytes,
        "twice": lambda: 2 * contents[place:end],
        "inserted": lambda: draw(st.binary(min_size=1, max_size=30)) + contents[place:end],
    }[kind]()
    return contents[:place] + middle + contents[place + len(middle) if kind == "bytes" else end :]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 2**63, 0])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\n", "\ud800", "a" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw, content):
    """JSON in which one value is another, lacks, or has another name."""
    content = copy.deepcopy(content)
    inner = content
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = draw(st.sampled_from(keys))
        if isinstance(inner[key], (dict, list)) and inner[key] and draw(st.integers(0, 3)):
            inner = inner[key]
            continue
        kind = draw(st.sampled_from(["other", "other", "lacks", "renamed"]))
        if kind == "other" or isinstance(inner, list):
            inner[key] = draw(JSON)
        else:
            value = inner.pop(key)
            if kind == "renamed":
                inner[draw(st.text(max_size=10))] = value
        return content


def read_or_refused(read):
    """Returns what `read` returns; None where it refuses in one line. It may raise nothing else."""
    try:
        return read()
    except ValueError as error:
        assert "\n" not in str(error) and "\r" not in str(error) and type(error) is not UnicodeDecodeError
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def saved(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


ARRAYS = {"images": PIXELS, "labels": np.arange(12) % 3, "class_names": np.array(["a", "b", "c"])}


@tried(300)
@hypothesis.given(contents=damaged(saved(**ARRAYS)))
def test_arrays(contents, folder):
    path = folder / "arrays.npz"
    path.write_bytes(contents)
    found = read_or_refused(lambda: npz_input.load(f"it is {str(path)!r}, which", path, list(ARRAYS)))
    for name in ARRAYS if found else ():
        np.testing.assert_array_equal(found[name], ARRAYS[name])
    examples = read_or_refused(lambda: npz.read("dataset", path))
    if examples is not None:
        np.testing.assert_array_equal(examples[0]["test"].images, PIXELS)


@tried(100)
@hypothesis.given(data=st.data())
def test_what_a_judgement_keeps(data, folder):
    path, keys = folder / "evaluations.npz", [["pgd", step] for step in range(3)]
    cache = OutcomeCache(path, {"seed": 1})
    for key in keys:
        cache.keep(key, np.arange(20) % (2 + key[1]) == 0)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found = read_or_refused(lambda: OutcomeCache(path, {"seed": 1}, resume=True))
    for key in keys if found else ():
        np.testing.assert_array_equal(found.get(key), cache.get(key))


@tried(100)
@hypothesis.given(data=st.data())
def test_the_journal_of_an_evaluation(data, folder):
    out = folder / "evaluation"
    shutil.rmtree(out, ignore_errors=True)
    arguments = out, 0.0, np.ones(20, bool), {"network": "n", "attacks": [["pgd", {}]]}
    journal = Journal(*arguments)
    journal.fooled_by[:5] = 0
    journal.next_stage()
    path = out / "state.npz"
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found = read_or_refused(lambda: Journal(*arguments))
    if found is not None:
        np.testing.assert_array_equal(found.fooled_by, journal.fooled_by)
        assert found.stage == 0


CARD = {
    "schema": 2,
    "recipe": {
        "dataset": "digits",
        "network": "lenet",
        "defense": "nuat",
        "epsilon": 0.1,
        "epochs": 2,
        "seed": 0,
        "measures": {"fgsm": {"attack": "fgsm", "steps": 1}},
    },
    "command": "train",
    "epoch_chosen": 1,
    "measured": {name: {"accuracy": 0.5, "interval": [0.4, 0.6], "images": 10} for name in ("clean", "fgsm")},
    "claimed": {"fgsm": 0.4},
    "training_seconds": 1.5,
    "training_images_per_second": 3.0,
    "history": [{"loss": 1.0}, {"loss": 0.5}],
    "machine": {"processor": "x"},
    "versions": {"keras": "3"},
}


@tried(300)
@hypothesis.given(content=changed(CARD), partial=st.booleans())
def test_a_card_of_other_values(content, partial, folder):
    path = folder / "card.json"
    path.write_text(json.dumps(content))
    found = read_or_refused(lambda: card.read(path, partial=partial))
    if found is not None:
        assert isinstance(found.facts, dict) and json.dumps(found.to_json())


@tried(200)
@hypothesis.given(contents=damaged(json.dumps(CARD).encode()) | st.binary(max_size=300))
def test_text_that_is_no_json(contents, folder):
    path = folder / "text.json"
    path.write_bytes(contents)
    read_or_refused(lambda: json_input.load("card", path))
    read_or_refused(lambda: card.read(path))


NAMES = [b"cat\ndog\n\xc3\xa9\n", b'["cat", "dog"]', b'{"0": "cat", "1": "dog"}']


@tried(200)
@hypothesis.given(contents=st.sampled_from(NAMES).flatmap(damaged) | st.binary(max_size=100))
def test_names_of_classes(contents, folder):
    path = folder / "names.txt"
    path.write_bytes(contents)
    found = read_or_refused(lambda: classes.read_names("class_names", path))
    assert found is None or (len(set(found)) == len(found) >= 2 and all(name.strip() for name in found))


@tried(300)
@hypothesis.given(kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_images(kind, data, folder):
    whole = encoded(PIXELS[0].repeat(6, axis=0).repeat(6, axis=1), kind)
    path = folder / "image"
    path.write_bytes(data.draw(damaged(whole)))
    source = Files(np.zeros(1, int), np.array([os.fsencode(path)]), (5, 4, 3))
    pixels, troubles = source.read(np.zeros(1, int))
    assert pixels.shape == (1, 5, 4, 3) and all("\n" not in line and str(path) in line for line in troubles.values())
    read_or_refused(source.first_shape)


LIST = b"path,label,split\na.png,cat,train\nb.png,dog,train\na.png,dog,test\n"


@tried(200)
@hypothesis.given(contents=damaged(LIST) | st.binary(max_size=100))
def test_lists_of_images(contents, folder):
    for name in "ab":
        (folder / f"{name}.png").write_bytes(encoded(flat(1)))
    path = folder / "list.csv"
    path.write_bytes(contents)
    found = read_or_refused(lambda: image_lists.read("dataset", path))
    for images in found[0].values() if found else ():
        assert all(os.path.isfile(place) for place in images.places)


ENTRY = st.sampled_from(["file", "folder", "link to itself", "link to nothing", "link to its folder", "pipe"])
NAME = st.binary(min_size=1, max_size=8).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
NAME = NAME.map(lambda name: b"_" + name if name in (b".", b"..") else name)


@tried(150)
@hypothesis.given(
    tree=st.dictionaries(NAME, st.dictionaries(NAME.map(lambda name: name + b".png"), ENTRY, max_size=3), max_size=4)
)
def test_folders(tree, folder):
    root = os.fsencode(folder / "images")
    shutil.rmtree(root, ignore_errors=True)
    for name, entries in tree.items():
        os.makedirs(os.path.join(root, name), exist_ok=True)
        for entry, kind in entries.items():
            path = os.path.join(root, name, entry)
            if kind == "file":
                with open(path, "wb") as file:
                    file.write(encoded(flat(1)))
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "folder":
                os.mkdir(path)
            else:
                os.symlink({"link to itself": entry, "link to nothing": b"nothing"}.get(kind, b"."), path)
    os.makedirs(root, exist_ok=True)
    found = read_or_refused(lambda: folders.read("dataset", os.fsdecode(root)))
    if found is not None:
        kept = {os.path.join(root, name, entry) for name in tree for entry in tree[name] if tree[name][entry] == "file"}
        shown = {place for place in kept if not os.path.basename(place).startswith(b".")}
        assert {bytes(place) for place in found[0]["train"].places} <= shown


@pytest.fixture(scope="module")
def network(folder):
    image = keras.Input((4, 4, 1))
    made = keras.Model(image, keras.layers.Dense(3, name="dense")(keras.layers.Flatten(name="flatten")(image)))
    made.save(folder / "network.keras")
    with zipfile.ZipFile(folder / "network.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return (folder / "network.keras").read_bytes(), members, made.get_weights()


@tried(100)
@hypothesis.given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_networks(data, folder, network):
    whole, _, weights = network
    path = folder / "damaged.keras"
    path.write_bytes(data.draw(damaged(whole)))
    found = read_or_refused(lambda: adapt(path))
    if found is not None:
        for one, other in zip(found.network.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(one, other)


@tried(100)
@hypothesis.given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_networks_of_another_configuration(data, folder, network):
    _, members, weights = network
    path = folder / "changed.keras"
    config = data.draw(changed(json.loads(members["config.json"])))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)
    found = read_or_refused(lambda: adapt(path))
    if found is not None:
        assert found.network.count_params() == sum(each.size for each in weights)
