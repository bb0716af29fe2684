"""The order of the classes that a flag or a card gives."""

import json
import shutil
import types

import keras
import numpy as np
import pytest

from tests.helpers.pictures import flat, save_folder
from tf_nuat.evaluate import __main__ as evaluate_command
from tf_nuat.evaluate import inputs, sampling

BY_NAME = ["0", "1", "10", "2"]  # as `keras.utils.image_dataset_from_directory` numbers them


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The path of a network that knows each class by its level, and numbers them by name, beside a folder of them."""
    levels = {name: 30 + 60 * place for place, name in enumerate(BY_NAME)}
    for split in ("train", "test"):
        save_folder(tmp_path / "images" / split, {name: [flat(level)] * 4 for name, level in levels.items()})
    inputs_ = keras.Input((4, 4, 3))
    level = keras.layers.GlobalAveragePooling2D()(inputs_)
    centres = np.array(list(levels.values()), np.float32) / 255
    # -(x - c)^2 is, but for x^2, linear: 2 c x - c^2; each channel adds a third of it.
    weights = [np.repeat(2 * centres[None] / 3, 3, axis=0), -(centres**2)]
    dense = keras.layers.Dense(4)
    network = keras.Model(inputs_, dense(level))
    dense.set_weights(weights)
    network.save(tmp_path / "network.keras")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "network.keras"


def with_card(checkpoint, **options):
    recipe = {"dataset": "images", "epsilon": 0.01, "data_options": options}
    checkpoint.with_name("card.json").write_text(json.dumps({"recipe": recipe}))


def robust(checkpoint, capsys, *more):
    """Returns what the command prints of a network, without attack."""
    given = [
        f"--checkpoint={checkpoint}",
        "--dataset=images",
        "--epsilon=0",
        "--attack=fgsm",
        "--strategy=one",
        "--anyway",
    ]
    out = checkpoint.parent / f"out{len(list(checkpoint.parent.iterdir()))}"
    assert evaluate_command.command([*given, f"--out={out}", *more]) == 0
    return capsys.readouterr().out


def test_a_network_that_numbers_folders_by_name_is_right_with_its_names(saved, capsys, caplog):
    assert "Robust accuracy 50.00%" in robust(saved, capsys)  # "2" and "10" are taken for each other
    assert sum("--class_names FILE" in record.message for record in caplog.records) == 1
    caplog.clear()
    saved.with_name("names.txt").write_text("\n".join(BY_NAME))
    assert "Robust accuracy 100.00%" in robust(saved, capsys, "--class_names=names.txt")
    with_card(saved, class_names=BY_NAME)
    printed = robust(saved, capsys)
    assert "Robust accuracy 100.00%" in printed and "from card.json: class_names" in printed
    saved.with_name("names.txt").write_text("\n".join(sorted(BY_NAME, key=int)))
    printed = robust(saved, capsys, "--class_names=names.txt")  # the flag is stronger than the card
    assert "Robust accuracy 50.00%" in printed and "from card.json" not in printed
    assert not caplog.records


def asked(*pairs, **flags):
    values = {name: default for name, (_, default, _) in inputs.FLAGS.items()}
    return inputs.asked(types.SimpleNamespace(**{**values, **flags}), pairs, say=lambda line: None)


@pytest.mark.parametrize(
    "names, words",
    [
        ("/etc/passwd", r"class_names in .*card.json is '/etc/passwd'; allowed: a list"),
        ({"a": 0, "b": 1}, r"class_names in .*card.json is .*; allowed: a list"),
        (["a", 1], r"class_names.1 in .*card.json is 1; allowed: text"),
        (["a", "a\nb"], r"class_names in .*card.json has 'a\\nb' as name 2; allowed: "),
        (["a", "a"], r"class_names in .*card.json has 'a' twice; allowed: "),
        ([], r"class_names in .*card.json has 0 names; allowed: "),
        (["x" * 10_000, "x" * 10_000], r"class_names in .*card.json has 'x+\.\.\. twice; allowed: "),
    ],
)
def test_names_in_a_card_are_a_list_of_names(names, words, saved):
    with_card(saved, class_names=names)
    network = keras.saving.load_model(saved)
    with pytest.raises(ValueError, match=words) as caught:
        asked((saved, network))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_cards_of_several_networks_agree_on_the_names(saved, tmp_path):
    network = keras.saving.load_model(saved)
    other = tmp_path / "other" / "network.keras"
    other.parent.mkdir()
    with_card(saved, class_names=BY_NAME)
    with_card(other)
    with pytest.raises(ValueError, match="class_names in .*other.* and in .* differ; allowed: the same for all, or --"):
        asked((saved, network), (other, network))
    with_card(other, class_names=BY_NAME)
    assert asked((saved, network), (other, network)).class_names == tuple(BY_NAME)
    other.with_name("card.json").unlink()
    found = asked((saved, network), (other, network), dataset="images", epsilon=0.1)
    assert found.class_names == tuple(BY_NAME)  # without a card, nothing says otherwise


def test_a_list_in_a_card_names_no_images_elsewhere(saved, tmp_path_factory):
    network = keras.saving.load_model(saved)
    elsewhere = save_folder(tmp_path_factory.mktemp("elsewhere"), {"0": [flat(1)]}) / "0" / "0000.png"
    own = [f"images/test/{name}/0000.png" for name in BY_NAME]
    for paths, is_within in [(own, True), ([str(saved.parent / own[0]), *own[1:]], True), ([elsewhere, *own], False)]:
        rows = [f"{path},{number}" for number, path in enumerate(paths)]
        saved.with_name("list.csv").write_text("\n".join(["path,label", *rows]))
        saved.with_name("card.json").write_text(json.dumps({"recipe": {"dataset": "list.csv", "epsilon": 0.1}}))
        assert asked((saved, network), dataset="list.csv").dataset == "list.csv"
        if is_within:
            assert asked((saved, network)).dataset == "list.csv"
            continue
        with pytest.raises(ValueError, match="dataset in .* is 'list.csv'; allowed in a card: .*; give --dataset on"):
            asked((saved, network))


def test_a_sample_takes_the_names_of_the_card_unless_others_are_given(saved):
    network = keras.saving.load_model(saved)
    with_card(saved, class_names=BY_NAME)
    beside = asked((saved, network)).cards[0]
    _, labels, names = sampling.sample(network, beside, "images")
    assert names == tuple(BY_NAME) and labels.tolist() == [0] * 4 + [1] * 4 + [3] * 4 + [2] * 4
    assert sampling.sample(network, beside, "images", class_names=("2", "10", "1", "0"))[2] == ("2", "10", "1", "0")


def test_what_is_said_of_classes_without_images_can_be_done(saved):
    network = keras.saving.load_model(saved)
    for split in ("train", "test"):
        shutil.rmtree(saved.parent / "images" / split / "1")
    images, _, names = sampling.sample(network, None, "images")
    words = "has 4 outputs; allowed: 3, the classes of --dataset images; or --class_names FILE .* a .csv or .npz file"
    with pytest.raises(ValueError, match=words):
        sampling.fits("--checkpoint", network, images, names, "images")
    rows = [f"images/test/{name}/0000.png,{name},test" for name in BY_NAME if name != "1"]
    saved.with_name("list.csv").write_text("\n".join(["path,label,split", *rows]))
    images, labels, names = sampling.sample(network, None, "list.csv", class_names=BY_NAME)
    assert sampling.fits("--checkpoint", network, images, names, "list.csv") is network
    assert labels.tolist() == [0, 2, 3] and np.argmax(network(images), axis=1).tolist() == [0, 2, 3]


def test_of_labels_from_1_it_is_said_where_labels_begin(saved):
    network = keras.saving.load_model(saved)
    np.savez(saved.with_name("images.npz"), images=np.full((4, *network.input_shape[1:]), 0.5), labels=[1, 2, 3, 4])
    images, _, names = sampling.sample(network, None, "images.npz")
    with pytest.raises(ValueError, match="has 4 outputs; allowed: 5, the classes .*images.npz; labels begin at 0$"):
        sampling.fits("--checkpoint", network, images, names, "images.npz")
