"""ImageNet and ImageNet-100: which images, and the recipes."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

import tf_nuat
from recipes import command, imagenet, imagenet100
from tests.data.records_test import store
from tests.helpers.pictures import encoded, flat, save_folder
from tf_nuat import data, training
from tf_nuat.data.encoded import MARGIN
from tf_nuat.data.imagenet import wnids
from tf_nuat.training import AttackSpec

OTHER = "n00000001"  # of no class of ImageNet-100


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ImageNet as it is unpacked, with images of one level each, which is the rank of their class."""
    path = tmp_path_factory.mktemp("imagenet")
    names = sorted([*wnids(), OTHER])
    files = {name: encoded(flat(2 * rank, (9, 8, 3))) for rank, name in enumerate(names)}
    save_folder(path / "train", {name: [file] * 4 for name, file in files.items()})
    save_folder(path / "val", {name: [file] * 2 for name, file in files.items()})
    return path


def test_there_are_a_hundred_wordnet_ids_in_the_package():
    assert len(set(wnids())) == len(wnids()) == 100
    assert wnids() == sorted(wnids()) and all(len(name) == 9 for name in wnids())


def test_a_hundred_classes_are_taken_and_imagenet_validation_images_are_for_testing(folder):
    splits = data.load("imagenet100", data_dir=folder, input_shape=(8, 8, None))
    assert list(splits.class_names) == wnids() and OTHER not in splits.class_names
    counts = {split: np.bincount(splits.labels(split)).tolist() for split in ("train", "validation", "test")}
    assert counts == {"train": [3] * 100, "validation": [1] * 100, "test": [2] * 100}
    images, labels = splits.arrays("test")
    ranks = np.arange(101)[np.array(sorted([*wnids(), OTHER])) != OTHER]
    np.testing.assert_allclose(images[:, 4, 4, 0], 2 * ranks[labels] / 255, atol=1e-6)
    assert splits.augmentation == "resized_crop" and splits.examples["test"].margin == MARGIN


def test_imagenet_is_all_of_its_classes_at_224(folder):
    splits = data.load("imagenet2012", data_dir=folder)
    assert splits.num_classes == 101 and splits.input_shape == (224, 224, 3)
    x, y = next(iter(splits.train_from(0)))
    assert x.shape == (64, 224, 224, 3)
    np.testing.assert_allclose(x[:, 100, 100, 0], 2 * y.numpy() / 255, atol=1e-6)


def test_imagenet_as_tensorflow_datasets_prepares_it(tmp_path):
    """The labels of its test images are not public: its validation images are for testing."""
    info = tfds.builder("imagenet2012", data_dir=tmp_path).info
    names = info.features["label"].names
    order = [names.index(name) for name in [*wnids(), next(name for name in names if name not in wnids())]]
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=names)}
    examples = [
        {"image": flat(2 * rank, (9, 8, 3)), "label": np.int64(label)}
        for _ in range(2)
        for rank, label in enumerate(order)
    ]
    counts = {"train": 202, "validation": 101, "test": 50}
    store(tmp_path, features, examples, name="imagenet2012", version=str(info.version), counts=counts)
    splits = data.load("imagenet100", data_dir=tmp_path, input_shape=(8, 8, None))
    assert list(splits.class_names) == wnids()
    assert [len(splits.labels(split)) for split in ("train", "validation", "test")] == [100, 100, 100]
    images, labels = splits.arrays("test")
    np.testing.assert_allclose(images[:, 4, 4, 0], 2 * labels / 255, atol=1e-6)


def test_missing_classes_and_folders_are_named(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    with pytest.raises(ValueError, match="data_dir is .*where ImageNet is not; allowed: a folder of class folders"):
        data.load("imagenet100", data_dir=str(tmp_path))
    first, second, *_ = wnids()
    save_folder(tmp_path / "train", {first: [flat(1)] * 3, OTHER: [flat(1)] * 3})
    with pytest.raises(ValueError, match=f"data_dir lacks 99 of 100 classes, {second} among them"):
        data.load("imagenet100", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "module, dataset, network, claims",
    [(imagenet100, "imagenet100", "resnet18", 13), (imagenet, "imagenet2012", "resnet50", 2)],
)
def test_every_recipe_is_plain_data_that_builds(module, dataset, network, claims, folder):
    splits = data.load(dataset, data_dir=folder, input_shape=(8, 8, 3))
    asked = {"standard", "nuat", "nuat_wa", "gat", "fbf", "sat_r1", "sat_r2", "sat_r3", "pgd_at"}
    assert asked <= set(module.RECIPES)
    assert sum(len(recipe.claimed) == 2 for recipe in module.RECIPES.values()) == claims
    for defense, recipe in module.RECIPES.items():
        assert (recipe.defense, recipe.dataset, recipe.network) == (defense, dataset, network)
        json.dumps(recipe.to_json())
        assert set(recipe.claimed) <= {"clean", *recipe.measures} and len(recipe.claimed) in (0, 2)
        model = training.build(dataclasses.replace(recipe, network="lenet_plus", network_options={}), splits)
        assert type(model) is tf_nuat.DEFENSES[defense]
        for step in (0, recipe.epochs * splits.steps_per_epoch - 1):
            model.optimizer.iterations.assign(step)
            assert 0.0 <= float(model.optimizer.learning_rate) <= 0.21


@pytest.mark.parametrize("module, epsilon", [(imagenet100, 8 / 255), (imagenet, 4 / 255)])
def test_steps_and_noise_keep_their_share_of_epsilon(module, epsilon):
    recipes = module.RECIPES
    assert {recipe.epsilon for recipe in recipes.values()} == {epsilon}
    assert {recipes[name].defense_options["alpha"] for name in ("nuat", "nuat_wa", "gat")} == {epsilon / 2}
    assert recipes["pgd_at"].defense_options["step_size"] == epsilon / 4
    assert recipes["nuat"].measures["pgd_20"].settings["step_size"] == pytest.approx(epsilon / 4)


def test_the_network_is_the_published_one(folder):
    splits = data.load("imagenet100", data_dir=folder)
    recipe = imagenet100.RECIPES["nuat"]
    network = training.build(recipe, splits).network
    assert network.input_shape == (None, 224, 224, 3)
    assert network.count_params() - sum(w.numpy().size for w in network.non_trainable_variables) == (
        11_689_512 - 900 * 513  # ResNet-18's parameters, without 900 of its 1,000 classes
    )


def test_a_recipe_trains_and_measures(folder, tmp_path):
    recipe = dataclasses.replace(
        imagenet100.RECIPES["nuat"],
        network_options={"stem": "imagenet", "width": 2},
        data_options={"input_shape": (16, 16, 3)},
        epochs=1,
        selection=AttackSpec("fgsm"),
        measures={"fgsm": AttackSpec("fgsm")},
        claimed={},
        selection_images=50,
        masking_alarm=None,
        test_images=150,
    )
    card = training.run(recipe, tmp_path / "run", data_dir=folder, strategy="one", verbose=0)
    assert set(card.measured) == {"clean", "fgsm"} and card.measured["fgsm"].images == 150
    assert card.data_options == {"input_shape": [16, 16, 3]} and len(card.history) == 1


def test_the_command_says_in_one_line_where_imagenet_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["imagenet100", f"--data_dir={tmp_path}", f"--out={tmp_path / 'run'}"])
    with pytest.raises(SystemExit) as stopped:
        command.main(imagenet100.RECIPES, imagenet100.__doc__)
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and "data_dir" in printed and printed.count("\n") == 1
    assert not (tmp_path / "run").exists()
